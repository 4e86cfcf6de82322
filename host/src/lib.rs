//! Waypost
pub mod domain;
