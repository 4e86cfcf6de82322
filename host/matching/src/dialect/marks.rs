//! What tells the dialects apart in a text that neither of them accepts.

use crate::form::Operator;
use crate::jsonpath2::{Bracket, Kind, Lexer, Token};

/// Tells whether a text has more of jsonpath2 than of RFC 9535.
pub(super) fn look_like_jsonpath2(text: &str) -> bool {
    let mut lexer = Lexer::new(text);
    let (mut last, mut token) = (Kind::End, lexer.token());
    let (mut of_jsonpath2, mut of_rfc9535) = (0_usize, 0_usize);
    while token.kind != Kind::End {
        let next = lexer.token();
        of_jsonpath2 += usize::from(is_of_jsonpath2(last, token, next.kind));
        of_rfc9535 += usize::from(is_of_rfc9535(last, token, next.kind));
        last = token.kind;
        token = next;
    }
    // RFC 9535 allows this, but it is rarely meant: it tests the children of each element.
    of_jsonpath2 += usize::from(tests_each_element(text));
    of_jsonpath2 > of_rfc9535
}

/// Tells whether a filter stands behind a wildcard, which is how jsonpath2 tests the elements of an array.
pub(super) fn tests_each_element(text: &str) -> bool {
    let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    squeezed.contains("[*][?") || squeezed.contains(".*[?")
}

/// What may stand right before a subscript.
fn begins_subscript(last: Kind) -> bool {
    matches!(last, Kind::Dot | Kind::Dots | Kind::Open(Bracket::Square))
}

fn is_of_jsonpath2(last: Kind, token: Token<'_>, next: Kind) -> bool {
    match token.kind {
        Kind::Compare(operator) => operator == Operator::Equal,
        Kind::And | Kind::Or | Kind::Not => !matches!(last, Kind::Dot | Kind::Dots),
        Kind::Name => next == Kind::Open(Bracket::Round) && begins_subscript(last),
        Kind::Root | Kind::Current => last == Kind::Open(Bracket::Square),
        _ => false,
    }
}

fn is_of_rfc9535(last: Kind, token: Token<'_>, next: Kind) -> bool {
    match token.kind {
        Kind::Foreign(_) => true,
        Kind::Question => next != Kind::Open(Bracket::Round),
        Kind::Name => {
            let is_function = ["length", "count", "match", "search", "value"].contains(&token.text);
            is_function && next == Kind::Open(Bracket::Round) && !begins_subscript(last)
        }
        _ => false,
    }
}
