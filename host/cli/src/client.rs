//! The client of the REST API, for `send`, `event` and `recover`.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::{HeaderName, HeaderValue};
use reqwest::header::{AUTHORIZATION, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use waypost_api::v1;
use waypost_runtime::foreign;

use crate::print;
use waypost::config::{CA_FILE_VARIABLE, TOKEN_VARIABLE};

/// The address on which `waypost serve` listens by default.
pub(super) const DEFAULT_SERVER: &str = "http://127.0.0.1:8070";
/// The longest that an answer may take. A busy server delays acknowledgements before it refuses anything.
const TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that an answer may take if the server has to compile a module, perhaps after other users' modules.
const LONG_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// The longest time to go on retrying a busy server.
const BUSY_MAX: Duration = Duration::from_secs(2 * 60);
/// The longest single wait between two retries.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The user that requests are sent for, and how they authenticate.
#[derive(Debug, clap::Args)]
pub(super) struct Identity {
    /// Send requests as this user [default: the server's default user]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Authenticate with the token in this file [env: WAYPOST_TOKEN holds the token itself]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The header that names the user, as in the server's configuration
    #[arg(long, value_name = "NAME", default_value = "Http-Remote-User")]
    user_header: HeaderName,
    /// Trust only the certificate authorities in this PEM file, instead of the system's
    #[arg(long, value_name = "FILE", env = CA_FILE_VARIABLE)]
    ca_file: Option<PathBuf>,
}

/// A client of one Waypost server, for one user.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    server: Url,
    user: Option<(HeaderName, HeaderValue)>,
    /// `Bearer wp_…`.
    token: Option<HeaderValue>,
    /// The flag that chose the server, for the message when the server cannot be reached.
    flag: &'static str,
}

impl Identity {
    /// Returns an identity that has at most a token, and names no user.
    pub(super) fn by_token(token_file: Option<PathBuf>, ca_file: Option<PathBuf>) -> Self {
        Self { user: None, token_file, ca_file, user_header: HeaderName::from_static("http-remote-user") }
    }

    /// Returns the header with the token, if there is one.
    fn token(&self) -> anyhow::Result<Option<HeaderValue>> {
        let text = match &self.token_file {
            Some(file) => {
                let text = std::fs::read_to_string(file);
                Some(text.with_context(|| format!("failed to read {} (--token-file)", file.display()))?)
            }
            None => std::env::var(TOKEN_VARIABLE).ok(),
        };
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        let mut header = HeaderValue::try_from(format!("Bearer {}", text.trim()))
            .context("the token does not fit into a header")?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// Tells whether a URL's host is this machine.
fn is_this_machine(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl Client {
    /// Sets up a client of `server`; nothing is sent yet.
    pub(super) fn new(server: Url, identity: &Identity, flag: &'static str) -> anyhow::Result<Self> {
        let http = match &identity.ca_file {
            None => waypost_net::builder().context("failed to set up the client")?,
            Some(path) => {
                let trust = || format!("failed to trust {} (--ca-file)", path.display());
                let pem = std::fs::read(path).with_context(trust)?;
                waypost_net::builder_trusting(&pem).with_context(trust)?
            }
        };
        let http = http.timeout(TIMEOUT).connect_timeout(CONNECT_TIMEOUT);
        let user = match &identity.user {
            None => None,
            Some(name) => {
                let value =
                    HeaderValue::from_bytes(name.as_bytes()).context("--user does not fit into a header")?;
                Some((identity.user_header.clone(), value))
            }
        };
        let token = identity.token()?;
        let is_open = server.scheme() == "http" && !server.host_str().is_some_and(is_this_machine);
        if token.is_some() && is_open {
            print::notice(
                "warning: the token goes to another machine over plain HTTP, where others can read it",
            );
        }
        Ok(Self { http: http.build().context("failed to set up the client")?, server, user, token, flag })
    }

    /// Begins a request for the resource at this path below the server's URL.
    pub(super) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.query(method, path, &[])
    }

    /// Begins a request with a query.
    pub(super) fn query(&self, method: Method, path: &[&str], query: &[(String, String)]) -> RequestBuilder {
        let mut url = self.server.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self.http.request(method, url);
        let request = match &self.user {
            None => request,
            Some((name, value)) => request.header(name, value),
        };
        match &self.token {
            None => request,
            Some(token) => request.header(AUTHORIZATION, token),
        }
    }

    /// Returns the body of a successful answer as text.
    pub(super) async fn text(&self, request: RequestBuilder) -> anyhow::Result<String> {
        let answer = self.answer(request).await?;
        self.body(answer).await
    }

    /// Reads the body of a successful answer.
    pub(super) async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let text = self.text(request).await?;
        self.parse(&text)
    }

    /// Reads the body of a successful answer to a request that may take long. A busy server is asked again after the
    /// delay that it names, for at most [`BUSY_MAX`].
    pub(super) async fn json_in_time<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> anyhow::Result<T> {
        let request = request.timeout(LONG_TIMEOUT);
        let mut waited = Duration::ZERO;
        loop {
            let again = request.try_clone().context("the request cannot be sent twice")?;
            let answer = again.send().await.map_err(|error| self.unanswered(error))?;
            let wait = retry_after(&answer);
            let is_busy = answer.status() == StatusCode::SERVICE_UNAVAILABLE && waited + wait <= BUSY_MAX;
            if !is_busy {
                let answer = self.good(answer).await?;
                return self.parse(&self.body(answer).await?);
            }
            let refused = self.good(answer).await.err().unwrap_or_else(|| anyhow!("it is busy"));
            print::notice(&format!("{refused}; retrying in {} s", wait.as_secs()));
            tokio::time::sleep(wait).await;
            waited += wait;
        }
    }

    async fn body(&self, answer: Response) -> anyhow::Result<String> {
        answer.text().await.with_context(|| format!("failed to read the answer of {}", self.server))
    }

    fn parse<T: DeserializeOwned>(&self, text: &str) -> anyhow::Result<T> {
        serde_json::from_str(text).with_context(|| format!("{} does not answer like a Waypost", self.server))
    }

    async fn answer(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let answer = request.send().await.map_err(|error| self.unanswered(error))?;
        self.good(answer).await
    }

    /// Returns a successful answer; for any other, an error with the server's reason.
    async fn good(&self, answer: Response) -> anyhow::Result<Response> {
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = answer.text().await.unwrap_or_default();
        Err(refusal(&body).unwrap_or_else(|| anyhow!("{} answered {status}", self.server)))
    }

    fn unanswered(&self, error: reqwest::Error) -> anyhow::Error {
        if !error.is_connect() {
            return anyhow::Error::new(error.without_url())
                .context(format!("no answer from {}", self.server));
        }
        let flag = self.flag;
        let hint = format!("start one with `waypost serve`, or say where it is with {flag}");
        anyhow!("no Waypost at {} ({}): {hint}", self.server, root_cause(&error))
    }
}

/// Returns how long to wait before a busy server is asked again: the seconds of its `Retry-After`, or one without it.
fn retry_after(answer: &Response) -> Duration {
    let said = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(said.unwrap_or(1)).clamp(Duration::from_secs(1), WAIT_MAX)
}

/// Reads the server's reasons for refusing a request, with a line for each bad event of a batch. They are escaped,
/// since they may repeat names from outside.
fn refusal(body: &str) -> Option<anyhow::Error> {
    let problem: v1::Problem = serde_json::from_str(body).ok()?;
    let details = problem.errors.iter().map(|v1::ProblemPart { pointer, detail }| {
        format!("\n  {}: {}", foreign::line(pointer), foreign::line(detail))
    });
    Some(anyhow!("{}{}", foreign::line(&problem.message), details.collect::<String>()))
}

fn root_cause(error: &reqwest::Error) -> &dyn Error {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    fn client(server: &str) -> Client {
        let identity = Identity {
            user: Some("José".into()),
            token_file: None,
            user_header: HeaderName::from_static("x-user"),
            ca_file: None,
        };
        Client::new(server.parse().unwrap(), &identity, "--server").unwrap()
    }

    #[test]
    fn paths_stand_below_the_servers_own() {
        let url = |server: &str| {
            client(server).request(Method::GET, &["events", "a b"]).build().unwrap().url().to_string()
        };
        assert_eq!(url("http://127.0.0.1:8070"), "http://127.0.0.1:8070/events/a%20b");
        assert_eq!(url("https://example.org/waypost/"), "https://example.org/waypost/events/a%20b");
    }

    #[test]
    fn the_user_goes_into_the_header() {
        let request = client(DEFAULT_SERVER).request(Method::GET, &[]).build().unwrap();
        assert_eq!(request.headers()["x-user"].as_bytes(), "José".as_bytes());
    }

    #[test]
    fn a_refusal_is_shown_as_its_message() {
        let refusal = |message: &str, errors: &str| {
            refusal(&format!(
                r#"{{"status":"422 Unprocessable Entity","message":"{message}","type":"about:blank",
                "title":"Unprocessable Entity","detail":"{message}","errors":{errors}}}"#
            ))
        };
        let errors = r#"[{"pointer":"/0/id","detail":"missing"},{"pointer":"/2","detail":"not an object"}]"#;
        assert_snapshot!(refusal("2 of 3 events are bad", errors).unwrap(), @r#"
        2 of 3 events are bad
          /0/id: missing
          /2: not an object
        "#);
        let errors = r#"[{"pointer":"/a\n","detail":"b\nc"}]"#;
        let shown = refusal(r"it imports x\nerror: none\u202e", errors).unwrap().to_string();
        assert_eq!(shown, "it imports x\\nerror: none\\u{202e}\n  /a\\n: b\\nc");
        assert!(super::refusal("<html>").is_none());
    }

    #[tokio::test]
    async fn an_unreachable_server_is_reported_with_what_to_do() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = client(&format!("http://{free}"));
        let error = client.text(client.request(Method::GET, &["events"])).await.unwrap_err();
        assert_snapshot!(error.to_string().replace(&free.to_string(), "ADDR"), @"no Waypost at http://ADDR/ (Connection refused (os error 111)): start one with `waypost serve`, or say where it is with --server");
    }
}
