//! Writes the manual as one page for `cargo doc`, in which links lead from page to page.
//!
//! rustdoc keeps links as they are, so `filters.md` would lead nowhere; and it takes Rust in a page for a test of its own.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

/// The pages in the order of reading, as in the README.
const PAGES: [&str; 21] = [
    "events",
    "subscriptions",
    "filters",
    "plugins",
    "handlers",
    "delivering",
    "signing",
    "rest",
    "network",
    "tls",
    "guard",
    "secrets",
    "configuration",
    "operations",
    "operator-events",
    "backpressure",
    "measuring",
    "embedding",
    "pacifica",
    "architecture",
    "words",
];

fn main() {
    println!("cargo::rerun-if-changed=docs");
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let pages = PAGES.map(|name| {
        let text = fs::read_to_string(format!("docs/{name}.md"));
        page(name, &text.unwrap_or_else(|error| panic!("docs/{name}.md cannot be read: {error}")))
    });
    fs::write(Path::new(&out).join("manual.md"), pages.concat()).expect("cargo has made the folder");
}

/// Rewrites a page: its text outside of blocks of code.
fn page(name: &str, text: &str) -> String {
    let mut out = String::new();
    for (place, part) in text.split("```").enumerate() {
        match place % 2 {
            0 => out.push_str(&linked(name, part)),
            _ => {
                let (language, code) = part.split_once('\n').expect("code begins on a line of its own");
                let language = if language == "rust" { "rust,ignore" } else { language };
                let _infallible = write!(out, "```{language}\n{code}```");
            }
        }
    }
    out + "\n"
}

/// Gives headings an anchor, leads links to those, and takes out links to what is not in the manual, and comments.
fn linked(name: &str, text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n').filter(|line| !line.starts_with("<!--")) {
        if line.starts_with("# ") {
            let _infallible = write!(out, "<a id=\"{name}.md\"></a>\n\n");
        } else if line.starts_with('#') {
            let _infallible = write!(out, "<a id=\"{name}.{}\"></a>\n\n", slug(line));
        }
        let mut rest = line;
        while let Some((before, (target, after))) =
            rest.split_once("](").and_then(|(before, link)| Some((before, link.split_once(')')?)))
        {
            out.push_str(before);
            match anchor(name, target) {
                Some(anchor) => {
                    let _infallible = write!(out, "]({anchor})");
                }
                None => {
                    let begin = out.rfind('[').expect("a link has a beginning");
                    out.remove(begin);
                }
            }
            rest = after;
        }
        out.push_str(rest);
    }
    out
}

/// Returns where a link of a page leads; `None` where that is not in the manual.
fn anchor(name: &str, target: &str) -> Option<String> {
    if target.contains("://") {
        return Some(target.to_owned());
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let page = if file.is_empty() { name } else { file.strip_suffix(".md")? };
    let heading = if heading.is_empty() { "md" } else { heading };
    PAGES.contains(&page).then(|| format!("#{page}.{heading}"))
}

/// Returns the anchor of a heading, as `http::docs` makes it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}
