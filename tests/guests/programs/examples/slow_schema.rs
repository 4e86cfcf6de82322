//! Describes itself with a schema that is small and takes for ever where a configuration has a member `slow`.

waypost_guest_programs::endless_schema!("slow", |definitions: &str| format!(
    r##"{{"$defs": {{{definitions}}}, "properties": {{"slow": {{"$ref": "#/$defs/s0"}}}}}}"##
));
