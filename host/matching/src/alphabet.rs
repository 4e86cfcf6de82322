//! A pattern over the few kinds of characters that it tells apart, instead of over the bytes of UTF-8.
//!
//! To the regex crate `\w` is an automaton of 49 KB over bytes, and `\w{1,64}` has 64 of them, twice. But all letters are
//! alike to it: where each character is first replaced by a symbol for its kind, it is one symbol repeated. A pattern that is
//! too large by itself is compiled in this way.

use std::collections::BTreeSet;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind, Look};

/// The most sets of characters in one pattern: its distinct classes, and its distinct characters.
const SETS_MAX: usize = u128::BITS as usize;

/// A compiled pattern, and the kinds of characters that it tells apart.
#[derive(Clone, Debug)]
pub(super) struct Alphabet {
    /// From which character on which kind goes, in order.
    kinds: Vec<(char, u8)>,
    regex: Regex,
}

impl Alphabet {
    /// Compiles a pattern in the regex crate's syntax. Returns none where it is too large in this way too, or asks for more
    /// than characters, such as the edges of words.
    pub(super) fn compile(pattern: &str, bytes_max: usize) -> Option<Self> {
        let hir = regex_syntax::Parser::new().parse(pattern).ok()?;
        let mut sets = Sets::default();
        sets.collect(&hir)?;
        let kinds = Kinds::of(&sets)?;
        let mut text = String::new();
        kinds.write(&sets, &hir, &mut text)?;
        let mut builder = RegexBuilder::new(&text);
        let regex = builder.unicode(false).size_limit(bytes_max).dfa_size_limit(bytes_max).build().ok()?;
        Some(Self { kinds: kinds.starts, regex })
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        let symbols: Vec<u8> = text.chars().map(|c| self.symbol(c)).collect();
        self.regex.is_match(&symbols)
    }

    fn symbol(&self, c: char) -> u8 {
        let place = self.kinds.partition_point(|(start, _)| *start <= c);
        place.checked_sub(1).and_then(|place| self.kinds.get(place)).map_or(0, |(_, symbol)| *symbol)
    }
}

/// The sets of characters that a pattern speaks of.
#[derive(Default)]
struct Sets(Vec<ClassUnicode>);

impl Sets {
    fn collect(&mut self, hir: &Hir) -> Option<()> {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(Look::Start | Look::End) => Some(()),
            // What nothing matches.
            HirKind::Class(Class::Bytes(class)) if class.ranges().is_empty() => Some(()),
            HirKind::Look(_) | HirKind::Class(Class::Bytes(_)) => None,
            HirKind::Literal(literal) => {
                str::from_utf8(&literal.0).ok()?.chars().try_for_each(|c| self.add(of_char(c)))
            }
            HirKind::Class(Class::Unicode(class)) => self.add(class.clone()),
            HirKind::Repetition(repetition) => self.collect(&repetition.sub),
            HirKind::Capture(capture) => self.collect(&capture.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => {
                parts.iter().try_for_each(|part| self.collect(part))
            }
        }
    }

    fn add(&mut self, set: ClassUnicode) -> Option<()> {
        if !self.0.contains(&set) {
            self.0.push(set);
        }
        (self.0.len() <= SETS_MAX).then_some(())
    }

    /// Returns the mark of a set that was collected: a bit.
    fn mark(&self, set: &ClassUnicode) -> Option<u128> {
        self.0.iter().position(|known| known == set).map(|place| 1 << place)
    }
}

fn of_char(c: char) -> ClassUnicode {
    ClassUnicode::new([regex_syntax::hir::ClassUnicodeRange::new(c, c)])
}

/// The kinds of characters: all of one kind are in the same sets.
struct Kinds {
    starts: Vec<(char, u8)>,
    /// In which sets each kind is, as bits; the kind's symbol is its place.
    marks: Vec<u128>,
}

impl Kinds {
    /// Returns none where there are more than symbols.
    fn of(sets: &Sets) -> Option<Self> {
        let mut edges = BTreeSet::from(['\0']);
        for range in sets.0.iter().flat_map(ClassUnicode::ranges) {
            edges.insert(range.start());
            edges.extend(next(range.end()));
        }
        let mut kinds = Self { starts: Vec::with_capacity(edges.len()), marks: Vec::new() };
        let mut last = None;
        for edge in edges {
            let is_in = |set: &ClassUnicode| {
                let ranges = set.ranges();
                let place = ranges.partition_point(|range| range.end() < edge);
                ranges.get(place).is_some_and(|range| range.start() <= edge)
            };
            let mark = sets
                .0
                .iter()
                .enumerate()
                .filter(|(_, set)| is_in(set))
                .fold(0, |mark, (place, _)| mark | 1 << place);
            let place = kinds.marks.iter().position(|known| *known == mark).unwrap_or_else(|| {
                kinds.marks.push(mark);
                kinds.marks.len() - 1
            });
            let symbol = u8::try_from(place).ok()?;
            if last != Some(symbol) {
                kinds.starts.push((edge, symbol));
                last = Some(symbol);
            }
        }
        Some(kinds)
    }

    /// Writes a pattern over the symbols.
    fn write(&self, sets: &Sets, hir: &Hir, out: &mut String) -> Option<()> {
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Look(Look::Start) => out.push_str(r"\A"),
            HirKind::Look(Look::End) => out.push_str(r"\z"),
            HirKind::Class(Class::Bytes(class)) if class.ranges().is_empty() => self.write_set(0, out),
            HirKind::Look(_) | HirKind::Class(Class::Bytes(_)) => return None,
            HirKind::Literal(literal) => {
                for c in str::from_utf8(&literal.0).ok()?.chars() {
                    self.write_set(sets.mark(&of_char(c))?, out);
                }
            }
            HirKind::Class(Class::Unicode(class)) => self.write_set(sets.mark(class)?, out),
            HirKind::Repetition(repetition) => {
                self.write_group(sets, std::slice::from_ref(&*repetition.sub), "", out)?;
                let most = repetition.max.map_or_else(String::new, |max| max.to_string());
                out.push_str(&format!("{{{},{most}}}", repetition.min));
                if !repetition.greedy {
                    out.push('?');
                }
            }
            HirKind::Capture(capture) => self.write(sets, &capture.sub, out)?,
            HirKind::Concat(parts) => self.write_group(sets, parts, "", out)?,
            HirKind::Alternation(parts) => self.write_group(sets, parts, "|", out)?,
        }
        Some(())
    }

    fn write_group(&self, sets: &Sets, parts: &[Hir], between: &str, out: &mut String) -> Option<()> {
        out.push_str("(?:");
        for (place, part) in parts.iter().enumerate() {
            if place > 0 {
                out.push_str(between);
            }
            self.write(sets, part, out)?;
        }
        out.push(')');
        Some(())
    }

    /// Writes the symbols of a set's kinds as a class, which may be empty.
    fn write_set(&self, mark: u128, out: &mut String) {
        let symbols: Vec<_> = self
            .marks
            .iter()
            .enumerate()
            .filter(|(_, kind)| **kind & mark != 0)
            .map(|(place, _)| place)
            .collect();
        if symbols.is_empty() {
            out.push_str(r"[^\x00-\xff]");
            return;
        }
        out.push('[');
        symbols.iter().for_each(|symbol| out.push_str(&format!(r"\x{symbol:02x}")));
        out.push(']');
    }
}

fn next(c: char) -> Option<char> {
    (c..=char::MAX).nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 256 * 1024;

    #[test]
    fn finds_what_the_pattern_itself_finds() {
        let texts = [
            "",
            "a",
            "c",
            "x",
            "bbbc",
            "größe_7",
            "größe_7@x",
            "GRÖSSE",
            "GRÖßE",
            "a.tif",
            "ä b.tiff",
            "٣",
            "\n",
            "\u{10ffff}",
            "\u{d7ff}\u{e000}",
            "\0",
        ];
        let long = [1, 63, 64, 65, 300].map(|length| "é".repeat(length));
        for pattern in [
            r"\A(?:\w{1,64})\z",
            r"\w{1,64}@\w{1,64}",
            r"[\p{L}\p{N}_.-]{1,64}\.tiff?",
            r"(?i)größe|\d+",
            r"\A(?:\w{1,255}|[^\n\r]{2,300}x?)\z",
            r"a|b*c??|",
            r"[^\w]",
            r"\A(?:[^\x00-\x{10ffff}]|(x|y)(é){2,}?)",
        ] {
            let alphabet = Alphabet::compile(pattern, BYTES_MAX).unwrap();
            let plain = regex::RegexBuilder::new(pattern).size_limit(1 << 28).build().unwrap();
            for text in texts.into_iter().chain(long.iter().map(String::as_str)) {
                assert_eq!(alphabet.is_match(text), plain.is_match(text), "{pattern} {text:?}");
            }
        }
    }

    #[test]
    fn what_is_large_over_symbols_too_or_more_than_characters_is_refused() {
        for pattern in [r"((\w{99}){99}){9}", r"\b\w{64}", r"(?m)^\w{64}$", r"(?-u)\w{64}"] {
            assert!(Alphabet::compile(pattern, BYTES_MAX).is_none(), "{pattern}");
        }
        let sets: String = (0..129).filter_map(|place| char::from_u32(0x4e00 + place)).collect();
        assert!(Alphabet::compile(&sets, BYTES_MAX).is_none());
        assert!(Alphabet::compile(sets.trim_end_matches('\u{4e80}'), BYTES_MAX).is_some());
    }
}
