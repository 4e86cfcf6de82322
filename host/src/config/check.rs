//! Checks on settings that their types cannot express.

use std::time::Duration;

use crate::config::{Config, Invalid, as_count};
use crate::identity::ReceiveAuth;
use waypost_domain::TargetUrl;
use waypost_net::without_credentials;

/// The largest body limit: 1 GiB, since a body is held in memory.
const BYTES_MAX: usize = 1024 * 1024 * 1024;
/// The most memory for bodies: 1 TiB.
const BODIES_BYTES_MAX: usize = 1024 * BYTES_MAX;
/// The most memory of a plugin: the size of a slot of the instance pool.
const PLUGIN_MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The upper limit of every count.
const COUNT_MAX: usize = 1_000_000;
/// The smallest limit of the data folder: 16 MiB. An empty one has about 2 MiB, and compiled modules are large.
const DISK_BYTES_MIN: u64 = 16 * 1024 * 1024;
/// The longest timeout: a day.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest retention: a hundred years, so that no computed time lies outside the calendar.
const PERIOD_MAX: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

impl Config {
    /// Checks what the types allow but the service cannot use: limits of zero, a policy URL that is not HTTP,
    /// empty names.
    ///
    /// # Errors
    /// Names the first setting that is invalid.
    pub fn check(&self) -> Result<(), Invalid> {
        let (in_flight, each) = (self.in_flight_max as usize, self.subscription_in_flight_max as usize);
        within("event_bytes_max", self.event_bytes_max, BYTES_MAX)?;
        within("subscription_bytes_max", self.subscription_bytes_max, BYTES_MAX)?;
        within("accept_bytes_max", self.accept_bytes_max, usize::MAX)?;
        within("connections_max", self.connections_max, COUNT_MAX)?;
        within("in_flight_max", in_flight, COUNT_MAX)?;
        within("subscription_in_flight_max", each, COUNT_MAX)?;
        within("recover_events_per_second", self.recover_events_per_second as usize, COUNT_MAX)?;
        ensure("backlog_max", self.backlog_max > 0, || "expected 1 or more, found 0".to_owned())?;
        ensure("user_bytes_max", self.user_bytes_max > 0, || "expected 1 or more, found 0".to_owned())?;
        let enough = self.max_disk_bytes.is_none_or(|max| max >= DISK_BYTES_MIN);
        ensure("max_disk_bytes", enough, || {
            format!(
                "expected 0 (no limit), or {DISK_BYTES_MIN} or more, found {}",
                self.max_disk_bytes.unwrap_or(0)
            )
        })?;
        within("user_subscriptions_max", as_count(self.user_subscriptions_max), COUNT_MAX)?;
        within("user_tokens_max", as_count(self.user_tokens_max), COUNT_MAX)?;
        within("user_recoveries_max", as_count(self.user_recoveries_max), COUNT_MAX)?;
        within("user_modules_max", as_count(self.user_modules_max), COUNT_MAX)?;
        for (key, rate) in [
            ("address_requests_per_second", self.address_requests_per_second),
            ("user_requests_per_second", self.user_requests_per_second),
        ] {
            ensure(key, as_count(rate) <= COUNT_MAX, || format!("expected 0 to {COUNT_MAX}, found {rate}"))?;
        }
        self.check_tls()?;
        self.check_plugins()?;
        // A quarter of the memory is reserved for small bodies. And a compressed body may be held twice:
        // first compressed and decoded, then decoded and split into parts.
        let (room, least) = (self.bodies_bytes(), self.largest_body().saturating_mul(3));
        ensure("bodies_bytes_max", (least..=BODIES_BYTES_MAX).contains(&room), || {
            format!("expected {least} (three times the largest body) to {BODIES_BYTES_MAX}, found {room}")
        })?;
        let both = self.policy_plugin.is_some() && self.policy_url.is_some();
        ensure("policy_plugin", !both, || "expected either this or policy_url, found both".to_owned())?;

        let least = Duration::from_millis(1);
        for (key, timeout, least) in [
            ("header_timeout_ms", self.header_timeout, least),
            ("body_timeout_ms", self.body_timeout, least),
            ("idle_timeout_ms", self.idle_timeout, least),
            ("attempt_timeout_ms", self.attempt_timeout, least),
            ("connect_timeout_ms", self.connect_timeout, least),
            ("policy_timeout_ms", self.policy_timeout, least),
            ("plugin_time_ms", self.plugin_time, least),
            ("plugin_compile_time_ms", self.plugin_compile_time, least),
            ("shutdown_grace_ms", self.shutdown_grace, Duration::ZERO),
        ] {
            let [low, found, high] = [least, timeout, TIMEOUT_MAX].map(|time| time.as_millis());
            ensure(key, (low..=high).contains(&found), || {
                format!("expected {low} to {high}, found {found}")
            })?;
        }
        for (key, period) in [
            ("retention", self.retention),
            ("backlog_retention", self.backlog_retention),
            ("audit_retention", self.audit_retention),
            ("dedup_window", self.dedup_window),
        ] {
            ensure(key, period.is_none_or(|period| period <= PERIOD_MAX), || {
                "expected at most 36500d".to_owned()
            })?;
        }

        let no_path = self.data.as_os_str().is_empty();
        ensure("data", !no_path, || "expected a folder, found nothing".to_owned())?;
        if !self.default_user.is_empty() {
            user("default_user", &self.default_user)?;
        }
        let (signs, has_secrets) =
            (self.receive_auth == Some(ReceiveAuth::Signature), self.receive_secrets.is_some());
        ensure("receive_secrets", signs == has_secrets, || {
            let found = if has_secrets { "receive_secrets alone" } else { "receive_auth alone" };
            format!("expected it together with receive_auth = \"signature\", found {found}")
        })?;
        let is_web = self
            .public_url
            .as_ref()
            .is_none_or(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        ensure("public_url", is_web, || "expected an http or https URL".to_owned())?;
        user_header(self.user_header.as_str())?;
        self.admin_users.iter().flatten().try_for_each(|name| user("admin_users", name))?;
        self.dead_letter_url.as_ref().map_or(Ok(()), dead_letter_url)?;
        self.policy_url.as_ref().map_or(Ok(()), policy_url)
    }

    /// Refuses half a TLS configuration: a certificate without its key, or client CAs without a certificate,
    /// would be plain HTTP that looks like TLS.
    fn check_tls(&self) -> Result<(), Invalid> {
        let requires = |key, other: &'static str| {
            move || format!("expected {other} to be set too: `{key}` alone does not enable TLS")
        };
        let (certificate, key) = (self.tls_certificate.is_some(), self.tls_key.is_some());
        ensure("tls_certificate", key || !certificate, requires("tls_certificate", "tls_key"))?;
        ensure("tls_key", certificate || !key, requires("tls_key", "tls_certificate"))?;
        let has_ca = self.tls_client_ca.is_some();
        ensure("tls_client_ca", certificate || !has_ca, requires("tls_client_ca", "tls_certificate"))
    }

    fn check_plugins(&self) -> Result<(), Invalid> {
        within("plugin_memory_bytes", self.plugin_memory_bytes, PLUGIN_MEMORY_BYTES_MAX)?;
        let (one, all) = (self.plugin_memory_bytes, self.plugin_memory_total_bytes);
        ensure("plugin_memory_total_bytes", all >= one, || {
            format!("expected at least plugin_memory_bytes, which is {one}, found {all}")
        })?;
        within("plugin_output_bytes", self.plugin_output_bytes, BYTES_MAX)?;
        within("plugin_log_bytes", self.plugin_log_bytes, BYTES_MAX)?;
        ensure("plugin_success_log_bytes", self.plugin_success_log_bytes <= BYTES_MAX, || {
            format!("expected 0 to {BYTES_MAX}, found {}", self.plugin_success_log_bytes)
        })?;
        within("plugin_state_bytes", self.plugin_state_bytes, BYTES_MAX)?;
        within("plugin_state_keys", self.plugin_state_keys, COUNT_MAX)?;
        within("plugin_bytes_max", self.plugin_bytes_max, BYTES_MAX)?;
        ensure("plugin_threads", self.plugin_threads <= 1024, || {
            format!("expected 0 to 1024, found {}", self.plugin_threads)
        })
    }
}

fn within(key: &'static str, number: usize, most: usize) -> Result<(), Invalid> {
    ensure(key, (1..=most).contains(&number), || format!("expected 1 to {most}, found {number}"))
}

/// Checks a user name. It goes into a header and into log lines, so it has no control characters and no white
/// space at its ends.
fn user(key: &'static str, name: &str) -> Result<(), Invalid> {
    let good = !name.is_empty() && name.trim() == name && !name.contains(char::is_control);
    ensure(key, good, || format!("expected a user's name, found {name:?}"))
}

/// Refuses a header that events and deliveries use for something else: an attribute of an event would name
/// the user.
fn user_header(name: &str) -> Result<(), Invalid> {
    let is_taken = ["ce-", "webhook-", "waypost-"].iter().any(|start| name.starts_with(start))
        || matches!(name, "authorization" | "content-type" | "content-length" | "host" | "user-agent");
    ensure("user_header", !is_taken, || {
        format!(
            "expected a header that only names the user, found `{name}`, which requests use for something else"
        )
    })
}

/// Checks the policy URL. A path is appended to it, so it must have neither a query nor a fragment.
fn policy_url(url: &reqwest::Url) -> Result<(), Invalid> {
    let shown = || without_credentials(url);
    let web = matches!(url.scheme(), "http" | "https") && url.has_host();
    ensure("policy_url", web, || format!("expected an http or https URL, found `{}`", shown()))?;
    let bare = url.query().is_none() && url.fragment().is_none();
    ensure("policy_url", bare, || format!("expected a URL without `?` and `#`, found `{}`", shown()))
}

/// Checks the URL of dead letters, as the target of a subscription is.
fn dead_letter_url(url: &reqwest::Url) -> Result<(), Invalid> {
    let parsed = url.as_str().parse::<TargetUrl>();
    ensure("dead_letter_url", parsed.is_ok(), || {
        let error = parsed.err().map(|error| error.to_string()).unwrap_or_default();
        format!("expected the URL of a target, found `{}`, which {error}", without_credentials(url))
    })
}

fn ensure(key: &'static str, holds: bool, reason: impl FnOnce() -> String) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid { key, reason: reason() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_the_policy_url_does_not_show_its_password() {
        for url in ["http://me:hush@policy.example/?a", "ftp://me:hush@policy.example"] {
            let config = Config { policy_url: Some(url.parse().unwrap()), ..Config::default() };
            let refused = config.check().unwrap_err();
            assert!(refused.reason.contains("policy.example"), "{}", refused.reason);
            assert!(!refused.reason.contains("hush"), "{}", refused.reason);
        }
    }

    /// With the smallest allowed memory for bodies, a compressed upload of the largest module was always answered with
    /// 503.
    #[test]
    fn the_room_for_bodies_has_the_largest_one_packed_and_unpacked() {
        let with = |bodies: usize| {
            let sizes = Config { event_bytes_max: 10, subscription_bytes_max: 10, ..Config::default() };
            Config { plugin_bytes_max: 90, bodies_bytes_max: Some(bodies), ..sizes }.check()
        };
        assert!(with(300).is_ok());
        let refused = with(299).unwrap_err();
        assert_eq!(refused.key, "bodies_bytes_max");
        assert!(
            refused.reason.contains("expected 300 (three times the largest body) to "),
            "{}",
            refused.reason
        );
    }
}
