//! What several test targets share; each uses its part of it.

#![allow(dead_code, unused_imports)]

pub mod oracle;
