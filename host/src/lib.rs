//! Waypost routes CloudEvents: programs publish them, people and programs subscribe with a JSONPath, and each event goes,
//! durably and at least once, to everyone whose filter matches and who may see it. This crate is the router to embed;
//! the `waypost` binary is one user of it.
//!
//! ```
//! use waypost::{NewEvent, Waypost};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (sender, mut received) = tokio::sync::mpsc::channel(1);
//! let waypost = Waypost::in_memory().open().await?; // or Waypost::builder("folder")
//! waypost
//!     .subscribe_fn("images", "$.data[?@.kind == 'image']", move |delivery| {
//!         let sender = sender.clone();
//!         async move {
//!             println!("{} of {}", delivery.event.ty(), delivery.event.source());
//!             # sender.send(()).await.ok();
//!             Ok(())
//!         }
//!     })
//!     .await?;
//! let data = serde_json::json!([{"kind": "image"}]);
//! waypost.publish(NewEvent::new("org.example.stored", "/camera").data(data)).await?;
//! # received.recv().await;
//! waypost.shutdown(std::time::Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! [`Waypost::subscribe`] sends to a URL instead, [`Waypost::http`] is the REST API to nest into your own application, and
//! [`Waypost::serve`] serves it. `host/examples` has a program for each, and the [`manual`] all else: filters, retries,
//! signatures, settings.
//!
//! # Features
//!
//! `plugins` (default): WebAssembly plugins. Without it wasmtime is not compiled, and a module is refused as what this
//! program cannot run.
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
//! A `handler` is a program that runs on an event's data files. A run of it is a delivery too, whose recipient is the
//! handler: enqueued in the same commit, for the first handler whose filter matches. Targets and handlers have the same
//! workers (`host/engine/src/worker`), with a deliverer each.
//!
//! A plugin is a WebAssembly component that a subscription may carry: `waypost_engine::modules` keeps it, `waypost_sandbox` runs it, a fresh
//! instance for each delivery. The payload that it renders is frozen on disk (`store::Store::freeze`) before anything of
//! it is sent.
//!
//! A wake couples the two lines: delivery takes its input from the store alone, so a restart after a crash runs the
//! same code as a normal day. `recovery` is the second source of deliveries: it matches the events of the log again,
//! and enqueues what a subscription missed.
//!
//! # Promises
//!
//! 1. A 2xx from `/receive` means that the event and every delivery that it causes are on disk, in one commit
//!    (`store::Store::accept`).
//! 2. At least once: no kill, power cut or full disk loses an accepted delivery. A repeat carries the same
//!    `webhook-id` (`domain::DeliveryId::of`) and the same bytes.
//! 3. One subscription's bad target, slow policy or hostile plugin harms that subscription alone: workers share nothing
//!    but permits for what goes beyond one attempt each (`worker`), and a plugin yields to others and has limits
//!    (`waypost_sandbox`).
//! 4. Nothing is sent to a target, nor shown to its user over REST, nor passed to a subscriber's plugin, before
//!    `policy` has allowed the user to see the event. No answer counts as a denial. (The sender and admins see the
//!    event in any case.) Requests that Waypost sends for users and plugins never claim a user's identity (`net`).
//! 5. Everything has a limit, which its error names: bodies, times, connections, attempts at once, kept answers,
//!    filters, plugins and their compilation, handlers and what they fetch and make, what is kept for a user, and with
//!    [`config::Config::retention`] the log.
//! 6. What happened can be looked up: `/events/{id}` has every match, policy answer, plugin's verdict and attempt, the
//!    filters that gave no answer, and on demand why a subscription did not match.
//! 7. Matching does not slow down with subscriptions that do not match (`matching::Index`).
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
//! api       the bodies of REST, as clients see them
//! domain    nouns; no I/O, no clock                        runtime  time, dice, stages, durable files, processes
//! matching  filters in one index, explained                net      clients of HTTP behind one guard
//! secrets   secrets at rest, signatures                    store    the only one that names redb
//! sandbox   plugins; the only one that names wasmtime      engine   directory, intake, workers, delivery, recovery
//! handlers  programs on data files                         waypost  identity, HTTP, composition (this crate)
//! cli       the binary
//! ```
//!
//! `domain` uses none of them, `matching` only `domain`; neither knows tokio. Absent on purpose: redb outside `store`,
//! wasmtime outside `sandbox`, HTTP statuses outside `http` (those of errors are chosen in `http::error`), the wall clock outside `runtime::clock`, and any
//! global state. Every long task is a `stage`: the end of one ends the service.

mod embed;

#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod http;
#[doc(hidden)]
pub mod identity;
pub mod manual;
#[doc(hidden)]
pub mod service;

#[cfg(feature = "handlers")]
pub use embed::{AddHandler, Handlers};
pub use embed::{
    Builder, Decision, DeliveryStory, EventStory, NewEvent, NewSubscription, OpenError, Policy, PublishError,
    ReadError, Since, Subscription, SubscriptionError, Subscriptions, Waypost,
};
pub use identity::Caller;
pub use waypost_domain::{Entry, Event, EventId, State, SubscriptionId};
pub use waypost_engine::delivery::{FunctionCall as Delivery, FunctionError};
#[cfg(feature = "handlers")]
pub use waypost_handlers::{Destination, Run, Source};
pub use waypost_runtime::stage::DeadStage;
