//! Lets users see only the events of their projects, according to Pacifica's rows:
//! `{"destinationTable": "Transactions.project", "value": "1236"}`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use waypost_plugin::serde_json::Value;
use waypost_plugin::{Context, Decision, Describe, Event, Manifest, Policy, Result, allow, deny, manifest};

/// The plugin.
pub struct ProjectPolicy;

#[derive(Deserialize)]
struct Config {
    users: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    without_project: WithoutProject,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WithoutProject {
    #[default]
    Deny,
    Allow,
}

/// The members of a row that are read. Projects were formerly called proposals.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow, default, rename = "destinationTable")]
    table: Cow<'a, str>,
    #[serde(default)]
    value: Value,
}

impl Row<'_> {
    fn project(&self) -> Option<String> {
        match (self.table.as_ref(), &self.value) {
            ("Transactions.project" | "Transactions.proposal", Value::String(name)) => Some(name.clone()),
            ("Transactions.project" | "Transactions.proposal", other) => Some(other.to_string()),
            _ => None,
        }
    }
}

impl Config {
    fn lets_see(&self, user: &str, project: &str) -> bool {
        let granted = [user, "*"].into_iter().filter_map(|name| self.users.get(name)).flatten();
        granted.into_iter().any(|granted| granted == "*" || granted == project)
    }
}

impl Policy for ProjectPolicy {
    fn decide(event: &Event, _target: &str, context: &Context) -> Result<Decision> {
        let config: Config = context.config()?;
        // Data of another shape names no project.
        let rows: Vec<Row<'_>> = event.data().unwrap_or_default();
        let projects: Vec<_> = rows.iter().filter_map(Row::project).collect();
        if projects.is_empty() {
            return match config.without_project {
                WithoutProject::Allow => allow(),
                WithoutProject::Deny => deny("it names no project"),
            };
        }
        match projects.iter().find(|project| !config.lets_see(&context.user, project)) {
            Some(project) => deny(format!("{} is not of the project {project}", context.user)),
            None => allow(),
        }
    }
}

impl Describe for ProjectPolicy {
    fn describe() -> Manifest {
        manifest!().with_config_schema(include_str!("../config.schema.json"))
    }
}

waypost_plugin::export!(ProjectPolicy: policy, metadata);

#[cfg(test)]
mod tests {
    use waypost_plugin::serde_json::json;
    use waypost_plugin::testing::{Host, event};

    use super::*;

    fn decided(user: &str, data: Value) -> Decision {
        let config = json!({"users": {"anna": ["1236", "7"], "boss": ["*"], "*": ["public"]}});
        let host = Host::new().with_config(config).with_user(user);
        host.policy::<ProjectPolicy>(&event(json!({"data": data})), "http://localhost/").unwrap()
    }

    fn project(value: Value) -> Value {
        json!({"destinationTable": "Transactions.project", "value": value})
    }

    fn denied(reason: &str) -> Decision {
        Decision::Deny(reason.to_owned())
    }

    #[test]
    fn users_see_their_own_projects_and_public_ones() {
        assert_eq!(decided("anna", json!([project("1236".into())])), Decision::Allow);
        assert_eq!(decided("anna", json!([project(7.into())])), Decision::Allow);
        assert_eq!(decided("bob", json!([project("public".into())])), Decision::Allow);
        assert_eq!(decided("boss", json!([project("9".into())])), Decision::Allow);
        assert_eq!(decided("bob", json!([project(7.into())])), denied("bob is not of the project 7"));
    }

    #[test]
    fn a_user_needs_every_project_of_an_event() {
        let both =
            json!([project("1236".into()), {"destinationTable": "Transactions.proposal", "value": "9"}]);
        assert_eq!(decided("anna", both), denied("anna is not of the project 9"));
    }

    #[test]
    fn an_event_without_a_project_is_denied_unless_the_configuration_allows_it() {
        assert_eq!(decided("boss", json!([])), denied("it names no project"));
        assert_eq!(decided("boss", json!("text")), denied("it names no project"));
        let host = Host::new().with_config(json!({"users": {}, "without_project": "allow"}));
        assert_eq!(host.policy::<ProjectPolicy>(&event(json!({})), ""), Ok(Decision::Allow));
    }
}
