//! `waypost send`: sends an event, or a batch of them, from a file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use waypost_domain::Event;
use waypost_domain::event::{self, EventBody};
use waypost_domain::json::check_depth;

use crate::client::{Client, DEFAULT_SERVER, Identity};
use crate::{input, print};

/// Send an event, and print its id
///
/// The file holds a CloudEvent as JSON (any version from 0.1 to 1.0), or an array of them: a batch is accepted as a
/// whole or not at all, and the ids are printed in its order.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// The file to send, `-` for stdin
    file: PathBuf,
    /// The Waypost to send to
    #[arg(long, value_name = "URL", default_value = DEFAULT_SERVER)]
    to: Url,
    #[command(flatten)]
    identity: Identity,
}

const EXAMPLES: &str = "\
Examples:
  waypost send event.json
  echo '{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/me\",\"type\":\"hi\"}' | waypost send -
  waypost event get \"$(waypost send event.json)\"";

/// Sends the file.
pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let body = Bytes::from(input::read(&arguments.file)?);
    let content_type =
        content_type(&body).with_context(|| format!("failed to send {}", input::name(&arguments.file)))?;
    let client = Client::new(arguments.to, &arguments.identity, "--to")?;
    let request = client.request(Method::POST, &["receive"]);
    let request = request.header(CONTENT_TYPE, content_type).header(ACCEPT, "text/plain").body(body.clone());
    let ids = client.text(request).await?;
    for id in ids.lines() {
        print::line(id)?;
    }
    for doubt in warnings(content_type, body) {
        print::notice(&format!("warning: {doubt}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns warnings about accepted events with data that filters cannot match.
fn warnings(content_type: &'static str, body: Bytes) -> Vec<String> {
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
    let events = match event::decode(&headers, body) {
        Ok(EventBody::One(event)) => vec![event],
        Ok(EventBody::Batch(events)) => events,
        // A server of another version may accept more.
        Err(_) => Vec::new(),
    };
    let doubt =
        |event: &Event| Some(format!("the data of the event `{}`: {}", event.id(), event.unreadable_data()?));
    events.iter().filter_map(doubt).collect()
}

/// Returns the content type: that of a batch, of an event, or of plain JSON for an event of version 0.1, which
/// Pacifica's services send so.
fn content_type(body: &[u8]) -> anyhow::Result<&'static str> {
    #[derive(Deserialize)]
    struct Envelope {
        specversion: Option<IgnoredAny>,
    }

    match body.trim_ascii_start().first() {
        Some(b'[') => {
            for event in serde_json::from_slice::<Vec<&RawValue>>(body).context("not JSON")? {
                check_depth(event.get().as_bytes()).context("an event cannot be sent")?;
            }
            Ok("application/cloudevents-batch+json")
        }
        Some(b'{') => {
            let envelope: Envelope = serde_json::from_slice(body).context("not JSON")?;
            check_depth(body).context("the event cannot be sent")?;
            Ok(if envelope.specversion.is_some() {
                "application/cloudevents+json"
            } else {
                "application/json"
            })
        }
        Some(_) => bail!("an event is a JSON object, a batch is a JSON array, and this is neither"),
        None => bail!("it is empty"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_follows_the_json() {
        let of = |body: &str| content_type(body.as_bytes()).unwrap();
        assert_eq!(of(r#"{"specversion":"1.0"}"#), "application/cloudevents+json");
        assert_eq!(of(r#" {"cloudEventsVersion":"0.1"}"#), "application/json");
        assert_eq!(of("\n[]"), "application/cloudevents-batch+json");
    }

    #[test]
    fn what_is_no_event_is_refused_before_it_is_sent() {
        let error = |body: &str| format!("{:#}", content_type(body.as_bytes()).unwrap_err());
        insta::assert_snapshot!(error(""), @"it is empty");
        insta::assert_snapshot!(error("1"), @"an event is a JSON object, a batch is a JSON array, and this is neither");
        insta::assert_snapshot!(error("{"), @"not JSON: EOF while parsing an object at line 1 column 1");
        let deep = format!("{{\"data\":{}{}}}", "[".repeat(120), "]".repeat(120));
        insta::assert_snapshot!(error(&deep), @"the event cannot be sent: nested deeper than 120 levels");
        insta::assert_snapshot!(error(&format!("[{{}},{deep}]")), @"an event cannot be sent: nested deeper than 120 levels");
        insta::assert_snapshot!(error("[1,]"), @"not JSON: trailing comma at line 1 column 4");
    }
}
