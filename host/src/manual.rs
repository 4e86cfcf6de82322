//! The manual, as in `host/docs`, as `waypost docs` prints it, and as `/docs` shows it.
//!
#![cfg_attr(doc, doc = include_str!(concat!(env!("OUT_DIR"), "/manual.md")))]

use std::sync::LazyLock;

use include_dir::{Dir, include_dir};

use crate::http::reference;

/// The pages, as they are in the repository.
static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/docs");

/// A page of the manual.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Page {
    /// Its name: `filters`.
    pub name: &'static str,
    /// Its text, which begins with its title.
    pub text: String,
}

impl Page {
    /// Returns the first sentence below the title.
    pub fn subject(&self) -> String {
        let below = self.text.lines().skip_while(|line| !line.starts_with("# "));
        let lines = below.skip(1).skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty());
        let paragraph = lines.collect::<Vec<_>>().join(" ");
        match paragraph.split_once(". ") {
            Some((sentence, _)) => format!("{sentence}."),
            None => paragraph,
        }
    }
}

/// Returns all pages, and as `api` the reference of the REST API, in the order of their names.
#[doc(hidden)]
pub fn pages() -> &'static [Page] {
    static PAGES: LazyLock<Vec<Page>> = LazyLock::new(|| {
        let read = |(name, text): (&'static str, &str)| {
            let is_shown = |line: &&str| !line.starts_with("<!-- readme:");
            let lines = text.lines().filter(is_shown).map(|line| format!("{line}\n"));
            Some(Page { name: name.strip_suffix(".md")?, text: lines.collect() })
        };
        let files = FILES.files().filter_map(|file| Some((file.path().to_str()?, file.contents_utf8()?)));
        let mut pages: Vec<_> = files.filter_map(read).collect();
        pages.push(Page { name: reference::NAME, text: reference::markdown() });
        pages.sort_unstable_by_key(|page| page.name);
        pages
    });
    &PAGES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The links of the pages as `cargo doc` shows them led to files.
    #[test]
    fn each_link_within_the_documentation_leads_to_a_heading() {
        let whole = include_str!(concat!(env!("OUT_DIR"), "/manual.md"));
        let text: String = whole.split("```").step_by(2).collect();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let (outside, inside): (Vec<_>, Vec<_>) = links.partition(|link| link.contains("://"));
        assert!(outside.len() > 1 && inside.len() > 100, "{outside:?} {inside:?}");
        for link in inside {
            let anchor = format!("<a id=\"{}\"></a>\n", link.trim_start_matches('#'));
            assert_eq!(text.matches(&anchor).count(), 1, "{link}");
        }
        for page in FILES.files().filter_map(|file| file.path().file_stem()?.to_str()) {
            assert!(text.contains(&format!("<a id=\"{page}.md\"></a>\n")), "{page} is not in host/build.rs");
        }
    }

    #[test]
    fn each_page_says_what_it_is_about() {
        for page in pages() {
            let subject = page.subject();
            assert!(subject.len() > 10 && subject.ends_with(['.', ':']), "{}: {subject}", page.name);
        }
        assert!(pages().iter().any(|page| page.name == "filters"));
    }
}
