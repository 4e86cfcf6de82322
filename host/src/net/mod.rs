//! The way out: every client that Waypost makes is made here, by one rule.
//!
//! # The rule
//!
//! - A request goes where its URL says. No proxy of the environment (`http_proxy`, `https_proxy`, `all_proxy`) takes it,
//!   and a redirect is an answer, not a way on.
//! - The roots of trust are the system's, or Mozilla's where the system has none. `SSL_CERT_FILE` and `SSL_CERT_DIR` say
//!   where the system's are: the one thing that is read from the environment, and it leads no request elsewhere.
//! - What is sent for others carries the [`mark`], by which a Waypost knows not to take it for a user's own request. Only
//!   the command line, which sends what its user types, makes requests without it ([`builder`]).
//! - The [`Guard`] looks at what Waypost sends for users and plugins: it has no header that names a user, and does not go
//!   to this service itself. An address is checked when it is connected to, so that no resolver can change it afterwards.
//! - The status decides. What follows it is read for a second at most, and what cannot be read is said.
//! - A connection that was kept and is found closed is our own affair: the request goes once more, on a fresh one.
//!
//! Targets and plugins use hyper's client (`client`, `connector`), which can be looked into (`wire`); policy servers, carts
//! and ingest services use reqwest (`service`, `names`). Nothing here knows what is sent, and why.

mod addresses;
mod client;
mod connector;
mod error;
mod guard;
mod headers;
mod mark;
mod names;
mod reach;
mod service;
pub mod tls;
mod wire;

pub(crate) use client::{Client, KeptMax, Reply, Unpooled, beginning, unpooled};
pub use error::{Error, Refused};
pub use guard::Guard;
pub use headers::{HeaderPattern, HeaderPatternError, Voice};
pub use mark::{Agent, MARK, is_marked, mark};
pub(crate) use reach::Reach;
pub use service::{SetUpError, builder};
pub(crate) use service::{Version, is_broken_off, is_no_http, service};
