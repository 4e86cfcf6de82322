//! Has a small schema whose validation takes forever if a configuration has a member `slow`.

waypost_guest_programs::endless_schema!("slow", |definitions: &str| format!(
    r##"{{"$defs": {{{definitions}}}, "properties": {{"slow": {{"$ref": "#/$defs/s0"}}}}}}"##
));
