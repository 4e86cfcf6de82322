//! Writes log lines to stderr, as text or JSON.
//!
//! The binary calls [`init`] once; an embedding program installs a subscriber of its own instead.
//!
//! Fields hold texts from outside: ids of events, reasons of targets and plugins, names of files. A log event stays on
//! one line whatever they contain, and no field can control the terminal ([`foreign`]).

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use waypost::config::{LogFormat, LogLevel};
use waypost_runtime::foreign;

/// Sends log lines of at least this level to stderr, from the libraries beneath Waypost only warnings and errors
/// unless everything is asked for. Does nothing when the program already has a subscriber.
pub(crate) fn init(format: LogFormat, level: LogLevel) {
    let lines = match format {
        LogFormat::Text => text(colours(), io::stderr).boxed(),
        LogFormat::Json => json(io::stderr).boxed(),
    };
    // A second call, or the embedding program's own subscriber: the first one stays.
    drop(registry().with(lines.with_filter(filter(level))).try_init());
}

/// Makes the layer that writes text.
fn text<S, W>(is_coloured: bool, to: W) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    fmt::layer().with_ansi(is_coloured).fmt_fields(fields()).with_writer(to)
}

/// Makes the layer that writes JSON.
fn json<S, W>(to: W) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: Fn() -> io::Stderr + Send + Sync + 'static,
{
    fmt::layer().json().flatten_event(true).with_writer(move || Json(to()))
}

/// Writes fields as tracing-subscriber does, each on the one line of its event.
fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let write = |writer: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug| {
        let name = field.name().trim_start_matches("r#");
        match (name, writer.has_ansi_escapes()) {
            ("message", _) => {}
            // In italics, and the sign dimmed.
            (name, true) => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
            (name, false) => write!(writer, "{name}=")?,
        }
        write!(foreign::Escaping(writer), "{value:?}")
    };
    fmt::format::debug_fn(write).delimited(" ")
}

/// Takes lines of JSON, and escapes in them what JSON itself does not.
struct Json<W>(W);

impl<W: Write> Write for Json<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match str::from_utf8(line) {
            Ok(text) => self.0.write_all(foreign::json(text).as_bytes())?,
            Err(_) => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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

/// Colours are used only where they are wanted (<https://no-color.org>).
fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(is_coloured: bool) -> String {
        let kept = Kept::default();
        let to = kept.clone();
        let layer = text(is_coloured, move || to.clone());
        tracing::subscriber::with_default(registry().with(layer), || {
            let foreign = "x\n2026-01-01T00:00:00Z  INFO waypost: all is well \u{202e}\u{9b}2J\x1b[2J";
            tracing::warn!(error = %foreign, reason = foreign, count = 1, "a delivery failed: {foreign}");
            tracing::info!("next");
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// A target's response put lines into the log that the service had never written.
    #[test]
    fn an_event_of_the_log_is_one_line_and_steers_nothing() {
        let text = logged(false);
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains(|c| c != '\n' && foreign::is_escaped(c)), "{text:?}");
        let escaped = r"x\n2026-01-01T00:00:00Z  INFO waypost: all is well \u{202e}\u{9b}2J\u{1b}[2J";
        let fields = format!(r#"a delivery failed: {escaped} error={escaped} reason="{escaped}" count=1"#);
        assert!(text.lines().next().unwrap().ends_with(&fields), "{text}");
        let coloured = logged(true);
        assert!(coloured.contains("\x1b[3mcount\x1b[0m\x1b[2m=\x1b[0m1\n"), "{coloured:?}");
        assert!(!coloured.contains("\x1b[2J") && coloured.lines().count() == 2, "{coloured:?}");
    }

    #[test]
    fn a_line_of_json_says_the_same_without_steering() {
        let mut lines = Vec::new();
        Json(&mut lines).write_all("{\"error\":\"\u{9b}2J\u{202e}\"}\n".as_bytes()).unwrap();
        assert_eq!(String::from_utf8(lines).unwrap(), "{\"error\":\"\\u009b2J\\u202e\"}\n");
    }

    #[test]
    fn libraries_are_quiet_until_everything_is_asked_for() {
        assert!(filter(LogLevel::Debug).would_enable("waypost::delivery", &Level::DEBUG));
        assert!(!filter(LogLevel::Debug).would_enable("hyper", &Level::INFO));
        assert!(filter(LogLevel::Trace).would_enable("hyper", &Level::TRACE));
        assert!(!filter(LogLevel::Error).would_enable("waypost", &Level::WARN));
    }
}
