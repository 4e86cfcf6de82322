//! Where events are sent.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use serde::{Deserialize, Serialize};

/// An absolute http or https URL with a host and without credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetUrl {
    text: String,
    uri: Uri,
}

/// Why a text is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It does not parse (RFC 3986).
    #[error("is not a URL: write it as `http://host/path` or `https://host/path`")]
    NotAUrl,
    /// It is relative.
    #[error("names no host: write it as `http://host/path` or `https://host/path`")]
    NoHost,
    /// It has a user name or password.
    #[error("must not hold credentials: they belong into `auth`")]
    Credentials,
    /// It has another scheme.
    #[error("must begin with `http://` or `https://`")]
    Scheme,
}

impl TargetUrl {
    /// Returns the URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the URL, parsed.
    pub fn uri(&self) -> &Uri {
        &self.uri
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
        let uri: Uri = text.parse().map_err(|_| TargetError::NotAUrl)?;
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or(TargetError::NoHost)?;
        match uri.scheme_str() {
            _ if authority.as_str().contains('@') => Err(TargetError::Credentials),
            Some("http" | "https") => Ok(Self { text, uri }),
            _ => Err(TargetError::Scheme),
        }
    }
}

impl From<TargetUrl> for String {
    fn from(target: TargetUrl) -> Self {
        target.text
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_http_urls_without_credentials_are_targets() {
        for good in ["http://localhost:1/x?y=1", "https://example.org", "HTTP://[::1]:80/"] {
            assert_eq!(good.parse::<TargetUrl>().unwrap().as_str(), good);
        }
        for (bad, error) in [
            ("", TargetError::NotAUrl),
            ("a b", TargetError::NotAUrl),
            ("/path", TargetError::NoHost),
            ("http:///path", TargetError::NotAUrl),
            ("ftp://host/", TargetError::Scheme),
            ("http://user:secret@host/", TargetError::Credentials),
        ] {
            assert_eq!(bad.parse::<TargetUrl>(), Err(error), "{bad}");
        }
    }
}
