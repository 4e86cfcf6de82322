//! The flags of `serve`: one for each of the configuration's keys.

use std::collections::BTreeMap;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use waypost::config::{KEYS, RETIRED};

/// The settings that were given as flags, by key. Their values are read by [`waypost::config`], like those of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings(pub(super) BTreeMap<String, String>);

impl Args for Settings {
    fn augment_args(command: Command) -> Command {
        // Retired settings are still parsed, so that the error can say what to write instead.
        let retired = RETIRED.iter().map(|(key, _)| Arg::new(*key).long(key.replace('_', "-")).hide(true));
        command.args(retired).args(KEYS.iter().map(|key| {
            let default = match key.default {
                "" => String::new(),
                default => format!(" [default: {default}]"),
            };
            Arg::new(key.name)
                .long(key.flag())
                .value_name(key.value)
                .help(format!("{}{default}", key.help))
                .help_heading(key.group)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Settings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &str| Some((name.to_owned(), matches.get_one::<String>(name)?.clone()));
        let names = KEYS.iter().map(|key| key.name).chain(RETIRED.iter().map(|(key, _)| *key));
        Ok(Self(names.filter_map(given).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.append(&mut Self::from_arg_matches(matches)?.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_a_flag_and_only_given_ones_count() {
        let command = Settings::augment_args(Command::new("serve"));
        let words = ["serve", "--listen", "[::1]:0", "--retry-schedule=none"];
        let given = Settings::from_arg_matches(&command.get_matches_from(words)).unwrap().0;
        let expected = [("listen", "[::1]:0"), ("retry_schedule", "none")];
        assert_eq!(given, expected.map(|(key, text)| (key.to_owned(), text.to_owned())).into());
    }
}
