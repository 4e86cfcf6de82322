//! Plugins for Waypost, in Rust.
