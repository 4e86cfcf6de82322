//! Skips an event whose source and id have come before, so that a producer's repeats are delivered once.

use std::time::Duration;

use serde::Deserialize;
use waypost_plugin::{
    Context, Describe, Event, Filter, Manifest, Result, Verdict, deliver, log, manifest, skip, state,
};

/// The plugin.
pub struct Once;

#[derive(Deserialize)]
struct Config {
    #[serde(default = "day")]
    ttl_s: u64,
}

fn day() -> u64 {
    24 * 60 * 60
}

/// The longest key that a state takes, in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Returns the key of an event: source and id, or their hash where they are too long.
fn key(event: &Event) -> String {
    let whole = format!("{} {}", event.source, event.id);
    if whole.len() <= KEY_BYTES_MAX {
        return whole;
    }
    // FNV-1a of 128 bits.
    let hash = whole.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    });
    format!("{hash:032x}")
}

impl Filter for Once {
    fn evaluate(event: &Event, context: &Context) -> Result<Verdict> {
        let Config { ttl_s } = context.config()?;
        let key = key(event);
        if state::get(&key)?.is_some() {
            return skip(format!("{} of {} has come before", event.id, event.source));
        }
        match state::set(&key, b"", Some(Duration::from_secs(ttl_s))) {
            // A repeated delivery is better than a lost one.
            Err(state::Error::QuotaExceeded) => log::warn!("too many events to remember this one"; ttl_s),
            other => other?,
        }
        deliver()
    }
}

impl Describe for Once {
    fn describe() -> Manifest {
        manifest!().with_config_schema(include_str!("../config.schema.json"))
    }
}

waypost_plugin::export!(Once: filter, metadata);

#[cfg(test)]
mod tests {
    use waypost_plugin::serde_json::json;
    use waypost_plugin::testing::{Host, event};

    use super::*;

    fn of(source: &str, id: &str) -> Event {
        event(json!({"source": source, "id": id}))
    }

    #[test]
    fn an_event_passes_once_within_its_time() {
        let host = Host::new().with_config(json!({"ttl_s": 60}));
        assert_eq!(host.filter::<Once>(&of("/a", "1")), Ok(Verdict::Deliver));
        host.advance(Duration::from_secs(59));
        assert_eq!(host.filter::<Once>(&of("/a", "1")), skip("1 of /a has come before"));
        assert_eq!(host.filter::<Once>(&of("/b", "1")), Ok(Verdict::Deliver));
        assert_eq!(host.filter::<Once>(&of("/a", "2")), Ok(Verdict::Deliver));
        host.advance(Duration::from_secs(1));
        assert_eq!(host.filter::<Once>(&of("/a", "1")), Ok(Verdict::Deliver));
    }

    #[test]
    fn long_names_are_distinguished_too() {
        let long = "x".repeat(1000);
        let host = Host::new();
        assert_eq!(host.filter::<Once>(&of(&long, "1")), Ok(Verdict::Deliver));
        assert_eq!(host.filter::<Once>(&of(&long, "2")), Ok(Verdict::Deliver));
        assert!(matches!(host.filter::<Once>(&of(&long, "2")), Ok(Verdict::Skip(_))));
    }

    #[test]
    fn an_event_that_cannot_be_remembered_passes_and_says_so() {
        let host = Host::new().with_state_limits(1024, 1);
        host.filter::<Once>(&of("/a", "1")).unwrap();
        assert_eq!(host.filter::<Once>(&of("/a", "2")), Ok(Verdict::Deliver));
        assert_eq!(host.logs()[0].message, "too many events to remember this one");
    }
}
