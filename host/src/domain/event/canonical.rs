//! An event in CloudEvents 1.0 terms, whatever its version and mode: what a plugin sees.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::attribute::Attribute;
use super::view::{Data, View};
use super::{DecodeError, Event, SpecVersion, raw};

/// An event's attributes in 1.0 terms as text, and its data out of their envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical<'a> {
    /// `id`
    pub id: String,
    /// `source`, a URI reference.
    pub source: String,
    /// `type`
    pub ty: String,
    /// `subject`
    pub subject: Option<String>,
    /// `time`, RFC 3339.
    pub time: Option<String>,
    /// `datacontenttype`
    pub content_type: Option<String>,
    /// `dataschema`
    pub schema: Option<String>,
    /// Extension attributes in their canonical string form (CloudEvents 1.0.2, type system), by name.
    pub extensions: Vec<(String, String)>,
    /// The data, if any.
    pub data: Option<Payload<'a>>,
}

/// An event's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// JSON text.
    Json(Cow<'a, str>),
    /// Any other text.
    Text(Cow<'a, str>),
    /// Everything else.
    Binary(Cow<'a, [u8]>),
}

impl Event {
    /// Returns the event in 1.0 terms; an older one is converted as for a target that wants 1.0.
    pub fn canonical(&self) -> Canonical<'_> {
        let view = View::of(self).into_v1();
        let text = |value: &Option<Attribute<'_>>| value.as_ref().map(|value| value.text().into_owned());
        let is_json = view.is_json();
        Canonical {
            id: self.id.clone(),
            source: self.source.clone(),
            ty: self.ty.clone(),
            subject: text(&view.subject),
            time: text(&view.time),
            content_type: text(&view.content_type),
            schema: text(&view.schema),
            extensions: view
                .extensions
                .iter()
                .map(|(name, value)| (name.clone().into_owned(), value.text().into_owned()))
                .collect(),
            data: payload(view.data, is_json),
        }
    }
}

fn payload(data: Data<'_>, is_json: bool) -> Option<Payload<'_>> {
    Some(match data {
        Data::None => return None,
        Data::Json(raw) if is_json => Payload::Json(Cow::Borrowed(raw)),
        // Data of another type may stand in a structured event as a JSON string.
        Data::Json(raw) => raw::text(raw).map_or(Payload::Json(Cow::Borrowed(raw)), Payload::Text),
        Data::Base64(text) => match STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => Payload::Binary(Cow::Owned(bytes)),
            Err(_) => Payload::Text(text),
        },
        Data::Body(bytes) => match str::from_utf8(bytes) {
            Ok(text) if is_json => Payload::Json(Cow::Borrowed(text)),
            Ok(text) => Payload::Text(Cow::Borrowed(text)),
            Err(_) => Payload::Binary(Cow::Borrowed(bytes)),
        },
    })
}

impl Event {
    /// Makes a 1.0 event of its attributes and data.
    ///
    /// # Errors
    /// Says what no CloudEvent may be.
    pub fn from_canonical(canonical: &Canonical<'_>) -> Result<Self, DecodeError> {
        let text = |value: &str| Some(Attribute::Text(Cow::Owned(value.to_owned())));
        let optional = |value: &Option<String>| value.as_deref().and_then(text);
        let data = match &canonical.data {
            None => Data::None,
            Some(Payload::Json(json)) => Data::Json(json),
            Some(Payload::Text(_)) => Data::None,
            Some(Payload::Binary(bytes)) => Data::Base64(STANDARD.encode(bytes).into()),
        };
        let quoted;
        let data = match &canonical.data {
            Some(Payload::Text(text)) => {
                quoted = raw::quoted(text);
                Data::Json(&quoted)
            }
            _ => data,
        };
        let view = View {
            id: text(&canonical.id),
            source: text(&canonical.source),
            ty: text(&canonical.ty),
            type_version: None,
            subject: optional(&canonical.subject),
            time: optional(&canonical.time),
            schema: optional(&canonical.schema),
            content_type: optional(&canonical.content_type),
            extensions: canonical
                .extensions
                .iter()
                .map(|(name, value)| {
                    (Cow::Borrowed(name.as_str()), Attribute::Text(Cow::Borrowed(value.as_str())))
                })
                .collect(),
            data,
        };
        Self::from_json(view.to_json(SpecVersion::V1_0))
    }
}
