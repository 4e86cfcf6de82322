//! The member `headers`: names and values that are added to each request.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::{ApiError, HIDDEN, wrong};
use waypost_domain::sending::{HeaderText, field};
use waypost_domain::{Auth, Secret, SubscriptionId};
use waypost_net::{Guard, is_secret};
use waypost_secrets::{Label, Vault};

/// The most headers.
const COUNT_MAX: usize = 32;
/// The most bytes of all their names and values.
const BYTES_MAX: usize = 8 * 1024;

/// The headers that a subscription is to have, by their names in lower case.
pub(super) struct HeadersBody(BTreeMap<String, String>);

impl HeadersBody {
    pub(super) fn take(body: &mut Map<String, Value>, guard: &Guard) -> Result<Option<Self>, ApiError> {
        let given = match body.remove("headers") {
            None => return Ok(None),
            Some(Value::Null) => return Ok(Some(Self(BTreeMap::new()))),
            Some(Value::Object(given)) => given,
            Some(other) => return Err(wrong("headers", "an object of names and values, or null", &other)),
        };
        if given.len() > COUNT_MAX {
            let detail =
                format!("`headers` has {} members, and at most {COUNT_MAX} are allowed", given.len());
            return Err(ApiError::field("/headers", detail));
        }
        let bytes: usize =
            given.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
        if bytes > BYTES_MAX {
            let detail = format!(
                "`headers` has {bytes} bytes of names and values, and at most {BYTES_MAX} are allowed"
            );
            return Err(ApiError::field("/headers", detail));
        }
        let mut headers = BTreeMap::new();
        for (name, value) in given {
            let (parsed, value) = check(&name, value, guard)?;
            if headers.insert(parsed.as_str().to_owned(), value).is_some() {
                return Err(ApiError::field(pointer(&name), format!("the header `{name}` appears twice")));
            }
        }
        Ok(Some(Self(headers)))
    }

    /// Seals the values that are secrets. A secret that is written as it is shown keeps its value.
    pub(super) fn apply(
        &self,
        known: &BTreeMap<String, HeaderText>,
        id: SubscriptionId,
        vault: &Vault,
    ) -> Result<BTreeMap<String, HeaderText>, ApiError> {
        let header = |(name, value): (&String, &String)| {
            let text = match (is_secret(name), value.as_str(), known.get(name)) {
                (true, HIDDEN, Some(HeaderText::Secret(sealed))) => HeaderText::Secret(sealed.clone()),
                (true, HIDDEN, _) => {
                    let detail = format!("the value of `{name}` is a secret that was not given yet");
                    return Err(ApiError::field(pointer(name), detail));
                }
                (true, value, _) => {
                    let label = Label::new(field::HEADER, id.uuid());
                    HeaderText::Secret(vault.seal(label, &Secret::from(value.to_owned())))
                }
                (false, value, _) => HeaderText::Plain(value.to_owned()),
            };
            Ok((name.clone(), text))
        };
        self.0.iter().map(header).collect()
    }
}

fn check(name: &str, value: Value, guard: &Guard) -> Result<(HeaderName, String), ApiError> {
    let refused = |detail: String| ApiError::field(pointer(name), detail);
    let parsed = HeaderName::from_bytes(name.as_bytes());
    let parsed = parsed.map_err(|_| refused(format!("`{name}` is not a header name")))?;
    guard
        .check_owner_header(&parsed)
        .map_err(|reason| refused(format!("the header `{name}` must not be set: {reason}")))?;
    let Value::String(value) = value else {
        return Err(refused(format!("the value of the header `{name}` must be a string")));
    };
    let is_value = HeaderValue::from_str(&value).is_ok_and(|parsed| parsed.to_str().is_ok());
    let is_value = is_value && value.trim_ascii() == value;
    if !(is_value || value == HIDDEN && is_secret(parsed.as_str())) {
        let detail = "a header's value must be visible ASCII characters, with spaces only between them";
        return Err(refused(format!("the header `{name}`: {detail}")));
    }
    Ok((parsed, value))
}

/// Refuses a header that `auth` sets.
pub(super) fn check_authorization(
    headers: &BTreeMap<String, HeaderText>,
    auth: &Auth,
) -> Result<(), ApiError> {
    if *auth == Auth::None || !headers.contains_key("authorization") {
        return Ok(());
    }
    Err(ApiError::field(
        "/headers/authorization",
        "`auth` sets the header `authorization` already: leave one out",
    ))
}

fn pointer(name: &str) -> String {
    format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Returns the member as REST shows it: secrets without their values.
pub(in crate::http) fn show(headers: &BTreeMap<String, HeaderText>) -> BTreeMap<String, String> {
    let shown = headers.iter().map(|(name, text)| {
        let text = match text {
            HeaderText::Plain(text) => text.as_str(),
            HeaderText::Secret(_) => HIDDEN,
        };
        (name.clone(), text.to_owned())
    });
    shown.collect()
}
