//! An error and its causes on one line: for the places where an error is handled, and nowhere else.

use std::error::Error;

/// Returns `error: cause: cause`; a cause that the text before it already contains is not repeated.
pub fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
