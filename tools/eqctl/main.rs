//! `eqctl`: looks into a running gateway.

fn main() {}
