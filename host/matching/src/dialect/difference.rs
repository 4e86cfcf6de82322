//! Whether both dialects mean the same by an expression that both accept, judged by what it compiles to.

use crate::form::{Query, Segment, Selector, Slice};

/// A way in which they do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    /// Which nodes `?(…)` tests.
    Filter,
    /// Which elements a slice finds.
    Slice,
    /// Which member a quoted name with a backslash names.
    Name,
    /// Something else.
    Other,
}

/// Returns what the author of an expression should know, once for each difference.
pub(super) fn warnings(rfc9535: &Query, jsonpath2: &Query) -> Vec<String> {
    let mut found = Vec::new();
    if rfc9535.start != jsonpath2.start || rfc9535.segments.len() != jsonpath2.segments.len() {
        found.push(Difference::Other);
    }
    for (one, other) in rfc9535.segments.iter().zip(&jsonpath2.segments) {
        let (one, other) = match (one, other) {
            (Segment::Child(one), Segment::Child(other)) => (one, other),
            (Segment::Descendant(one), Segment::Descendant(other)) => (one, other),
            (Segment::Child(_), Segment::Descendant(_)) | (Segment::Descendant(_), Segment::Child(_)) => {
                found.push(Difference::Other);
                continue;
            }
        };
        if one.len() != other.len() {
            found.push(Difference::Other);
        }
        found.extend(one.iter().zip(other).filter_map(|(one, other)| between(one, other)));
    }
    let mut told = Vec::new();
    for difference in found {
        if !told.contains(&difference) {
            told.push(difference);
        }
    }
    told.into_iter().map(|difference| difference.warning().to_owned()).collect()
}

fn between(rfc9535: &Selector, jsonpath2: &Selector) -> Option<Difference> {
    match (rfc9535, jsonpath2) {
        (Selector::Wildcard, Selector::Wildcard) => None,
        (Selector::Index(one), Selector::Index(other)) if one == other => None,
        (Selector::Name(one), Selector::Name(other)) => (one != other).then_some(Difference::Name),
        (Selector::Slice(one), Selector::Range(other)) => {
            (one != other || !goes_forward(**one)).then_some(Difference::Slice)
        }
        // The value itself may pass where none of its children does, and the other way round.
        (Selector::Filter(_), Selector::This(_)) => Some(Difference::Filter),
        _ => Some(Difference::Other),
    }
}

/// Tells whether a slice's step is positive: then a bound beyond the array's ends changes nothing in either dialect.
fn goes_forward(slice: Slice) -> bool {
    slice.step.is_none_or(|step| step > 0)
}

impl Difference {
    fn warning(self) -> &'static str {
        match self {
            Self::Filter => {
                "`[?(…)]` is read as RFC 9535: it tests each child of the value before it, where jsonpath2 tests that \
                 value itself; if you mean jsonpath2, set `filter_dialect` to `jsonpath2`, otherwise write `[?…]` \
                 without the parentheses"
            }
            Self::Slice => {
                "a slice with a negative step, or 0, is read as RFC 9535, and jsonpath2 finds other elements; set \
                 `filter_dialect` to the one that you mean"
            }
            Self::Name => {
                "a backslash in a quoted name is read as RFC 9535, as in JSON (`\\n` is a line end), where jsonpath2 \
                 takes it as it stands (a backslash and an n); set `filter_dialect` to the one that you mean, or write \
                 the character itself"
            }
            Self::Other => {
                "this is read as RFC 9535, and means something else in jsonpath2; set `filter_dialect` to the one that \
                 you mean"
            }
        }
    }
}
