//! Outgoing HTTP: every client that Waypost uses is made here, by one rule.
//!
//! # The rule
//!
//! - A request goes where its URL says. Proxies of the environment (`http_proxy`, `https_proxy`, `all_proxy`) are not
//!   used, and redirects are not followed. Requests on others' behalf go through the operator's `proxy` if there is one.
//! - The trusted roots are the system's, or Mozilla's where the system has none. `SSL_CERT_FILE` and `SSL_CERT_DIR`
//!   name the system's: nothing else is read from the environment, and these redirect no request.
//! - Requests on others' behalf carry the [`mark`], so that a Waypost does not take them for a user's own requests.
//!   Only the command line, which sends its user's own requests, sends without it ([`builder`]).
//! - The [`Guard`] decides where requests on others' behalf go (subscriptions', plugins' and programs'), and that they
//!   have no header that names a user. `addresses` knows what is public, `pattern` reads `allow_targets` and
//!   `deny_targets`, `own` finds this service itself. `reach` judges each address of a name when it is connected to, and
//!   only those that were judged are dialled, so a name server cannot change them afterwards.
//! - Names are resolved on threads of their own (`resolver`), so that those that hang keep nothing else waiting.
//! - The status decides. The rest of a response is read for a second at most, and a part that cannot be read is
//!   reported.
//! - If a kept connection turns out to be closed, this is not the target's fault: the request is sent once more over a
//!   new connection.
//!
//! Targets and plugins use hyper's client (`client`, `connector`), whose connections can be inspected (`wire`); policy
//! servers, carts and ingest services use reqwest (`service`, `names`). This module does not depend on what is sent.

mod addresses;
mod client;
mod connector;
mod error;
mod guard;
mod headers;
mod mark;
mod names;
mod own;
mod owner_headers;
mod pattern;
mod proxy;
mod reach;
mod resolver;
mod service;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod tls;
mod wire;

pub use addresses::Special;
pub use client::{Client, KeptMax, Reply, Unpooled, beginning};
pub use error::{Error, Refused};
pub use guard::{Guard, Rules};
pub use headers::{HeaderPattern, HeaderPatternError, Voice};
pub use mark::{Agent, MARK, is_marked, mark};
pub use owner_headers::is_secret;
pub use pattern::{TargetPattern, TargetPatternError};
pub use proxy::{Proxy, ProxyError};
pub use reach::{Preview, Reach};
pub use resolver::Resolver;
pub use service::{
    SetUpError, Version, builder, builder_trusting, is_broken_off, is_no_http, service, without_credentials,
};
