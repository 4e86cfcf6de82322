//! What an operator can choose.
//!
//! A [`Config`] is plain data: [`crate::Builder`] sets its keys one by one, the binary reads one from a file, the
//! environment and flags by [`Config::load`]. [`KEYS`] lists every key once, for reading, for `--help` and
//! for error messages. `service` splits a `Config`, so that each module gets its own part only.
//!
//! ```
//! # use waypost::config::Config;
//! let config = Config { event_bytes_max: 64 * 1024, ..Config::default() };
//! assert!(config.check().is_ok());
//! ```

mod check;
mod error;
mod handlers;
mod keys;
mod kubernetes;
mod load;
mod note;
mod parse;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::Url;

use crate::identity::{self, ReceiveAuth};
use waypost_domain::{FilterDialect, RetrySchedule};
use waypost_engine::modules::Room;
use waypost_handlers::Definition;
use waypost_net::{Guard, HeaderPattern, Proxy, Rules, TargetPattern};
use waypost_sandbox::{self as plugin, CompileLimits, CompilerProcess};
use waypost_secrets::KeyFile;

pub use error::{Error, Invalid};
pub use keys::{KEYS, Key, RETIRED};
pub use load::{CA_FILE_VARIABLE, ENV_PREFIX, Loaded, SetBy, Sources, TOKEN_VARIABLE};
pub use note::Note;

/// The memory for the bodies of requests: 1024 connections with 64 KiB each take a quarter of it.
const BODIES_BYTES: usize = 256 * 1024 * 1024;

/// Every setting of a Waypost, each with a default that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen; port 0 takes a free one. Default `127.0.0.1:8070`.
    pub listen: SocketAddr,
    /// A PEM file with the certificate chain of the listener, which then speaks TLS only. Default none.
    pub tls_certificate: Option<PathBuf>,
    /// A PEM file with the certificate's key. Default none.
    pub tls_key: Option<PathBuf>,
    /// A PEM file with the CAs of client certificates, whose common name is the user. Default none: clients
    /// are not asked for a certificate.
    pub tls_client_ca: Option<PathBuf>,
    /// The folder with the redb file, created when it is missing. Default `./waypost-data`.
    pub data: PathBuf,
    /// The file with the master key, which seals the secrets in the data folder. Default none: `master.key` in
    /// [`data`](Self::data), made at the first start.
    pub master_key_file: Option<PathBuf>,
    /// The policy server, asked by `POST {policy_url}/events/{user}`. Default none: everyone may see everything.
    pub policy_url: Option<Url>,
    /// The operator's policy plugin, a component that exports `policy`; the alternative to `policy_url`. Default none.
    pub policy_plugin: Option<PathBuf>,
    /// A file with the policy plugin's configuration, one JSON object. Default none: `{}`.
    pub policy_plugin_config: Option<PathBuf>,
    /// The user of a request from this machine that names none; empty for no user. It does not apply where
    /// others can send requests: where [`listen`](Self::listen) is not loopback, or there is a
    /// [`public_url`](Self::public_url). Default `anonymous`.
    pub default_user: String,
    /// The header with the user's name, believed from [`trusted_proxies`](Self::trusted_proxies) only. Default
    /// `Http-Remote-User`.
    pub user_header: HeaderName,
    /// Who may see the whole log and everyone's deliveries; `None` is [`Config::admins`]'s default.
    pub admin_users: Option<Vec<String>>,
    /// The networks whose requests may name a user. Default loopback: `127.0.0.0/8,::1/128`.
    pub trusted_proxies: Vec<IpNet>,
    /// What `/receive` asks of senders; `None` for what every route asks. Default none.
    pub receive_auth: Option<ReceiveAuth>,
    /// A file with the secrets of producers that sign their events. Default none.
    pub receive_secrets: Option<PathBuf>,
    /// The URL under which people reach this Waypost; its name is one of [`allowed_hosts`](Self::allowed_hosts), its origin
    /// one of [`allowed_origins`](Self::allowed_origins). Default none.
    pub public_url: Option<Url>,
    /// Host names that requests may use besides `localhost` and addresses, in lower case: `name`, `*.name`
    /// for all names below it, `*` for any. Always checked while [`listen`](Self::listen) is a loopback
    /// address, elsewhere only if there are some. Default none.
    pub allowed_hosts: Vec<String>,
    /// Origins of other web pages that may send requests, as browsers write them: `https://portal.example`. Default
    /// none.
    pub allowed_origins: Vec<String>,

    /// Where deliveries and the HTTP of plugins and programs may go besides public addresses. Default none.
    /// Deliveries and programs may also use loopback while [`listen`](Self::listen) is a loopback address and
    /// there is no [`public_url`](Self::public_url).
    pub allow_targets: Vec<TargetPattern>,
    /// Where they may not go, even if it is open otherwise. Default none.
    pub deny_targets: Vec<TargetPattern>,
    /// The proxy that they use. Default none; the proxy settings of the environment are ignored.
    pub http_proxy: Option<Proxy>,

    /// The language of a filter that does not name its own. Default `auto`: the text of the filter decides.
    pub filter_dialect_default: FilterDialect,

    /// The waits between a delivery's attempts. Default `5s,5m,30m,2h,5h,10h,14h,20h,24h`.
    pub retry_schedule: RetrySchedule,
    /// The longest one attempt may take, all in all. Default 30 s.
    pub attempt_timeout: Duration,
    /// The longest a connection to a target may take to open. Default 10 s.
    pub connect_timeout: Duration,
    /// The DNS name that Waypost gives when it asks a target for its consent (`handshake`). Default none:
    /// this machine's name.
    pub webhook_origin: Option<String>,
    /// Where an event is sent for each dead letter of a subscription that has no `dead_letter_url` of its own. Default none.
    pub dead_letter_url: Option<Url>,
    /// The longest the policy server may take to answer. Default 10 s.
    pub policy_timeout: Duration,
    /// The most attempts under way at once. Default 512.
    pub in_flight_max: u32,
    /// The most attempts under way at once for one subscription. Default 64.
    pub subscription_in_flight_max: u32,
    /// The most logged events that all recoveries together read in a second, and deliveries that all jobs together handle.
    /// Default 2000.
    pub recover_events_per_second: u32,

    /// The largest body of `/receive`, in bytes. Default 1 MiB.
    pub event_bytes_max: usize,
    /// The largest body of `/eventmatch`, in bytes. Default 256 KiB.
    pub subscription_bytes_max: usize,
    /// The most memory for events that wait to be written to disk, with 64 bytes for each delivery that they
    /// cause. Default 64 MiB.
    pub accept_bytes_max: usize,
    /// The most deliveries that may wait because this machine is busy, and not because of their targets. With
    /// more, `/receive` answers 503. Default 1,000,000.
    pub backlog_max: u64,
    /// The most requests per second, and at once, from one address or one IPv6 /64 network; 0 for no limit.
    /// Requests from this machine do not count. Default 5000.
    pub address_requests_per_second: u32,
    /// The same for one user.
    pub user_requests_per_second: u32,
    /// The most connections open at once. Default 1024.
    pub connections_max: usize,
    /// The longest a request's headers may take to arrive. Default 10 s.
    pub header_timeout: Duration,
    /// The longest a request's body may take to arrive. Default 30 s.
    pub body_timeout: Duration,
    /// How long a connection may wait for its next request, or a client may not read what is sent to it.
    /// Default 75 s.
    pub idle_timeout: Duration,
    /// The most that the bodies of all requests under way may take, in bytes. Default none:
    /// [`Config::bodies_bytes`]'s.
    pub bodies_bytes_max: Option<usize>,

    /// The longest that a plugin may take for one delivery. Default 250 ms.
    pub plugin_time: Duration,
    /// The most linear memory of one call, in bytes. Default 64 MiB.
    pub plugin_memory_bytes: usize,
    /// The most linear memory of all calls at once, in bytes. Default 1 GiB.
    pub plugin_memory_total_bytes: usize,
    /// The most output of one call, in bytes. Default 1 MiB.
    pub plugin_output_bytes: usize,
    /// The most log lines of one call, in bytes. Default 64 KiB.
    pub plugin_log_bytes: usize,
    /// The most log lines that the story keeps of a call that did not fail, in bytes: the last ones. Default 4 KiB.
    pub plugin_success_log_bytes: usize,
    /// The most state that a subscription's plugin keeps, in bytes. Default 1 MiB.
    pub plugin_state_bytes: usize,
    /// The most keys of state that a subscription's plugin keeps. Default 1000.
    pub plugin_state_keys: usize,
    /// The largest module, in bytes. Default 32 MiB.
    pub plugin_bytes_max: usize,
    /// The most space that modules take on disk, compiled forms included, in bytes. Default 4 GiB.
    pub plugin_storage_bytes_max: u64,
    /// The most of that for one user, in bytes: for the modules that the user's subscriptions refer to, and recent
    /// uploads. Default none: a quarter of all.
    pub plugin_user_storage_bytes_max: Option<u64>,
    /// The longest that compiling a module may take. Default 60 s.
    pub plugin_compile_time: Duration,
    /// The most memory that compiling a module may take, in bytes of address space. Default 4 GiB.
    pub plugin_compile_memory_bytes: u64,
    /// Headers that plugins may set besides the usual ones. Default none.
    pub plugin_headers: Vec<HeaderPattern>,
    /// How many threads run plugins. Default 0: as many as the machine has processors.
    pub plugin_threads: u32,
    /// The `waypost` program, which compiles modules in a process of its own. Default none: the `waypost`
    /// program sets itself; a program that embeds the router has to set this before it can accept modules.
    pub plugin_compiler: Option<PathBuf>,

    /// Programs that run on events' data files: `[[handler]]` in the file. Default none.
    pub handlers: Vec<Definition>,

    /// The most that is kept for one user, in bytes: subscriptions, and what their plugins make, keep and log. Default
    /// 1 GiB.
    pub user_bytes_max: u64,
    /// The most subscriptions of one user. Default 200,000.
    pub user_subscriptions_max: u32,
    /// The most recoveries that run at once for one user's subscriptions. Default 100.
    pub user_recoveries_max: u32,
    /// The most tokens of one user. Default 100.
    pub user_tokens_max: u32,
    /// The most modules that one user's subscriptions refer to, with recent uploads. Default 1000.
    pub user_modules_max: u32,
    /// How long events are kept; `None` keeps them for ever. Default 30 days.
    pub retention: Option<Duration>,
    /// How long deliveries wait for a disabled subscription; `None` lets them wait for ever. Default 30 days.
    pub backlog_retention: Option<Duration>,
    /// The most bytes that the data folder may have; `None` (the default) for as many as the disk has. At the limit, events
    /// that nothing waits for go, oldest first, and then no event is accepted.
    pub max_disk_bytes: Option<u64>,
    /// How long the audit is kept; `None` keeps it for ever. Default 400 days.
    pub audit_retention: Option<Duration>,
    /// How long a second event with the same source and id is answered with the first's id; `None` (the default)
    /// accepts it as a new one.
    pub dedup_window: Option<Duration>,
    /// How long a shutdown waits for what is under way. Default 10 s.
    pub shutdown_grace: Duration,

    /// How log lines look. Default text.
    pub log_format: LogFormat,
    /// The least severe lines that are logged. Default info.
    pub log_level: LogLevel,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One readable line each, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe lines that are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// What an operator must look at.
    Error,
    /// What may become an error.
    Warn,
    /// What happened, a few lines for each start and stop.
    #[default]
    Info,
    /// Each request and each attempt.
    Debug,
    /// Everything.
    Trace,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8070)),
            tls_certificate: None,
            tls_key: None,
            tls_client_ca: None,
            data: PathBuf::from("./waypost-data"),
            master_key_file: None,
            policy_url: None,
            policy_plugin: None,
            policy_plugin_config: None,
            default_user: "anonymous".to_owned(),
            user_header: HeaderName::from_static("http-remote-user"),
            admin_users: None,
            trusted_proxies: vec![
                IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
                IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
            ],
            receive_auth: None,
            receive_secrets: None,
            public_url: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            allow_targets: Vec::new(),
            deny_targets: Vec::new(),
            http_proxy: None,
            filter_dialect_default: FilterDialect::default(),
            retry_schedule: RetrySchedule::default(),
            attempt_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            webhook_origin: None,
            dead_letter_url: None,
            policy_timeout: Duration::from_secs(10),
            in_flight_max: 512,
            subscription_in_flight_max: 64,
            recover_events_per_second: 2000,
            event_bytes_max: 1024 * 1024,
            subscription_bytes_max: 256 * 1024,
            accept_bytes_max: 64 * 1024 * 1024,
            backlog_max: 1_000_000,
            address_requests_per_second: 5000,
            user_requests_per_second: 5000,
            connections_max: 1024,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            bodies_bytes_max: None,
            plugin_time: Duration::from_millis(250),
            plugin_memory_bytes: 64 * 1024 * 1024,
            plugin_memory_total_bytes: 1024 * 1024 * 1024,
            plugin_output_bytes: 1024 * 1024,
            plugin_log_bytes: 64 * 1024,
            plugin_success_log_bytes: 4 * 1024,
            plugin_state_bytes: 1024 * 1024,
            plugin_state_keys: 1000,
            plugin_bytes_max: 32 * 1024 * 1024,
            plugin_storage_bytes_max: 4 * 1024 * 1024 * 1024,
            plugin_user_storage_bytes_max: None,
            plugin_compile_time: Duration::from_secs(60),
            plugin_compile_memory_bytes: 4 * 1024 * 1024 * 1024,
            plugin_headers: Vec::new(),
            plugin_threads: 0,
            plugin_compiler: None,
            handlers: Vec::new(),
            user_bytes_max: 1024 * 1024 * 1024,
            user_subscriptions_max: 200_000,
            user_recoveries_max: 100,
            user_tokens_max: 100,
            user_modules_max: 1000,
            retention: Some(Duration::from_secs(30 * 24 * 60 * 60)),
            backlog_retention: Some(Duration::from_secs(30 * 24 * 60 * 60)),
            max_disk_bytes: None,
            audit_retention: Some(Duration::from_secs(400 * 24 * 60 * 60)),
            dedup_window: None,
            shutdown_grace: Duration::from_secs(10),
            log_format: LogFormat::default(),
            log_level: LogLevel::default(),
        }
    }
}

impl Config {
    /// Returns the admins: [`admin_users`](Self::admin_users) if given, else the default user while only this machine
    /// can reach the listener and there is no [`public_url`](Self::public_url), else none.
    pub fn admins(&self) -> Vec<String> {
        match &self.admin_users {
            Some(users) => users.clone(),
            None if self.is_private() && !self.default_user.is_empty() => vec![self.default_user.clone()],
            None => Vec::new(),
        }
    }

    /// Tells whether only this machine can reach the listener.
    pub fn is_local(&self) -> bool {
        self.listen.ip().is_loopback()
    }

    /// Tells whether all requests come from this machine: nothing else can reach the listener, and no proxy
    /// has a public URL for it.
    fn is_private(&self) -> bool {
        self.is_local() && self.public_url.is_none()
    }

    /// Tells whether the operator has named the trusted proxies.
    fn names_proxies(&self) -> bool {
        self.trusted_proxies != Self::default().trusted_proxies
    }

    /// Tells whether a setting identifies users of other machines.
    pub(crate) fn knows_strangers(&self) -> bool {
        self.names_proxies() || self.receive_auth.is_some() || self.tls_client_ca.is_some()
    }

    /// Returns how the users of requests are identified.
    pub(crate) fn identity(&self) -> identity::Settings {
        let is_tls = self.tls_certificate.is_some()
            || self.public_url.as_ref().is_some_and(|url| url.scheme() == "https");
        // Behind a proxy on this machine, all requests come from this machine. And a page in a browser on
        // this machine may reach a public listener under a host name of its own (DNS rebinding).
        let default_user = if self.is_private() { &*self.default_user } else { "" };
        identity::Settings {
            user_header: self.user_header.clone(),
            default_user: default_user.to_owned(),
            trusted: self.trusted_proxies.clone(),
            names_proxies: self.names_proxies(),
            is_private: self.is_private(),
            admins: self.admins(),
            receive: self.receive_auth,
            cookie: if is_tls || self.is_private() { "__Host-waypost" } else { "waypost" },
        }
    }

    /// Returns where the master key lies.
    pub fn key_file(&self) -> KeyFile {
        self.master_key_file.clone().map_or_else(|| KeyFile::In(self.data.clone()), KeyFile::At)
    }

    /// Returns the guard for requests on others' behalf.
    pub fn guard(&self) -> Guard {
        Guard::new(self.user_header.clone(), self.plugin_headers.clone()).with(Rules {
            allow: self.allow_targets.clone(),
            deny: self.deny_targets.clone(),
            is_local: self.is_private(),
            proxy: self.http_proxy.clone(),
        })
    }

    /// Returns the most bytes that the bodies of all requests under way may take:
    /// [`bodies_bytes_max`](Self::bodies_bytes_max) if given, else 256 MiB, or four times the largest body.
    pub fn bodies_bytes(&self) -> usize {
        self.bodies_bytes_max.unwrap_or_else(|| BODIES_BYTES.max(self.largest_body().saturating_mul(4)))
    }

    /// Returns the limit of the largest body: an event, or a module with its subscription.
    fn largest_body(&self) -> usize {
        self.event_bytes_max.max(self.subscription_bytes_max.saturating_add(self.plugin_bytes_max))
    }

    /// Returns the settings of the sandbox. Compiled modules lie in the data folder, beside the store.
    pub fn sandbox(&self, guard: Arc<Guard>) -> plugin::Settings {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        plugin::Settings {
            limits: plugin::Limits {
                time: self.plugin_time,
                memory_bytes: self.plugin_memory_bytes,
                output_bytes: self.plugin_output_bytes,
                log_bytes: self.plugin_log_bytes,
                state_bytes: self.plugin_state_bytes,
                state_keys: self.plugin_state_keys,
            },
            compile: CompileLimits {
                module_bytes: self.plugin_bytes_max,
                time: self.plugin_compile_time,
                memory_bytes: self.plugin_compile_memory_bytes,
            },
            folder: self.data.join("compiled"),
            compiler: self.plugin_compiler.clone().map(CompilerProcess::Program),
            guard,
            memory_total_bytes: self.plugin_memory_total_bytes,
            threads: match self.plugin_threads {
                0 => processors,
                threads => as_count(threads),
            },
        }
    }
}

impl Config {
    /// Returns how much modules may take on disk.
    pub(crate) fn room(&self) -> Room {
        let bytes_max = self.plugin_storage_bytes_max;
        let own = self.plugin_user_storage_bytes_max.unwrap_or(bytes_max / USERS_WITH_ROOM);
        Room { bytes_max, user_bytes_max: own.min(bytes_max), user_modules_max: self.user_modules_max }
    }
}

/// How many users can store modules up to their own limit, unless the operator sets that limit.
const USERS_WITH_ROOM: u64 = 4;

pub(crate) fn as_count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
