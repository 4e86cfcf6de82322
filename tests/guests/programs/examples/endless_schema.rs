//! Has a small schema whose validation takes forever for any configuration.

waypost_guest_programs::endless_schema!("endless", |definitions: &str| format!(
    r##"{{"$defs": {{{definitions}}}, "$ref": "#/$defs/s0"}}"##
));
