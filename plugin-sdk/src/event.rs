//! The event that a plugin is asked about.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One event in the terms of CloudEvents 1.0, whatever version was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `id`.
    pub id: String,
    /// `source`.
    pub source: String,
    /// `type`.
    pub ty: String,
    /// `subject`.
    pub subject: Option<String>,
    /// `time`, as RFC 3339 writes it.
    pub time: Option<String>,
    /// `datacontenttype`.
    pub data_content_type: Option<String>,
    /// `dataschema`.
    pub data_schema: Option<String>,
    /// The extension attributes, as text.
    pub extensions: Vec<(String, String)>,
    /// The data, not parsed: see [`Event::data`].
    pub payload: Option<Payload>,
}

/// An event's data, or a raw body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// JSON text.
    Json(String),
    /// Any other text.
    Text(String),
    /// Everything else.
    Binary(Vec<u8>),
}

impl Payload {
    /// Returns a value as JSON.
    ///
    /// # Errors
    /// When the value cannot be written as JSON, such as a map whose keys are not strings.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self> {
        Ok(Self::Json(serde_json::to_string(value)?))
    }

    /// Returns the bytes of any variant.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Json(text) | Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

impl Event {
    /// Reads the data as JSON. An event without data is read as `null`, so that an `Option` is `None`.
    ///
    /// Read only what you need: a struct of three members takes a third of the time that a [`serde_json::Value`] takes,
    /// and `&str` or `Cow<str>` in it copies nothing.
    ///
    /// # Errors
    /// [`Error::InvalidEvent`] when the data is not JSON or has another shape: a retry cannot change that. A filter that
    /// is simply not interested in such events skips them: `let Ok(rows) = event.data::<Rows>() else { return skip(…) }`.
    pub fn data<'de, T: Deserialize<'de>>(&'de self) -> Result<T> {
        match &self.payload {
            Some(Payload::Json(text)) => {
                serde_json::from_str(text).map_err(|error| Error::InvalidEvent(format!("data: {error}")))
            }
            Some(Payload::Text(_)) => Err(self.no_json("text")),
            Some(Payload::Binary(_)) => Err(self.no_json("binary")),
            None => serde_json::from_str("null").map_err(|_| Error::invalid_event("the event has no data")),
        }
    }

    fn no_json(&self, kind: &str) -> Error {
        let found = self.data_content_type.as_deref().unwrap_or("no datacontenttype");
        Error::InvalidEvent(format!("data: JSON is needed, and this is {kind} ({found})"))
    }

    /// Replaces the data with a value as JSON.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn set_data(&mut self, value: &(impl Serialize + ?Sized)) -> Result<()> {
        self.payload = Some(Payload::json(value)?);
        self.data_content_type = Some("application/json".to_owned());
        Ok(())
    }

    /// Returns an extension attribute.
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Sets an extension attribute; names consist of lower-case letters and digits (CloudEvents 1.0.2 §3.1).
    pub fn set_extension(&mut self, name: &str, value: impl Into<String>) {
        match self.extensions.iter_mut().find(|(found, _)| found == name) {
            Some((_, old)) => *old = value.into(),
            None => self.extensions.push((name.to_owned(), value.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(payload: Option<Payload>) -> Event {
        Event { payload, data_content_type: Some("text/x".to_owned()), ..Event::default() }
    }

    #[test]
    fn data_is_read_by_serde_and_may_borrow() {
        #[derive(Deserialize)]
        struct Row<'a> {
            name: &'a str,
        }
        let event = event(Some(Payload::Json(r#"[{"name": "a", "size": 1}]"#.to_owned())));
        let rows: Vec<Row<'_>> = event.data().unwrap();
        assert_eq!(rows[0].name, "a");
    }

    #[test]
    fn data_of_another_shape_is_an_invalid_event() {
        let message = |payload| event(payload).data::<Vec<u8>>().unwrap_err().to_string();
        let shape = message(Some(Payload::Json("{}".to_owned())));
        assert_eq!(shape, "invalid event: data: invalid type: map, expected a sequence at line 1 column 0");
        let text = message(Some(Payload::Text("[1]".to_owned())));
        assert_eq!(text, "invalid event: data: JSON is needed, and this is text (text/x)");
        assert_eq!(message(None), "invalid event: the event has no data");
        assert_eq!(event(None).data::<Option<u8>>(), Ok(None));
    }

    #[test]
    fn an_extension_is_found_and_replaced() {
        let mut event = event(None);
        event.set_extension("a", "1");
        event.set_extension("b", "2");
        event.set_extension("a", "3");
        assert_eq!((event.extension("a"), event.extension("c")), (Some("3"), None));
        assert_eq!(event.extensions.len(), 2);
    }
}
