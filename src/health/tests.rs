//! The monitors against simulated servers.
