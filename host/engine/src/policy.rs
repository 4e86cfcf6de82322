//! Decides whether a user may see an event, by asking the operator's policy server or the operator's `plugin`.
//!
//! `POST {policy_url}/events/{user}` with the event: 2xx allows, 4xx denies, anything else is no answer, and without an
//! answer nothing is delivered. One event and user are asked about once, however many subscriptions need the answer.

mod plugin;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::StatusCode;
use moka::future::Cache;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use waypost_domain::delivery::ANSWER_BYTES_MAX;
use waypost_domain::{Answer, Event, EventId, Subscription};
use waypost_net::{self as net, SetUpError, Version};

pub use plugin::{PolicyPlugin, PolicyPluginError};

/// Characters of a user's name that stay as they are in the path (RFC 3986 unreserved).
const USER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The most bytes of cached answers.
const REMEMBERED_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How long an answer is cached for further subscriptions of the same user.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// The interval of keep-alive pings on an HTTP/2 connection with requests in flight.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// The answer of policy about one event and one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The user may see the event; the server's answer, where there is a server.
    Allowed(Option<Answer>),
    /// The user may not see it.
    Denied(Answer),
    /// There is no answer now: ask again later.
    Unavailable {
        /// Why.
        reason: String,
        /// The server's response, if any.
        answer: Option<Answer>,
    },
}

/// What decides who may see an event.
pub enum Policy {
    /// Every user may see every event.
    Everyone,
    /// A policy server.
    Server(Server),
    /// A plugin.
    Plugin(PolicyPlugin),
    /// The program that embeds Waypost.
    Program(Arc<dyn ProgramPolicy>),
}

/// A policy of the program that embeds Waypost. Its answers are not cached.
pub trait ProgramPolicy: Send + Sync + 'static {
    /// Decides whether `user` may see `event`.
    fn ask<'a>(&'a self, user: &'a str, event: &'a Event) -> BoxFuture<'a, Verdict>;
}

/// The operator's policy server.
pub struct Server {
    url: String,
    client: reqwest::Client,
    /// A client that keeps no connections. A question whose connection turns out to be closed is asked again with it.
    fresh: reqwest::Client,
    remembered: Cache<(EventId, String), Arc<Verdict>>,
}

impl Policy {
    /// Asks the server at `url`, each request for at most `timeout`; without a URL every user may see every event.
    ///
    /// # Errors
    /// When the TLS set-up fails.
    pub fn new(url: Option<&str>, timeout: Duration) -> Result<Self, SetUpError> {
        let Some(url) = url else { return Ok(Self::Everyone) };
        let client = net::service(Version::Any, None, |client| {
            // Requests share an HTTP/2 connection. If it is dead, they would otherwise wait until TCP notices.
            client.timeout(timeout).http2_keep_alive_interval(PING_INTERVAL).http2_keep_alive_timeout(timeout)
        })?;
        let fresh =
            net::service(Version::Any, None, |client| client.timeout(timeout).pool_max_idle_per_host(0))?;
        let remembered = Cache::builder()
            .max_capacity(REMEMBERED_BYTES_MAX)
            .weigher(|(_, user): &(EventId, String), verdict: &Arc<Verdict>| weight(user, verdict))
            .time_to_live(REMEMBERED_FOR)
            .build();
        Ok(Self::Server(Server { url: url.trim_end_matches('/').to_owned(), client, fresh, remembered }))
    }

    /// Asks whether the user of `subscription` may see `event`, which is logged as `id`.
    pub async fn ask(&self, id: EventId, event: &Event, subscription: &Arc<Subscription>) -> Arc<Verdict> {
        match self {
            Self::Everyone => Arc::new(Verdict::Allowed(None)),
            Self::Server(server) => server.ask(id, event, &subscription.user).await,
            Self::Plugin(plugin) => Arc::new(plugin.ask(event, subscription).await),
            Self::Program(policy) => Arc::new(policy.ask(&subscription.user, event).await),
        }
    }

    /// Removes the cached answer about `user` and event `id`, so that the next question reaches the server.
    pub async fn forget(&self, id: EventId, user: &str) {
        match self {
            // The answers of plugins and programs are not cached.
            Self::Everyone | Self::Plugin(_) | Self::Program(_) => {}
            Self::Server(server) => server.remembered.invalidate(&(id, user.to_owned())).await,
        }
    }
}

impl Server {
    async fn ask(&self, id: EventId, event: &Event, user: &str) -> Arc<Verdict> {
        let question = async {
            let verdict = Arc::new(self.query(event, user).await);
            match *verdict {
                Verdict::Allowed(_) | Verdict::Denied(_) => Ok(verdict),
                // Not cached: the next attempt asks again.
                Verdict::Unavailable { .. } => Err(verdict),
            }
        };
        match self.remembered.try_get_with((id, user.to_owned()), question).await {
            Ok(verdict) => verdict,
            Err(verdict) => Arc::clone(&verdict),
        }
    }

    async fn query(&self, event: &Event, user: &str) -> Verdict {
        if matches!(user, "." | "..") {
            // A URL cannot contain these names (RFC 3986 §5.2.4): the request would ask about something else.
            let reason = format!("the policy server cannot be asked about a user named `{user}`");
            return Verdict::Unavailable { reason, answer: None };
        }
        let url = format!("{}/events/{}", self.url, utf8_percent_encode(user, USER));
        let ask = |client: &reqwest::Client| {
            let request = client.post(&url).header(http::header::CONTENT_TYPE, "application/json");
            request.body(event.json()).send()
        };
        let asked = match ask(&self.client).await {
            Err(error) if net::is_broken_off(&error) => ask(&self.fresh).await,
            asked => asked,
        };
        match asked {
            Ok(response) => judge(read(response).await),
            Err(error) => no_answer(&error),
        }
    }
}

async fn read(response: reqwest::Response) -> Answer {
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let response = reqwest::Body::from(response);
    // The status alone decides; the body is for people.
    let _missing = net::beginning(response, ANSWER_BYTES_MAX, &mut body, std::future::pending()).await;
    Answer { status, body: String::from_utf8_lossy(&body).into_owned() }
}

fn judge(answer: Answer) -> Verdict {
    match StatusCode::from_u16(answer.status) {
        Ok(status) if status.is_success() => Verdict::Allowed(Some(answer)),
        // These mean "not now", which is no decision about the user.
        Ok(StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) => no_decision(answer),
        Ok(status) if status.is_client_error() => Verdict::Denied(answer),
        _ => no_decision(answer),
    }
}

fn no_decision(answer: Answer) -> Verdict {
    Verdict::Unavailable {
        reason: format!("the policy server answered {}", answer.status),
        answer: Some(answer),
    }
}

fn no_answer(error: &reqwest::Error) -> Verdict {
    let reason = if error.is_timeout() {
        "the policy server did not answer in time".to_owned()
    } else if net::is_no_http(error) {
        format!("the policy server's answer cannot be read as HTTP: {}", waypost_runtime::chain::text(error))
    } else {
        format!("the policy server cannot be reached: {}", waypost_runtime::chain::text(error))
    };
    Verdict::Unavailable { reason, answer: None }
}

fn weight(user: &str, verdict: &Verdict) -> u32 {
    let body = match verdict {
        Verdict::Allowed(answer) => answer.as_ref().map_or(0, |answer| answer.body.len()),
        Verdict::Denied(answer) => answer.body.len(),
        Verdict::Unavailable { .. } => 0,
    };
    u32::try_from(128 + user.len() + body).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16) -> Verdict {
        judge(Answer { status, body: String::new() })
    }

    #[test]
    fn only_2xx_allows_and_only_a_decided_4xx_denies() {
        assert!(matches!(verdict(200), Verdict::Allowed(_)));
        assert!(matches!(verdict(204), Verdict::Allowed(_)));
        assert!(matches!(verdict(403), Verdict::Denied(_)));
        assert!(matches!(verdict(404), Verdict::Denied(_)));
        for status in [301, 408, 429, 500, 503] {
            assert!(matches!(verdict(status), Verdict::Unavailable { .. }), "{status}");
        }
    }

    #[test]
    fn a_user_cannot_leave_the_path() {
        assert_eq!(utf8_percent_encode("a/../b?c é", USER).to_string(), "a%2F..%2Fb%3Fc%20%C3%A9");
    }
}
