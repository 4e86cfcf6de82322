//! Exports only a filter. After spinning for `spin_ms` it returns what the configuration says: `filter` is `ok` (the
//! default), `no: REASON`, or `internal: …`.

wit_bindgen::generate!({ path: "../../../wit", world: "waypost:plugin/filter-plugin" });

use std::time::{Duration, Instant};

use exports::waypost::plugin::filter::Verdict;
use waypost::plugin::config;
use waypost::plugin::types::{CallContext, Event, PluginError};

struct Sieve;

impl exports::waypost::plugin::filter::Guest for Sieve {
    fn evaluate(_event: Event, _context: CallContext) -> Result<Verdict, PluginError> {
        let spin = config::get("spin_ms").and_then(|text| text.parse().ok()).unwrap_or_default();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(spin) {
            std::hint::spin_loop();
        }
        let text = config::get("filter").unwrap_or_default();
        match text.split_once(": ") {
            Some(("no", reason)) => Ok(Verdict::Skip(reason.to_owned())),
            Some(("internal", reason)) => Err(PluginError::Internal(reason.to_owned())),
            _ => Ok(Verdict::Deliver),
        }
    }
}

export!(Sieve);
