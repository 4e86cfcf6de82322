//! Where log lines go: stderr, as text or JSON.
//!
//! The binary calls [`init`] once; an embedding program installs a subscriber of its own instead.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use crate::config::{LogFormat, LogLevel};

/// Sends log lines of at least this level to stderr, from the libraries beneath Waypost only warnings and errors
/// unless everything is asked for. Does nothing when the program already has a subscriber.
pub fn init(format: LogFormat, level: LogLevel) {
    let lines = match format {
        LogFormat::Text => fmt::layer().with_ansi(colours()).with_writer(io::stderr).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
    };
    // A second call, or the embedding program's own subscriber: the first one stays.
    drop(registry().with(lines.with_filter(filter(level))).try_init());
}

fn filter(level: LogLevel) -> Targets {
    let (ours, libraries) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    Targets::new().with_default(libraries).with_target("waypost", ours)
}

/// Colours are for people who want them (<https://no-color.org>).
fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_are_quiet_until_everything_is_asked_for() {
        assert!(filter(LogLevel::Debug).would_enable("waypost::delivery", &Level::DEBUG));
        assert!(!filter(LogLevel::Debug).would_enable("hyper", &Level::INFO));
        assert!(filter(LogLevel::Trace).would_enable("hyper", &Level::TRACE));
        assert!(!filter(LogLevel::Error).would_enable("waypost", &Level::WARN));
    }
}
