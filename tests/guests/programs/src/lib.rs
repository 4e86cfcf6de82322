//! What the small guests share: a plugin of one function.

/// Makes a component that exports `filter` of a function `fn() -> String`, whose answer is the reason for skipping.
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

/// Makes a component that exports `transform` of a function `fn(Event) -> Vec<Output>`.
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
