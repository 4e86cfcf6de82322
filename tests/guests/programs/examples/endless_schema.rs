//! Describes itself with a schema that is small and takes for ever: forty that each refer twice to the next one.

wit_bindgen::generate!({ path: "../../../wit", world: "waypost:plugin/plugin" });

use exports::waypost::plugin::{filter, metadata, policy, transform};
use waypost::plugin::types::{CallContext, Event, PluginError};

struct Guest;

impl policy::Guest for Guest {
    fn decide(
        _event: Event,
        _target: String,
        _context: CallContext,
    ) -> Result<policy::Decision, PluginError> {
        Ok(policy::Decision::Allow)
    }
}

impl filter::Guest for Guest {
    fn evaluate(_event: Event, _context: CallContext) -> Result<filter::Verdict, PluginError> {
        Ok(filter::Verdict::Deliver)
    }
}

impl transform::Guest for Guest {
    fn apply(event: Event, _context: CallContext) -> Result<Vec<transform::Output>, PluginError> {
        Ok(vec![transform::Output::Event(event)])
    }
}

impl metadata::Guest for Guest {
    fn describe() -> metadata::Manifest {
        let mut schemas = r#""s40": {"type": "object"}"#.to_owned();
        for n in 0..40 {
            let next = format!(r##"{{"$ref": "#/$defs/s{}"}}"##, n + 1);
            schemas += &format!(r#", "s{n}": {{"allOf": [{next}, {next}]}}"#);
        }
        metadata::Manifest {
            name: "endless".to_owned(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            config_schema: Some(format!(r##"{{"$defs": {{{schemas}}}, "$ref": "#/$defs/s0"}}"##)),
            wanted_hosts: Vec::new(),
        }
    }

    fn check_config(_config: String) -> Result<(), Vec<metadata::Problem>> {
        Ok(())
    }
}

export!(Guest);
