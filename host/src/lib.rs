//! Waypost (map follows).
pub mod chain;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod directory;
pub mod domain;
pub mod http;
pub mod intake;
pub mod matching;
pub mod policy;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod tls;
