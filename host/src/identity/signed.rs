//! Signatures of producers, by Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use http::request::Parts;
use http::{HeaderMap, HeaderName};

use super::Refusal;
use waypost_runtime::clock;
use waypost_secrets::signing::{self, SecretError, WebhookSecret};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How far a signature's time may be from the clock's, in seconds.
const TOLERANCE: i64 = 5 * 60;

/// The secret of a producer.
#[derive(Clone, PartialEq, Eq)]
struct Producer {
    name: String,
    secret: WebhookSecret,
}

/// The producers whose secrets are known.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Producers(Vec<Producer>);

/// Why the file of producers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProducersError {
    /// It cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A line has another form.
    #[error("line {line}: expected a name, a space and a secret (`whsec_…`)")]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// The secret of a line is invalid.
    #[error("line {line}: the secret {reason}")]
    Secret {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: SecretError,
    },
    /// The file names no producer.
    #[error("it has no producer: a line is a name, a space and a secret (`whsec_…`)")]
    Empty,
}

impl fmt::Debug for Producers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|producer| &producer.name)).finish()
    }
}

impl Producers {
    /// Reads a file with a producer on each line: its name, a space and its secret. Lines that begin with `#`
    /// are comments. A name on two lines has two secrets.
    ///
    /// # Errors
    /// When the file cannot be read, a line is invalid, or there is no producer.
    pub fn read(path: &Path) -> Result<Self, ProducersError> {
        let text = std::fs::read_to_string(path);
        text.map_err(|source| ProducersError::Read { path: path.display().to_string(), source })?.parse()
    }

    /// Returns the signature that a request claims to have: that of the producer in its query
    /// (`?producer=NAME`), or of the only one.
    pub(super) fn claimed(&self, parts: &Parts) -> Result<Signed, Refusal> {
        let query = parts.uri.query().unwrap_or_default();
        let mut named = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "producer");
        let name = match (named.next(), self.0.first()) {
            (Some((_, name)), _) => name.into_owned(),
            (None, Some(only)) if self.0.iter().all(|other| other.name == only.name) => only.name.clone(),
            (None, _) => return Err(Refusal::Signature("name the producer with `?producer=NAME`")),
        };
        let secrets = self.0.iter().filter(|known| known.name == name);
        let secrets = secrets.map(|known| known.secret.clone()).collect();
        let text = |header| header_text(&parts.headers, &header);
        let (Some(id), Some(time), Some(signatures)) = (text(ID), text(TIMESTAMP), text(SIGNATURE)) else {
            let needed = "send `webhook-id`, `webhook-timestamp` and `webhook-signature` (Standard Webhooks)";
            return Err(Refusal::Signature(needed));
        };
        let now = clock::now().as_second();
        let time =
            time.parse::<i64>().ok().filter(|time| now.saturating_sub(*time).saturating_abs() <= TOLERANCE);
        let far = "its `webhook-timestamp` is not within five minutes of this server's clock, in seconds since 1970";
        let time = time.ok_or(Refusal::Signature(far))?;
        Ok(Signed { name, secrets, id, time, signatures })
    }
}

fn header_text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
}

impl FromStr for Producers {
    type Err = ProducersError;

    fn from_str(text: &str) -> Result<Self, ProducersError> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let producer = |(line, text): (usize, &str)| {
            let (name, secret) = text.split_once(char::is_whitespace).ok_or(ProducersError::Line { line })?;
            let secret = secret.trim().parse().map_err(|reason| ProducersError::Secret { line, reason })?;
            Ok(Producer { name: name.to_owned(), secret })
        };
        let producers = lines.map(producer).collect::<Result<Vec<_>, _>>()?;
        if producers.is_empty() { Err(ProducersError::Empty) } else { Ok(Self(producers)) }
    }
}

/// A claimed signature, which is verified with the body.
#[derive(Clone, Debug)]
pub struct Signed {
    name: String,
    secrets: Vec<WebhookSecret>,
    id: String,
    time: i64,
    signatures: String,
}

impl Signed {
    /// Returns the producer's name if it has signed this body, which is the body after decoding.
    ///
    /// # Errors
    /// When it has not. An unknown producer gets the same error as a wrong signature.
    pub fn by(self, body: &[u8]) -> Result<String, Refusal> {
        let Self { name, secrets, id, time, signatures } = self;
        let fits = secrets.iter().any(|secret| signing::verify(secret, &id, time, body, &signatures));
        if fits {
            Ok(name)
        } else {
            Err(Refusal::Signature("this one is not the producer's signature of this body"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_producers_names_the_line_that_is_wrong() {
        let good = "# detectors\none whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n\n two\twhsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n";
        let producers: Producers = good.parse().unwrap();
        assert_eq!(format!("{producers:?}"), r#"{"one", "two"}"#, "no secret is shown");
        for (bad, expected) in [
            ("one", "line 1: expected a name"),
            (
                "one whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\ntwo whsec_AAAA",
                "line 2: the secret must have 24 to 64",
            ),
            ("one MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "line 1: the secret must begin with `whsec_`"),
            ("\n# nothing\n", "it has no producer"),
        ] {
            let error = bad.parse::<Producers>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{bad}: {error}");
        }
    }
}
