//! The only form of time that CloudEvents 1.0 allows.

/// Tells whether a text is an RFC 3339 `date-time`. jiff accepts more forms, so the syntax is checked here, and the
/// calendar by jiff.
pub(super) fn is_rfc3339(text: &str) -> bool {
    let Some((head, tail)) = text.split_at_checked(19) else { return false };
    let is_shaped = head.bytes().zip("dddd-dd-ddTdd:dd:dd".bytes()).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        shape => byte.eq_ignore_ascii_case(&shape),
    });
    let offset = match tail.strip_prefix('.') {
        Some(fraction) => match fraction.trim_start_matches(|char: char| char.is_ascii_digit()) {
            offset if offset.len() < fraction.len() => offset,
            _ => return false,
        },
        None => tail,
    };
    is_shaped && is_offset(offset) && head.parse::<jiff::civil::DateTime>().is_ok()
}

fn is_offset(text: &str) -> bool {
    match text.as_bytes() {
        b"Z" | b"z" => true,
        [b'+' | b'-', h1 @ b'0'..=b'2', h2 @ b'0'..=b'9', b':', b'0'..=b'5', b'0'..=b'9'] => {
            (*h1, *h2) <= (b'2', b'3')
        }
        _ => false,
    }
}
