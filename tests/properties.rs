//! Properties.
mod common;
