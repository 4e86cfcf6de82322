//! `waypost serve`: the router itself.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::telemetry;
use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use waypost::config::{self, Config, Loaded, Note, Sources};
use waypost::service::Service;
use waypost_store::redb::FILE_NAME;

use crate::settings::Settings;
use crate::{own_program, print};

/// Run the router
///
/// Every setting is a flag here, a key of the TOML file (`retry_schedule = "none"`), and an environment variable
/// (`WAYPOST_RETRY_SCHEDULE=none`). Flags override the environment, which overrides the file.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Read settings from this TOML file [env: WAYPOST_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

const EXAMPLES: &str = "\
Examples:
  waypost serve
  waypost serve --listen 0.0.0.0:8070 --data /var/lib/waypost --trusted-proxies 127.0.0.0/8,10.0.0.2
  waypost serve --policy-url http://policy.example:8181 --retry-schedule 5s,1m,10m
  WAYPOST_LOG_FORMAT=json waypost serve --config /etc/waypost.toml

The first line on stdout says where it listens; logs go to stderr.
SIGTERM or Ctrl-C lets work in progress finish and then stops the router; a second one stops it at once.";

/// Serves until a signal asks to stop.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (config, notes) = load(arguments)?;
    telemetry::init(config.log_format, config.log_level);
    notes.iter().for_each(Note::log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime")?;
    let ended = runtime.block_on(serve(config));
    // Does not wait for blocked threads: the service has ended already, after its grace period or at a second signal.
    runtime.shutdown_background();
    ended
}

fn load(arguments: Arguments) -> Result<(Config, Vec<Note>), config::Error> {
    let mut sources = Sources::from_environment(std::env::vars_os())?;
    sources.file = arguments.config.or(sources.file);
    sources.flags = arguments.settings.0;
    let Loaded { config, notes, .. } = Loaded::from(sources)?;
    let compiler = config.plugin_compiler.clone().or_else(own_program);
    Ok((Config { plugin_compiler: compiler, ..config }, notes))
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    if config.policy_url.is_none() && config.policy_plugin.is_none() {
        tracing::warn!("no policy_url and no policy_plugin is set: every user may see every event");
    }
    let wanted = config.listen;
    let listener = TcpListener::bind(wanted).await;
    let listener =
        listener.with_context(|| format!("failed to listen on {wanted} (choose with --listen)"))?;
    let address = listener.local_addr().context("failed to read the listener's address")?;
    open_more_files();
    let signals = Signals::install().context("failed to listen for signals")?;
    let is_fresh = !config.data.join(FILE_NAME).exists();
    let service = Service::open_at(config, Some(address)).await?;
    if is_fresh {
        tracing::info!(
            "a new data folder: `waypost token create --user NAME` creates a token, with which programs and people on \
             other machines authenticate"
        );
    }

    // A closed stdout is no reason to stop the service.
    let scheme = if service.is_tls() { "https" } else { "http" };
    drop(print::line(format_args!("listening on {scheme}://{address}")));
    let (ask, asked) = oneshot::channel();
    let shutdown = async {
        // A dropped sender means shutdown as well.
        drop(asked.await);
    };
    tokio::select! {
        served = service.serve(listener, shutdown) => Ok(served.map(|()| ExitCode::SUCCESS)?),
        () = signals.ask_then_insist(ask) => Ok(ExitCode::FAILURE),
    }
}

/// Raises the limit of open files as far as this user may. Connections and components' open files count towards it.
fn open_more_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// The two signals that end a service.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches both signals: from here on, neither ends the process by itself.
    fn install() -> std::io::Result<Self> {
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: signal(terminate)?, interrupt: signal(interrupt)? })
    }

    /// Passes the first signal on, and returns at the second.
    async fn ask_then_insist(mut self, ask: oneshot::Sender<()>) {
        self.next().await;
        tracing::info!("stopping; a second signal stops at once");
        // An error means that the service is ending by itself.
        ask.send(()).ok();
        self.next().await;
        tracing::warn!("stopped at once; what was under way will be tried again at the next start");
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
