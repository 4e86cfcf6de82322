use std::sync::LazyLock;

use axum::response::IntoResponse;
use http_body_util::BodyExt;

use serde_json::json;

use super::*;
use waypost_domain::event::{ContentMode, EventFormat, StructuredType};
use waypost_domain::{Auth, RetrySchedule};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn later() -> Timestamp {
    Timestamp::from_second(1_800_000_001).unwrap()
}

static VAULT: LazyLock<Vault> = LazyLock::new(Vault::unkept);

static SERVICE_KEY: LazyLock<ServiceKey> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    ServiceKey::load(folder.path(), &VAULT).unwrap()
});

fn create(
    body: Map<String, Value>,
    user: String,
    dialect: FilterDialect,
    now: Timestamp,
) -> Result<Subscription, ApiError> {
    super::create(body, user, dialect, Fixed::default(), &VAULT, now)
}

fn update(
    body: Map<String, Value>,
    to: &mut Subscription,
    dialect: FilterDialect,
    now: Timestamp,
) -> Result<(), ApiError> {
    super::update(body, to, dialect, &VAULT, now)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

/// Returns a complete body with these members in place of its own.
fn body(over: Value) -> Map<String, Value> {
    let mut body = object(json!({"name": "n", "jsonpath": "$", "target_url": "http://localhost/"}));
    for (name, value) in object(over) {
        body.insert(name, value);
    }
    body
}

fn created(over: Value) -> Subscription {
    create(body(over), "alice".to_owned(), FilterDialect::Auto, now()).unwrap()
}

fn shown(subscription: &Subscription) -> Value {
    let filter = Filter::parse(&subscription.jsonpath, subscription.filter_dialect).ok();
    let known = CompiledSubscription {
        subscription: subscription.clone().into(),
        filter: filter.map(Into::into),
        revision: Default::default(),
    };
    let shown = show(&known, subscription.is_active().then(|| "scan".to_owned()), &SERVICE_KEY);
    serde_json::to_value(shown).unwrap()
}

fn updated(from: &Subscription, over: Value) -> Subscription {
    let mut to = from.clone();
    update(object(over), &mut to, FilterDialect::Auto, later()).unwrap();
    to
}

/// Asserts that a body is refused as a whole, and returns the pointer to what is wrong.
async fn pointer(refused: Result<(), ApiError>, body: &Value) -> String {
    let response = refused.expect_err(&body.to_string()).into_response();
    assert_eq!(response.status(), 422, "{body}");
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert!(!answer["detail"].as_str().unwrap().contains("s3cret"), "{answer}");
    answer["pointer"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_missing_member_is_named() {
    for name in ["name", "jsonpath", "target_url"] {
        let mut body = body(json!({}));
        body.remove(name);
        let refused = create(body, "alice".to_owned(), FilterDialect::Auto, now()).map(drop);
        assert_eq!(pointer(refused, &json!(name)).await, format!("/{name}"));
    }
}

#[tokio::test]
async fn a_wrong_member_is_named_on_post_and_on_put() {
    let basic = |basic: Value| json!({"type": "basic", "basic": basic});
    let header = |header: Value| json!({"type": "header", "header": header});
    let wrong = [
        ("/name", json!({"name": null})),
        ("/name", json!({"name": 1})),
        ("/name", json!({"name": "x".repeat(NAME_CHARS_MAX + 1)})),
        ("/jsonpath", json!({"jsonpath": null})),
        ("/jsonpath", json!({"jsonpath": "$["})),
        ("/jsonpath", json!({"jsonpath": ["$"]})),
        ("/jsonpath", json!({"jsonpath": "$[?@.a == 1]", "filter_dialect": "jsonpath2"})),
        ("/jsonpath", json!({"jsonpath": "$[?(@.a = 1)]", "filter_dialect": "rfc9535"})),
        ("/filter_dialect", json!({"filter_dialect": "RFC 9535"})),
        ("/filter_dialect", json!({"filter_dialect": 2})),
        ("/target_url", json!({"target_url": "/path"})),
        ("/target_url", json!({"target_url": "ftp://host/"})),
        ("/target_url", json!({"target_url": "http://u:s3cret@host/"})),
        ("/target_url", json!({"target_url": "http://host/\r\nx: y"})),
        ("/version", json!({"version": 1})),
        ("/extensions", json!({"extensions": []})),
        ("/extensions", json!({"extensions": "x"})),
        ("/auth", json!({"auth": "s3cret"})),
        ("/auth", json!({"auth": {"type": 1}})),
        ("/auth/type", json!({"auth": {"type": "digest"}})),
        ("/auth/type", json!({"auth": {"basic": {"username": "u", "password": "s3cret"}}})),
        ("/auth/basic/username", json!({"auth": basic(json!({}))})),
        ("/auth/basic/username", json!({"auth": {"type": "basic"}})),
        ("/auth/basic/username", json!({"auth": basic(json!({"username": "a:b", "password": "s3cret"}))})),
        ("/auth/basic/password", json!({"auth": basic(json!({"username": "u"}))})),
        ("/auth/basic/password", json!({"auth": basic(json!({"username": "u", "password": "s3cret\n"}))})),
        ("/auth/header/type", json!({"auth": header(json!({"credentials": "s3cret"}))})),
        ("/auth/header/type", json!({"auth": header(json!({"type": "B\r\nX: y", "credentials": "s3cret"}))})),
        ("/auth/header/credentials", json!({"auth": header(json!({"type": "Bearer"}))})),
        (
            "/auth/header/credentials",
            json!({"auth": header(json!({"type": "B", "credentials": "s3cret\r\n"}))}),
        ),
        ("/retry", json!({"retry": 5})),
        ("/retry", json!({"retry": "soon"})),
        ("/retry", json!({"retry": "31d"})),
        ("/timeout_ms", json!({"timeout_ms": "1"})),
        ("/timeout_ms", json!({"timeout_ms": 0})),
        ("/timeout_ms", json!({"timeout_ms": -1})),
        ("/timeout_ms", json!({"timeout_ms": 1.5})),
        ("/timeout_ms", json!({"timeout_ms": TIMEOUT_MS_MAX + 1})),
        ("/max_in_flight", json!({"max_in_flight": 0})),
        ("/max_in_flight", json!({"max_in_flight": 1u64 << 32})),
        ("/rate_limit", json!({"rate_limit": "50"})),
        ("/rate_limit", json!({"rate_limit": "0/s"})),
        ("/rate_limit", json!({"rate_limit": 50})),
        ("/dead_letter_url", json!({"dead_letter_url": "ftp://h/"})),
        ("/dead_letter_url", json!({"dead_letter_url": 7})),
        ("/ordering", json!({"ordering": "lifo"})),
        ("/ordering", json!({"ordering": {"keys": "$.id"}})),
        ("/ordering/key", json!({"ordering": {"key": "$."}})),
        ("/on_dead", json!({"ordering": "fifo", "on_dead": "wait"})),
        ("/on_dead", json!({"on_dead": "stop"})),
        ("/event_format", json!({"event_format": "0.3"})),
        ("/content_mode", json!({"content_mode": "batched"})),
        ("/content_type", json!({"content_type": "text/plain"})),
        ("/content_type", json!({"content_type": 1})),
        (
            "/auth/header/credentials",
            json!({"auth": header(json!({"type": "Bearer", "credentials": " \u{a0} "}))}),
        ),
        ("/auth/header/type", json!({"auth": header(json!({"type": "", "credentials": "s3cret"}))})),
        ("/disabled", json!({"disabled": 5})),
        ("/disabled", json!({"disabled": "yesterday"})),
        ("/error", json!({"error": 5})),
    ];
    for (at, over) in wrong {
        let posted = create(body(over.clone()), "alice".to_owned(), FilterDialect::Auto, now()).map(drop);
        assert_eq!(pointer(posted, &over).await, at, "{over}");
        let put = update(object(over.clone()), &mut created(json!({})), FilterDialect::Auto, later());
        assert_eq!(pointer(put, &over).await, at, "{over}");
    }
}

#[test]
fn read_only_members_are_ignored() {
    let read_only = json!({
        "uuid": "x", "user": "root", "created": 1, "updated": {}, "deleted": true, "other": [],
        "filter_dialect_used": "jsonpath2", "warnings": 1, "index": {},
    });
    let subscription = created(read_only.clone());
    assert_eq!((subscription.user.as_str(), subscription.created), ("alice", now()));
    assert_eq!((subscription.updated, subscription.deleted), (now(), None));
    let put = updated(&subscription, read_only);
    assert_eq!(put, Subscription { updated: later(), ..subscription });
}

#[test]
fn the_body_of_a_get_can_be_put_back_and_keeps_the_secret() {
    for auth in [
        json!({}),
        json!({"type": "basic", "basic": {"username": "u", "password": "s3cret"}}),
        json!({"type": "header", "header": {"type": "Bearer", "credentials": "s3cret"}}),
    ] {
        let subscription = created(json!({
            "auth": auth, "extensions": {"a": 1}, "retry": "5s,5m", "timeout_ms": 100, "max_in_flight": 2,
            "event_format": "1.0", "content_mode": "binary", "content_type": "application/json",
            "disabled": "2026-01-31T12:00:00Z", "error": "why",
        }));
        for (name, sealed) in subscription.secrets() {
            let opened = VAULT.open(Label::new(name, subscription.id.uuid()), sealed).unwrap();
            assert_eq!(opened.expose(), b"s3cret");
        }
        let shown = shown(&subscription);
        assert!(!format!("{shown} {subscription:?}").contains("s3cret"), "{shown}");
        let put = updated(&subscription, shown.clone());
        assert_eq!(put, Subscription { updated: later(), ..subscription });
    }
}

#[test]
fn what_a_put_leaves_out_stays_and_null_resets() {
    let subscription = created(json!({
        "version": "v2", "extensions": {"a": 1}, "retry": "none", "timeout_ms": 1, "max_in_flight": 1,
        "event_format": "1.0", "content_mode": "binary", "content_type": "application/json",
        "auth": {"type": "header", "header": {"type": "Bearer", "credentials": "s3cret"}},
    }));
    assert_eq!(subscription.retry, Some(RetrySchedule::NONE));
    assert_eq!(updated(&subscription, json!({})), Subscription { updated: later(), ..subscription.clone() });
    let reset = updated(
        &subscription,
        json!({
            "version": null, "extensions": null, "retry": null, "timeout_ms": null, "max_in_flight": null,
            "event_format": null, "content_mode": null, "content_type": null, "auth": null,
        }),
    );
    assert_eq!((reset.version.as_str(), reset.extensions.len(), reset.auth), (VERSION, 0, Auth::None));
    assert_eq!((reset.retry, reset.timeout, reset.max_in_flight), (None, None, None));
    assert_eq!((reset.event_format, reset.content_mode), (EventFormat::default(), ContentMode::default()));
    assert_eq!(
        (subscription.content_type, reset.content_type),
        (StructuredType::Json, StructuredType::CloudEvents)
    );
}

#[test]
fn the_filter_is_shown_as_it_was_read() {
    let rfc9535 = created(json!({"jsonpath": "$.a"}));
    let answer = shown(&rfc9535);
    assert_eq!(
        (&answer["filter_dialect"], &answer["filter_dialect_used"]),
        (&json!("auto"), &json!("rfc9535"))
    );
    assert_eq!((&answer["warnings"], &answer["index"]), (&json!([]), &json!("scan")));
    let wrong = Subscription { jsonpath: "$[".to_owned(), ..rfc9535 };
    let paused = updated(&wrong, json!({"disabled": "2027-01-15T08:00:01Z"}));
    let answer = shown(&paused);
    assert_eq!((&answer["filter_dialect_used"], &answer["index"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn the_filter_and_its_dialect_are_read_together() {
    let mut subscription = created(json!({"jsonpath": "$[?(@.a = 1)]", "filter_dialect": "jsonpath2"}));
    for over in [json!({"filter_dialect": "rfc9535"}), json!({"jsonpath": "$[?@.a == 1]"})] {
        let refused = update(object(over.clone()), &mut subscription.clone(), FilterDialect::Auto, later());
        assert_eq!(pointer(refused, &over).await, "/jsonpath", "{over}");
    }
    let both = json!({"jsonpath": "$[?@.a == 1]", "filter_dialect": "rfc9535"});
    update(object(both), &mut subscription, FilterDialect::Auto, later()).unwrap();
    assert_eq!(subscription.filter_dialect, FilterDialect::Rfc9535);
    let reset = updated(&subscription, json!({"filter_dialect": null}));
    assert_eq!(reset.filter_dialect, FilterDialect::Auto);
}

#[tokio::test]
async fn another_kind_of_auth_does_not_inherit_the_secret() {
    let basic = json!({"type": "basic", "basic": {"username": "u", "password": "s3cret"}});
    let mut subscription = created(json!({"auth": basic}));
    let header = json!({"auth": {"type": "header", "header": {"type": "Bearer"}}});
    let refused = update(object(header.clone()), &mut subscription, FilterDialect::Auto, later());
    assert_eq!(pointer(refused, &header).await, "/auth/header/credentials");
}

#[test]
fn a_time_disables_and_null_enables_again() {
    let (none, enabled) = (None, Activity::Enabled);
    let subscription = created(json!({}));
    assert_eq!(subscription.activity, enabled);
    let disabled =
        |since: Timestamp, error: Option<&str>| Activity::Disabled { since, error: error.map(str::to_owned) };
    let paused = updated(&subscription, json!({"disabled": "2027-01-15T08:00:01Z"}));
    assert_eq!(paused.activity, disabled(later(), none));
    // As Pacifica writes it, without an offset.
    let naive = updated(&subscription, json!({"disabled": "2027-01-15T08:00:01.000000", "error": "why"}));
    assert_eq!(naive.activity, disabled(later(), Some("why")));
    assert_eq!(updated(&naive, json!({"name": "x"})).activity, naive.activity);
    assert_eq!(updated(&naive, json!({"error": null})).activity, disabled(later(), none));
    assert_eq!(updated(&naive, json!({"disabled": null})).activity, enabled);
    assert_eq!(updated(&subscription, json!({"error": "why"})).activity, enabled);
}

/// `disabled: true` was accepted and `false`, its opposite, was not.
#[test]
fn true_disables_from_now_on_and_false_enables() {
    let subscription = created(json!({"disabled": false}));
    assert_eq!(subscription.activity, Activity::Enabled);
    let paused = updated(&subscription, json!({"disabled": true}));
    assert_eq!(paused.activity, Activity::Disabled { since: later(), error: None });
    let mut again = paused.clone();
    let much_later = Timestamp::from_second(1_900_000_000).unwrap();
    update(object(json!({"disabled": true})), &mut again, FilterDialect::Auto, much_later).unwrap();
    assert_eq!(again.activity, paused.activity, "it has been since then");
    assert_eq!(updated(&paused, json!({"disabled": false})).activity, Activity::Enabled);
}

/// The setting may change, but not what a filter means, so the language of a filter is stored with it.
#[test]
fn a_filter_without_a_dialect_gets_the_default_and_keeps_it() {
    let text = "$.data[*][?(@.size > 1000)]";
    let default = FilterDialect::Jsonpath2;
    let mut kept = create(body(json!({"jsonpath": text})), "alice".to_owned(), default, now()).unwrap();
    assert_eq!(shown(&kept)["filter_dialect"], "jsonpath2");
    let auto = create(body(json!({"filter_dialect": "auto"})), "alice".to_owned(), default, now()).unwrap();
    assert_eq!(auto.filter_dialect, FilterDialect::Auto, "an explicit auto stays");
    update(object(json!({"jsonpath": "$.a"})), &mut kept, FilterDialect::Rfc9535, later()).unwrap();
    assert_eq!(kept.filter_dialect, FilterDialect::Jsonpath2);
    update(object(json!({"filter_dialect": null})), &mut kept, FilterDialect::Rfc9535, later()).unwrap();
    assert_eq!(kept.filter_dialect, FilterDialect::Rfc9535);
}
