//! Text in the file. redb's own `&str` panics when it reads invalid UTF-8: one damaged row would end the writer.

use std::borrow::Cow;
use std::cmp::Ordering;

use redb::{Key, TypeName, Value};

/// A text with the bytes, the order and the type name of redb's `&str`, so that tables that were made with that stay
/// readable.
#[derive(Debug)]
pub(super) enum Text {}

impl Text {
    /// The value that replaces a text that is not UTF-8. A plugin that uses it as a key does not find its value again.
    pub(super) const DAMAGED: &'static str = "\0damaged\0";
}

impl Value for Text {
    type SelfType<'a>
        = &'a str
    where
        Self: 'a;
    type AsBytes<'a>
        = &'a str
    where
        Self: 'a;

    fn fixed_width() -> Option<usize> {
        None
    }

    fn from_bytes<'a>(data: &'a [u8]) -> &'a str
    where
        Self: 'a,
    {
        std::str::from_utf8(data).unwrap_or(Self::DAMAGED)
    }

    fn as_bytes<'a, 'b: 'a>(value: &'a Self::SelfType<'b>) -> &'a str
    where
        Self: 'b,
    {
        value
    }

    fn type_name() -> TypeName {
        <&str as Value>::type_name()
    }
}

impl Key for Text {
    /// The order of `str` is that of its bytes.
    fn compare(data1: &[u8], data2: &[u8]) -> Ordering {
        data1.cmp(data2)
    }

    fn separator<'a>(left: &'a [u8], right: &'a [u8]) -> Cow<'a, [u8]> {
        <&str as Key>::separator(left, right)
    }

    fn min_encoded_key() -> Option<Cow<'static, [u8]>> {
        <&str as Key>::min_encoded_key()
    }
}
