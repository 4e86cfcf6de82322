//! `/docs`: the manual and the reference of this API, as pages that need nothing from elsewhere.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::extract::{OriginalUri, Path};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};
use sha2::{Digest as _, Sha256};

use super::error::ApiError;
use super::parameters::Here;
use super::static_body::StaticBody;
use crate::manual;

const HTML: &str = "text/html; charset=utf-8";

const STYLE: &str = "\
    :root{color-scheme:light dark}\
    body{font:1rem/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}\
    pre,code{font-family:ui-monospace,monospace;font-size:.9em}\
    pre{padding:.75rem;overflow-x:auto;border:1px solid;border-radius:.25rem}\
    table{border-collapse:collapse;display:block;overflow-x:auto}\
    th,td{border:1px solid;padding:.25rem .5rem;text-align:left;vertical-align:top}";

/// What stands in a URL as it is.
const KEPT: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>');

/// Shows the contents of the manual
#[utoipa::path(get, path = "/docs", operation_id = "read_manual",
    tag = "Service",
    responses((status = 200, description = "A web page", body = String, content_type = "text/html")))]
pub(super) async fn index(here: Here) -> Response {
    let base = here.path();
    let lines = manual::pages().iter().map(|page| {
        let (name, subject) = (page.name, page.subject());
        let base = utf8_percent_encode(base, KEPT);
        format!("- [{name}](<{base}/{name}>): {subject}\n")
    });
    let page = render(&format!("# Waypost\n\n{}", lines.collect::<String>()));
    with_policy(([(header::CONTENT_TYPE, HTML)], page).into_response())
}

/// Shows a page of the manual, or as `api` the reference of this API
#[utoipa::path(get, path = "/docs/{page}", operation_id = "read_manual_page",
    tag = "Service",
    responses((status = 200, description = "A web page", body = String, content_type = "text/html")))]
pub(super) async fn page(
    Path(name): Path<String>,
    here: Here,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    static PAGES: LazyLock<BTreeMap<&str, StaticBody>> = LazyLock::new(|| {
        let render = |page: &manual::Page| (page.name, StaticBody::new(render(&page.text), HTML));
        manual::pages().iter().map(render).collect()
    });
    if uri.path().ends_with('/') {
        // Links between pages are relative.
        return Ok(Redirect::permanent(here.path()).into_response());
    }
    let page = PAGES.get(name.as_str());
    let page =
        page.ok_or_else(|| ApiError::not_found(format!("the manual has no page `{name}`: see /docs")))?;
    Ok(with_policy(page.answer(&headers)))
}

/// Lets the page have its style, and nothing else.
fn with_policy(mut page: Response) -> Response {
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
        let policy =
            format!("default-src 'none'; style-src 'sha256-{hash}'; frame-ancestors 'none'; base-uri 'none'");
        HeaderValue::try_from(policy).expect("base64 fits into a header")
    });
    page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    page
}

/// Makes a web page of a Markdown text, whose first line is the title.
fn render(text: &str) -> String {
    let title = text.lines().next().unwrap_or_default().trim_start_matches("# ");
    let mut body = String::new();
    html::push_html(&mut body, linked(Parser::new_ext(text, Options::ENABLE_TABLES)));
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>{body}</body></html>"
    )
}

/// Gives headings their anchors, and leads links between pages to their URLs. A link to a file that is no page becomes
/// plain text.
fn linked<'a>(events: impl Iterator<Item = Event<'a>>) -> impl Iterator<Item = Event<'a>> {
    let mut events: Vec<_> = events.collect();
    let mut is_dropped = false;
    for place in 0..events.len() {
        let anchor = match &events[place] {
            Event::Start(Tag::Heading { .. }) => {
                let inside = events[place + 1..].iter();
                let inside = inside.take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
                Some(inside.filter_map(word).collect::<String>())
            }
            _ => None,
        };
        match &mut events[place] {
            Event::Start(Tag::Heading { id, .. }) => *id = anchor.map(|text| CowStr::from(slug(&text))),
            Event::Start(Tag::Link { dest_url, .. }) => match page_url(dest_url) {
                Some(url) => *dest_url = url.into(),
                None => {
                    is_dropped = true;
                    events[place] = Event::Text("".into());
                }
            },
            Event::End(TagEnd::Link) if is_dropped => {
                is_dropped = false;
                events[place] = Event::Text("".into());
            }
            _ => {}
        }
    }
    events.into_iter()
}

fn word<'e>(event: &'e Event<'_>) -> Option<&'e str> {
    match event {
        Event::Text(text) | Event::Code(text) => Some(text),
        _ => None,
    }
}

/// Returns the anchor of a heading, as the usual readers of Markdown make it.
fn slug(text: &str) -> String {
    let kept = text.to_lowercase();
    let kept = kept.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}

/// Returns the URL of a link, relative to the page; `None` for a file that is no page.
fn page_url(link: &str) -> Option<String> {
    if link.starts_with('#') || link.contains("://") || link.starts_with('/') {
        return Some(link.to_owned());
    }
    let (file, anchor) =
        link.split_once('#').map_or((link, String::new()), |(file, anchor)| (file, format!("#{anchor}")));
    let name = file.strip_suffix(".md")?;
    manual::pages().iter().any(|page| page.name == name).then(|| format!("{name}{anchor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_link_of_each_page_leads_to_an_anchor_that_is_there() {
        let pages: BTreeMap<_, _> =
            manual::pages().iter().map(|page| (page.name, render(&page.text))).collect();
        for (name, page) in &pages {
            for link in page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                if link.contains("://") {
                    continue;
                }
                let (to, anchor) = link.split_once('#').unwrap_or((link, ""));
                let to = if to.is_empty() { name } else { to };
                let target = pages.get(to).unwrap_or_else(|| panic!("{name}: {link}"));
                assert!(anchor.is_empty() || target.contains(&format!("id=\"{anchor}\"")), "{name}: {link}");
            }
        }
    }

    #[test]
    fn the_reference_names_each_route() {
        let reference = manual::pages().iter().find(|page| page.name == "api").unwrap();
        for (path, method, _) in crate::http::needs() {
            let heading = format!("### {method} {}\n", path.replace("{*", "{"));
            assert!(reference.text.contains(&heading), "{heading}");
        }
    }
}
