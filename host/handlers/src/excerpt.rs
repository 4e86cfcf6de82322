//! Excerpts of a service's text for errors. Pacifica's services answer with Python tracebacks, whose last line is the
//! reason: therefore the end of a long text is kept as well as the beginning.

/// Returns a text on one line. A text of more than `chars_max` characters is shortened: a quarter of the result is its
/// beginning, the rest its end.
pub(super) fn excerpt(text: &str, chars_max: usize) -> String {
    const GAP: &str = " … ";
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let chars = line.chars().count();
    if chars <= chars_max {
        return line;
    }
    let kept = chars_max.saturating_sub(GAP.chars().count());
    let head = kept / 4;
    let place = |at: usize| line.char_indices().nth(at).map_or(line.len(), |(place, _)| place);
    let (head, tail) = (&line[..place(head)], &line[place(chars - (kept - head))..]);
    format!("{}{GAP}{}", head.trim_end(), tail.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_one_line() {
        assert_eq!(excerpt(" a\n\tb ", 10), "a b");
        assert_eq!(excerpt("é".repeat(10).as_str(), 10), "é".repeat(10));
    }

    /// The reason of a failed job is the last line of a traceback, which was cut off.
    #[test]
    fn a_long_text_keeps_its_beginning_and_its_last_line() {
        let frames = "  File \"/site-packages/ingest/tasks.py\", line 1, in post\n".repeat(100);
        let text = format!("Traceback (most recent call last):\n{frames}KeyError: 'Transactions.é'\n");
        let shown = excerpt(&text, 200);
        assert!(shown.starts_with("Traceback (most recent call last):"), "{shown}");
        assert!(shown.contains(" … ") && shown.ends_with("in post KeyError: 'Transactions.é'"), "{shown}");
        assert!(shown.chars().count() <= 200);
        assert_eq!(excerpt("abcdef", 0), " … ");
    }
}
