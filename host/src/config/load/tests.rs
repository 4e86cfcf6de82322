use std::fs;
use std::time::Duration;

use insta::assert_snapshot;

use super::*;

/// Loads settings from a file with this TOML, and from lines of `key=value`.
fn load(toml: &str, environment: &str, flags: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("waypost.toml");
    fs::write(&path, toml).unwrap();
    let pairs = |lines: &str| -> BTreeMap<String, String> {
        lines.lines().map(|line| line.split_once('=').unwrap()).map(|(k, v)| (k.into(), v.into())).collect()
    };
    let (environment, flags) = (pairs(environment), pairs(flags));
    let sources = Sources { file: Some(path), environment, flags, ..Sources::default() };
    let folder = format!("{}/", folder.path().display());
    Config::load(sources).map_err(|error| error.to_string().replace(&folder, ""))
}

/// Returns the error of each file, environment or flag, one per line.
fn errors<const N: usize>(cases: [(Source, &str); N]) -> String {
    let error = |(source, text): (Source, &str)| match source {
        Source::File => load(text, "", "").unwrap_err(),
        Source::Environment => load("", text, "").unwrap_err(),
        Source::Flag => load("", "", text).unwrap_err(),
    };
    cases.map(error).join("\n")
}

enum Source {
    File,
    Environment,
    Flag,
}

#[test]
fn nothing_given_is_the_default() {
    assert_eq!(Config::load(Sources::default()), Ok(Config::default()));
    assert_eq!(load("", "", ""), Ok(Config::default()));
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file = "connections_max = 1\nin_flight_max = 1\nevent_bytes_max = 1";
    let config = load(file, "connections_max=2\nin_flight_max=2", "connections_max=3").unwrap();
    assert_eq!((config.connections_max, config.in_flight_max, config.event_bytes_max), (3, 2, 1));
    assert_eq!(config.subscription_bytes_max, 256 * 1024);
}

#[test]
fn reads_every_shape_of_a_file() {
    let config = load(
        r#"
        listen = "[::]:0"
        policy_url = "https://policy.example/base"
        default_user = "007"
        user_header = "X-User"
        admin_users = ["ann", "bob"]
        trusted_proxies = ["10.0.0.0/8", "::1"]
        retry_schedule = "none"
        attempt_timeout_ms = 1500
        retention = "0"
        dedup_window = "12h"
        log_format = "json"
        log_level = "debug"
        "#,
        "",
        "",
    );
    let expected = Config {
        listen: "[::]:0".parse().unwrap(),
        policy_url: Some("https://policy.example/base".parse().unwrap()),
        default_user: "007".to_owned(),
        user_header: http::HeaderName::from_static("x-user"),
        admin_users: Some(vec!["ann".to_owned(), "bob".to_owned()]),
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        retry_schedule: waypost_domain::RetrySchedule::NONE,
        attempt_timeout: Duration::from_millis(1500),
        retention: None,
        dedup_window: Some(Duration::from_secs(12 * 60 * 60)),
        log_format: crate::config::LogFormat::Json,
        log_level: crate::config::LogLevel::Debug,
        ..Config::default()
    };
    assert_eq!(config, Ok(expected));
}

#[test]
fn the_environment_keeps_texts_and_reads_lists() {
    let config = load("", "default_user=007\nadmin_users=ann, bob\npolicy_url=", "").unwrap();
    assert_eq!(config.default_user, "007");
    assert_eq!(config.admins(), ["ann", "bob"]);
    assert_eq!(config.policy_url, None);
}

#[test]
fn admins_default_to_the_default_user_on_loopback_only() {
    assert_eq!(Config::default().admins(), ["anonymous"]);
    assert_eq!(load("", "", "listen=0.0.0.0:0").unwrap().admins(), [""; 0]);
    // A proxy on this machine forwards requests from elsewhere, and may not mark them as forwarded.
    let proxied = load("", "", "public_url=https://waypost.example").unwrap();
    assert_eq!((proxied.admins(), proxied.identity().default_user), (Vec::new(), String::new()));
    assert_eq!(load("", "", "").unwrap().identity().default_user, "anonymous");
    assert_eq!(load("admin_users = []", "", "").unwrap().admins(), [""; 0]);
}

#[test]
fn an_unknown_key_names_its_source_and_the_nearest() {
    assert_snapshot!(errors([
        (Source::File, "polcy_url = 1"),
        (Source::Environment, "retry_schedul=none"),
        (Source::File, "[http]\nlisten = ':1'"),
        (Source::File, "quux = 1"),
        (Source::Environment, "port=8070"),
        (Source::File, "plugin_networks = ['10.0.0.0/8']"),
    ]), @r#"
    unknown key `polcy_url` in waypost.toml; did you mean `policy_url`?
    unknown key `retry_schedul` in the environment variable WAYPOST_RETRY_SCHEDUL; did you mean `retry_schedule`?
    unknown key `http` in waypost.toml; did you mean `http_proxy`?
    unknown key `quux` in waypost.toml; `waypost serve --help` lists all keys
    unknown key `port` in the environment variable WAYPOST_PORT; did you mean `listen`?
    `plugin_networks` in waypost.toml is no longer a setting: `allow_targets` opens networks to plugins and targets alike, and accepts names and ports too: list them there
    "#);
}

#[test]
fn a_wrong_value_names_its_source_and_what_is_expected() {
    assert_snapshot!(errors([
        (Source::File, "listen = 8070"),
        (Source::Environment, "event_bytes_max=1MB"),
        (Source::Flag, "retry_schedule=5s,5x"),
        (Source::File, "attempt_timeout_ms = '30s'"),
        (Source::File, "attempt_timeout_ms = 1.5"),
        (Source::File, "retention = 30"),
        (Source::File, "trusted_proxies = ['10.0.0.0/8', 'proxy']"),
        (Source::File, "admin_users = ['ann,bob']"),
        (Source::File, "log_format = true"),
        (Source::File, "log_level = 'loud'"),
        (Source::File, "filter_dialect_default = 'jsonpath'"),
        (Source::File, "user_header = 'Remote User'"),
        (Source::File, "policy_url = 'policy'"),
    ]), @r#"
    bad `listen` in waypost.toml: expected an address and a port, such as `127.0.0.1:8070`, found `8070`
    bad `event_bytes_max` in the environment variable WAYPOST_EVENT_BYTES_MAX: expected a whole number, found `1MB`
    bad `retry_schedule` in the flag --retry-schedule: `5x` is not a wait: write a number and a unit (`500ms`, `5s`, `30m`, `2h`, `1d`), or `none` for the whole
    bad `attempt_timeout_ms` in waypost.toml: expected a whole number of milliseconds, found `30s`
    bad `attempt_timeout_ms` in waypost.toml: expected a string or a whole number, found a fraction
    bad `retention` in waypost.toml: expected a number and a unit (`12h`, `30d`), or `0` for none, found `30`
    bad `trusted_proxies` in waypost.toml: expected IP addresses or networks, such as `10.0.0.0/8`, found `proxy`
    bad `admin_users` in waypost.toml: expected items without a comma, found `ann,bob`
    bad `log_format` in waypost.toml: expected a string or a whole number, found `true`
    bad `log_level` in waypost.toml: expected `error`, `warn`, `info`, `debug` or `trace`, found `loud`
    bad `filter_dialect_default` in waypost.toml: expected `auto`, `rfc9535` or `jsonpath2`, found `jsonpath`
    bad `user_header` in waypost.toml: expected a header's name, such as `Http-Remote-User`, found `Remote User`
    bad `policy_url` in waypost.toml: expected a URL, such as `http://policy.example:8181`, found `policy`
    "#);
}

#[test]
fn what_cannot_work_is_refused_with_its_source() {
    assert_snapshot!(errors([
        (Source::Flag, "connections_max=0"),
        (Source::Environment, "subscription_in_flight_max=0"),
        (Source::File, "policy_timeout_ms = 0"),
        (Source::File, "retention = '40000d'"),
        (Source::File, "policy_url = 'ftp://policy.example'"),
        (Source::File, "policy_url = 'http://policy.example/?a=b'"),
        (Source::File, "default_user = ' '"),
        (Source::File, "data = ''"),
        (Source::File, "tls_certificate = 'chain.pem'"),
        (Source::Flag, "tls_key=key.pem"),
        (Source::Environment, "tls_client_ca=ca.pem"),
        (Source::Flag, "user_requests_per_second=1000001"),
        (Source::Flag, "user_subscriptions_max=0"),
    ]), @r#"
    bad `connections_max` in the flag --connections-max: expected 1 to 1000000, found 0
    bad `subscription_in_flight_max` in the environment variable WAYPOST_SUBSCRIPTION_IN_FLIGHT_MAX: expected 1 to 1000000, found 0
    bad `policy_timeout_ms` in waypost.toml: expected 1 to 86400000, found 0
    bad `retention` in waypost.toml: expected at most 36500d
    bad `policy_url` in waypost.toml: expected an http or https URL, found `ftp://policy.example/`
    bad `policy_url` in waypost.toml: expected a URL without `?` and `#`, found `http://policy.example/?a=b`
    bad `default_user` in waypost.toml: expected a user's name, found " "
    bad `data` in waypost.toml: expected a folder, found nothing
    bad `tls_certificate` in waypost.toml: expected tls_key to be set too: `tls_certificate` alone does not enable TLS
    bad `tls_key` in the flag --tls-key: expected tls_certificate to be set too: `tls_key` alone does not enable TLS
    bad `tls_client_ca` in the environment variable WAYPOST_TLS_CLIENT_CA: expected tls_certificate to be set too: `tls_client_ca` alone does not enable TLS
    bad `user_requests_per_second` in the flag --user-requests-per-second: expected 0 to 1000000, found 1000001
    bad `user_subscriptions_max` in the flag --user-subscriptions-max: expected 1 to 1000000, found 0
    "#);
    assert_eq!(load("shutdown_grace_ms = 0", "", "").unwrap().shutdown_grace, Duration::ZERO);
}

#[test]
fn a_bad_file_is_named() {
    assert_snapshot!(errors([(Source::File, "listen = here")]), @r#"
    failed to read the configuration file waypost.toml: TOML parse error at line 1, column 10
      |
    1 | listen = here
      |          ^^^^
    string values must be quoted, expected literal string
    "#);
    let missing = Sources { file: Some("/nowhere/waypost.toml".into()), ..Sources::default() };
    assert_snapshot!(
        Config::load(missing).unwrap_err(),
        @"failed to read the configuration file /nowhere/waypost.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn the_environment_is_sorted_out() {
    let variables = [
        ("WAYPOST_LISTEN", "[::1]:1"),
        ("WAYPOST_CONFIG", "a.toml"),
        ("PATH", "/bin"),
        ("WAYPOST_CA_FILE", "ca.pem"),
    ];
    let sources =
        Sources::from_environment(variables.map(|(name, value)| (name.into(), value.into()))).unwrap();
    assert_eq!(sources.environment, BTreeMap::from([("listen".to_owned(), "[::1]:1".to_owned())]));
    assert_eq!(sources.file, Some(PathBuf::from("a.toml")));
}

/// Kubernetes sets these in each pod of a namespace with a Service named waypost, which caused a crash loop.
#[test]
fn variables_of_a_service_are_not_settings_and_are_noted() {
    let variables = [
        ("WAYPOST_PORT", "tcp://10.0.0.1:8070"),
        ("WAYPOST_SERVICE_HOST", "10.0.0.1"),
        ("WAYPOST_SERVICE_PORT", "8070"),
        ("WAYPOST_LISTEN", "[::1]:1"),
    ];
    let sources =
        Sources::from_environment(variables.map(|(name, value)| (name.into(), value.into()))).unwrap();
    let Loaded { config, notes, .. } = Loaded::from(sources).unwrap();
    assert_eq!(config.listen, "[::1]:1".parse().unwrap());
    let foreign = ["WAYPOST_PORT", "WAYPOST_SERVICE_HOST", "WAYPOST_SERVICE_PORT"].map(str::to_owned);
    assert_eq!(notes, [Note::Foreign { variables: foreign.into() }]);
}
