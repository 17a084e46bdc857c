//! The recorded world: capture -> engine -> capture and report.
