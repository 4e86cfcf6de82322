//! Lets events pass whose file is large enough.

use serde::Deserialize;
use waypost_plugin::{Context, Describe, Event, Filter, Manifest, Result, Verdict, deliver, skip};

struct Plugin;

/// What the subscription sets.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    smallest: u64,
}

/// What is read of an event's `data`.
#[derive(Deserialize)]
struct Data {
    size: u64,
}

impl Filter for Plugin {
    fn evaluate(event: &Event, context: &Context) -> Result<Verdict> {
        let Config { smallest } = context.config()?;
        let Data { size } = event.data()?;
        if size < smallest { skip(format!("size {size} < {smallest}")) } else { deliver() }
    }
}

impl Describe for Plugin {
    fn describe() -> Manifest {
        waypost_plugin::manifest!().with_config_schema(include_str!("../config.schema.json"))
    }
}

waypost_plugin::export!(Plugin: filter, metadata);

#[cfg(test)]
mod tests {
    use waypost_plugin::serde_json::json;
    use waypost_plugin::testing::{Host, event};

    use super::*;

    #[test]
    fn small_files_are_skipped() {
        let host = Host::new().with_config(json!({"smallest": 10}));
        let file = |size: u64| event(json!({"data": {"size": size}}));
        assert_eq!(host.filter::<Plugin>(&file(10)), Ok(Verdict::Deliver));
        assert_eq!(host.filter::<Plugin>(&file(9)), Ok(Verdict::Skip("size 9 < 10".to_owned())));
        assert!(host.filter::<Plugin>(&event(json!({"data": {}}))).is_err());
    }
}
