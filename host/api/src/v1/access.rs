use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Time, words};

/// The user of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The name.
    pub user: String,
    /// Whether it is an admin.
    pub admin: bool,
    /// How Waypost knows: `token`, `session`, `header`, `certificate`, `default`.
    pub via: String,
    /// The token, or that of the session.
    pub token: Option<Uuid>,
    /// What the request may do.
    pub scopes: Vec<Scope>,
    /// When the token expires.
    pub expires: Option<Time>,
    /// Where the request comes from.
    pub address: String,
}

words! {
    /// What a request may do.
    Scope {
        /// Send events.
        Receive = "receive",
        /// Read.
        Read = "read",
        /// Make and change subscriptions.
        Subscribe = "subscribe",
        /// Everything.
        Admin = "admin",
    }
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// A name, for people.
    pub name: String,
    /// Whom it speaks for.
    pub user: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created: Time,
    /// By whom.
    pub by: String,
    /// When it expires; null for never.
    pub expires: Option<Time>,
    /// When it was last used.
    pub last_used: Option<Time>,
    /// The token itself. It is shown once, when it is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub token: Option<String>,
}

/// A token to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// Whom it speaks for.
    #[schema(min_length = 1)]
    pub user: String,
    /// A name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it may do; `receive`, `read` and `subscribe` unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1)]
    pub scopes: Option<Vec<Scope>>,
    /// When it expires: after a duration (`90d`), or at a time; null for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("90d", "2027-01-31T12:00:00Z"))]
    pub expires: Option<String>,
}

/// A session of a browser.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// Whom it speaks for.
    pub user: String,
    /// The token that it was begun with.
    pub token: Option<Uuid>,
    /// When it was begun.
    pub created: Time,
    /// When it ends.
    pub expires: Option<Time>,
    /// When it was last used.
    pub last_used: Option<Time>,
}

/// A page of the audit, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The entries.
    pub audit: Vec<AuditEntry>,
    /// The path of the next page; null at the end.
    pub next: Option<String>,
}

/// What somebody changed, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// When.
    pub at: Time,
    /// Who.
    pub by: String,
    /// How Waypost knew who it was.
    pub via: String,
    /// By which token.
    pub token: Option<Uuid>,
    /// What: `subscription.change`.
    pub action: String,
    /// Of what.
    pub id: Option<String>,
    /// Whose it is.
    pub user: Option<String>,
    /// More about it.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub detail: Map<String, Value>,
}
