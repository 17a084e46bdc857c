//! The live world. It holds no policy.
