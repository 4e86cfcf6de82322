use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An error: Pacifica's `status` and `message`, and the members of problem+json (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// The status with its name: `404 Not Found`.
    #[serde(default)]
    #[schema(required = true)]
    pub status: String,
    /// What is wrong, and what to do; the same text as `detail`.
    pub message: String,
    /// A type of problem (RFC 9457 §3.1.1): always `about:blank`.
    #[serde(rename = "type", default)]
    #[schema(required = true)]
    pub kind: String,
    /// The name of the status.
    #[serde(default)]
    #[schema(required = true)]
    pub title: String,
    /// What is wrong, and what to do.
    #[serde(default)]
    #[schema(required = true)]
    pub detail: String,
    /// A JSON pointer (RFC 6901) to the member of the request's body that is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// All that is wrong, where it is more than one member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemPart>,
}

/// One of several errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemPart {
    /// A JSON pointer to the member that is wrong.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}
