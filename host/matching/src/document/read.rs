//! From bytes to a document, by serde_json's parser.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::write::{Builder, Opened};
use super::{Document, Node};
use crate::number::Number;

/// About how many bytes of JSON make one node.
const NODE_BYTES: usize = 12;
/// Up to how many members comparing each name with each is quicker than hashing them.
const FEW_MEMBERS: usize = 24;
/// 2⁶³: from here on serde_json hands over integers of more than 64 bits as an `f64`.
const I64_END: f64 = 9_223_372_036_854_775_808.0;

pub(super) fn read(json: &[u8]) -> serde_json::Result<Document<'_>> {
    if u32::try_from(json.len()).is_err() {
        return Err(serde_json::Error::custom("more than 4 GiB of JSON"));
    }
    let mut reader = Reader {
        builder: Builder { nodes: Vec::with_capacity(json.len() / NODE_BYTES + 1) },
        names: Vec::new(),
        numbers: 0,
        rounded: Vec::new(),
    };
    // One look at all of it is much quicker than serde_json's at each string.
    let text = std::str::from_utf8(json).map_err(serde_json::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Value(&mut reader).deserialize(&mut deserializer)?;
    deserializer.end()?;
    reader.restore_rounded(json);
    Ok(reader.builder.finish())
}

struct Reader<'j> {
    builder: Builder<'j>,
    /// A stack of the places of the names in all objects that are open.
    names: Vec<usize>,
    /// How many numbers have been read.
    numbers: usize,
    /// Which of them may be integers that became `f64`s, and where they stand.
    rounded: Vec<Rounded>,
}

#[derive(Clone, Copy)]
struct Rounded {
    /// How many numbers stand before it.
    number: usize,
    node: usize,
}

impl<'j> Reader<'j> {
    fn number(&mut self, number: Number) {
        self.numbers += 1;
        self.builder.number(number);
    }

    fn close_object(&mut self, opened: Opened, first_name: usize) {
        let mut len = self.names.len() - first_name;
        if self.has_duplicates(first_name) {
            len = self.drop_duplicates(first_name);
        }
        self.names.truncate(first_name);
        self.builder.close_object(opened, len);
    }

    fn name(&self, place: usize) -> &str {
        match &self.builder.nodes[place] {
            Node::Borrowed(text) => text,
            Node::Owned(text) => text,
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Array(_) | Node::Object(_) => "",
        }
    }

    fn has_duplicates(&self, first_name: usize) -> bool {
        let names = &self.names[first_name..];
        if names.len() <= FEW_MEMBERS {
            let mut met = 0_u64;
            return names.iter().enumerate().any(|(count, place)| {
                let name = self.name(*place);
                let look = 1 << look(name);
                // Most names look like no other one, and need not be compared.
                let is_repeated =
                    met & look != 0 && names[..count].iter().any(|earlier| self.name(*earlier) == name);
                met |= look;
                is_repeated
            });
        }
        let mut seen = HashSet::with_capacity_and_hasher(names.len(), foldhash::fast::RandomState::default());
        !names.iter().all(|place| seen.insert(self.name(*place)))
    }

    /// Keeps the last value of each name, in the place of the first; returns how many are left.
    fn drop_duplicates(&mut self, first_name: usize) -> usize {
        let places = &self.names[first_name..];
        let first = places[0];
        let mut last_by_name: HashMap<&str, usize> = HashMap::new();
        for (member, place) in places.iter().enumerate() {
            last_by_name.insert(self.name(*place), member);
        }
        let mut order = Vec::new();
        for place in places {
            order.extend(last_by_name.remove(self.name(*place)));
        }
        let places = places.to_vec();
        let mut old = self.builder.nodes.split_off(first);
        let mut moved_to = vec![None; places.len()];
        for &member in &order {
            moved_to[member] = Some(self.builder.nodes.len());
            let end = places.get(member + 1).map_or(old.len(), |next| next - first);
            let nodes = old[places[member] - first..end].iter_mut();
            self.builder.nodes.extend(nodes.map(|node| std::mem::replace(node, Node::Null)));
        }
        self.rounded.retain_mut(|rounded| {
            // What stands before the object's first name stays.
            let Some(member) = places.partition_point(|place| *place <= rounded.node).checked_sub(1) else {
                return true;
            };
            let Some(start) = moved_to[member] else { return false };
            rounded.node = start + rounded.node - places[member];
            true
        });
        order.len()
    }

    /// Puts the integers that do not fit into 64 bits, and `-0`, in the place of their `f64`s.
    fn restore_rounded(&mut self, json: &[u8]) {
        if self.rounded.is_empty() {
            return;
        }
        self.rounded.sort_unstable_by_key(|rounded| rounded.number);
        let mut texts = NumberTexts { rest: json }.enumerate();
        for rounded in &self.rounded {
            let text = texts.find(|(number, _)| *number == rounded.number);
            let exact = text.and_then(|(_, text)| Number::parse(text));
            if let Some(exact) = exact {
                self.builder.nodes[rounded.node] = Node::Number(exact);
            }
        }
    }
}

/// Returns a number below 64 that is the same for the same name, and rarely for another.
fn look(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let byte = |place: usize| bytes.get(place).map_or(0, |byte| u32::from(*byte));
    let len = u32::try_from(bytes.len() % 64).unwrap_or_default();
    (len * 11 + byte(0) * 5 + byte(bytes.len() / 2) * 3 + byte(bytes.len().wrapping_sub(1)) * 7) % 64
}

/// The texts of all numbers in JSON that is known to be well-formed.
struct NumberTexts<'j> {
    rest: &'j [u8],
}

impl<'j> Iterator for NumberTexts<'j> {
    type Item = &'j str;

    fn next(&mut self) -> Option<Self::Item> {
        let is_part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        loop {
            match *self.rest.first()? {
                b'"' => self.skip_string(),
                b'-' | b'0'..=b'9' => {
                    let end = self.rest.iter().position(|byte| !is_part(byte)).unwrap_or(self.rest.len());
                    let (text, rest) = self.rest.split_at(end);
                    self.rest = rest;
                    return std::str::from_utf8(text).ok();
                }
                _ => self.rest = &self.rest[1..],
            }
        }
    }
}

impl NumberTexts<'_> {
    fn skip_string(&mut self) {
        let mut at = 1;
        while let Some(found) = self.rest.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
            at += found;
            if self.rest[at] == b'"' {
                break;
            }
            at += 2;
        }
        self.rest = self.rest.get(at + 1..).unwrap_or_default();
    }
}

/// Reads one value.
struct Value<'r, 'j>(&'r mut Reader<'j>);

impl<'j> DeserializeSeed<'j> for Value<'_, 'j> {
    type Value = ();

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'j> Visitor<'j> for Value<'_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.builder.null();
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.builder.bool(value);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.0.number(Number::from(number));
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.0.number(Number::from(number));
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        // `-0` is an integer, and an index in jsonpath2; serde_json makes it the same `f64` as `-0.0`.
        if number.abs() >= I64_END || (number == 0.0 && number.is_sign_negative()) {
            let rounded = Rounded { number: self.0.numbers, node: self.0.builder.nodes.len() };
            self.0.rounded.push(rounded);
        }
        self.0.number(Number::Float(number));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'j str) -> Result<(), E> {
        self.0.builder.string(text);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.builder.owned(text.into());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut elements: A) -> Result<(), A::Error> {
        let opened = self.0.builder.open();
        let mut len = 0;
        while elements.next_element_seed(Value(&mut *self.0))?.is_some() {
            len += 1;
        }
        self.0.builder.close_array(opened, len);
        Ok(())
    }

    fn visit_map<A: MapAccess<'j>>(self, mut members: A) -> Result<(), A::Error> {
        let opened = self.0.builder.open();
        let first_name = self.0.names.len();
        while members.next_key_seed(Name(&mut *self.0))?.is_some() {
            members.next_value_seed(Value(&mut *self.0))?;
        }
        self.0.close_object(opened, first_name);
        Ok(())
    }
}

/// Reads a member's name.
struct Name<'r, 'j>(&'r mut Reader<'j>);

impl<'j> DeserializeSeed<'j> for Name<'_, 'j> {
    type Value = ();

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        let place = self.0.builder.nodes.len();
        self.0.names.push(place);
        deserializer.deserialize_str(Value(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> String {
        read(json.as_bytes()).unwrap().root().to_string()
    }

    #[test]
    fn writes_what_it_reads() {
        for json in [
            r#"{"a":[1,-2.5,null,true,"x\n\"é"],"b":{},"c":[],"":{"d":[[]]}}"#,
            "[123456789012345678901234567890,18446744073709551615,-9223372036854775809,1e300]",
            r#""text""#,
            "0",
        ] {
            assert_eq!(written(json), json);
        }
    }

    #[test]
    fn integers_beyond_64_bits_stay_exact() {
        let json = r#"["1\"2", 1e30, {"-5": 99999999999999999999}, -99999999999999999998, 1e2]"#;
        assert_eq!(written(json), r#"["1\"2",1e30,{"-5":99999999999999999999},-99999999999999999998,100.0]"#);
        // Also where a duplicate has moved them.
        let json = r#"{"a": 1, "b": 5, "a": {"c": 99999999999999999999}, "d": 88888888888888888888, "a": [77777777777777777777]}"#;
        assert_eq!(written(json), r#"{"a":[77777777777777777777],"b":5,"d":88888888888888888888}"#);
    }

    #[test]
    fn the_last_of_duplicates_counts_in_the_place_of_the_first() {
        assert_eq!(written(r#"{"a":1,"b":[2,{}],"\u0061":{"c":[3]}}"#), r#"{"a":{"c":[3]},"b":[2,{}]}"#);
        let many: Vec<_> = (0..40).map(|number| format!("\"{}\":{number}", number % 20)).collect();
        let kept: Vec<_> = (0..20).map(|number| format!("\"{number}\":{}", number + 20)).collect();
        assert_eq!(written(&format!("{{{}}}", many.join(","))), format!("{{{}}}", kept.join(",")));
    }

    #[test]
    fn finds_children_members_and_elements() {
        let document = read(br#"{"a": [10, [20], {"x": 1}, 40], "b": {"c": null}}"#).unwrap();
        let array = document.root().member("a").unwrap();
        assert_eq!(array.len(), 4);
        assert_eq!(array.element(-2).unwrap().to_string(), r#"{"x":1}"#);
        assert_eq!(array.element(3).unwrap().to_string(), "40");
        assert!(array.element(4).is_none() && array.element(-5).is_none());
        assert_eq!(document.root().children().count(), 2);
        assert_eq!(document.root().size() as usize, document.len());
        assert!(document.root().member("c").is_none());
    }

    #[test]
    fn refuses_what_is_not_json_or_too_deep() {
        for json in ["", "{", "{} {}", "[1,]", "\"\\ud800\"", "01"] {
            assert!(read(json.as_bytes()).is_err(), "{json}");
        }
        assert!(read("[".repeat(200).as_bytes()).is_err());
    }
}
