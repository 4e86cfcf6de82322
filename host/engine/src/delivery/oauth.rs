//! Tokens for targets (OAuth 2.0 client credentials, RFC 6749 §4.4): requested once, and used until shortly before they
//! expire.
//!
//! One request per credential is under way at a time, however many attempts wait for its token. A failure is an
//! outcome of the attempt, in words without secrets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;
use moka::Expiry;
use moka::future::Cache;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::form_urlencoded;

use super::answer::Trouble;
use super::request::AGENT;
use waypost_domain::sending::{ClientAuth, OAuth2, field};
use waypost_domain::{Secret, SubscriptionId};
use waypost_net::{Agent, Client, mark};
use waypost_secrets::{Label, Vault};

/// The most tokens that are kept.
const TOKENS_MAX: u64 = 10_000;
/// How long a token is used if the server does not say when it expires.
const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// The longest that a token is used, whatever the server says.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How long before its expiry a token is no longer used. For a short-lived one, it is the last tenth of its time.
const MARGIN: Duration = Duration::from_secs(60);
/// The most bytes of a server's answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The longest that a server may take to answer.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The most characters of a server's own words about an error.
const WORDS_MAX: usize = 200;

/// A subscription, and a hash of its credentials: changed credentials have other tokens.
type Key = (SubscriptionId, [u8; 32]);

/// The tokens of all subscriptions.
pub(super) struct Tokens(Cache<Key, Arc<Token>>);

/// A token.
pub(super) struct Token {
    key: Key,
    secret: Secret,
    lifetime: Duration,
}

impl Token {
    /// Returns its text.
    pub(super) fn expose(&self) -> &[u8] {
        self.secret.expose()
    }
}

struct UntilItsEnd;

impl Expiry<Key, Arc<Token>> for UntilItsEnd {
    fn expire_after_create(&self, _: &Key, token: &Arc<Token>, _: Instant) -> Option<Duration> {
        Some(token.lifetime)
    }
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(TOKENS_MAX).expire_after(UntilItsEnd).build())
    }

    /// Returns a subscription's token. If there is none, asks for one, for at most `wait`.
    ///
    /// # Errors
    /// Says why there is none. The next call asks again.
    pub(super) async fn get(
        &self,
        client: &Client,
        vault: &Vault,
        id: SubscriptionId,
        oauth2: &OAuth2,
        wait: Duration,
    ) -> Result<Arc<Token>, Trouble> {
        let key = (id, digest(oauth2));
        let asking = self.0.try_get_with(key, ask(client, vault, key, oauth2, wait.min(TIME_MAX)));
        asking.await.map_err(|trouble| Trouble::clone(&trouble))
    }

    /// Forgets a token that a target has refused.
    pub(super) async fn refuse(&self, token: &Arc<Token>) {
        let known = self.0.get(&token.key).await;
        // Another attempt may have a new one already.
        if known.is_some_and(|known| Arc::ptr_eq(&known, token)) {
            self.0.invalidate(&token.key).await;
        }
    }
}

/// Hashes credentials. The same secret has another hash after it was sealed again.
fn digest(oauth2: &OAuth2) -> [u8; 32] {
    let OAuth2 { token_url, client_id, client_secret, client_auth, scope, audience } = oauth2;
    let parts: [&[u8]; 6] = [
        token_url.as_str().as_bytes(),
        client_id.as_bytes(),
        client_secret.bytes().unwrap_or_else(Secret::expose),
        match client_auth {
            ClientAuth::Basic => b"b",
            ClientAuth::Post => b"p",
        },
        scope.as_deref().unwrap_or_default().as_bytes(),
        audience.as_deref().unwrap_or_default().as_bytes(),
    ];
    let hash = parts
        .iter()
        .fold(Sha256::new(), |hash, part| hash.chain_update(part.len().to_le_bytes()).chain_update(part));
    hash.finalize().into()
}

async fn ask(
    client: &Client,
    vault: &Vault,
    key: Key,
    oauth2: &OAuth2,
    wait: Duration,
) -> Result<Arc<Token>, Trouble> {
    let secret = vault.open(Label::new(field::CLIENT_SECRET, key.0.uuid()), &oauth2.client_secret);
    let secret = secret.map_err(|error| Trouble::of_secret("the client secret", error))?;
    let no_token = |words: String| format!("no token from {}: {words}", oauth2.token_url.without_query());
    let failed = |words: String| Trouble::Theirs(no_token(words));
    let make = || request(oauth2, &secret);
    let Some(request) = make() else { return Err(failed("`auth.oauth2` makes no request".to_owned())) };
    let reply = match client.send(request, make, wait).await {
        Ok(reply) => reply,
        Err(error) => {
            return Err(Trouble::of(&error, |text| {
                let words = text.strip_prefix("the target").map(|rest| format!("the server{rest}"));
                no_token(words.unwrap_or(text))
            }));
        }
    };
    let status = reply.status;
    let body = Secret::from(reply.text(ANSWER_BYTES_MAX, std::future::pending()).await);
    let text = body.expose_str().unwrap_or_default();
    if !status.is_success() {
        return Err(failed(refusal(status.as_u16(), text, &secret)));
    }
    let granted = Granted::parse(text).map_err(|words| failed(words.to_owned()))?;
    Ok(Arc::new(Token { key, lifetime: lifetime(granted.expires_in), secret: granted.access_token }))
}

/// Makes the request for a token (RFC 6749 §4.4.2).
fn request(oauth2: &OAuth2, secret: &Secret) -> Option<Request<Full<Bytes>>> {
    let secret = secret.expose_str().ok()?;
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    for (name, value) in [("scope", &oauth2.scope), ("audience", &oauth2.audience)] {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = oauth2.token_url.uri().ok()?.clone();
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, AGENT);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    match oauth2.client_auth {
        // Both parts are form-encoded before (RFC 6749 §2.3.1).
        ClientAuth::Basic => {
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = Secret::from(format!("{}:{}", encoded(&oauth2.client_id), encoded(secret)));
            let value = Secret::from(format!("Basic {}", BASE64_STANDARD.encode(pair.expose())));
            let mut value = HeaderValue::from_bytes(value.expose()).ok()?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        ClientAuth::Post => {
            form.append_pair("client_id", &oauth2.client_id).append_pair("client_secret", secret);
        }
    }
    mark(headers, Agent::Delivery);
    *request.body_mut() = Full::new(Bytes::from(form.finish()));
    Some(request)
}

/// What a server grants (RFC 6749 §5.1).
struct Granted {
    access_token: Secret,
    expires_in: Option<f64>,
}

impl Granted {
    fn parse(text: &str) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Body {
            access_token: Option<Secret>,
            token_type: Option<String>,
            expires_in: Option<Seconds>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Seconds {
            Number(f64),
            /// Some servers send a text.
            Text(String),
        }
        let body: Body =
            serde_json::from_str(text).map_err(|_| "its answer is not a JSON object, or too long")?;
        if let Some(other) = body.token_type
            && !other.eq_ignore_ascii_case("bearer")
        {
            return Err("its token is not of the type Bearer");
        }
        let access_token = body.access_token.ok_or("its answer has no `access_token`")?;
        let is_token = |byte: &u8| byte.is_ascii_graphic();
        if access_token.expose().is_empty() || !access_token.expose().iter().all(is_token) {
            return Err("its `access_token` does not fit into a header");
        }
        let expires_in = body.expires_in.and_then(|seconds| match seconds {
            Seconds::Number(seconds) => Some(seconds),
            Seconds::Text(text) => text.parse().ok(),
        });
        Ok(Self { access_token, expires_in })
    }
}

/// Returns for how long a token is used.
fn lifetime(expires_in: Option<f64>) -> Duration {
    let Some(seconds) = expires_in else { return LIFETIME };
    let whole = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LIFETIME_MAX).min(LIFETIME_MAX);
    whole - MARGIN.min(whole / 10)
}

/// Says what a server answered in place of a token (RFC 6749 §5.2).
fn refusal(status: u16, text: &str, secret: &Secret) -> String {
    #[derive(Deserialize)]
    struct Body {
        error: Option<String>,
        error_description: Option<String>,
    }
    let body = serde_json::from_str(text).unwrap_or(Body { error: None, error_description: None });
    let words = [body.error, body.error_description].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let words = match secret.expose_str() {
        Ok(secret) if !secret.is_empty() => words.replace(secret, "(secret)"),
        Ok(_) | Err(_) => words,
    };
    let words: String = words.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    match words.is_empty() {
        true => format!("it answered {status}"),
        false => format!("it answered {status}: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use waypost_domain::Sealed;

    fn oauth2(client_auth: ClientAuth) -> OAuth2 {
        OAuth2 {
            token_url: "http://id.example/token?tenant=7".parse().unwrap(),
            client_id: "a b".to_owned(),
            client_secret: Sealed::from_bytes(vec![7; 64].into()).unwrap(),
            client_auth,
            scope: Some("read write".to_owned()),
            audience: None,
        }
    }

    async fn body(request: Request<Full<Bytes>>) -> String {
        String::from_utf8(request.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    /// A colon in the name must not pass for the separator: by RFC 6749, both parts are encoded first.
    #[tokio::test]
    async fn a_client_names_itself_in_a_header_or_in_the_body() {
        let secret = Secret::from("s3cret:/".to_owned());
        let basic = request(&oauth2(ClientAuth::Basic), &secret).unwrap();
        let expected = format!("Basic {}", BASE64_STANDARD.encode("a+b:s3cret%3A%2F"));
        assert_eq!(basic.headers()[AUTHORIZATION], *expected);
        assert!(basic.headers()[AUTHORIZATION].is_sensitive());
        assert_eq!(basic.headers()["waypost-agent"], "delivery");
        assert_eq!(basic.uri().to_string(), "http://id.example/token?tenant=7");
        assert_eq!(body(basic).await, "grant_type=client_credentials&scope=read+write");
        let post = request(&OAuth2 { scope: None, ..oauth2(ClientAuth::Post) }, &secret).unwrap();
        assert!(!post.headers().contains_key(AUTHORIZATION));
        let expected = "grant_type=client_credentials&client_id=a+b&client_secret=s3cret%3A%2F";
        assert_eq!(body(post).await, expected);
    }

    #[test]
    fn a_token_is_used_until_shortly_before_its_end() {
        for (expires_in, seconds) in [
            (None, 300),
            (Some(3600.0), 3540),
            (Some(100.0), 90),
            (Some(0.0), 0),
            (Some(-5.0), 0),
            (Some(1e300), 86_340),
            (Some(f64::NAN), 0),
        ] {
            assert_eq!(lifetime(expires_in).as_secs(), seconds, "{expires_in:?}");
        }
    }

    #[test]
    fn an_answer_grants_a_bearer_token_or_says_why_not() {
        let granted = |text| Granted::parse(text).map(|granted| granted.expires_in);
        assert_eq!(granted(r#"{"access_token":"t","token_type":"bearer","expires_in":60}"#), Ok(Some(60.0)));
        assert_eq!(granted(r#"{"access_token":"t","expires_in":"60","scope":"x"}"#), Ok(Some(60.0)));
        for (text, words) in [
            ("", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("{}", "no `access_token`"),
            (r#"{"access_token":""}"#, "fit into a header"),
            (r#"{"access_token":"a\r\nx: y"}"#, "fit into a header"),
            (r#"{"access_token":"t","token_type":"mac"}"#, "Bearer"),
        ] {
            assert!(granted(text).unwrap_err().contains(words), "{text}");
        }
    }

    #[test]
    fn a_refusal_has_the_servers_words_without_the_secret() {
        let secret = Secret::from("s3cret".to_owned());
        let text = r#"{"error":"invalid_client","error_description":"s3cret\u0007 is wrong"}"#;
        assert_eq!(refusal(401, text, &secret), "it answered 401: invalid_client: (secret) is wrong");
        assert_eq!(refusal(500, "<html>s3cret", &secret), "it answered 500");
        let long = format!(r#"{{"error":"{}"}}"#, "x".repeat(5000));
        assert!(refusal(400, &long, &secret).len() < 300);
    }

    #[test]
    fn changed_credentials_have_another_token() {
        let known = oauth2(ClientAuth::Basic);
        assert_eq!(digest(&known), digest(&known.clone()));
        let other = Sealed::from_bytes(vec![8; 64].into()).unwrap();
        for changed in [
            OAuth2 { client_secret: other, ..known.clone() },
            OAuth2 { scope: None, audience: Some("read write".to_owned()), ..known.clone() },
            oauth2(ClientAuth::Post),
        ] {
            assert_ne!(digest(&changed), digest(&known));
        }
    }
}
