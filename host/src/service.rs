//! The composition root: opens and starts the stages, owns them, and stops them in order.
//!
//! Its methods return boxed futures: an async function is compiled again in each crate that awaits it, with all that it
//! awaits.
//!
//! The binary and [`crate::Waypost`], the front door of embedding programs, are its two users.

mod disk;
mod upkeep;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::HeaderValue;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, Config, Invalid};
use crate::http::{self, Api, Connections, Tls};
use crate::identity::{Identity, Producers, ProducersError};
use waypost_domain::{Event, EventId, TargetUrl};
use waypost_engine::announcer::{Announcer, Notices};
use waypost_engine::delivery::{self, Dispatcher, StartError};
use waypost_engine::directory::{Directory, Route};
use waypost_engine::intake::{self, Intake};
use waypost_engine::jobs::Jobs;
use waypost_engine::modules::Modules;
use waypost_engine::policy::{Policy, PolicyPlugin, PolicyPluginError, ProgramPolicy};
use waypost_engine::recovery::Recoveries;
use waypost_handlers::{self as handler, Runs};
#[cfg(feature = "handlers")]
use waypost_handlers::{Deps, upload::Refusal};
use waypost_net::{self as net, Guard};
use waypost_runtime::stage::DeadStage;
use waypost_sandbox::Host;
use waypost_secrets::signing::ServiceKey;
use waypost_secrets::{SealedFileError, Vault};
use waypost_store::redb::{OpenError, Options};
use waypost_store::{self as store, EventHistory, Store};

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is out of its range.
    #[error("the configuration is not valid")]
    Config(#[source] Invalid),
    /// The store cannot be opened.
    #[error("failed to open the store")]
    Open(#[source] OpenError),
    /// The subscriptions cannot be read.
    #[error("failed to read the subscriptions")]
    Read(#[source] store::Error),
    /// The recoveries cannot be read.
    #[error("failed to read the recoveries and jobs")]
    Recoveries(#[source] store::Error),
    /// The policy client cannot be made.
    #[error("failed to make the policy client")]
    Policy(#[source] net::SetUpError),
    /// The policy plugin cannot be used.
    #[error("failed to load the policy plugin (policy_plugin)")]
    PolicyPlugin(#[source] PolicyPluginError),
    /// The listener's TLS cannot be set up.
    #[error("failed to set up TLS of the listener")]
    Tls(#[source] http::TlsError),
    /// A handler cannot be used.
    #[error("failed to load the handlers")]
    Handlers(#[source] handler::Error),
    /// The secrets of producers cannot be used.
    #[error("failed to read the secrets of producers (receive_secrets)")]
    Producers(#[source] ProducersError),
    /// Other machines can ask, and nothing says whom to believe.
    #[error(
        "{listen} can be reached from other machines, and nothing says whom to believe: make a token (`waypost token \
         create --user NAME --admin --data {data}`), or set trusted_proxies, receive_auth or tls_client_ca"
    )]
    Strangers {
        /// Where it would listen (the setting `listen`).
        listen: SocketAddr,
        /// The data folder.
        data: String,
    },
    /// The key that signs deliveries cannot be used.
    #[error("failed to load the signing key")]
    SigningKey(#[source] SealedFileError),
    /// Delivery cannot start.
    #[error("failed to start delivery")]
    Delivery(#[source] StartError),
}

/// A running router: it attempts pending deliveries from the moment it is open.
pub struct Service {
    store: Arc<Store>,
    dispatcher: Arc<Dispatcher>,
    intake: Intake,
    api: Api,
    connections: Connections,
    tls: Option<Arc<Tls>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// The servers of [`Self::serve_on`].
    serving: TaskTracker,
    /// How long work under way may take at the end, unless [`Self::shutdown`] says it ([`Config::shutdown_grace`]).
    grace: Duration,
    /// How long it may take by [`Self::shutdown`].
    granted: OnceLock<Duration>,
}

/// What an embedding program opens a service with, besides a configuration.
#[derive(Default)]
pub(crate) struct Parts {
    /// Where the program serves the routes.
    pub(crate) served_at: Option<SocketAddr>,
    /// Its own policy.
    pub(crate) policy: Option<Arc<dyn ProgramPolicy>>,
    pub(crate) kept: Kept,
}

/// Where a service keeps its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kept {
    /// In its folder.
    #[default]
    OnDisk,
    /// In memory, but for modules and runs, which are in its folder.
    InMemory,
}

impl Service {
    /// Opens the store in `config.data`, creating it when it is missing, and starts to deliver.
    ///
    /// # Errors
    /// When the configuration is not valid or the store cannot be opened.
    pub fn open(config: Config) -> BoxFuture<'static, Result<Self, Error>> {
        Box::pin(async move { Self::open_with(config, Parts::default()).await })
    }

    /// Opens the store as [`Self::open`] does, for a program that serves [`Self::router`] at `served_at` or has that
    /// listener for [`Self::serve`]: no subscription's target and no plugin leads there, from the first delivery on.
    ///
    /// # Errors
    /// When the configuration is not valid or the store cannot be opened.
    pub fn open_at(config: Config, served_at: Option<SocketAddr>) -> BoxFuture<'static, Result<Self, Error>> {
        Box::pin(async move { Self::open_with(config, Parts { served_at, ..Parts::default() }).await })
    }

    /// Opens the store as [`Self::open`] does, with the parts of an embedding program.
    pub(crate) fn open_with(config: Config, parts: Parts) -> BoxFuture<'static, Result<Self, Error>> {
        Box::pin(async move {
            config.check().map_err(Error::Config)?;
            net::tls::install_provider();
            let routes = handler::routes(&config.handlers).map_err(Error::Handlers)?;
            let tls = tls(&config).await?;
            let store = match parts.kept {
                Kept::OnDisk => open_store(&config).await?,
                Kept::InMemory => {
                    Store::in_memory(&config.data, options(&config)).map(Arc::new).map_err(Error::Open)?
                }
            };
            if !config.is_local() && !config.knows_strangers() && store.tokens().is_empty() {
                store.close().await;
                return Err(Error::Strangers {
                    listen: config.listen,
                    data: config.data.display().to_string(),
                });
            }
            let guard = config.guard();
            if let Some(address) = parts.served_at {
                guard.serves_at(address);
            }
            let starting = Self::start(config, routes, Arc::clone(&store), Arc::new(guard), parts.policy);
            let mut service = match Box::pin(starting).await {
                Ok(service) => service,
                Err(error) => {
                    store.close().await;
                    return Err(error);
                }
            };
            service.tls = tls;
            service.watch_tls();
            Ok(service)
        })
    }

    /// Keeps looking at the files of TLS, if there is some.
    fn watch_tls(&self) {
        if let Some(tls) = &self.tls {
            let watching = Arc::clone(tls).watch(self.stop.clone());
            let stage = "the watch over the TLS files";
            self.tasks.spawn(self.store.alarm().watch(stage, self.stop.clone(), watching));
        }
    }

    /// Starts the stages on an open store. What cannot start leaves none running.
    async fn start(
        config: Config,
        routes: Vec<Route>,
        store: Arc<Store>,
        guard: Arc<Guard>,
        own_policy: Option<Arc<dyn ProgramPolicy>>,
    ) -> Result<Self, Error> {
        let directory = Directory::open(Arc::clone(&store), routes).await.map_err(Error::Read)?;
        let directory = directory.with_admins(config.admins()).with_dead_letter_url(letters(&config));
        let directory = Arc::new(directory);
        let host = Arc::new(Host::new(config.sandbox(Arc::clone(&guard))));
        let modules = Modules::new(Arc::clone(&store), Arc::clone(&host), config.room());
        let modules = Arc::new(modules);
        let policy = match own_policy {
            Some(own) => Policy::Program(own),
            None => policy(&config, &guard).await?,
        };
        let limits = attempts(&config);
        let stages = (Arc::clone(&store), Arc::clone(&directory), Arc::clone(&modules));
        let service_key = ServiceKey::load(&config.data, store.vault()).map_err(Error::SigningKey)?;
        let service_key = Arc::new(service_key);
        let producers = config.receive_secrets.as_deref().map(Producers::read).transpose();
        let producers = producers.map_err(Error::Producers)?.unwrap_or_default();
        let (guarding, signing) = (Arc::clone(&guard), Arc::clone(&service_key));
        let dispatcher =
            Dispatcher::start(stages.0, stages.1, stages.2, policy, guarding, signing, limits).await;
        let dispatcher = Arc::new(dispatcher.map_err(Error::Delivery)?);
        let stages = (Arc::clone(&store), Arc::clone(&directory), dispatcher.mailboxes());
        let (bytes_max, backlog_max) = (config.accept_bytes_max, config.backlog_max);
        let intake = Intake::new(stages.0, stages.1, stages.2, bytes_max, backlog_max);
        let rate = config.recover_events_per_second;
        let started = async {
            let runs = runs(&config, (&store, &directory), intake.clone(), host).await?;
            match replays((&store, &directory), rate).await {
                Ok((recoveries, jobs)) => Ok((runs, recoveries, jobs)),
                Err(error) => {
                    runs.stop(Duration::ZERO).await;
                    Err(Error::Recoveries(error))
                }
            }
        };
        let (runs, recoveries, jobs) = match started.await {
            Ok(started) => started,
            Err(error) => {
                dispatcher.stop(Duration::ZERO).await;
                return Err(error);
            }
        };
        let alarm = store.alarm();
        let (tasks, stop) = (TaskTracker::new(), alarm.stop_token());
        let subscriptions = Arc::clone(&directory);
        let retention = upkeep::Retention {
            events: config.retention,
            backlog: config.backlog_retention,
            audit: config.audit_retention,
        };
        let keeping =
            upkeep::run(Arc::clone(&store), subscriptions, retention, config.data.clone(), stop.clone());
        tasks.spawn(alarm.clone().watch("the purge of old events", stop.clone(), keeping));
        let (watched, watch) = (Arc::clone(&store), stop.clone());
        let watching = async move {
            watch.run_until_cancelled(watched.watch()).await;
        };
        tasks.spawn(alarm.clone().watch("the watch over the store", stop.clone(), watching));
        let (data, max) = (config.data.clone(), config.max_disk_bytes);
        let keeper = disk::DiskKeeper {
            store: Arc::clone(&store),
            intake: intake.clone(),
            data,
            max,
            notices: dispatcher.notices(),
        };
        let keeping = keeper.run(stop.clone());
        tasks.spawn(alarm.clone().watch("the keeper of the data folder", stop.clone(), keeping));
        let announcer = announcer(&config, (&store, &directory), intake.clone(), dispatcher.notices());
        tasks.spawn(alarm.clone().watch(
            "the telling of operators",
            stop.clone(),
            announcer.run(stop.clone()),
        ));
        let tending = Arc::clone(&modules).run_gc(stop.clone());
        tasks.spawn(alarm.watch("the tending of modules", stop.clone(), tending));
        let identity = Arc::new(Identity::new(config.identity(), store.tokens(), producers));
        let tending =
            upkeep::tend_tokens(Arc::clone(&store), Arc::clone(&identity), config.data.clone(), stop.clone());
        tasks.spawn(store.alarm().watch("the tending of tokens", stop.clone(), tending));
        let (connections, grace) = (connections(&config), config.shutdown_grace);
        let api = Api {
            store: Arc::clone(&store),
            directory,
            modules,
            intake: intake.clone(),
            dispatcher: Arc::clone(&dispatcher),
            recoveries,
            jobs,
            runs: Arc::new(runs),
            guard,
            service_key,
            sites: Arc::new(sites(&config)),
            rates: Arc::new(http::Rates::new(http::PerSecond {
                address: config.address_requests_per_second,
                user: config.user_requests_per_second,
            })),
            limits: http::Limits::new(sizes(&config), config.body_timeout),
            identity,
            filter_dialect: config.filter_dialect_default,
        };
        let (serving, granted) = (TaskTracker::new(), OnceLock::new());
        Ok(Self {
            store,
            dispatcher,
            intake,
            api,
            connections,
            tls: None,
            tasks,
            stop,
            serving,
            grace,
            granted,
        })
    }

    /// Accepts events from the embedding program, all or none, as `POST /receive` does; returns their ids once they
    /// are on disk.
    ///
    /// # Errors
    /// When an event cannot be matched, or the store cannot write.
    pub fn accept<'a>(
        &'a self,
        events: Vec<Event>,
        sender: &'a str,
    ) -> BoxFuture<'a, Result<Vec<EventId>, intake::Error>> {
        Box::pin(async move { self.intake.accept(events, sender).await })
    }

    /// Returns the subscriptions, for a program that keeps its own.
    pub fn directory(&self) -> &Directory {
        &self.api.directory
    }

    /// Returns what seals the secrets of subscriptions, for a program that keeps its own.
    pub fn vault(&self) -> &Vault {
        self.store.vault()
    }

    /// Returns the replaying of the log into subscriptions, for a program that keeps its own.
    pub fn recoveries(&self) -> &Recoveries {
        &self.api.recoveries
    }

    /// Returns the handlers and what they run.
    pub fn runs(&self) -> &Runs {
        &self.api.runs
    }

    /// Returns one event with the history of its deliveries.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn story(&self, id: EventId) -> BoxFuture<'_, Result<Option<EventHistory>, store::Error>> {
        Box::pin(async move { self.store.history(id).await })
    }

    /// Returns the REST API, for a program that serves it among its own routes. Requests need an
    /// [`axum::extract::ConnectInfo`] with the address that they come from. It keeps the data folder in use until it is
    /// dropped, also when the service is closed.
    ///
    /// Requests of other web pages are refused. Which names are this Waypost's own goes by [`Config::listen`], also where
    /// the program listens itself: see [`Config::allowed_hosts`].
    pub fn router(&self) -> axum::Router {
        http::router(self.api.clone(), self.stop.clone())
    }

    /// Returns what the routes use.
    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    /// Waits until a stage of the service is dead: it accepts and delivers nothing more, and only closing it and opening
    /// it again helps. [`Self::serve`] does the first by itself. Cancel safe.
    pub fn dead_stage(&self) -> BoxFuture<'_, DeadStage> {
        Box::pin(async move { self.store.alarm().raised().await })
    }

    /// Tells whether [`Self::serve`] speaks TLS ([`Config::tls_certificate`]).
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves the REST API until `shutdown` resolves, and then closes: requests and attempts under way share one
    /// grace period.
    ///
    /// # Errors
    /// When a stage of the service has died, which ends it as `shutdown` does.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), DeadStage> {
        self.serve_until(listener, Box::pin(shutdown)).await
    }

    /// Serves the REST API until [`Self::shutdown`] is called, which says how long requests under way may take.
    pub(crate) async fn serve_on(&self, listener: TcpListener) -> Result<(), DeadStage> {
        self.serve_until(listener, Box::pin(std::future::pending())).await
    }

    fn serve_until<'a>(
        &'a self,
        listener: TcpListener,
        shutdown: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Result<(), DeadStage>> {
        Box::pin(async move {
            match listener.local_addr() {
                Ok(address) => self.api.guard.serves_at(address),
                Err(error) => {
                    tracing::warn!(%error, "the listener's own address is unknown: targets may lead there")
                }
            }
            let (alarm, serving) = (self.store.alarm(), self.serving.token());
            let stopping = self.stop.child_token();
            let shutdown = async {
                tokio::select! {
                    () = shutdown => stopping.cancel(),
                    () = stopping.cancelled() => {}
                }
                self.grace()
            };
            let router = http::router(self.api.clone(), stopping.clone());
            let served = http::serve(listener, router, self.connections.clone(), self.tls.clone(), shutdown);
            let served = alarm.clone().watch("the HTTP server", stopping.clone(), served);
            let delivered = async {
                stopping.cancelled().await;
                self.stop_stages(self.grace()).await;
            };
            tokio::join!(served, delivered);
            drop(serving);
            self.shutdown(self.grace()).await;
            alarm.dead().map_or(Ok(()), |dead| Err(dead.clone()))
        })
    }

    /// Returns how long work under way may take.
    fn grace(&self) -> Duration {
        self.granted.get().copied().unwrap_or(self.grace)
    }

    /// Ends attempts and runs: one grace period for all.
    async fn stop_stages(&self, grace: Duration) {
        tokio::join!(self.dispatcher.stop(grace), self.api.runs.stop(grace));
    }

    /// Ends in order: recoveries stop, no new attempts begin, those under way get the grace period, then the store
    /// writes what is queued.
    pub fn close(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.shutdown(self.grace).await;
        })
    }

    /// Ends as [`Self::close`] does, with a grace period of its own, which requests to a server of [`Self::serve_on`] get,
    /// too. The data folder is free once this is dropped.
    pub(crate) fn shutdown(&self, grace: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.granted.set(grace).ok();
            self.stop.cancel();
            self.api.recoveries.stop().await;
            self.api.jobs.stop().await;
            self.serving.close();
            // Bounded, since the program may have stopped polling its server.
            let served = tokio::time::timeout(grace, self.serving.wait());
            let ((), _served_or_not) = tokio::join!(self.stop_stages(grace), served);
            self.tasks.close();
            self.tasks.wait().await;
            self.store.close().await;
        })
    }
}

/// Dropping a service without closing it waits for nothing. Attempts under way are repeated after the next start, which
/// is possible once the tasks have seen the end.
impl Drop for Service {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn attempts(config: &Config) -> delivery::Limits {
    delivery::Limits {
        in_flight_max: in_flight_max(config),
        subscription_in_flight_max: config::as_count(config.subscription_in_flight_max),
        kept_connections_max: open_files() / 4,
        attempt_timeout: config.attempt_timeout,
        connect_timeout: config.connect_timeout,
        webhook_origin: webhook_origin(config),
        retry_schedule: config.retry_schedule.clone(),
        success_log_bytes: config.plugin_success_log_bytes,
    }
}

/// Returns the DNS name in whose name targets are asked for their consent: this machine's, unless one is configured.
fn webhook_origin(config: &Config) -> HeaderValue {
    let system = rustix::system::uname();
    let own = || system.nodename().to_str().ok();
    let name =
        config.webhook_origin.as_deref().or_else(own).and_then(|name| HeaderValue::from_str(name).ok());
    name.unwrap_or(HeaderValue::from_static("localhost"))
}

/// Returns where dead letters go.
fn letters(config: &Config) -> Option<TargetUrl> {
    config.dead_letter_url.as_ref().and_then(|url| url.as_str().parse().ok())
}

/// Makes what tells operators what happens.
fn announcer(
    config: &Config,
    (store, directory): (&Arc<Store>, &Arc<Directory>),
    intake: Intake,
    notices: Arc<Notices>,
) -> Announcer {
    let name = webhook_origin(config);
    let name = name.to_str().unwrap_or("localhost");
    Announcer::new(Arc::clone(store), Arc::clone(directory), intake, notices, name)
}

fn connections(config: &Config) -> Connections {
    Connections {
        max: config.connections_max,
        header_timeout: config.header_timeout,
        idle_timeout: config.idle_timeout,
        trusted: config.trusted_proxies.as_slice().into(),
    }
}

/// Reads the files of the listener's TLS.
async fn tls(config: &Config) -> Result<Option<Arc<Tls>>, Error> {
    let (Some(certificate), Some(key)) = (config.tls_certificate.clone(), config.tls_key.clone()) else {
        return Ok(None);
    };
    let files = http::TlsFiles { certificate, key, client_ca: config.tls_client_ca.clone() };
    let opening = tokio::task::spawn_blocking(|| Tls::open(files)).await;
    let tls = opening.expect("reading files does not panic").map_err(Error::Tls)?;
    Ok(Some(Arc::new(tls)))
}

fn sites(config: &Config) -> http::Sites {
    let (mut hosts, mut origins) = (config.allowed_hosts.clone(), config.allowed_origins.clone());
    if let Some(url) = &config.public_url {
        hosts.extend(url.host_str().map(str::to_ascii_lowercase));
        origins.push(url.origin().ascii_serialization());
    }
    http::Sites { hosts, origins, is_local: config.is_local() }
}

fn sizes(config: &Config) -> http::Sizes {
    http::Sizes {
        event: config.event_bytes_max,
        subscription: config.subscription_bytes_max,
        plugin: config.plugin_bytes_max,
        all: config.bodies_bytes(),
    }
}

/// Returns how many attempts there may be at once. Each needs a descriptor, and half of what the process may have is for
/// connections of clients, for those that are kept, and for files.
fn in_flight_max(config: &Config) -> usize {
    let wanted = config::as_count(config.in_flight_max);
    let half = (open_files() / 2).max(1);
    if wanted > half {
        tracing::warn!(
            in_flight_max = wanted,
            open_files = open_files(),
            "this process may open too few files for so many attempts at once: there will be half as many as files"
        );
    }
    wanted.min(half)
}

/// Returns how many files this process may have open.
fn open_files() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}

/// Makes the policy. The operator's plugin shares no sandbox with those of subscribers.
async fn policy(config: &Config, guard: &Arc<Guard>) -> Result<Policy, Error> {
    let Some(path) = &config.policy_plugin else {
        let url = config.policy_url.as_ref().map(reqwest::Url::as_str);
        return Policy::new(url, config.policy_timeout).map_err(Error::Policy);
    };
    let host = Arc::new(Host::new(config.sandbox(Arc::clone(guard))));
    let loading = PolicyPlugin::load(host, path, config.policy_plugin_config.as_deref());
    loading.await.map(Policy::Plugin).map_err(Error::PolicyPlugin)
}

/// Starts the recoveries and the jobs.
async fn replays(
    (store, directory): (&Arc<Store>, &Arc<Directory>),
    rate: u32,
) -> Result<(Arc<Recoveries>, Arc<Jobs>), store::Error> {
    let recoveries = Recoveries::start(Arc::clone(store), Arc::clone(directory), rate).await?;
    let jobs = Jobs::start(Arc::clone(store), Arc::clone(directory), rate).await?;
    Ok((Arc::new(recoveries), Arc::new(jobs)))
}

/// Refuses handlers.
#[cfg(not(feature = "handlers"))]
async fn runs(config: &Config, _: (&Arc<Store>, &Directory), _: Intake, _: Arc<Host>) -> Result<Runs, Error> {
    Runs::start(&config.handlers).map_err(Error::Handlers)
}

/// Loads the handlers. The events that they upload are accepted like any others.
#[cfg(feature = "handlers")]
async fn runs(
    config: &Config,
    (store, directory): (&Arc<Store>, &Directory),
    intake: Intake,
    host: Arc<Host>,
) -> Result<Runs, Error> {
    let way_in = intake.clone();
    let deps = Deps {
        host,
        waypost: config.plugin_compiler.clone().map(Into::into),
        connect_timeout: config.connect_timeout,
        accept: Arc::new(move |event, sender| {
            let intake = way_in.clone();
            Box::pin(async move {
                let accepted = intake.accept(vec![event], &sender).await;
                accepted.map(|ids| ids[0]).map_err(Refusal::Intake)
            })
        }),
    };
    let folder = config.data.join("runs");
    let started =
        Runs::start(Arc::clone(store), directory, intake, config.handlers.clone(), &deps, folder).await;
    started.map_err(Error::Handlers)
}

/// Opens the store that a service with this configuration has.
pub fn open_store(config: &Config) -> BoxFuture<'_, Result<Arc<Store>, Error>> {
    Box::pin(async move {
        let (folder, options) = (config.data.clone(), options(config));
        let opened = tokio::task::spawn_blocking(move || Store::with(&folder, options)).await;
        let store = opened.expect("a store that opens does not panic").map_err(Error::Open)?;
        Ok(Arc::new(store))
    })
}

fn options(config: &Config) -> Options {
    Options {
        dedup_window: config.dedup_window.unwrap_or_default(),
        user_bytes_max: config.user_bytes_max,
        queue_bytes_max: config.accept_bytes_max,
        counts: store::CountLimits {
            subscriptions: config.user_subscriptions_max,
            recoveries: config.user_recoveries_max,
            tokens: config.user_tokens_max,
        },
        master_key: config.master_key_file.clone(),
    }
}

#[cfg(test)]
mod tests;
