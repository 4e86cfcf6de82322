//! The log lines of one call.

use super::text;
use waypost_domain::plugin::{LogLevel, LogLine};

/// The longest message of a line, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// The longest name and the longest value of a field, in bytes.
const NAME_BYTES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 1024;
/// The field of the lines that the host writes into a call's log: `by=waypost`.
pub(super) const BY: &str = "by";
/// The most fields of a line.
const FIELDS_MAX: usize = 16;
/// What each line costs besides its texts, and what each field costs.
const LINE_COST: usize = 16;
const FIELD_COST: usize = 8;

/// The lines that fit into a limit. Lines that do not fit are counted; shorter ones after them may still fit.
#[derive(Default)]
pub(super) struct Logs {
    pub(super) lines: Vec<LogLine>,
    pub(super) dropped: u32,
    bytes: usize,
}

impl Logs {
    /// Adds a guest's line, cut and cleaned.
    pub(super) fn write(
        &mut self,
        level: LogLevel,
        message: &str,
        fields: &[(String, String)],
        bytes_max: usize,
    ) {
        let message = text::clean(message, MESSAGE_BYTES_MAX);
        let mut kept: Vec<_> = fields
            .iter()
            .take(FIELDS_MAX)
            .map(|(name, value)| (self::name(name), text::clean(value, VALUE_BYTES_MAX)))
            .collect();
        if fields.len() > FIELDS_MAX {
            kept.push((
                "…".to_owned(),
                format!("{} more fields: the limit is {FIELDS_MAX}", fields.len() - FIELDS_MAX),
            ));
        }
        let line = LogLine { level, message, fields: kept };
        let cost = cost(&line);
        if self.bytes + cost > bytes_max {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        self.bytes += cost;
        self.lines.push(line);
    }
}

/// Cleans a field's name, and changes it if it is the one that marks the host's own lines.
fn name(name: &str) -> String {
    let name = text::clean(name, NAME_BYTES_MAX);
    if name == BY { format!("plugin.{name}") } else { name }
}

fn cost(line: &LogLine) -> usize {
    let fields = line.fields.iter().map(|(name, value)| FIELD_COST + name.len() + value.len());
    LINE_COST + line.message.len() + fields.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_does_not_fit_is_counted_and_the_next_that_does_is_kept() {
        let mut logs = Logs::default();
        let mut write = |message: &str| logs.write(LogLevel::Info, message, &[], 100);
        write(&"a".repeat(80));
        write("");
        write("b");
        assert_eq!((logs.lines.len(), logs.dropped), (1, 2));
        logs.write(LogLevel::Info, "", &[], 112);
        assert_eq!((logs.lines.len(), logs.dropped), (2, 2));
    }

    #[test]
    fn a_line_is_cut_and_cleaned() {
        let mut logs = Logs::default();
        let field = ("\x1b[1mname".to_owned(), "v".repeat(2000));
        logs.write(LogLevel::Warn, &"m".repeat(5000), &vec![field; 20], 1 << 20);
        let line = &logs.lines[0];
        assert!(line.message.ends_with("m… (cut at 4096 bytes)"));
        assert_eq!(line.fields[0].0, "name");
        assert!(line.fields[15].1.ends_with("… (cut at 1024 bytes)"));
        logs.write(LogLevel::Warn, "m", &[("\x1b[1mby".to_owned(), "waypost".to_owned())], 1 << 20);
        assert_eq!(logs.lines[1].fields[0].0, "plugin.by", "a guest does not speak as the host");
        let line = &logs.lines[0];
        assert_eq!(line.fields[16].1, "4 more fields: the limit is 16");
    }
}
