//! What records hold in place of values: times as numbers, ids as numbers or texts, and records in place of structs and
//! enums.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Error, event_id, recipient_id, timestamp};
use crate::Position;
use waypost_domain::plugin::AllowHost;
use waypost_domain::{
    EventId, PluginDigest, RateLimit, RecipientId, RetrySchedule, SubscriptionId, TargetUrl,
};

/// The form of a value in a record.
pub(super) trait Form<'a, T>: Sized {
    /// Makes the form; texts and bytes stay borrowed.
    fn of(value: &'a T) -> Self;

    /// Returns the value. Bodies share `shared`, the buffer that the form was read from.
    fn read(self, shared: &Bytes) -> Result<T, Error>;
}

/// Defines the record of a struct or an enum, and the conversions between the two.
///
/// Fields and variants have the names of the value's, and all of those: a new one does not compile until it has a place
/// here. The order is the record's own, a lifetime is called `'a`. What stands behind `besides` is no field of the value:
/// its default is written, and what was read is dropped.
macro_rules! record {
    (
        $(#[$meta:meta])*
        $vis:vis struct $record:ident $(<$life:lifetime>)? of $value:ident {
            $($(#[$field_meta:meta])* $field:ident: $form:ty,)+
        }
        $(besides { $(#[$extra_meta:meta])* $extra:ident: $extra_form:ty, })?
    ) => {
        #[derive(::serde::Serialize, ::serde::Deserialize)]
        $(#[$meta])*
        $vis struct $record $(<$life>)? {
            $($(#[$field_meta])* $field: $form,)+
            $($(#[$extra_meta])* $extra: $extra_form,)?
        }

        const _: () = {
            use $crate::redb::record::Error;
            use $crate::redb::record::form::Form;

            impl<'a> Form<'a, $value> for $record $(<$life>)? {
                fn of(value: &'a $value) -> Self {
                    let $value { $($field),+ } = value;
                    Self {
                        $($field: Form::of($field),)+
                        $($extra: <$extra_form>::default(),)?
                    }
                }

                fn read(self, shared: &::bytes::Bytes) -> Result<$value, Error> {
                    let Self { $($field,)+ $($extra: _,)? } = self;
                    Ok($value {
                        $($field: Form::read($field, shared)?),+
                    })
                }
            }
        };
    };
    (
        $(#[$meta:meta])*
        $vis:vis enum $record:ident $(<$life:lifetime>)? of $value:ident {
            $(
                $(#[$variant_meta:meta])*
                $variant:ident
                $(($(#[$inner_meta:meta])* $inner:ty))?
                $({ $($(#[$field_meta:meta])* $field:ident: $form:ty),+ $(,)? })?,
            )+
        }
    ) => {
        #[derive(::serde::Serialize, ::serde::Deserialize)]
        $(#[$meta])*
        $vis enum $record $(<$life>)? {
            $(
                $(#[$variant_meta])*
                $variant $(($(#[$inner_meta])* $inner))? $({ $($(#[$field_meta])* $field: $form),+ })?,
            )+
        }

        const _: () = {
            use $crate::redb::record::Error;
            use $crate::redb::record::form::Form;

            impl<'a> Form<'a, $value> for $record $(<$life>)? {
                fn of(value: &'a $value) -> Self {
                    match value {
                        $(
                            $value::$variant $((record!(@bind inner $inner)))? $({ $($field),+ })? => {
                                Self::$variant
                                $((<$inner as Form<'a, _>>::of(inner)))?
                                $({ $($field: Form::of($field)),+ })?
                            }
                        )+
                    }
                }

                #[allow(unused_variables, reason = "some enums hold nothing that is read")]
                fn read(self, shared: &::bytes::Bytes) -> Result<$value, Error> {
                    Ok(match self {
                        $(
                            Self::$variant $((record!(@bind inner $inner)))? $({ $($field),+ })? => {
                                $value::$variant
                                $((<$inner as Form<'a, _>>::read(inner, shared)?))?
                                $({ $($field: Form::read($field, shared)?),+ })?
                            }
                        )+
                    })
                }
            }
        };
    };
    (@bind $name:ident $form:ty) => {
        $name
    };
}

pub(super) use record;

/// A list in a record: of values, whose forms are made one at a time while they are written, or of forms that were read.
pub(super) enum List<'a, T, R> {
    Borrowed(&'a [T]),
    Owned(Vec<R>),
}

impl<'a, T, R: Form<'a, T>> Form<'a, Vec<T>> for List<'a, T, R> {
    fn of(values: &'a Vec<T>) -> Self {
        Self::Borrowed(values)
    }

    fn read(self, shared: &Bytes) -> Result<Vec<T>, Error> {
        match self {
            Self::Borrowed(values) => values.iter().map(|value| R::of(value).read(shared)).collect(),
            Self::Owned(forms) => forms.into_iter().map(|form| form.read(shared)).collect(),
        }
    }
}

impl<'a, T, R: Form<'a, T> + Serialize> Serialize for List<'a, T, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Borrowed(values) => serializer.collect_seq(values.iter().map(R::of)),
            Self::Owned(forms) => serializer.collect_seq(forms),
        }
    }
}

impl<'de, T, R: Deserialize<'de>> Deserialize<'de> for List<'_, T, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::Owned)
    }
}

impl<'a, T, R: Form<'a, T>> Form<'a, Vec<T>> for Vec<R> {
    fn of(values: &'a Vec<T>) -> Self {
        values.iter().map(R::of).collect()
    }

    fn read(self, shared: &Bytes) -> Result<Vec<T>, Error> {
        self.into_iter().map(|form| form.read(shared)).collect()
    }
}

impl<'a, T: Clone> Form<'a, Vec<T>> for Cow<'a, [T]> {
    fn of(values: &'a Vec<T>) -> Self {
        values.into()
    }

    fn read(self, _: &Bytes) -> Result<Vec<T>, Error> {
        Ok(self.into_owned())
    }
}

impl<'a, T, R: Form<'a, T>> Form<'a, Option<T>> for Option<R> {
    fn of(value: &'a Option<T>) -> Self {
        value.as_ref().map(R::of)
    }

    fn read(self, shared: &Bytes) -> Result<Option<T>, Error> {
        self.map(|form| form.read(shared)).transpose()
    }
}

impl<'a, T, U, R: Form<'a, T>, S: Form<'a, U>> Form<'a, (T, U)> for (R, S) {
    fn of((first, second): &'a (T, U)) -> Self {
        (R::of(first), S::of(second))
    }

    fn read(self, shared: &Bytes) -> Result<(T, U), Error> {
        Ok((self.0.read(shared)?, self.1.read(shared)?))
    }
}

impl<'a, T, R: Form<'a, T>> Form<'a, Box<T>> for Box<R> {
    fn of(value: &'a Box<T>) -> Self {
        Self::new(R::of(value))
    }

    fn read(self, shared: &Bytes) -> Result<Box<T>, Error> {
        Ok(Box::new((*self).read(shared)?))
    }
}

/// Defines the form of a value by two expressions: how it is made, and how it is read.
macro_rules! forms {
    ($($form:ty => $value:ty: |$of:ident| $make:expr, |$read:ident, $shared:pat_param| $take:expr;)+) => {$(
        impl<'a> Form<'a, $value> for $form {
            fn of($of: &'a $value) -> Self {
                $make
            }

            fn read(self, $shared: &Bytes) -> Result<$value, Error> {
                let $read = self;
                $take
            }
        }
    )+};
}

pub(super) use forms;

forms! {
    bool => bool: |value| *value, |form, _| Ok(form);
    u16 => u16: |value| *value, |form, _| Ok(form);
    u32 => u32: |value| *value, |form, _| Ok(form);
    u64 => u64: |value| *value, |form, _| Ok(form);
    u128 => u128: |value| *value, |form, _| Ok(form);
    i32 => i32: |value| *value, |form, _| Ok(form);
    i64 => i64: |value| *value, |form, _| Ok(form);
    usize => usize: |value| *value, |form, _| Ok(form);
    Duration => Duration: |value| *value, |form, _| Ok(form);
    Timestamp => Timestamp: |value| *value, |form, _| Ok(form);

    // Microseconds since 1970.
    i64 => Timestamp: |time| time.as_microsecond(), |micros, _| timestamp(micros);
    Nanos => Timestamp: |time| Nanos(time.as_nanosecond()), |nanos, _| {
        Timestamp::from_nanosecond(nanos.0).map_err(|_| Error::Value("a time out of range"))
    };
    u64 => Position: |position| position.0, |number, _| Ok(Position(number));
    u128 => EventId: |id| id.uuid().as_u128(), |number, _| Ok(event_id(number));
    u128 => RecipientId: |id| id.uuid().as_u128(), |number, _| Ok(recipient_id(number));
    u128 => SubscriptionId: |id| id.uuid().as_u128(), |number, _| Ok(recipient_id(number).subscription_id());
    Uuid => EventId: |id| id.uuid(), |uuid, _| Ok(EventId::from_uuid(uuid));
    Uuid => RecipientId: |id| id.uuid(), |uuid, _| Ok(RecipientId::from_uuid(uuid));
    Uuid => SubscriptionId: |id| id.uuid(), |uuid, _| Ok(SubscriptionId::from_uuid(uuid));

    String => AllowHost: |host| host.to_string(),
        |text, _| text.parse().map_err(|error| Error::AllowHost { text, error });
    String => RateLimit: |limit| limit.to_string(), |text, _| Ok(text.parse()?);
    String => RetrySchedule: |schedule| schedule.to_string(), |text, _| Ok(text.parse()?);
    Cow<'a, str> => String: |text| text.into(), |text, _| Ok(text.into_owned());
    Cow<'a, str> => TargetUrl: |url| url.as_str().into(), |text, _| Ok(TargetUrl::from_stored(text.into_owned()));
    // `sha256:` and 64 hexadecimal digits.
    Cow<'a, str> => PluginDigest: |digest| digest.to_string().into(), |text, _| Ok(text.parse()?);
    Cow<'a, Value> => Value: |json| Cow::Borrowed(json), |json, _| Ok(json.into_owned());
    Cow<'a, Map<String, Value>> => Map<String, Value>: |json| Cow::Borrowed(json), |json, _| Ok(json.into_owned());
    Cow<'a, BTreeMap<String, Timestamp>> => BTreeMap<String, Timestamp>:
        |times| Cow::Borrowed(times), |times, _| Ok(times.into_owned());
    &'a [u8] => Bytes: |bytes| bytes, |bytes, shared| Ok(shared.slice_ref(bytes));
    &'a [u8] => Vec<u8>: |bytes| bytes, |bytes, _| Ok(bytes.to_vec());
}

/// Defines the forms of boxes whose content has one.
macro_rules! boxed {
    ($($form:ty => $pointer:ident<$value:ty>;)+) => {$(
        impl<'a> Form<'a, $pointer<$value>> for $form {
            fn of(value: &'a $pointer<$value>) -> Self {
                Self::of(&**value)
            }

            fn read(self, shared: &Bytes) -> Result<$pointer<$value>, Error> {
                Form::<'a, $value>::read(self, shared).map($pointer::new)
            }
        }
    )+};
}

boxed! {
    super::plugin_run::PluginRunRecord<'a> => Box<waypost_domain::plugin::PluginRun>;
    super::handler_run::HandlerRunRecord<'a> => Box<waypost_domain::HandlerRun>;
    super::plugin_use::PluginUseRecord<'a> => Arc<waypost_domain::PluginUse>;
    super::sending::SendingRecord<'a> => Arc<waypost_domain::sending::Sending>;
    super::sending::OAuth2Record<'a> => Box<waypost_domain::sending::OAuth2>;
    super::group::op::PutSubscriptionRecord<'a> => Box<crate::redb::group::PutSubscription>;
    super::group::recover::RecoverRecord<'a> => Box<crate::redb::group::Recover>;
}

/// A time in nanoseconds since 1970, for those that somebody may have asked for so exactly.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Nanos(i128);
