//! The manual, and the reference of the REST API, as Markdown.

use std::sync::LazyLock;

use include_dir::{Dir, include_dir};

use crate::http::reference;

/// The pages, as they are in the repository.
static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/docs");

/// A page of the manual.
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

/// Returns all pages, in the order of their names.
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

    #[test]
    fn each_page_says_what_it_is_about() {
        for page in pages() {
            let subject = page.subject();
            assert!(subject.len() > 10 && subject.ends_with(['.', ':']), "{}: {subject}", page.name);
        }
        assert!(pages().iter().any(|page| page.name == "filters"));
    }
}
