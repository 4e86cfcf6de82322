//! The one place that allows or refuses a guest's HTTP request, and sends it: a plugin's or a program's.
//!
//! Redirects are not followed: the guest sees them, and its next request is checked here again. A request's time counts
//! as the call's.

use std::sync::{Arc, Mutex, PoisonError};

use http::header::HOST;
use http::{HeaderMap, HeaderName, Method, Request, Response, Uri};
use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::call::Purpose;
use super::limits::size;
use super::logs::BY;
use super::text;
use super::web::{Allowance, SendError, Web};
use waypost_domain::PluginUse;
use waypost_domain::plugin::{AllowHost, LogLevel, LogLine};
use waypost_net::{Guard, Refused, Voice};

/// How much HTTP one call or run may use.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// The most requests.
    requests: usize,
    /// The most bytes of all response bodies.
    response_bytes: usize,
    /// What the limits apply to, in their names: `call`.
    whole: &'static str,
}

/// For a plugin, which is called for each delivery.
const CALL: Bounds = Bounds { requests: 16, response_bytes: 4 * 1024 * 1024, whole: "call" };
/// For a program, which may run for hours and streams what it gets.
const RUN: Bounds = Bounds { requests: 10_000, response_bytes: 1024 * 1024 * 1024, whole: "run" };
/// The most notes of one call: as many as a plugin needs, one for each request and one for what ends each response.
const NOTES_MAX: usize = 2 * CALL.requests;
/// The most bytes of a request's body that wait to be sent.
const CHUNK_BYTES: usize = 16 * 1024;
/// The longest text of a request that goes into a note.
const TEXT_BYTES_MAX: usize = 300;

/// The HTTP access of a call or run, with the hosts that its subscription or handler allows.
pub(super) struct Outbound {
    grants: Grants,
    purpose: Purpose,
    bounds: Bounds,
    web: Arc<Web>,
    requests: usize,
    /// Made at the first request: most calls make none.
    share: Option<RequestShare>,
}

/// Which hosts may be called, and by whose decision.
enum Grants {
    Plugin(Arc<PluginUse>),
    Program(Arc<[AllowHost]>),
}

impl Grants {
    fn hosts(&self) -> &[AllowHost] {
        match self {
            Self::Plugin(plugin) => &plugin.allow_hosts,
            Self::Program(hosts) => hosts,
        }
    }
}

/// What a call shares with the tasks that send its requests.
#[derive(Clone)]
struct RequestShare {
    notes: Notes,
    allowance: Allowance,
}

/// The host's notes about a call's requests, for the call's log.
#[derive(Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<LogLine>>>);

impl Notes {
    pub(super) fn write(&self, message: String) {
        let fields = vec![(BY.to_owned(), "waypost".to_owned())];
        let line = LogLine { level: LogLevel::Warn, message, fields };
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < NOTES_MAX {
            lines.push(line);
        }
    }

    fn take(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

type Exchange = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl Outbound {
    pub(super) fn new(plugin: Arc<PluginUse>, purpose: Purpose, web: Arc<Web>) -> Self {
        Self { grants: Grants::Plugin(plugin), purpose, bounds: CALL, web, requests: 0, share: None }
    }

    /// Sets up a program's HTTP access.
    pub(super) fn of_program(hosts: Arc<[AllowHost]>, web: Arc<Web>) -> Self {
        let (grants, purpose) = (Grants::Program(hosts), Purpose::Deliver);
        Self { grants, purpose, bounds: RUN, web, requests: 0, share: None }
    }

    /// Returns the guard that headers are checked against.
    pub(super) fn guard(&self) -> &Guard {
        self.web.guard()
    }

    /// Returns the host's notes about the call's requests.
    pub(super) fn notes(&self) -> Vec<LogLine> {
        self.share.as_ref().map(|share| share.notes.take()).unwrap_or_default()
    }

    /// Decides whether a request may be sent.
    ///
    /// # Errors
    /// Says why it is refused, and what would allow it.
    fn decide(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let shown = text::clean(&shown(uri), TEXT_BYTES_MAX);
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err("HTTP request refused: its URL has no scheme or no host".to_owned());
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(format!("HTTP request to {shown} refused: its URL holds credentials"));
        }
        let port = uri.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
        if !self.grants.hosts().iter().any(|grant| grant.grants(scheme, host, port)) {
            return Err(format!("HTTP request to {shown} refused: add \"{shown}\" to allow_hosts"));
        }
        let is_safe = matches!(*method, Method::GET | Method::HEAD);
        if self.purpose == Purpose::Try && !is_safe {
            return Err(format!(
                "HTTP request to {shown} refused: a dry run sends only GET and HEAD, and this is {}",
                text::clean(method.as_str(), TEXT_BYTES_MAX)
            ));
        }
        if *method == Method::CONNECT {
            return Err(format!("HTTP request to {shown} refused: a guest may not open tunnels"));
        }
        match &self.grants {
            Grants::Plugin(_) => self.decide_headers(headers).map_err(|(name, reason)| {
                let name = text::clean(name.as_str(), TEXT_BYTES_MAX);
                format!("HTTP request to {shown} refused: header `{name}` is not a plugin's to set: {reason}")
            }),
            // The operator chose the program and its hosts.
            Grants::Program(_) => Ok(()),
        }
    }

    fn decide_headers<'a>(&self, headers: &'a HeaderMap) -> Result<(), (&'a HeaderName, &'static str)> {
        // The sandbox itself adds `host`, which is removed before the request is sent.
        let mut names = headers.keys().filter(|name| **name != HOST);
        names.try_for_each(|name| {
            self.guard().check_header(name, Voice::Request).map_err(|reason| (name, reason))
        })
    }
}

/// Returns a URL's host as a grant names it: with the port where it is not the scheme's own.
fn shown(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    match (uri.scheme_str(), uri.port_u16()) {
        (_, None) | (Some("http"), Some(80)) | (Some("https"), Some(443)) => host,
        (_, Some(port)) => format!("{host}:{port}"),
    }
}

/// Says why a request was refused, and what would allow it.
fn why(refused: &Refused) -> String {
    match refused {
        Refused::NotPublic { address, special } => format!(
            "its address {address} is not public, and the operator has not opened its network (allow_targets; --allow-network where it is tried): {special}"
        ),
        Refused::Own(_) => "it leads to this Waypost itself".to_owned(),
        Refused::Denied { .. } | Refused::NoHost(_) => text::clean(&refused.to_string(), TEXT_BYTES_MAX),
    }
}

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _sent: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Exchange, Error>> + Send> {
        let share = self.share.get_or_insert_with(|| RequestShare {
            notes: Notes::default(),
            allowance: Allowance::of(self.bounds.response_bytes),
        });
        let RequestShare { notes, allowance } = share.clone();
        self.requests += 1;
        let Bounds { requests, response_bytes, whole } = self.bounds;
        if self.requests > requests {
            if self.requests == requests + 1 {
                notes.write(format!("HTTP request refused: the limit is {requests} requests in one {whole}"));
            }
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        if let Err(reason) = self.decide(request.method(), request.uri(), request.headers()) {
            notes.write(reason);
            return Box::new(async { Err(Error::HttpRequestDenied) });
        }
        // The client makes it from the URL, which is what was checked.
        request.headers_mut().remove(HOST);
        let (web, shown) = (Arc::clone(&self.web), shown(request.uri()));
        Box::new(async move {
            let first_byte = options.and_then(|options| options.first_byte_timeout);
            let sent = web.send(request, first_byte).await;
            let response = sent.map_err(|error| match error {
                SendError::Refused(refused) => {
                    notes.write(format!("HTTP request to {shown} refused: {}", why(&refused)));
                    Error::HttpRequestDenied
                }
                SendError::Other(reason, error) => {
                    let reason = text::clean(&reason, TEXT_BYTES_MAX);
                    notes.write(format!("HTTP request to {shown} failed: {reason}"));
                    error
                }
            })?;
            let over = move || {
                let limit = size(response_bytes);
                notes.write(format!(
                    "the response of {shown} was cut: HTTP response limit of {limit} in one {whole}"
                ));
            };
            let response = response.map(|body| allowance.limit(body, over).boxed_unsync());
            let nothing: Box<dyn Future<Output = Result<(), Error>> + Send> = Box::new(async { Ok(()) });
            Ok((response, nothing))
        })
    }

    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        wasmtime_wasi_http::DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use waypost_domain::PluginDigest;

    fn decided(purpose: Purpose, method: Method, url: &'static str) -> Result<(), String> {
        let allow_hosts = ["example.org", "a.example:8080", "https://b.example"];
        let plugin = PluginUse {
            allow_hosts: allow_hosts.iter().map(|text| text.parse().unwrap()).collect(),
            ..PluginUse::new(PluginDigest::of(b""))
        };
        Outbound::new(Arc::new(plugin), purpose, Arc::new(Web::of_plugins(Arc::default()))).decide(
            &method,
            &Uri::from_static(url),
            &headers(&[]),
        )
    }

    fn headers(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x"))).collect()
    }

    /// A plugin's own request named a user, and services that trust their neighbours' headers believed it.
    #[test]
    fn a_plugins_request_names_no_user_and_a_programs_is_the_operators() {
        let url = Uri::from_static("http://example.org/");
        let hosts = ["example.org".parse::<AllowHost>().unwrap()];
        let plugin = PluginUse { allow_hosts: hosts.to_vec(), ..PluginUse::new(PluginDigest::of(b"")) };
        let web = Arc::new(Web::of_plugins(Arc::default()));
        let plugins = Outbound::new(Arc::new(plugin), Purpose::Deliver, web);
        let programs = Outbound::of_program(hosts.into(), Arc::new(Web::of_programs(Arc::default())));
        for name in ["http-remote-user", "http_remote_user", "x-forwarded-user", "waypost-agent", "cookie"] {
            let refused = plugins.decide(&Method::GET, &url, &headers(&["accept", name])).unwrap_err();
            let start =
                format!("HTTP request to example.org refused: header `{name}` is not a plugin's to set: ");
            assert!(refused.starts_with(&start), "{refused}");
            assert_eq!(programs.decide(&Method::GET, &url, &headers(&[name])), Ok(()));
        }
        let usual =
            headers(&["host", "accept", "authorization", "content-type", "content-length", "x-api-key"]);
        assert_eq!(plugins.decide(&Method::POST, &url, &usual), Ok(()));
    }

    #[test]
    fn a_request_goes_where_it_is_allowed_to_go() {
        let get = |url| decided(Purpose::Deliver, Method::GET, url);
        assert_eq!(get("https://example.org/x?y"), Ok(()));
        assert_eq!(get("http://a.example:8080/"), Ok(()));
        assert_eq!(
            get("http://evil.example/secret?key=1").unwrap_err(),
            "HTTP request to evil.example refused: add \"evil.example\" to allow_hosts"
        );
        assert_eq!(
            get("https://Example.org:8443/").unwrap_err(),
            "HTTP request to example.org:8443 refused: add \"example.org:8443\" to allow_hosts"
        );
        assert!(get("http://b.example/").is_err());
        assert!(get("http://example.org@evil.example/").unwrap_err().contains("credentials"));
        assert!(get("/relative").is_err());
    }

    #[test]
    fn a_trial_changes_nothing_elsewhere() {
        let tried = |method| decided(Purpose::Try, method, "http://example.org/");
        assert_eq!(tried(Method::GET), Ok(()));
        assert_eq!(tried(Method::HEAD), Ok(()));
        assert_eq!(
            tried(Method::POST).unwrap_err(),
            "HTTP request to example.org refused: a dry run sends only GET and HEAD, and this is POST"
        );
        assert_eq!(decided(Purpose::Deliver, Method::POST, "http://example.org/"), Ok(()));
        assert!(decided(Purpose::Deliver, Method::CONNECT, "http://example.org/").is_err());
    }
}
