//! Every key, once: its name, its default, its help, and the field it sets.

use crate::config::Config;
use crate::config::parse::{self, Parsed};

/// One setting, as files, the environment, flags and `--help` know it.
#[derive(Debug)]
pub struct Key {
    /// The name in a file; `WAYPOST_` and upper case in the environment, kebab case as a flag.
    pub name: &'static str,
    /// The heading it stands under in `--help`.
    pub group: &'static str,
    /// What its value is called in `--help`.
    pub value: &'static str,
    /// Its default as text, empty where there is none.
    pub default: &'static str,
    /// What it is for, in half a sentence.
    pub help: &'static str,
    /// Reads a text into its field.
    pub(crate) set: fn(&mut Config, &str) -> Result<(), String>,
}

impl Key {
    /// Returns the flag's name, without `--`.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// Removed keys, and what to write instead.
pub static RETIRED: &[(&str, &str)] = &[(
    "plugin_networks",
    "`allow_targets` opens networks to plugins and targets alike, and accepts names and ports too: list them there",
)];

const SERVICE: &str = "Service";
const DELIVERY: &str = "Delivery";
const LIMITS: &str = "Limits";
const PLUGINS: &str = "Plugins";
const KEEPING: &str = "Keeping";
const LOGS: &str = "Logs";

/// Every key, in the order of `--help`.
pub static KEYS: &[Key] = &[
    key(
        SERVICE,
        "listen",
        "ADDR:PORT",
        "127.0.0.1:8070",
        "Where to listen: an address or a name, and a port; port 0 takes a free one",
        |c, t| set(&mut c.listen, parse::address(t)),
    ),
    key(
        SERVICE,
        "tls_certificate",
        "FILE",
        "",
        "A PEM file with the certificate: Waypost speaks TLS then, and reads the file again when it changes",
        |c, t| set(&mut c.tls_certificate, parse::file(t)),
    ),
    key(SERVICE, "tls_key", "FILE", "", "A PEM file with the certificate's key", |c, t| {
        set(&mut c.tls_key, parse::file(t))
    }),
    key(
        SERVICE,
        "tls_client_ca",
        "FILE",
        "",
        "A PEM file with the CAs of client certificates, whose common name is the user",
        |c, t| set(&mut c.tls_client_ca, parse::file(t)),
    ),
    key(SERVICE, "data", "DIR", "./waypost-data", "The data folder, created when it is missing", |c, t| {
        set(&mut c.data, parse::path(t))
    }),
    key(
        SERVICE,
        "master_key_file",
        "FILE",
        "",
        "The key that seals the secrets in the data folder [default: master.key there, made at the first start]",
        |c, t| set(&mut c.master_key_file, parse::file(t)),
    ),
    key(
        SERVICE,
        "policy_url",
        "URL",
        "",
        "The policy server; without it everyone may see everything",
        |c, t| set(&mut c.policy_url, parse::url(t)),
    ),
    key(
        SERVICE,
        "policy_plugin",
        "FILE",
        "",
        "A policy plugin, the alternative to a policy server",
        |c, t| set(&mut c.policy_plugin, parse::file(t)),
    ),
    key(SERVICE, "policy_plugin_config", "FILE", "", "A JSON file with its configuration", |c, t| {
        set(&mut c.policy_plugin_config, parse::file(t))
    }),
    key(
        SERVICE,
        "default_user",
        "USER",
        "anonymous",
        "The user of a request from this machine that names none; empty for no user",
        |c, t| set(&mut c.default_user, parse::name(t)),
    ),
    key(SERVICE, "user_header", "NAME", "Http-Remote-User", "The header with the user's name", |c, t| {
        set(&mut c.user_header, parse::header(t))
    }),
    key(
        SERVICE,
        "admin_users",
        "USERS",
        "",
        "The users who may see everything, separated by commas [default: the default user while listening on loopback only]",
        |c, t| set(&mut c.admin_users, parse::names(t)),
    ),
    key(
        SERVICE,
        "trusted_proxies",
        "NETS",
        "127.0.0.0/8,::1/128",
        "The networks whose user header is believed, separated by commas",
        |c, t| set(&mut c.trusted_proxies, parse::networks(t)),
    ),
    key(
        SERVICE,
        "receive_auth",
        "WAY",
        "",
        "What /receive asks of senders: none, token or signature [default: what every route asks]",
        |c, t| set(&mut c.receive_auth, parse::receive_auth(t)),
    ),
    key(
        SERVICE,
        "receive_secrets",
        "FILE",
        "",
        "The secrets of producers that sign: a name, a space and `whsec_…` on each line",
        |c, t| set(&mut c.receive_secrets, parse::file(t)),
    ),
    key(
        SERVICE,
        "public_url",
        "URL",
        "",
        "Where people reach this Waypost: `https://waypost.example`",
        |c, t| set(&mut c.public_url, parse::url(t)),
    ),
    key(
        SERVICE,
        "allowed_hosts",
        "NAMES",
        "",
        "Host names of this Waypost besides localhost and addresses, separated by commas",
        |c, t| set(&mut c.allowed_hosts, parse::hosts(t)),
    ),
    key(
        SERVICE,
        "allowed_origins",
        "ORIGINS",
        "",
        "Origins of other web pages that may send requests, separated by commas",
        |c, t| set(&mut c.allowed_origins, parse::origins(t)),
    ),
    key(
        SERVICE,
        "filter_dialect_default",
        "DIALECT",
        "auto",
        "The language of filters that do not name theirs: auto, rfc9535 or jsonpath2",
        |c, t| set(&mut c.filter_dialect_default, parse::dialect(t)),
    ),
    key(
        DELIVERY,
        "retry_schedule",
        "WAITS",
        "5s,5m,30m,2h,5h,10h,14h,20h,24h",
        "The waits between a delivery's attempts, or `none`",
        |c, t| set(&mut c.retry_schedule, parse::schedule(t)),
    ),
    key(DELIVERY, "attempt_timeout_ms", "MS", "30000", "The longest one attempt may take", |c, t| {
        set(&mut c.attempt_timeout, parse::millis(t))
    }),
    key(
        DELIVERY,
        "connect_timeout_ms",
        "MS",
        "10000",
        "The longest a connection may take to open",
        |c, t| set(&mut c.connect_timeout, parse::millis(t)),
    ),
    key(
        DELIVERY,
        "webhook_origin",
        "NAME",
        "",
        "The DNS name with which targets are asked for their consent; without it this machine's name",
        |c, t| set(&mut c.webhook_origin, parse::host(t)),
    ),
    key(
        DELIVERY,
        "dead_letter_url",
        "URL",
        "",
        "Where an event is sent for each dead letter of a subscription that has no dead_letter_url of its own",
        |c, t| set(&mut c.dead_letter_url, parse::url(t)),
    ),
    key(DELIVERY, "policy_timeout_ms", "MS", "10000", "The longest the policy server may take", |c, t| {
        set(&mut c.policy_timeout, parse::millis(t))
    }),
    key(DELIVERY, "in_flight_max", "N", "512", "The most attempts under way at once", |c, t| {
        set(&mut c.in_flight_max, parse::number(t))
    }),
    key(DELIVERY, "subscription_in_flight_max", "N", "64", "The same for one subscription", |c, t| {
        set(&mut c.subscription_in_flight_max, parse::number(t))
    }),
    key(
        DELIVERY,
        "recover_events_per_second",
        "N",
        "2000",
        "The most logged events that all recoveries read in a second, and deliveries that all jobs handle",
        |c, t| set(&mut c.recover_events_per_second, parse::number(t)),
    ),
    key(
        DELIVERY,
        "allow_targets",
        "TARGETS",
        "",
        "What is open besides public addresses: networks, addresses, names, `*.suffix`, each with or without `:port`, separated by commas",
        |c, t| set(&mut c.allow_targets, parse::targets(t)),
    ),
    key(DELIVERY, "deny_targets", "TARGETS", "", "What is refused, even if it is open otherwise", |c, t| {
        set(&mut c.deny_targets, parse::targets(t))
    }),
    key(
        DELIVERY,
        "http_proxy",
        "URL",
        "",
        "The proxy for deliveries and for the HTTP of plugins and programs: `http://user:password@host:port`",
        |c, t| set(&mut c.http_proxy, parse::proxy(t)),
    ),
    key(LIMITS, "event_bytes_max", "BYTES", "1048576", "The largest body of /receive", |c, t| {
        set(&mut c.event_bytes_max, parse::number(t))
    }),
    key(LIMITS, "subscription_bytes_max", "BYTES", "262144", "The largest body of /eventmatch", |c, t| {
        set(&mut c.subscription_bytes_max, parse::number(t))
    }),
    key(
        LIMITS,
        "accept_bytes_max",
        "BYTES",
        "67108864",
        "The most memory for events that wait to be written to disk, with their deliveries",
        |c, t| set(&mut c.accept_bytes_max, parse::number(t)),
    ),
    key(
        LIMITS,
        "backlog_max",
        "N",
        "1000000",
        "The most deliveries that wait because this machine is busy, before /receive answers 503",
        |c, t| set(&mut c.backlog_max, parse::number(t)),
    ),
    key(
        LIMITS,
        "address_requests_per_second",
        "N",
        "5000",
        "The most requests a second from one address, except this machine's; 0 for no limit",
        |c, t| set(&mut c.address_requests_per_second, parse::number(t)),
    ),
    key(LIMITS, "user_requests_per_second", "N", "5000", "The same for one user", |c, t| {
        set(&mut c.user_requests_per_second, parse::number(t))
    }),
    key(LIMITS, "connections_max", "N", "1024", "The most connections open at once", |c, t| {
        set(&mut c.connections_max, parse::number(t))
    }),
    key(LIMITS, "header_timeout_ms", "MS", "10000", "The longest a request's headers may take", |c, t| {
        set(&mut c.header_timeout, parse::millis(t))
    }),
    key(LIMITS, "body_timeout_ms", "MS", "30000", "The longest a request's body may take", |c, t| {
        set(&mut c.body_timeout, parse::millis(t))
    }),
    key(
        LIMITS,
        "idle_timeout_ms",
        "MS",
        "75000",
        "How long a connection may wait for its next request",
        |c, t| set(&mut c.idle_timeout, parse::millis(t)),
    ),
    key(
        LIMITS,
        "bodies_bytes_max",
        "BYTES",
        "",
        "The most bytes that bodies of requests take at once [default: 256 MiB, or four of the largest]",
        |c, t| set(&mut c.bodies_bytes_max, parse::number(t).map(Some)),
    ),
    key(PLUGINS, "plugin_time_ms", "MS", "250", "The longest a plugin may take for one delivery", |c, t| {
        set(&mut c.plugin_time, parse::millis(t))
    }),
    key(PLUGINS, "plugin_memory_bytes", "BYTES", "67108864", "The most memory of one call", |c, t| {
        set(&mut c.plugin_memory_bytes, parse::number(t))
    }),
    key(
        PLUGINS,
        "plugin_memory_total_bytes",
        "BYTES",
        "1073741824",
        "The most memory of all calls at once",
        |c, t| set(&mut c.plugin_memory_total_bytes, parse::number(t)),
    ),
    key(PLUGINS, "plugin_output_bytes", "BYTES", "1048576", "The most output of one call", |c, t| {
        set(&mut c.plugin_output_bytes, parse::number(t))
    }),
    key(PLUGINS, "plugin_log_bytes", "BYTES", "65536", "The most log lines of one call", |c, t| {
        set(&mut c.plugin_log_bytes, parse::number(t))
    }),
    key(
        PLUGINS,
        "plugin_success_log_bytes",
        "BYTES",
        "4096",
        "The most log lines that are kept of a call that did not fail",
        |c, t| set(&mut c.plugin_success_log_bytes, parse::number(t)),
    ),
    key(
        PLUGINS,
        "plugin_state_bytes",
        "BYTES",
        "1048576",
        "The most state of a subscription's plugin",
        |c, t| set(&mut c.plugin_state_bytes, parse::number(t)),
    ),
    key(
        PLUGINS,
        "plugin_state_keys",
        "N",
        "1000",
        "The most keys of state of a subscription's plugin",
        |c, t| set(&mut c.plugin_state_keys, parse::number(t)),
    ),
    key(PLUGINS, "plugin_bytes_max", "BYTES", "33554432", "The largest module", |c, t| {
        set(&mut c.plugin_bytes_max, parse::number(t))
    }),
    key(
        PLUGINS,
        "plugin_storage_bytes_max",
        "BYTES",
        "4294967296",
        "The most space that modules take on disk",
        |c, t| set(&mut c.plugin_storage_bytes_max, parse::number(t)),
    ),
    key(
        PLUGINS,
        "plugin_user_storage_bytes_max",
        "BYTES",
        "",
        "The most of that for one user [default: a quarter of it]",
        |c, t| set(&mut c.plugin_user_storage_bytes_max, parse::number(t).map(Some)),
    ),
    key(
        PLUGINS,
        "plugin_compile_time_ms",
        "MS",
        "60000",
        "The longest that compiling a module may take",
        |c, t| set(&mut c.plugin_compile_time, parse::millis(t)),
    ),
    key(
        PLUGINS,
        "plugin_compile_memory_bytes",
        "BYTES",
        "4294967296",
        "The most memory that compiling a module may take",
        |c, t| set(&mut c.plugin_compile_memory_bytes, parse::number(t)),
    ),
    key(
        PLUGINS,
        "plugin_headers",
        "NAMES",
        "",
        "Headers that plugins may set besides the usual ones, separated by commas; `x-acme-*` for all with this prefix",
        |c, t| set(&mut c.plugin_headers, parse::headers(t)),
    ),
    key(
        PLUGINS,
        "plugin_threads",
        "N",
        "0",
        "The threads that run plugins; 0 for one per processor",
        |c, t| set(&mut c.plugin_threads, parse::number(t)),
    ),
    key(
        PLUGINS,
        "plugin_compiler",
        "FILE",
        "",
        "The program that compiles modules [default: this program]",
        |c, t| set(&mut c.plugin_compiler, parse::file(t)),
    ),
    key(KEEPING, "user_bytes_max", "BYTES", "1073741824", "The most that is kept for one user", |c, t| {
        set(&mut c.user_bytes_max, parse::number(t))
    }),
    key(KEEPING, "user_subscriptions_max", "N", "200000", "The most subscriptions of one user", |c, t| {
        set(&mut c.user_subscriptions_max, parse::number(t))
    }),
    key(KEEPING, "user_tokens_max", "N", "100", "The most tokens of one user", |c, t| {
        set(&mut c.user_tokens_max, parse::number(t))
    }),
    key(
        KEEPING,
        "user_recoveries_max",
        "N",
        "100",
        "The most recoveries and jobs that run at once for one user",
        |c, t| set(&mut c.user_recoveries_max, parse::number(t)),
    ),
    key(KEEPING, "user_modules_max", "N", "1000", "The most modules of one user", |c, t| {
        set(&mut c.user_modules_max, parse::number(t))
    }),
    key(KEEPING, "retention", "TIME", "30d", "How long events are kept; 0 keeps them for ever", |c, t| {
        set(&mut c.retention, parse::period(t))
    }),
    key(
        KEEPING,
        "backlog_retention",
        "TIME",
        "30d",
        "How long deliveries wait for a disabled subscription; 0 lets them wait for ever",
        |c, t| set(&mut c.backlog_retention, parse::period(t)),
    ),
    key(
        KEEPING,
        "max_disk_bytes",
        "BYTES",
        "0",
        "The most that the data folder may have; 0 sets no limit",
        |c, t| set(&mut c.max_disk_bytes, parse::number(t).map(|max: u64| (max > 0).then_some(max))),
    ),
    key(
        KEEPING,
        "audit_retention",
        "TIME",
        "400d",
        "How long the audit is kept; 0 keeps it for ever",
        |c, t| set(&mut c.audit_retention, parse::period(t)),
    ),
    key(
        KEEPING,
        "dedup_window",
        "TIME",
        "0",
        "How long a repeated event is answered with the id of the first; 0 accepts it as a new one",
        |c, t| set(&mut c.dedup_window, parse::period(t)),
    ),
    key(
        KEEPING,
        "shutdown_grace_ms",
        "MS",
        "10000",
        "How long a shutdown waits for work under way",
        |c, t| set(&mut c.shutdown_grace, parse::millis(t)),
    ),
    key(LOGS, "log_format", "FORMAT", "text", "How log lines look: text or json", |c, t| {
        set(&mut c.log_format, parse::log_format(t))
    }),
    key(
        LOGS,
        "log_level",
        "LEVEL",
        "info",
        "The lowest level that is logged: error, warn, info, debug, trace",
        |c, t| set(&mut c.log_level, parse::log_level(t)),
    ),
];

const fn key(
    group: &'static str,
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
    set: fn(&mut Config, &str) -> Result<(), String>,
) -> Key {
    Key { name, group, value, default, help, set }
}

fn set<T>(field: &mut T, parsed: Parsed<T>) -> Result<(), String> {
    *field = parsed?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The defaults in `--help` are written separately from `Config::default()`.
    #[test]
    fn the_listed_defaults_are_those_of_the_type() {
        let mut config = Config::default();
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            (key.set)(&mut config, key.default).unwrap();
            assert_eq!(config, Config::default(), "{}", key.name);
        }
    }

    #[test]
    fn every_field_has_one_key() {
        let fields = format!("{:#?}", Config::default())
            .lines()
            .filter(|line| line.starts_with("    ") && !line.starts_with("     ") && line.contains(':'))
            .count();
        // Handlers are tables, which only the file has.
        assert_eq!(fields - 1, KEYS.len());
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KEYS.len());
    }

    /// Returns the manual's table of all settings.
    fn table() -> String {
        let rows = KEYS.iter().map(|key| {
            let default =
                if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
            let (variable, flag) = (key.name.to_uppercase(), key.flag());
            let help = key.help.replace('|', "\\|");
            format!("| `{}` | `WAYPOST_{variable}` | `--{flag}` | {default} | {help} |\n", key.name)
        });
        let head = "| key | environment | flag | default | |\n|---|---|---|---|---|\n";
        head.to_owned() + &rows.collect::<String>()
    }

    /// `WAYPOST_UPDATE_MANUAL=1 cargo test -p waypost --lib the_manual` writes it.
    #[test]
    fn the_manual_lists_every_setting_as_help_does() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let text = std::fs::read_to_string(page).unwrap();
        let begin = text.find("| key |").unwrap();
        let end = begin + text[begin..].find("\n\n").unwrap() + 1;
        if std::env::var_os("WAYPOST_UPDATE_MANUAL").is_some() {
            std::fs::write(page, format!("{}{}{}", &text[..begin], table(), &text[end..])).unwrap();
        } else {
            assert_eq!(&text[begin..end], table());
        }
    }
}
