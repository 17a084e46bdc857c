//! The live world. It holds no policy.

pub mod netlink;
pub mod netns;
pub mod plan;
pub mod preflight;
pub mod setup;
pub mod sysctl;

#[cfg(test)]
mod testing;
