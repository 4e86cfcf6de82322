//! Shared by the small guests: macros for plugins of one function.

/// Makes a component that exports `filter`, from a function `fn() -> String` that returns the reason for skipping.
#[macro_export]
macro_rules! filter {
    ($answer:path) => {
        ::wit_bindgen::generate!({ path: "../../../wit", world: "waypost:plugin/filter-plugin" });

        struct Guest;

        impl exports::waypost::plugin::filter::Guest for Guest {
            fn evaluate(
                _event: waypost::plugin::types::Event,
                _context: waypost::plugin::types::CallContext,
            ) -> Result<exports::waypost::plugin::filter::Verdict, waypost::plugin::types::PluginError> {
                Ok(exports::waypost::plugin::filter::Verdict::Skip($answer()))
            }
        }

        export!(Guest);
    };
}

/// Makes a component that exports `transform`, from a function `fn(Event) -> Vec<Output>`.
#[macro_export]
macro_rules! transform {
    ($answer:path) => {
        ::wit_bindgen::generate!({ path: "../../../wit", world: "waypost:plugin/transform-plugin" });

        struct Guest;

        impl exports::waypost::plugin::transform::Guest for Guest {
            fn apply(
                event: waypost::plugin::types::Event,
                _context: waypost::plugin::types::CallContext,
            ) -> Result<Vec<exports::waypost::plugin::transform::Output>, waypost::plugin::types::PluginError>
            {
                Ok($answer(event))
            }
        }

        export!(Guest);
    };
}

/// Makes a component that exports everything and lets every event pass. This expression makes its schema from forty
/// definitions, `s0` to `s40`, each of which refers twice to the next one: a trillion paths through them.
#[macro_export]
macro_rules! endless_schema {
    ($name:literal, $schema:expr) => {
        ::wit_bindgen::generate!({ path: "../../../wit", world: "waypost:plugin/plugin" });

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
                    name: $name.to_owned(),
                    version: "1.0.0".to_owned(),
                    description: String::new(),
                    config_schema: Some($schema(&schemas)),
                    wanted_hosts: Vec::new(),
                }
            }

            fn check_config(_config: String) -> Result<(), Vec<metadata::Problem>> {
                Ok(())
            }
        }

        export!(Guest);
    };
}
