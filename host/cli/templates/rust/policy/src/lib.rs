//! Says who may see events: those on a list.

use serde::Deserialize;
use waypost_plugin::{Context, Decision, Describe, Event, Manifest, Policy, Result, allow, deny};

struct Plugin;

/// What the subscription sets.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    users: Vec<String>,
}

impl Policy for Plugin {
    fn decide(_event: &Event, _target: &str, context: &Context) -> Result<Decision> {
        let Config { users } = context.config()?;
        if users.contains(&context.user) { allow() } else { deny(format!("{} is not on the list", context.user)) }
    }
}

impl Describe for Plugin {
    fn describe() -> Manifest {
        waypost_plugin::manifest!().with_config_schema(include_str!("../config.schema.json"))
    }
}

waypost_plugin::export!(Plugin: policy, metadata);

#[cfg(test)]
mod tests {
    use waypost_plugin::serde_json::json;
    use waypost_plugin::testing::{Host, event};

    use super::*;

    #[test]
    fn only_who_is_on_the_list_may_see_it() {
        let decided = |user: &str| {
            let host = Host::new().with_config(json!({"users": ["ann"]})).with_user(user);
            host.policy::<Plugin>(&event(json!({})), "http://localhost/")
        };
        assert_eq!(decided("ann"), Ok(Decision::Allow));
        assert_eq!(decided("bob"), Ok(Decision::Deny("bob is not on the list".to_owned())));
    }
}
