//! Faults of others: targets, clients and policy servers that do what none should. Beside each there is a healthy
//! subscription, which stays fast, and at the end a ledger: accepted = delivered + dead + waiting.

mod clients;
mod clock;
mod cut;
mod http2;
mod policy;
mod replacing;
mod targets;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::harness::{Authority, Server, Target, event, merged, wait_until};

/// Within which a healthy subscription gets an event, on a machine that is busy with other tests.
const PROMPT: Duration = Duration::from_secs(20);
/// How much more memory the service may take whatever targets do: caches and pools, in a debug build. What grows with the
/// number of connections is allowed by its test.
const MEMORY_MAX: u64 = 64 * 1024 * 1024;
/// The user who sees the counts of all.
const ADMIN: &str = "root";
/// The type of events that faulty subscriptions match, too.
const FAULTY: &str = "it.faulty";

/// A server with a healthy subscription, and the events that it has accepted.
struct Scene {
    server: Server,
    healthy: Target,
    /// The UUID of each subscription, and whether it matches all events or only [`FAULTY`] ones.
    subscriptions: HashMap<String, (String, bool)>,
    accepted: Vec<String>,
    faulty: usize,
    memory: u64,
    memory_max: u64,
}

impl Scene {
    async fn with(flags: &[&str]) -> Self {
        let flags = [&["--admin-users", ADMIN], flags].concat();
        let (server, healthy) = (Server::with(&flags).await, Target::start().await);
        let memory = server.peak_bytes();
        let mut scene = Self {
            server,
            healthy,
            subscriptions: HashMap::new(),
            accepted: Vec::new(),
            faulty: 0,
            memory,
            memory_max: MEMORY_MAX,
        };
        scene.subscribe("healthy", json!({"target_url": scene.healthy.url("/healthy")})).await;
        scene
    }

    /// Adds a subscription to all events, of its own user, so that no limit of one counts for another.
    async fn subscribe(&mut self, name: &str, fields: Value) -> String {
        let uuid = self.server.user(name).subscribe(fields).await;
        self.subscriptions.insert(name.to_owned(), (uuid.clone(), true));
        uuid
    }

    /// Adds one whose target fails. It matches only what [`Self::fault`] sends: a failure may disable it, and what comes
    /// afterwards it would not match.
    async fn subscribe_faulty(&mut self, name: &str, target: impl Into<String>, more: Value) -> String {
        let fields = json!({"target_url": target.into(), "jsonpath": format!("$[?@=='{FAULTY}']")});
        let uuid = self.server.user(name).subscribe(merged(fields, more)).await;
        self.subscriptions.insert(name.to_owned(), (uuid.clone(), false));
        uuid
    }

    /// Sends an event, which the healthy subscription gets in time.
    async fn send(&mut self) -> String {
        let number = self.accepted.len() + 1;
        self.accept(&event(&format!("event-{number}"))).await
    }

    /// Sends an event that faulty subscriptions match, too.
    async fn fault(&mut self) -> String {
        self.fault_with(json!({})).await
    }

    /// The same, with these members.
    async fn fault_with(&mut self, more: Value) -> String {
        self.faulty += 1;
        let faulty = merged(event(&format!("faulty-{}", self.faulty)), json!({"eventType": FAULTY}));
        self.accept(&merged(faulty, more)).await
    }

    async fn accept(&mut self, event: &Value) -> String {
        let begun = Instant::now();
        let id = self.server.receive(event).await;
        self.accepted.push(id.clone());
        self.healthy.wait_for("/healthy", self.accepted.len()).await;
        let took = begun.elapsed();
        assert!(took < PROMPT, "the healthy subscription has waited {took:?}");
        id
    }

    /// Returns how many deliveries of a subscription are in each state, as an admin sees it.
    async fn counts(&self, name: &str) -> Value {
        let path = format!("/eventmatch/{}/deliveries?limit=1", self.subscriptions[name].0);
        self.server.user(ADMIN).get(&path).await.ok().json()["counts"].clone()
    }

    /// Waits until no delivery of a subscription waits, and returns how many were delivered and how many are dead.
    ///
    /// # Panics
    /// When an accepted event is not delivered, dead or waiting.
    async fn ends(&self, name: &str) -> (u64, u64) {
        let owed = if self.subscriptions[name].1 { self.accepted.len() } else { self.faulty };
        wait_until(&format!("no delivery of {name} waits"), async || {
            let counts = self.counts(name).await;
            let count = |state: &str| counts[state].as_u64().unwrap();
            let sum: u64 = counts.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
            assert_eq!(sum, owed as u64, "{name}: {counts}");
            (count("delivered") + count("dead") == sum).then(|| (count("delivered"), count("dead")))
        })
        .await
    }

    /// Checks the ledger and the memory at the end.
    async fn close(mut self) {
        self.send().await;
        assert_eq!(self.ends("healthy").await, (self.accepted.len() as u64, 0));
        for name in self.subscriptions.keys() {
            self.ends(name).await;
        }
        let grown = self.server.peak_bytes().saturating_sub(self.memory);
        assert!(grown < self.memory_max, "it took {grown} bytes more");
        assert!(self.server.is_running());
    }
}

/// Returns the server's side of TLS, with a certificate of `authority`, for these protocols.
fn acceptor(authority: &Authority, protocols: &[&str]) -> TlsAcceptor {
    let pair = authority.server();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(vec![pair.der()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}
