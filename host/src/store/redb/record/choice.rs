//! Records of enums whose variants hold nothing.

/// Defines the record of such an enum, and the conversions between the two.
///
/// In postcard the order of the variants is their number, in JSON their names are the words: new variants go to the end.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        $record:ident of $domain:ident { $($(#[$variant_meta:meta])* $variant:ident,)+ }
    ) => {
        #[derive(Clone, Copy, ::serde::Serialize, ::serde::Deserialize)]
        $(#[$meta])*
        pub(super) enum $record {
            $($(#[$variant_meta])* $variant,)+
        }

        impl From<$domain> for $record {
            fn from(value: $domain) -> Self {
                match value {
                    $($domain::$variant => Self::$variant,)+
                }
            }
        }

        impl From<$record> for $domain {
            fn from(record: $record) -> Self {
                match record {
                    $($record::$variant => Self::$variant,)+
                }
            }
        }
    };
}

pub(super) use choice;
