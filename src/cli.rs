//! The command line: no behaviour of its own.
