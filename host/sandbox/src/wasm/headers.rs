//! Checks the headers and the content type that a plugin chooses for a raw output.

use http::{HeaderName, HeaderValue};

use super::limits::size;
use waypost_net::{Guard, Voice};

/// The most headers of one output, and the most bytes of their names and values.
const HEADERS_MAX: usize = 64;
const BYTES_MAX: usize = 8 * 1024;

/// Checks the headers of an output.
///
/// # Errors
/// Names the header, and says why it is refused.
pub(super) fn check(headers: &[(String, String)], guard: &Guard) -> Result<(), String> {
    if headers.len() > HEADERS_MAX {
        return Err(format!("it has {} headers: the limit is {HEADERS_MAX}", headers.len()));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > BYTES_MAX {
        return Err(format!("its headers have {bytes} bytes: the limit is {}", size(BYTES_MAX)));
    }
    headers.iter().try_for_each(|(name, value)| one(name, value, guard))
}

fn one(name: &str, value: &str, guard: &Guard) -> Result<(), String> {
    let shown = super::text::clean(name, 64);
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(format!("`{shown}` is not a header's name"));
    };
    guard
        .check_header(&parsed, Voice::Output)
        .map_err(|reason| format!("header `{shown}` is not a plugin's to set: {reason}"))?;
    match HeaderValue::from_str(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("header `{shown}` has a character that no header may have")),
    }
}

/// Checks a content type.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn check_content_type(content_type: &str) -> Result<(), String> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let is_token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let is_type = essence.split_once('/').is_some_and(|(kind, rest)| is_token(kind) && is_token(rest));
    if !is_type || content_type.len() > 256 || HeaderValue::from_str(content_type).is_err() {
        let shown = super::text::clean(content_type, 64);
        return Err(format!("its content type `{shown}` is not valid: write it like `application/json`"));
    }
    if essence.get(..23).is_some_and(|start| start.eq_ignore_ascii_case("application/cloudevents")) {
        return Err(format!(
            "its content type `{essence}` is a CloudEvent's: make an output of the case `event`"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, value: &str) -> Result<(), String> {
        check(&[(name.to_owned(), value.to_owned())], &Guard::default())
    }

    #[test]
    fn what_is_not_a_plugins_to_set_is_refused_by_name() {
        for name in [
            "Host",
            "AUTHORIZATION",
            "content-type",
            "Content-Length",
            "connection",
            "transfer-encoding",
            "te",
            "proxy-authorization",
            "webhook-id",
            "Webhook-Signature",
            "ce-id",
            "user-agent",
            "expect",
            "upgrade",
            "Http-Remote-User",
            "http_remote_user",
            "X-Forwarded-For",
            "cookie",
            "x-anything",
        ] {
            let error = checked(name, "x").unwrap_err();
            assert!(error.starts_with(&format!("header `{name}` is not a plugin's to set: ")), "{error}");
        }
        for name in ["x-made-by", "accept", "prefer", "content-encoding", "idempotency-key"] {
            assert_eq!(checked(name, "a, b"), Ok(()));
        }
    }

    #[test]
    fn headers_are_valid_and_few() {
        assert_eq!(checked("a b", "x").unwrap_err(), "`a b` is not a header's name");
        assert_eq!(
            checked("x-made-by", "one\r\nhost: two").unwrap_err(),
            "header `x-made-by` has a character that no header may have"
        );
        let guard = Guard::default();
        let header = ("tags".to_owned(), "b".repeat(100));
        assert_eq!(check(&vec![header.clone(); 64], &guard), Ok(()));
        assert_eq!(check(&vec![header; 65], &guard).unwrap_err(), "it has 65 headers: the limit is 64");
        let long = ("tags".to_owned(), "y".repeat(8192));
        assert_eq!(check(&[long], &guard).unwrap_err(), "its headers have 8196 bytes: the limit is 8 KiB");
    }

    #[test]
    fn a_content_type_is_a_type_and_a_subtype() {
        for good in ["application/json", "text/plain; charset=utf-8", "application/vnd.a.b+json;v=1"] {
            assert_eq!(check_content_type(good), Ok(()));
        }
        for bad in [
            "",
            "json",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            "text/plain\n",
            "text/plain; \u{1}",
            "application/CloudEvents+json",
        ] {
            assert!(check_content_type(bad).is_err(), "{bad}");
        }
    }
}
