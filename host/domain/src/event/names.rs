//! The names of each version's members: one table for decoding, checking and encoding.

use super::SpecVersion;

/// The meaning of a top-level member of an event, whatever its version calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    SpecVersion,
    Id,
    Source,
    Type,
    TypeVersion,
    Subject,
    Time,
    Schema,
    ContentType,
    ContentEncoding,
    /// The object that 0.1 keeps extensions in. 0.2 and 0.3 do not define it, but Pacifica's services add it to any
    /// event.
    Extensions,
    Data,
    DataBase64,
    /// Any other member.
    Extension,
}

impl SpecVersion {
    /// The members that the version's specification names, in the order in which Waypost writes them.
    const fn members(self) -> &'static [(&'static str, Role)] {
        match self {
            Self::V0_1 => &[
                ("cloudEventsVersion", Role::SpecVersion),
                ("eventType", Role::Type),
                ("eventTypeVersion", Role::TypeVersion),
                ("source", Role::Source),
                ("eventID", Role::Id),
                ("eventTime", Role::Time),
                ("schemaURL", Role::Schema),
                ("contentType", Role::ContentType),
                ("extensions", Role::Extensions),
                ("data", Role::Data),
            ],
            Self::V0_2 => &[
                ("specversion", Role::SpecVersion),
                ("type", Role::Type),
                ("source", Role::Source),
                ("id", Role::Id),
                ("time", Role::Time),
                ("schemaurl", Role::Schema),
                ("contenttype", Role::ContentType),
                ("extensions", Role::Extensions),
                ("data", Role::Data),
            ],
            Self::V0_3 => &[
                ("specversion", Role::SpecVersion),
                ("type", Role::Type),
                ("source", Role::Source),
                ("subject", Role::Subject),
                ("id", Role::Id),
                ("time", Role::Time),
                ("schemaurl", Role::Schema),
                ("datacontenttype", Role::ContentType),
                ("datacontentencoding", Role::ContentEncoding),
                ("extensions", Role::Extensions),
                ("data", Role::Data),
            ],
            Self::V1_0 => &[
                ("specversion", Role::SpecVersion),
                ("id", Role::Id),
                ("source", Role::Source),
                ("type", Role::Type),
                ("subject", Role::Subject),
                ("time", Role::Time),
                ("dataschema", Role::Schema),
                ("datacontenttype", Role::ContentType),
                ("data", Role::Data),
                ("data_base64", Role::DataBase64),
            ],
        }
    }

    /// Returns the meaning of a JSON object's member.
    pub(super) fn role(self, name: &str) -> Role {
        let known = self.members().iter().find(|(known, _)| *known == name);
        known.map_or(Role::Extension, |&(_, role)| role)
    }

    /// Returns the meaning of a header `ce-<name>`; header names ignore case.
    pub(super) fn header_role(self, name: &str) -> Role {
        let known = self.members().iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map_or(Role::Extension, |&(_, role)| role)
    }

    /// Returns the version's name for a member, if it has one.
    pub(super) fn name(self, role: Role) -> Option<&'static str> {
        self.members().iter().find(|(_, known)| *known == role).map(|&(name, _)| name)
    }

    /// Reads `specversion`, or `cloudEventsVersion` as [`Role`] names it.
    pub(super) fn parse(name: &str, text: &str) -> Option<Self> {
        match (name, text) {
            ("cloudEventsVersion", "0.1") => Some(Self::V0_1),
            ("specversion", "0.2") => Some(Self::V0_2),
            ("specversion", "0.3") => Some(Self::V0_3),
            // "1.0.x" is not a legal value, but its meaning is clear: patches do not change the format.
            ("specversion", text) if text == "1.0" || text.starts_with("1.0.") => Some(Self::V1_0),
            _ => None,
        }
    }
}
