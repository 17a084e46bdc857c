//! Configuration: TOML exactly as written -> checked [`Settings`].
//!
//! It reads text that it is handed; it must not touch files or the system.

pub mod settings;

pub use settings::*;
