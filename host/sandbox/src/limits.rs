//! How much one call may use.

use std::time::Duration;

use waypost_domain::plugin::PluginLimits;

/// The limits of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest it may take, waits for HTTP included. Default 250 ms.
    pub time: Duration,
    /// The most bytes of linear memory, all memories together. Default 64 MiB.
    pub memory_bytes: usize,
    /// The most bytes of all outputs, and of anything else that it hands to the host at once. Default 1 MiB.
    pub output_bytes: usize,
    /// The most bytes of log lines. Default 64 KiB.
    pub log_bytes: usize,
    /// The most bytes of state of a subscription, keys and values. Default 1 MiB.
    pub state_bytes: usize,
    /// The most keys of state of a subscription. Default 1000.
    pub state_keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_millis(250),
            memory_bytes: 64 * 1024 * 1024,
            output_bytes: 1024 * 1024,
            log_bytes: 64 * 1024,
            state_bytes: 1024 * 1024,
            state_keys: 1000,
        }
    }
}

impl Limits {
    /// Returns these limits, lowered by a subscription's own.
    pub fn lowered(&self, own: &PluginLimits) -> Self {
        Self {
            time: self.time.min(own.time.unwrap_or(self.time)),
            memory_bytes: self.memory_bytes.min(own.memory_bytes.unwrap_or(self.memory_bytes)),
            output_bytes: self.output_bytes.min(own.output_bytes.unwrap_or(self.output_bytes)),
            log_bytes: self.log_bytes.min(own.log_bytes.unwrap_or(self.log_bytes)),
            state_bytes: self.state_bytes.min(own.state_bytes.unwrap_or(self.state_bytes)),
            state_keys: self.state_keys.min(own.state_keys.unwrap_or(self.state_keys)),
        }
    }
}

/// What a guest may hand to the host at once beyond its output: the attributes and headers of outputs, and a log line
/// or a value of the state that is then found too large by its own limit.
const HANDED_BYTES_MORE: usize = 1024 * 1024;

impl Limits {
    /// Returns the most bytes that a guest hands to the host in one call of a host function, or in one answer.
    pub(super) fn handed_bytes(&self) -> usize {
        self.output_bytes.saturating_add(HANDED_BYTES_MORE)
    }
}

/// Returns a number of bytes as people read it: `64 MiB`, or the bytes where no unit fits.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1024 * 1024 && bytes.is_multiple_of(1024 * 1024) => {
            format!("{} MiB", bytes / 1024 / 1024)
        }
        bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => format!("{} KiB", bytes / 1024),
        bytes => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_lowers_limits_and_never_raises_them() {
        let own =
            PluginLimits { time: Some(Duration::from_secs(9)), state_keys: Some(1), ..Default::default() };
        let lowered = Limits::default().lowered(&own);
        assert_eq!(lowered, Limits { state_keys: 1, ..Limits::default() });
    }
}
