//! HTTP to targets: pooled connections, no redirects, a bounded answer.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{HeaderMap, LOCATION, RETRY_AFTER};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use jiff::Timestamp;
use tokio::time::Instant;

use super::outcome::Response;
use crate::domain::Answer;
use crate::domain::delivery::ANSWER_BYTES_MAX;
use crate::{chain, tls};

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How often an HTTP/2 connection with requests under way is tried, and how long an answer may take. Attempts share
/// it, so that giving one up does not close it: without this, all would go into a dead one until TCP notices.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the client cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up TLS")]
pub struct Error(#[source] rustls::Error);

/// The client of all lanes.
pub(super) struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    /// Makes a client that gives up connecting after `connect_timeout`.
    pub(super) fn new(connect_timeout: Duration, idle_per_host: usize) -> Result<Self, Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(connect_timeout));
        let tls = tls::connector().map_err(Error)?;
        let https = tls.https_or_http().enable_http1().enable_http2().wrap_connector(http);
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(idle_per_host)
            .build(https);
        Ok(Self(client))
    }

    /// Sends a request and waits for the answer, at most `timeout`. `now` is for a `Retry-After` date. The status
    /// decides: a body that breaks off or does not end in time is kept as far as it came.
    ///
    /// Dropping the future closes an HTTP/1 connection, and resets a stream of HTTP/2.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
        now: Timestamp,
    ) -> Response {
        let end = Instant::now() + timeout;
        let (head, body) = match tokio::time::timeout_at(end, self.0.request(request)).await {
            Ok(Ok(response)) => response.into_parts(),
            Ok(Err(error)) => {
                return Response::Failed(format!("the target cannot be reached: {}", chain::of(&error)));
            }
            Err(_) => {
                let waited = timeout.as_millis();
                return Response::Failed(format!("the target did not answer within {waited} ms"));
            }
        };
        let mut kept = Vec::new();
        let _ended_or_not = tokio::time::timeout_at(end, read(body, &mut kept)).await;
        let body = String::from_utf8_lossy(&kept).into_owned();
        Response::Answered {
            answer: Answer { status: head.status.as_u16(), body },
            location: text(&head.headers, &LOCATION),
            retry_after: text(&head.headers, &RETRY_AFTER).and_then(|value| retry_after(&value, now)),
        }
    }
}

/// Reads at most [`ANSWER_BYTES_MAX`] bytes. Cancel safe: `kept` has what came.
async fn read(mut body: Incoming, kept: &mut Vec<u8>) {
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        let room = ANSWER_BYTES_MAX - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        if kept.len() == ANSWER_BYTES_MAX {
            break;
        }
    }
}

fn text(headers: &HeaderMap, name: &http::HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Reads `Retry-After` (RFC 9110 §10.2.3): seconds or a date.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Duration::try_from(date.duration_since(now)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_second(784_111_777).unwrap();
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:47 GMT", now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:27 GMT", now), None);
        assert_eq!(retry_after("soon", now), None);
    }
}
