//! Parses the text of a setting into its type: one function for each kind of setting.
//!
//! Each error says what is expected, and what was found.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use reqwest::Url;

use crate::config::{LogFormat, LogLevel};
use crate::identity::ReceiveAuth;
use waypost_domain::retry::parse_duration;
use waypost_domain::{FilterDialect, RetrySchedule};
use waypost_net::{HeaderPattern, HeaderPatternError, Proxy, ProxyError, TargetPattern, TargetPatternError};

/// A value, or what is wrong with its text.
pub(super) type Parsed<T> = Result<T, String>;

/// Parses an address, or looks a name up. If a name has several addresses, the first IPv4 address is used,
/// because clients try that first by default.
pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let Some((name, port)) = text.rsplit_once(':').filter(|(name, _)| is_name(name)) else {
        return expected("an address and a port, such as `127.0.0.1:8070`", text);
    };
    let Ok(port) = port.parse::<u16>() else {
        return expected("a port from 0 to 65535 after the colon, such as `127.0.0.1:8070`", text);
    };
    let found = (name, port).to_socket_addrs();
    let found: Vec<_> = found.map_err(|error| format!("`{name}` has no address: {error}"))?.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("`{name}` has no address"))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Empty text removes the name of a weaker source.
pub(super) fn host(text: &str) -> Parsed<Option<String>> {
    match text {
        "" => Ok(None),
        name if is_name(name) => Ok(Some(name.to_owned())),
        _ => expected("a name without scheme and port, such as `waypost.example`", text),
    }
}

/// Parses host names: `*` is any, `*.name` all names below one.
pub(super) fn hosts(text: &str) -> Parsed<Vec<String>> {
    let host = |item: &str| {
        let name = item.strip_suffix('.').unwrap_or(item);
        match name == "*" || is_name(name.strip_prefix("*.").unwrap_or(name)) {
            true => Ok(name.to_ascii_lowercase()),
            false => {
                expected("names without scheme and port, such as `waypost.example` or `*.example`", item)
            }
        }
    };
    items(text).map(host).collect()
}

/// Parses origins of web pages, and writes them as browsers do.
pub(super) fn origins(text: &str) -> Parsed<Vec<String>> {
    let origin = |item: &str| {
        let url = item.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let bare = url.filter(|url| url.path() == "/" && url.query().is_none() && url.fragment().is_none());
        match bare {
            Some(url) => Ok(url.origin().ascii_serialization()),
            None => expected("origins, such as `https://portal.example`", item),
        }
    };
    items(text).map(origin).collect()
}

pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    Ok(PathBuf::from(text))
}

/// Empty text removes the file of a weaker source.
pub(super) fn file(text: &str) -> Parsed<Option<PathBuf>> {
    Ok(Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty()))
}

/// Empty text removes the URL of a weaker source.
pub(super) fn url(text: &str) -> Parsed<Option<Url>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).or_else(|_| expected("a URL, such as `http://policy.example:8181`", text))
}

pub(super) fn name(text: &str) -> Parsed<String> {
    Ok(text.to_owned())
}

pub(super) fn names(text: &str) -> Parsed<Option<Vec<String>>> {
    Ok(Some(items(text).map(str::to_owned).collect()))
}

pub(super) fn header(text: &str) -> Parsed<HeaderName> {
    text.parse().or_else(|_| expected("a header's name, such as `Http-Remote-User`", text))
}

pub(super) fn headers(text: &str) -> Parsed<Vec<HeaderPattern>> {
    items(text).map(|item| item.parse().map_err(|error: HeaderPatternError| error.to_string())).collect()
}

/// Parses networks; a bare address is a network of one.
pub(super) fn networks(text: &str) -> Parsed<Vec<IpNet>> {
    let network = |item: &str| item.parse().or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
    let shape = "IP addresses or networks, such as `10.0.0.0/8`";
    items(text).map(|item| network(item).or_else(|_| expected(shape, item))).collect()
}

/// Parses patterns of targets.
pub(super) fn targets(text: &str) -> Parsed<Vec<TargetPattern>> {
    items(text).map(|item| item.parse().map_err(|error: TargetPatternError| error.to_string())).collect()
}

/// Empty text removes the proxy of a weaker source. Errors do not show its password.
pub(super) fn proxy(text: &str) -> Parsed<Option<Proxy>> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|error: ProxyError| error.to_string()),
    }
}

pub(super) fn schedule(text: &str) -> Parsed<RetrySchedule> {
    text.parse().map_err(|error: waypost_domain::retry::ParseError| error.to_string())
}

pub(super) fn number<T: FromStr>(text: &str) -> Parsed<T> {
    text.parse().or_else(|_| expected("a whole number", text))
}

pub(super) fn millis(text: &str) -> Parsed<Duration> {
    text.parse().map(Duration::from_millis).or_else(|_| expected("a whole number of milliseconds", text))
}

/// Parses a period; zero is none.
pub(super) fn period(text: &str) -> Parsed<Option<Duration>> {
    match parse_duration(text) {
        Some(period) => Ok((!period.is_zero()).then_some(period)),
        None => expected("a number and a unit (`12h`, `30d`), or `0` for none", text),
    }
}

pub(super) fn dialect(text: &str) -> Parsed<FilterDialect> {
    match text {
        "auto" => Ok(FilterDialect::Auto),
        "rfc9535" => Ok(FilterDialect::Rfc9535),
        "jsonpath2" => Ok(FilterDialect::Jsonpath2),
        _ => expected("`auto`, `rfc9535` or `jsonpath2`", text),
    }
}

/// Empty text means what every route asks.
pub(super) fn receive_auth(text: &str) -> Parsed<Option<ReceiveAuth>> {
    match text {
        "" => Ok(None),
        "none" => Ok(Some(ReceiveAuth::None)),
        "token" => Ok(Some(ReceiveAuth::Token)),
        "signature" => Ok(Some(ReceiveAuth::Signature)),
        _ => expected("`none`, `token` or `signature`", text),
    }
}

pub(super) fn log_format(text: &str) -> Parsed<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => expected("`text` or `json`", text),
    }
}

pub(super) fn log_level(text: &str) -> Parsed<LogLevel> {
    match text {
        "error" => Ok(LogLevel::Error),
        "warn" => Ok(LogLevel::Warn),
        "info" => Ok(LogLevel::Info),
        "debug" => Ok(LogLevel::Debug),
        "trace" => Ok(LogLevel::Trace),
        _ => expected("`error`, `warn`, `info`, `debug` or `trace`", text),
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn expected<T>(what: &str, found: &str) -> Parsed<T> {
    Err(format!("expected {what}, found `{found}`"))
}
