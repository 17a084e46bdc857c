//! A whole world in one command: namespaces, real servers, real clients, a real TUN.
