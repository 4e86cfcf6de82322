//! Waypost (map follows).
pub mod chain;
pub mod clock;
pub mod delivery;
pub mod directory;
pub mod domain;
pub mod matching;
pub mod policy;
pub mod store;
