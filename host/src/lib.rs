//! Waypost
