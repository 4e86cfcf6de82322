//! `waypost listen`: a target for trying things out.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use waypost_runtime::foreign;

use crate::{pretty, print};

/// The largest body that is shown: 64 MiB, more than Waypost sends by default.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Receive events, and show them
///
/// A target for trying things out. Prints each request's path, the headers that matter and the body, and answers with
/// the given status. Listens on this machine only.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waypost listen
  waypost listen --port 8072 --status 503     to see retries")]
pub(super) struct Arguments {
    /// The port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8071)]
    port: u16,
    /// The status to answer with
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    status: u16,
}

struct Shared {
    status: StatusCode,
    received: AtomicU64,
    /// Cancelled when stdout is closed.
    closed: CancellationToken,
}

/// Receives until it is interrupted, or until stdout is closed.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let wanted = (Ipv4Addr::LOCALHOST, arguments.port);
    let listener = TcpListener::bind(wanted).await;
    let listener =
        listener.with_context(|| format!("failed to listen on port {} (choose with --port)", wanted.1))?;
    print::line(format_args!("listening on http://{}", listener.local_addr()?))?;

    let closed = CancellationToken::new();
    let shared = Shared {
        status: StatusCode::from_u16(arguments.status)?,
        received: AtomicU64::new(0),
        closed: closed.clone(),
    };
    let receiver = Router::new()
        .fallback(receive)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(shared));
    axum::serve(listener, receiver).with_graceful_shutdown(closed.cancelled_owned()).await?;
    Ok(ExitCode::SUCCESS)
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let number = shared.received.fetch_add(1, Ordering::Relaxed) + 1;
    let shown = show(number, &method, &uri, &headers, &body);
    if print::text(&shown).is_err() {
        shared.closed.cancel();
    }
    shared.status
}

/// Writes one request as a paragraph.
fn show(number: u64, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> String {
    let mut out = format!("#{number} {method} {uri}\n");
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let name = name.as_str();
        if name == AUTHORIZATION {
            out.push_str(&format!("{name}: {}\n", masked(&value)));
        } else if name == CONTENT_TYPE || name.starts_with("ce-") || name.starts_with("webhook-") {
            out.push_str(&format!("{name}: {}\n", foreign::line(&value)));
        }
    }
    out.push('\n');
    out.push_str(&pretty::body(body));
    out.push('\n');
    out
}

/// Keeps the scheme and hides the secret, which would otherwise stay in the terminal's scrollback.
fn masked(authorization: &str) -> String {
    match authorization.split_once(' ') {
        Some((scheme, _)) => format!("{} ***", foreign::line(scheme)),
        None => "***".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use insta::assert_snapshot;

    use super::*;

    fn shown(headers: &[(&'static str, &'static str)], body: &[u8]) -> String {
        let headers = headers.iter().map(|(name, value)| {
            (axum::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        });
        show(1, &Method::POST, &Uri::from_static("/notify"), &headers.collect(), body)
    }

    #[test]
    fn shows_what_matters_of_a_json_event() {
        let headers = [
            ("content-type", "application/json"),
            ("webhook-id", "5b6f"),
            ("authorization", "Basic c2VjcmV0"),
            ("user-agent", "waypost/0.1.0"),
        ];
        assert_snapshot!(shown(&headers, br#"{"eventID":"1","data":[1.10]}"#), @r#"
        #1 POST /notify
        content-type: application/json
        webhook-id: 5b6f
        authorization: Basic ***

        {
          "eventID": "1",
          "data": [
            1.10
          ]
        }
        "#);
    }

    #[test]
    fn shows_binary_mode_and_texts() {
        let headers = [("ce-id", "1"), ("ce-type", "t"), ("content-type", "text/plain")];
        assert_snapshot!(shown(&headers, b"two\nlines"), @r#"
        #1 POST /notify
        ce-id: 1
        ce-type: t
        content-type: text/plain

        | two
        | lines
        "#);
    }

    /// A text could show a second request that never came.
    #[test]
    fn a_text_cannot_pass_for_another_request() {
        let shown = shown(&[], b"a\n\n#2 POST /forged\nwebhook-id: 1");
        assert_eq!(shown.lines().filter(|line| line.starts_with('#')).count(), 1, "{shown}");
    }

    #[test]
    fn nothing_received_steers_the_terminal() {
        assert!(!shown(&[], b"a\x1b[2Jb").contains('\u{1b}'));
        assert!(shown(&[], "\"a\u{202e}\"".as_bytes()).contains(r#""a\u202e""#));
        assert!(shown(&[], &[0xff, 0xfe]).contains("(2 bytes that are not text)"));
    }
}
