//! An event in CloudEvents 1.0 terms, whatever its version and mode: the form that a plugin sees.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::attribute::{self, Attribute};
use super::check::{AttributePosition, RequiredAttributes};
use super::names::Role;
use super::view::{self, Data, View};
use super::{DecodeError, Event, SpecVersion, Wire, raw, strict};

/// An event's attributes in 1.0 terms as text, and its decoded data.
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

/// An older event is converted as for a target that wants 1.0.
impl<'a> From<&'a Event> for Canonical<'a> {
    fn from(event: &'a Event) -> Self {
        let view = View::of(event).into_v1();
        let text = |value: &Option<Attribute<'_>>| value.as_ref().map(|value| value.text().into_owned());
        let is_json = view.is_json();
        Self {
            id: event.id.clone(),
            source: event.source.clone(),
            ty: event.ty.clone(),
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
        // A structured event may contain data of another type as a JSON string.
        Data::Json(raw) => raw::text(raw).map_or(Payload::Json(Cow::Borrowed(raw)), Payload::Text),
        Data::Base64(text) => match STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => Payload::Binary(Cow::Owned(bytes)),
            Err(_) => Payload::Text(text),
        },
        Data::Body(bytes) => match str::from_utf8(bytes) {
            Ok(text) => match is_json.then(|| strict::value(text)) {
                Some(Ok(json)) => Payload::Json(Cow::Borrowed(json)),
                Some(Err(_)) | None => Payload::Text(Cow::Borrowed(text)),
            },
            Err(_) => Payload::Binary(Cow::Borrowed(bytes)),
        },
    })
}

impl Canonical<'_> {
    /// Tells whether the content type is JSON, which is the default.
    pub(crate) fn is_json(&self) -> bool {
        self.content_type.as_deref().is_none_or(view::is_json_type)
    }

    /// Makes an event of these attributes and data, which a plugin made of `original`.
    ///
    /// If nothing has changed, the result is `original` itself, byte for byte. Otherwise it has the version of
    /// `original`, for subscriptions that want events in their own version; extensions whose text has not changed keep
    /// their name and their JSON type there. Only content that an older version cannot express (a subject or bytes
    /// before 0.3) makes it a 1.0 event. Text without a content type is `text/plain`.
    ///
    /// # Errors
    /// When the result is no CloudEvent; the error uses the names of 1.0.
    pub fn to_event(&self, original: &Event) -> Result<Event, DecodeError> {
        if *self == Canonical::from(original) {
            return Ok(original.clone());
        }
        let required = self.check()?;
        let made = Made::of(self)?;
        let can_say = original.spec_version >= SpecVersion::V0_3
            || (self.subject.is_none() && !matches!(made, Made::Base64(_)));
        let version = if can_say { original.spec_version } else { SpecVersion::V1_0 };
        let body = self.restored(original, version, &made).to_json(version);
        let content_type = match &original.wire {
            Wire::Structured { content_type, .. } if version == original.spec_version => content_type.clone(),
            Wire::Structured { .. } | Wire::Binary { .. } => Some("application/cloudevents+json".to_owned()),
        };
        let wire = Wire::Structured { content_type, body: body.into() };
        Ok(Event::from_parts(version, required.id, required.source, required.ty, wire))
    }

    fn check(&self) -> Result<RequiredAttributes, DecodeError> {
        let mut names = HashSet::new();
        for (name, _) in &self.extensions {
            if SpecVersion::V1_0.role(name) != Role::Extension {
                return Err(
                    AttributePosition::Json.error(name, "is no extension: it has a member of its own")
                );
            }
            if !names.insert(name) {
                return Err(AttributePosition::Json.error(name, "is there twice"));
            }
        }
        let some = |name, value| Some((name, value));
        let core = [
            some("id", &self.id),
            some("source", &self.source),
            some("type", &self.ty),
            self.subject.as_ref().map(|value| ("subject", value)),
            self.time.as_ref().map(|value| ("time", value)),
            self.content_type.as_ref().map(|value| ("datacontenttype", value)),
            self.schema.as_ref().map(|value| ("dataschema", value)),
        ];
        let extensions = self.extensions.iter().map(|(name, value)| (name.as_str(), value));
        let all = core.into_iter().flatten().chain(extensions);
        let pairs = all.map(|(name, value)| (name, Attribute::Text(Cow::Borrowed(value.as_str()))));
        RequiredAttributes::check(SpecVersion::V1_0, AttributePosition::Json, pairs)
    }

    /// Returns the view of the event in `version`, in which unchanged attributes are those of `original`.
    fn restored<'a>(&'a self, original: &'a Event, version: SpecVersion, made: &'a Made) -> View<'a> {
        let mut before = View::of(original);
        if version != original.spec_version {
            before = before.into_v1();
        }
        let text = |value: &'a str| Attribute::Text(Cow::Borrowed(value));
        let restore = |value: &'a str, before: Option<Attribute<'a>>| match before {
            Some(before) if before.text() == value => before,
            Some(_) | None => text(value),
        };
        let mut known: BTreeMap<String, (Cow<'a, str>, Attribute<'a>)> =
            std::mem::take(&mut before.extensions)
                .into_iter()
                .filter_map(|(name, value)| Some((attribute::v1_name(&name)?, (name, value))))
                .collect();
        let mut view = View {
            id: Some(text(&self.id)),
            source: Some(text(&self.source)),
            ty: Some(text(&self.ty)),
            subject: self.subject.as_deref().map(|value| restore(value, before.subject.take())),
            schema: self.schema.as_deref().map(|value| restore(value, before.schema.take())),
            data: made.data(),
            ..View::default()
        };
        let plain = matches!(self.data, Some(Payload::Text(_))).then_some("text/plain");
        let content_type = self.content_type.as_deref().or(plain);
        view.content_type = content_type.map(|value| restore(value, before.content_type.take()));
        if let Some(time) = &self.time {
            view.time = Some(restore(time, before.time.take()));
        }
        for (name, value) in &self.extensions {
            match name.as_str() {
                // A member that 1.0 does not define was shown as an extension, and gets its old place again.
                "eventtypeversion" if version == SpecVersion::V0_1 => {
                    view.type_version = Some(restore(value, before.type_version.take()));
                }
                "eventtime" if view.time.is_none() && before.time.is_some() => {
                    view.time = Some(restore(value, before.time.take()));
                }
                name => {
                    let (name, before) = match known.remove(name) {
                        Some((name, before)) => (name, Some(before)),
                        None => (Cow::Borrowed(name), None),
                    };
                    view.extensions.insert(name, restore(value, before));
                }
            }
        }
        view
    }
}

/// Data as they go into an event's JSON.
enum Made {
    None,
    Json(String),
    Base64(String),
}

impl Made {
    fn of(canonical: &Canonical<'_>) -> Result<Self, DecodeError> {
        let is_json = canonical.content_type.as_deref().is_none_or(view::is_json_type);
        Ok(match &canonical.data {
            None => Self::None,
            Some(Payload::Json(text)) => {
                let json = strict::value(text).map_err(|error| {
                    DecodeError::invalid(None, format!("`data` is said to be JSON and is none: {error}"))
                })?;
                // Under another content type, a reader of the event would decode a JSON string as text.
                let is_text = !is_json && json.starts_with('"');
                Self::Json(if is_text { raw::quoted(json) } else { json.to_owned() })
            }
            // As for a body that is declared as JSON but is not.
            Some(Payload::Text(text)) if is_json && canonical.content_type.is_some() => {
                Self::Base64(STANDARD.encode(text.as_bytes()))
            }
            Some(Payload::Text(text)) => Self::Json(raw::quoted(text)),
            Some(Payload::Binary(bytes)) => Self::Base64(STANDARD.encode(bytes)),
        })
    }

    fn data(&self) -> Data<'_> {
        match self {
            Self::None => Data::None,
            Self::Json(json) => Data::Json(json),
            Self::Base64(base64) => Data::Base64(Cow::Borrowed(base64)),
        }
    }
}
