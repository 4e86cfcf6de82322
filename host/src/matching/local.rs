//! Filters that look at one element of one array at a time, tried without parsing the whole event.
//!
//! `$.data[?@.destinationTable=='Files'].name` finds something exactly when `$[?@.destinationTable=='Files'].name`
//! finds something in an array of one element of `data`. Most subscriptions are of this form, and most elements do
//! not even contain the text that they are compared with, so that only a few of them are parsed.

use std::fmt;

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, JpQuery, Literal, Segment, Selector, SingularQuery, Test,
};
use jsonpath_rust::query::js_path_process;
use memchr::memmem::Finder;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Such a filter, taken apart.
#[derive(Clone)]
pub(super) struct Local {
    /// The names on the way to the array.
    path: Vec<Box<str>>,
    /// What must find something in an array of one element.
    element: JpQuery,
    /// What every element that passes contains, unless it is written with escapes.
    needle: Option<Finder<'static>>,
}

impl Local {
    /// Takes a filter apart, if it is of this form.
    pub(super) fn of(query: &JpQuery) -> Option<Self> {
        let at = query.segments.iter().position(|segment| name(segment).is_none())?;
        let (path, element) = query.segments.split_at(at);
        let Segment::Selector(Selector::Filter(filter)) = element.first()? else { return None };
        if !element.iter().all(is_relative) {
            return None;
        }
        let needle = needle(filter).map(|text| Finder::new(text.as_bytes()).into_owned());
        let path = path.iter().filter_map(name).map(Into::into).collect();
        Some(Self { path, element: JpQuery::new(element.to_vec()), needle })
    }

    /// Tells whether the filter finds anything in an event whose object members on the way are named once; `None`
    /// when there is no array at the place, about which this cannot say anything.
    ///
    /// # Errors
    /// The bytes are not JSON.
    pub(super) fn matches(&self, event_json: &[u8]) -> serde_json::Result<Option<bool>> {
        let mut reader = serde_json::Deserializer::from_slice(event_json);
        Find { local: self, path: &self.path }.deserialize(&mut reader)
    }

    fn element_matches(&self, element: &RawValue) -> serde_json::Result<bool> {
        let text = element.get().as_bytes();
        let cannot =
            |needle: &Finder<'_>| needle.find(text).is_none() && memchr::memchr(b'\\', text).is_none();
        if self.needle.as_ref().is_some_and(cannot) {
            return Ok(false);
        }
        let one = Value::Array(vec![serde_json::from_str(element.get())?]);
        Ok(js_path_process(&self.element, &one).is_ok_and(|found| !found.is_empty()))
    }
}

fn name(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Selector(Selector::Name(name)) => Some(name),
        _ => None,
    }
}

/// Tells whether a segment mentions nothing but the value that it is applied to.
fn is_relative(segment: &Segment) -> bool {
    match segment {
        Segment::Selector(selector) => is_relative_selector(selector),
        Segment::Selectors(selectors) => selectors.iter().all(is_relative_selector),
        Segment::Descendant(segment) => is_relative(segment),
    }
}

fn is_relative_selector(selector: &Selector) -> bool {
    match selector {
        Selector::Name(_) | Selector::Wildcard | Selector::Index(_) | Selector::Slice(..) => true,
        Selector::Filter(filter) => is_relative_filter(filter),
    }
}

fn is_relative_filter(filter: &Filter) -> bool {
    match filter {
        Filter::Or(parts) | Filter::And(parts) => parts.iter().all(is_relative_filter),
        Filter::Atom(FilterAtom::Filter { expr, .. }) => is_relative_filter(expr),
        Filter::Atom(FilterAtom::Test { expr, .. }) => match expr.as_ref() {
            Test::RelQuery(segments) => segments.iter().all(is_relative),
            Test::AbsQuery(_) | Test::Function(_) => false,
        },
        Filter::Atom(FilterAtom::Comparison(comparison)) => {
            let (left, right) = comparison.vals();
            [left, right].into_iter().all(|side| match side {
                Comparable::Literal(_) | Comparable::SingularQuery(SingularQuery::Current(_)) => true,
                Comparable::SingularQuery(SingularQuery::Root(_)) | Comparable::Function(_) => false,
            })
        }
    }
}

/// Returns the JSON of a string that has to be equal to some part of each element that passes.
fn needle(filter: &Filter) -> Option<String> {
    match filter {
        Filter::And(parts) => parts.iter().find_map(needle),
        Filter::Atom(FilterAtom::Filter { expr, not: false }) => needle(expr),
        Filter::Atom(FilterAtom::Comparison(comparison)) => match comparison.as_ref() {
            Comparison::Eq(Comparable::SingularQuery(_), Comparable::Literal(Literal::String(text)))
            | Comparison::Eq(Comparable::Literal(Literal::String(text)), Comparable::SingularQuery(_)) => {
                let is_plain = !text.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'));
                is_plain.then(|| format!("\"{text}\""))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Walks to the array, and tries its elements.
#[derive(Clone, Copy)]
struct Find<'l> {
    local: &'l Local,
    path: &'l [Box<str>],
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = Option<bool>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<bool>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = if self.path.is_empty() { None } else { Some(false) };
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            match self.path.split_first() {
                Some((name, path)) if **name == *key => found = map.next_value_seed(Self { path, ..self })?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut found = false;
        if self.path.is_empty() {
            while let Some(element) = elements.next_element::<&RawValue>()? {
                found = found || self.local.element_matches(element).map_err(A::Error::custom)?;
            }
        } else {
            // A name has nothing in an array.
            while elements.next_element::<IgnoredAny>()?.is_some() {}
        }
        Ok(Some(found))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Some(false))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Some(false))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Some(false))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Some(false))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Some(false))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Some(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::Filter;

    fn local(text: &str) -> Option<Local> {
        Local::of(&jsonpath_rust::parser::parse_json_path(text).unwrap())
    }

    #[test]
    fn only_filters_on_single_elements_are_local() {
        for text in [
            "$.data[?@.a=='x']",
            "$[?@=='x'].b[*]",
            "$.a.b[?@.c && !@.d || @.e<3]..f",
            "$.data[?@.a=='x' && @.list[?@.b==1]].name",
        ] {
            assert!(local(text).is_some(), "{text}");
        }
        for text in
            ["$.data", "$.data[*].a", "$.data[?$.a=='x']", "$.data[?@.a==$.b]", "$.data[?length(@.a)==1]"]
        {
            assert!(local(text).is_none(), "{text}");
        }
    }

    #[test]
    fn says_what_the_whole_filter_says() {
        let text = "$.data[?@.t=='Files' && @.size>3].name";
        for (event, matches) in [
            (r#"{"data": [{"t": "Files", "size": 4, "name": "x"}]}"#, Some(true)),
            (r#"{"data": [{"t": "\u0046iles", "size": 4, "name": "x"}]}"#, Some(true)),
            (r#"{"data": [{"t": "Files", "size": 4}, {"t": "Other", "size": 4, "name": "x"}]}"#, Some(false)),
            (r#"{"data": [1, "Files", null, [], {"t": "Files", "size": 1, "name": "x"}]}"#, Some(false)),
            (r#"{"data": {"k": {"t": "Files", "size": 4, "name": "x"}}}"#, None),
            (r#"{"data": "Files"}"#, Some(false)),
            (r#"{"other": [{"t": "Files", "size": 4, "name": "x"}]}"#, Some(false)),
            ("[]", Some(false)),
        ] {
            assert_eq!(local(text).unwrap().matches(event.as_bytes()).unwrap(), matches, "{event}");
            let value = serde_json::from_str(event).unwrap();
            assert_eq!(Filter::parse(text).unwrap().matches(&value), matches.unwrap_or(true), "{event}");
        }
        assert!(local(text).unwrap().matches(b"{\"data\": [1,").is_err());
    }
}
