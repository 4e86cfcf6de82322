//! Where events are sent.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use url::{ParseError, Url};

/// An absolute http or https URL with a host and without credentials, as its author has written it.
///
/// Users get its text back, byte for byte. Requests use its normal form by the WHATWG URL standard, as browsers do, in
/// which everything that a request line cannot hold is percent-encoded.
///
/// One that was stored before this check existed may be invalid: [`Self::uri`] then returns why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetUrl {
    text: String,
    uri: Result<Uri, TargetError>,
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is no URL of this form.
    #[error("is not a URL: write it as `http://host/path` or `https://host/path`")]
    NotAUrl,
    /// It has another scheme, or none.
    #[error("must begin with `http://` or `https://`")]
    Scheme,
    /// It names no host.
    #[error("names no host: write it as `http://host/path` or `https://host/path`")]
    NoHost,
    /// Its host cannot be one.
    #[error("names a host that cannot be one: `{0}`")]
    Host(String),
    /// Its host is not written in ASCII.
    #[error("names its host with other letters than the network has: write `{ascii}` for `{host}`")]
    Letters {
        /// What is written.
        host: String,
        /// The ASCII name that it stands for (RFC 5890).
        ascii: String,
    },
    /// Its port cannot be one.
    #[error("names a port that cannot be one: `{0}` is not within 1 to 65535")]
    Port(String),
    /// It has a user name or password.
    #[error("must not hold credentials: they belong into `auth`")]
    Credentials,
    /// It has a fragment, which a request cannot have.
    #[error("has a fragment, which is never sent: write a `#` of the path as `%23`")]
    Fragment,
    /// It has a character that must be percent-encoded everywhere in a URL.
    #[error("holds {0}: write it as `{1}`")]
    Character(&'static str, String),
    /// It does not fit into a request line.
    #[error("has {0} bytes: the most are {LENGTH_MAX}")]
    TooLong(usize),
}

/// The scheme of targets inside this program.
const IN_PROCESS: &str = "in-process:";

/// The longest URL, in bytes. Many servers refuse longer request lines.
const LENGTH_MAX: usize = 8 * 1024;

impl TargetUrl {
    /// Takes a stored text, which may be invalid.
    pub fn from_stored(text: String) -> Self {
        // Older versions accepted fragments, and did not send them.
        let uri = parse(text.split('#').next().unwrap_or_default());
        Self { text, uri }
    }

    /// Returns the target that is a function of this program, registered under `name`. No text that a user writes is
    /// one.
    pub fn in_process(name: &str) -> Self {
        Self::from_stored(format!("{IN_PROCESS}{name}"))
    }

    /// Returns the name of the function, if it is one.
    pub fn function(&self) -> Option<&str> {
        self.text.strip_prefix(IN_PROCESS)
    }

    /// Returns the URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the URL as it is sent.
    ///
    /// # Errors
    /// When it was stored without having been checked, and is invalid.
    pub fn uri(&self) -> Result<&Uri, &TargetError> {
        self.uri.as_ref()
    }

    /// Returns the URL without its query, which often holds a secret.
    pub fn without_query(&self) -> Self {
        let end = self.text.find(['?', '#']).unwrap_or(self.text.len());
        Self::from_stored(self.text[..end].to_owned())
    }

    /// Tells whether both lead to the same scheme, host and port; one that is invalid leads nowhere.
    pub fn has_same_origin(&self, other: &Self) -> bool {
        let origin = |url: &Self| {
            let scheme = url.uri.as_ref().ok()?.scheme().cloned();
            url.host_and_port().map(|(host, port)| (scheme, host.to_owned(), port))
        };
        origin(self).is_some_and(|own| origin(other) == Some(own))
    }

    /// Returns the host that it names (an IPv6 address stands in brackets), and the port.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        let uri = self.uri.as_ref().ok()?;
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        Some((uri.host()?, uri.port_u16().unwrap_or(default)))
    }
}

impl FromStr for TargetUrl {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for TargetUrl {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        let uri = parse(&text)?;
        Ok(Self { text, uri: Ok(uri) })
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse(text: &str) -> Result<Uri, TargetError> {
    if text.is_empty() {
        return Err(TargetError::NotAUrl);
    }
    if text.len() > LENGTH_MAX {
        return Err(TargetError::TooLong(text.len()));
    }
    // The URL standard accepts all of these, but gives them another meaning than a reader expects.
    check_characters(text)?;
    let (authority, port) = authority(text)?;
    let url = Url::parse(text).map_err(|error| match error {
        ParseError::InvalidPort => TargetError::Port(port.to_owned()),
        ParseError::EmptyHost => TargetError::NoHost,
        ParseError::IdnaError
        | ParseError::InvalidIpv4Address
        | ParseError::InvalidIpv6Address
        | ParseError::InvalidDomainCharacter => TargetError::Host(authority.to_owned()),
        _ => TargetError::NotAUrl,
    })?;
    if url.port() == Some(0) {
        return Err(TargetError::Port(port.to_owned()));
    }
    if let Some(ascii) = url.host_str()
        && !authority.is_ascii()
    {
        let host = authority.strip_suffix(port).and_then(|host| host.strip_suffix(':')).unwrap_or(authority);
        return Err(TargetError::Letters { host: host.to_owned(), ascii: ascii.to_owned() });
    }
    url.as_str().parse().map_err(|_| TargetError::NotAUrl)
}

fn check_characters(text: &str) -> Result<(), TargetError> {
    let found = |what, c: char| {
        let mut bytes = [0; 4];
        let encoded = c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}"));
        Err(TargetError::Character(what, encoded.collect()))
    };
    for c in text.chars() {
        match c {
            '#' => return Err(TargetError::Fragment),
            '\\' => return found("a backslash", c),
            c if c.is_control() => return found("a control character", c),
            c if c.is_whitespace() => return found("white space", c),
            _ => {}
        }
    }
    Ok(())
}

/// Returns the text between `//` and the path, and what follows the last `:` in it.
fn authority(text: &str) -> Result<(&str, &str), TargetError> {
    let (scheme, rest) = text.split_once("://").ok_or(TargetError::Scheme)?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(TargetError::Scheme);
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(TargetError::Credentials);
    }
    // The URL standard would use the first part of the path as the host.
    if authority.is_empty() || authority.starts_with(':') {
        return Err(TargetError::NoHost);
    }
    let port = match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port,
        _ => "",
    };
    Ok((authority, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str) -> String {
        let target: TargetUrl = text.parse().unwrap();
        assert_eq!(target.as_str(), text, "users get back what they wrote");
        target.uri().unwrap().to_string()
    }

    fn refused(text: &str) -> TargetError {
        text.parse::<TargetUrl>().unwrap_err()
    }

    #[test]
    fn only_absolute_http_urls_without_credentials_are_targets() {
        for good in ["http://localhost:1/x?y=1", "https://example.org/", "http://[::1]:81/"] {
            assert_eq!(sent(good), good);
        }
        assert_eq!(sent("HTTP://EXAMPLE.org:80"), "http://example.org/");
        assert_eq!(sent("http://a_b.example/%7Euser/./x/../y"), "http://a_b.example/%7Euser/y");
        for (bad, error) in [
            ("", TargetError::NotAUrl),
            ("/path", TargetError::Scheme),
            ("http:/host/", TargetError::Scheme),
            ("ftp://host/", TargetError::Scheme),
            ("javascript://host/", TargetError::Scheme),
            ("http:///path", TargetError::NoHost),
            ("http://", TargetError::NoHost),
            ("http://?x", TargetError::NoHost),
            ("http://:80/", TargetError::NoHost),
            ("http://user:secret@host/", TargetError::Credentials),
            ("http://@host/", TargetError::Credentials),
        ] {
            assert_eq!(refused(bad), error, "{bad}");
        }
    }

    #[test]
    fn what_stays_without_a_query_names_the_same_place() {
        for (whole, left) in [
            ("http://localhost:1/x?token=secret", "http://localhost:1/x"),
            ("http://localhost?token=secret/x?y", "http://localhost"),
            ("http://localhost/%3Fx", "http://localhost/%3Fx"),
        ] {
            let whole: TargetUrl = whole.parse().unwrap();
            assert_eq!(whole.without_query(), left.parse::<TargetUrl>().unwrap());
            assert_eq!(whole.without_query().host_and_port(), whole.host_and_port());
        }
        let stored = TargetUrl::from_stored("nowhere?token=secret".to_owned());
        assert_eq!(stored.without_query().as_str(), "nowhere");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |one: &str, other: &str| {
            one.parse::<TargetUrl>().unwrap().has_same_origin(&other.parse().unwrap())
        };
        assert!(same("http://a.example/x", "http://A.example:80/y?z"));
        assert!(
            !same("http://a.example/", "https://a.example/")
                && !same("http://a.example/", "http://a.example:81/")
        );
        assert!(!same("http://a.example/", "http://b.example/"));
        let nowhere = TargetUrl::from_stored("nowhere".to_owned());
        assert!(!nowhere.has_same_origin(&nowhere));
    }

    /// An invalid port was ignored: the event went to port 80.
    #[test]
    fn a_port_or_address_that_cannot_be_one_is_refused() {
        for port in ["99999", "8O80", "0", "-1", "65536", "+80"] {
            assert_eq!(refused(&format!("http://127.0.0.1:{port}/x")), TargetError::Port(port.to_owned()));
        }
        assert_eq!(sent("http://127.0.0.1:/x"), "http://127.0.0.1/x");
        for host in ["[zz]", "[::1", "256.1.1.1", "a%b", "a<b", "[::1%25eth0]"] {
            let error = refused(&format!("http://{host}/"));
            assert!(matches!(error, TargetError::Host(_)), "{host}: {error:?}");
        }
    }

    /// The bytes were written to the request line unencoded.
    #[test]
    fn what_a_request_line_cannot_hold_is_percent_encoded() {
        assert_eq!(sent("http://h/größe"), "http://h/gr%C3%B6%C3%9Fe");
        assert_eq!(sent(r#"http://h/a"b|c{}"#), "http://h/a%22b|c%7B%7D");
        assert_eq!(sent(r#"http://h/?q=ä"<>`{'"#), "http://h/?q=%C3%A4%22%3C%3E`{%27");
        assert_eq!(sent("http://h/%zz%20"), "http://h/%zz%20");
    }

    #[test]
    fn a_host_in_other_letters_gets_the_hint_how_to_write_it() {
        let error = refused("http://größe.example:8080/x");
        let (host, ascii) = ("größe.example".to_owned(), "xn--gre-6ka8i.example".to_owned());
        assert_eq!(error, TargetError::Letters { host, ascii });
        assert_eq!(sent("http://xn--gre-6ka8i.example/"), "http://xn--gre-6ka8i.example/");
        // Letters that only look like those of an address.
        let (host, ascii) = ("１２７.0.0.1".to_owned(), "127.0.0.1".to_owned());
        assert_eq!(refused("http://１２７.0.0.1/"), TargetError::Letters { host, ascii });
    }

    /// A browser accepts these, and connects to another host than a reader expects.
    #[test]
    fn what_a_reader_would_misread_is_refused() {
        for bad in [
            " http://h/",
            "http://h/ ",
            "http://h/a b",
            "http://h/\u{a0}",
            "http://h/\t",
            "ht\ntp://h/",
            "http://h/\u{0}",
            "http://h/\u{85}",
            r"http://h\@evil.example/",
            r"http:\\h/",
            "http://h/\u{7f}",
        ] {
            assert!(matches!(refused(bad), TargetError::Character(..)), "{bad:?}");
        }
        let error = refused("http://h/a b").to_string();
        assert_eq!(error, "holds white space: write it as `%20`");
        assert_eq!(refused("http://h/room#general"), TargetError::Fragment);
        assert_eq!(refused(&format!("http://h/{}", "x".repeat(9000))), TargetError::TooLong(9009));
    }

    #[test]
    fn a_host_and_a_port_are_whom_it_names() {
        for (text, host, port) in [
            ("http://Example.org/", "example.org", 80),
            ("https://example.org", "example.org", 443),
            ("http://0x7f.1:8070/", "127.0.0.1", 8070),
            ("http://[::FFFF:127.0.0.1]:8070/", "[::ffff:7f00:1]", 8070),
        ] {
            let target: TargetUrl = text.parse().unwrap();
            assert_eq!(target.host_and_port(), Some((host, port)), "{text}");
        }
    }

    /// They were stored before there was a check: the record must stay readable, and tell why nothing is sent.
    #[test]
    fn a_stored_text_is_kept_and_judged_later() {
        let stored = |text: &str| TargetUrl::from_stored(text.to_owned());
        let bad = stored("http://127.0.0.1:99999/x");
        assert_eq!((bad.as_str(), bad.host_and_port()), ("http://127.0.0.1:99999/x", None));
        assert_eq!(bad.uri(), Err(&TargetError::Port("99999".to_owned())));
        let fragment = stored("http://h/room#general");
        assert_eq!(fragment.as_str(), "http://h/room#general");
        assert_eq!(fragment.uri().unwrap(), "http://h/room");
    }
}
