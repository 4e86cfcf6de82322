//! Describes itself with a schema that is small and takes for ever, whatever it is laid over.

waypost_guest_programs::endless_schema!("endless", |definitions: &str| format!(
    r##"{{"$defs": {{{definitions}}}, "$ref": "#/$defs/s0"}}"##
));
