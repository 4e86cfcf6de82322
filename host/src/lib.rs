//! Waypost: a self-hosted router of CloudEvents, as a library. The `waypost` binary is one user of it.
//!
//! Producers POST events; people keep subscriptions, each a JSONPath filter and a target URL; every event goes,
//! durably and at least once, to everyone whose filter matches and who may see it.
//!
//! # The way of an event
//!
//! ```text
//! POST /receive ─ http ─ domain::event ─ intake ─ matching (one index) ─ store.accept(event, deliveries)
//!                                                                            │ one group-committed write,
//!                                                                            ▼ then 200 and the id; a wake
//!  store.ready ─ worker of a recipient ─ delivery: policy ── plugin ─ request ─ client ─ outcome ── store.settle
//!               reads the store in pages,         may the   policy,  the same   no         delivered | retry at t
//!               a few attempts side by side       user see  filter,  id and     redirects  denied | skipped | dead
//!                                                 it?       trans-   bytes each
//!                                                           form     time
//! ```
//!
//! A [`handler`] is a program that runs on an event's data files. A run of it is a delivery too, whose recipient is the
//! handler: enqueued in the same commit, for the first handler whose filter matches. Targets and handlers have the same
//! workers (`host/engine/src/worker`), with a deliverer each.
//!
//! A plugin is a WebAssembly component that a subscription may carry: [`modules`] keeps it, [`plugin`] runs it, a fresh
//! instance for each delivery. The payload that it renders is frozen on disk ([`store::Store::freeze`]) before anything of
//! it is sent.
//!
//! A wake couples the two lines: delivery takes its input from the store alone, so a restart after a crash runs the
//! same code as a normal day. [`recovery`] is the second source of deliveries: it matches the events of the log again,
//! and enqueues what a subscription missed.
//!
//! # Promises
//!
//! 1. A 2xx from `/receive` means that the event and every delivery that it causes are on disk, in one commit
//!    ([`store::Store::accept`]).
//! 2. At least once: no kill, power cut or full disk loses an accepted delivery. A repeat carries the same
//!    `webhook-id` ([`domain::DeliveryId::of`]) and the same bytes.
//! 3. One subscription's bad target, slow policy or hostile plugin harms that subscription alone: workers share nothing
//!    but permits for what goes beyond one attempt each (`worker`), and a plugin yields to others and has limits
//!    ([`plugin`]).
//! 4. Nothing is sent to a target, nor shown to its user over REST, nor passed to a subscriber's plugin, before
//!    [`policy`] has allowed the user to see the event. No answer counts as a denial. (The sender and admins see the
//!    event in any case.) Requests that Waypost sends for users and plugins never claim a user's identity ([`net`]).
//! 5. Everything has a limit, which its error names: bodies, times, connections, attempts at once, kept answers,
//!    filters, plugins and their compilation, handlers and what they fetch and make, what is kept for a user, and with
//!    [`config::Config::retention`] the log.
//! 6. What happened can be looked up: `/events/{id}` has every match, policy answer, plugin's verdict and attempt, the
//!    filters that gave no answer, and on demand why a subscription did not match.
//! 7. Matching does not slow down with subscriptions that do not match ([`matching::Index`]).
//!
//! # Words
//!
//! The names follow one list, `host/docs/words.md`: one word a meaning, one meaning a word.
//!
//! # Crates
//!
//! Each room is a crate inside `host/`, and their dependencies are the arrows: a crate can use only what its manifest
//! names.
//!
//! ```text
//! domain    nouns; no I/O, no clock                        runtime  time, dice, stages, durable files, processes
//! matching  filters in one index, explained                net      clients of HTTP behind one guard
//! secrets   secrets at rest, signatures                    store    the only one that names redb
//! sandbox   plugins; the only one that names wasmtime      engine   directory, intake, workers, delivery, recovery
//! handlers  programs on data files                         waypost  identity, HTTP, composition (this crate)
//! cli       the binary
//! ```
//!
//! `domain` uses none of them, `matching` only `domain`; neither knows tokio. Absent on purpose: redb outside [`store`],
//! wasmtime outside [`plugin`], HTTP statuses for errors outside `http::error`, the wall clock outside [`clock`], and any
//! global state. Every long task is a [`stage`]: the end of one ends the service.
//!
//! # Embedding
//!
//! ```no_run
//! use waypost::config::Config;
//! use waypost::service::Service;
//!
//! # async fn embed() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config { data: "/var/lib/mine/events".into(), ..Config::default() };
//! let service = Service::open(config).await?;
//! let event = waypost::domain::Event::from_json(
//!     r#"{"specversion": "1.0", "type": "org.example.done", "source": "/mine", "id": "1", "data": {"run": 7}}"#,
//! )?;
//! let ids = service.accept(vec![event], "mine").await?;
//! println!("on disk: {}", ids[0]);
//! service.close().await;
//! # Ok(())
//! # }
//! ```

pub use waypost_domain as domain;
pub use waypost_engine::{delivery, directory, intake, modules, policy, recovery};
pub use waypost_handlers as handler;
pub use waypost_matching as matching;
pub use waypost_net as net;
pub use waypost_runtime::{chain, clock, stage};
pub use waypost_sandbox as plugin;
pub use waypost_secrets::{self as secrets, signing};
pub use waypost_store as store;

pub mod identity;

pub mod http;

pub mod service;

pub mod config;
