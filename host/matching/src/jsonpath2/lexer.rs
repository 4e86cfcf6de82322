//! The tokens of jsonpath2, and those of RFC 9535 that its authors write by mistake.

use crate::form::Operator;

/// A token, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'t> {
    /// Its first byte.
    pub(crate) at: usize,
    pub(crate) text: &'t str,
    pub(crate) kind: Kind,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Root,
    Current,
    Dot,
    Dots,
    Star,
    Question,
    Colon,
    Comma,
    Open(Bracket),
    Close(Bracket),
    And,
    Or,
    Not,
    True,
    False,
    Null,
    Compare(Operator),
    /// ASCII letters, digits and `_`.
    Name,
    /// With its double quotes, and with escapes that are JSON's.
    String,
    Number,
    /// A string that is closed nowhere, or has an error at this byte of the text.
    Broken(Flaw, usize),
    Foreign(Foreign),
    /// A character that begins no token.
    Unknown(char),
    End,
}

/// A bracket's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bracket {
    Round,
    Square,
    Curly,
}

/// What is wrong with a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Unclosed,
    /// A control character, written as itself.
    Control,
    /// A backslash with something that JSON knows no meaning of.
    Escape,
}

/// What RFC 9535 writes and jsonpath2 does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// `==`
    Equal,
    /// `&&`
    And,
    /// `||`
    Or,
    /// `!`
    Not,
    /// `'…'`
    SingleQuotes,
}

/// Goes through a text, token by token. It never fails: the parser says what it would rather have read.
#[derive(Clone, Debug)]
pub(crate) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// Returns the next token; at the end of the text [`Kind::End`], again and again.
    pub(crate) fn token(&mut self) -> Token<'t> {
        let rest = &self.text[self.at..];
        let rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let at = self.text.len() - rest.len();
        let (kind, len) = next(rest, at);
        self.at = at + len;
        Token { at, text: &rest[..len], kind }
    }
}

/// Returns the kind and the length of the token that `rest` begins with.
fn next(rest: &str, at: usize) -> (Kind, usize) {
    let Some(first) = rest.chars().next() else { return (Kind::End, 0) };
    let second = rest.as_bytes().get(1).copied();
    match first {
        '$' => (Kind::Root, 1),
        '@' => (Kind::Current, 1),
        '.' if second == Some(b'.') => (Kind::Dots, 2),
        '.' => (Kind::Dot, 1),
        '*' => (Kind::Star, 1),
        '?' => (Kind::Question, 1),
        ':' => (Kind::Colon, 1),
        ',' => (Kind::Comma, 1),
        '(' => (Kind::Open(Bracket::Round), 1),
        ')' => (Kind::Close(Bracket::Round), 1),
        '[' => (Kind::Open(Bracket::Square), 1),
        ']' => (Kind::Close(Bracket::Square), 1),
        '{' => (Kind::Open(Bracket::Curly), 1),
        '}' => (Kind::Close(Bracket::Curly), 1),
        '=' if second == Some(b'=') => (Kind::Foreign(Foreign::Equal), 2),
        '=' => (Kind::Compare(Operator::Equal), 1),
        '!' if second == Some(b'=') => (Kind::Compare(Operator::NotEqual), 2),
        '!' => (Kind::Foreign(Foreign::Not), 1),
        '<' if second == Some(b'=') => (Kind::Compare(Operator::LessOrEqual), 2),
        '<' => (Kind::Compare(Operator::Less), 1),
        '>' if second == Some(b'=') => (Kind::Compare(Operator::GreaterOrEqual), 2),
        '>' => (Kind::Compare(Operator::Greater), 1),
        '&' if second == Some(b'&') => (Kind::Foreign(Foreign::And), 2),
        '|' if second == Some(b'|') => (Kind::Foreign(Foreign::Or), 2),
        '"' => string(rest, at),
        '\'' => single_quotes(rest, at),
        'A'..='Z' | 'a'..='z' | '_' => word(rest),
        '-' | '0'..='9' => match number(rest) {
            Some(len) => (Kind::Number, len),
            None => (Kind::Unknown(first), 1),
        },
        other => (Kind::Unknown(other), other.len_utf8()),
    }
}

fn word(rest: &str) -> (Kind, usize) {
    let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let kind = match &rest[..len] {
        "and" => Kind::And,
        "or" => Kind::Or,
        "not" => Kind::Not,
        "true" => Kind::True,
        "false" => Kind::False,
        "null" => Kind::Null,
        _ => Kind::Name,
    };
    (kind, len)
}

/// Returns the length of the longest JSON number at the beginning; an exponent has no leading zero here.
fn number(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = |from: usize| if bytes.get(from) == Some(&b'0') { 1 } else { digits(from) };
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let mut end = sign + whole(sign);
    if end == sign {
        return None;
    }
    if bytes.get(end) == Some(&b'.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let from = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if from < bytes.len() && whole(from) > 0 {
            end = from + whole(from);
        }
    }
    Some(end)
}

/// Reads a string up to its closing quote even where it is broken, so that what comes after is no part of it.
fn string(rest: &str, at: usize) -> (Kind, usize) {
    let mut flaw = None;
    let mut chars = rest.char_indices().skip(1);
    while let Some((place, c)) = chars.next() {
        match c {
            '"' => {
                let kind = flaw.map_or(Kind::String, |(flaw, place)| Kind::Broken(flaw, at + place));
                return (kind, place + 1);
            }
            '\\' => {
                if !is_escape(&rest[place + 1..]) {
                    flaw = flaw.or(Some((Flaw::Escape, place)));
                }
                chars.next();
            }
            '\0'..='\x1f' => flaw = flaw.or(Some((Flaw::Control, place))),
            _ => {}
        }
    }
    (Kind::Broken(Flaw::Unclosed, at), rest.len())
}

/// Tells whether one of JSON's escapes follows a backslash.
fn is_escape(rest: &str) -> bool {
    match rest.as_bytes() {
        [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => true,
        [b'u', a, b, c, d, ..] => [a, b, c, d].iter().all(|byte| byte.is_ascii_hexdigit()),
        _ => false,
    }
}

fn single_quotes(rest: &str, at: usize) -> (Kind, usize) {
    let mut chars = rest.char_indices().skip(1);
    while let Some((place, c)) = chars.next() {
        match c {
            '\'' => return (Kind::Foreign(Foreign::SingleQuotes), place + 1),
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    (Kind::Broken(Flaw::Unclosed, at), rest.len())
}
