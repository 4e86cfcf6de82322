use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

/// A time: UTC, with six fractional digits. Readers with one fixed format, such as Python's `strptime` with `%f`, expect
/// them even if they are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = DateTime, examples("2026-01-31T12:00:00.000000Z"))]
pub struct Time(pub Timestamp);

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_always_has_six_fractional_digits() {
        let time: Time = serde_json::from_str("\"2026-01-31T12:00:00Z\"").expect("a time");
        assert_eq!(serde_json::to_string(&time).expect("a text"), "\"2026-01-31T12:00:00.000000Z\"");
    }
}
