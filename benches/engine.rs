//! Waits.
fn main() {}
