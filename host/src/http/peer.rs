//! Reads the user of a client certificate: the common name of its subject, and nothing else.
//!
//! The certificate has been verified against the CAs of `tls_client_ca` before it comes here, so they decide
//! about the names of users. A certificate with no common name, or with two, names no user, and requests on
//! its connection are refused with the reason.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::identity::PeerCertificate;

/// Why a certificate names no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nameless {
    #[error("its subject cannot be read")]
    Unreadable,
    #[error("its subject has no common name (CN)")]
    NoName,
    #[error("its subject has more than one common name (CN)")]
    TwoNames,
    #[error("the common name (CN) of its subject is not a user's name")]
    NotAName,
}

/// The object identifier of a common name, 2.5.4.3, in DER.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Tags of DER (X.690).
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// Reads the user of a certificate.
pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<PeerCertificate, Nameless> {
    let certificate = EndEntityCert::try_from(certificate).map_err(|_| Nameless::Unreadable)?;
    let name = common_name(certificate.subject())?;
    // As in `identity`, a name has to fit into a header and a URL.
    let good = !name.is_empty()
        && name.trim() == name
        && !name.contains(char::is_control)
        && !matches!(name, "." | "..");
    if good { Ok(PeerCertificate { user: name.to_owned() }) } else { Err(Nameless::NotAName) }
}

/// Returns the only common name of a subject: a list of sets of pairs (RFC 5280 §4.1.2.4).
fn common_name(subject: &[u8]) -> Result<&str, Nameless> {
    let (mut rest, mut found) = (subject, None);
    while !rest.is_empty() {
        let (mut set, after) = take(rest, SET)?;
        rest = after;
        while !set.is_empty() {
            let (pair, after) = take(set, SEQUENCE)?;
            set = after;
            let (kind, value) = take(pair, OBJECT_IDENTIFIER)?;
            if kind == COMMON_NAME && found.replace(value).is_some() {
                return Err(Nameless::TwoNames);
            }
        }
    }
    let value = found.ok_or(Nameless::NoName)?;
    let text = match value.first() {
        Some(&tag @ (UTF8_STRING | PRINTABLE_STRING | IA5_STRING)) => take(value, tag)?,
        Some(_) | None => return Err(Nameless::NotAName),
    };
    std::str::from_utf8(text.0).map_err(|_| Nameless::NotAName)
}

/// Splits off the content of the first element, which must have this tag.
fn take(der: &[u8], tag: u8) -> Result<(&[u8], &[u8]), Nameless> {
    let (head, length, rest) = match *der {
        [head, length @ 0..=0x7f, ref rest @ ..] => (head, usize::from(length), rest),
        [head, 0x81, length, ref rest @ ..] => (head, usize::from(length), rest),
        [head, 0x82, high, low, ref rest @ ..] => (head, usize::from(u16::from_be_bytes([high, low])), rest),
        _ => return Err(Nameless::Unreadable),
    };
    match rest.split_at_checked(length) {
        Some(split) if head == tag => Ok(split),
        Some(_) | None => Err(Nameless::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair};

    use super::*;

    fn of(names: &[(DnType, DnValue)]) -> Result<String, Nameless> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        read(certificate.der()).map(|peer| peer.user)
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn the_common_name_is_the_user_and_nothing_else_of_the_subject() {
        let organization = (DnType::OrganizationName, utf8("boss"));
        let name = |value| (DnType::CommonName, value);
        assert_eq!(of(&[organization.clone(), name(utf8("ann"))]), Ok("ann".to_owned()));
        assert_eq!(
            of(&[name(utf8("Zo\u{eb} ".trim_end())), organization.clone()]),
            Ok("Zo\u{eb}".to_owned())
        );
        assert_eq!(of(&[name(DnValue::PrintableString("bob".try_into().unwrap()))]), Ok("bob".to_owned()));
        assert_eq!(
            of(&[name(DnValue::Ia5String("ann@x.example".try_into().unwrap()))]),
            Ok("ann@x.example".to_owned())
        );
        assert_eq!(of(&[name(utf8(&"x".repeat(300)))]), Ok("x".repeat(300)));
        assert_eq!(of(&[organization]), Err(Nameless::NoName));
        assert_eq!(of(&[]), Err(Nameless::NoName));
    }

    #[test]
    fn invalid_names_are_refused() {
        for bad in ["", " ", "ann ", "..", "ann\0", "ann\r\nHttp-Remote-User: boss"] {
            assert_eq!(of(&[(DnType::CommonName, utf8(bad))]), Err(Nameless::NotAName), "{bad:?}");
        }
        let wide = DnValue::BmpString("ann".try_into().unwrap());
        assert_eq!(of(&[(DnType::CommonName, wide)]), Err(Nameless::NotAName));
    }

    #[test]
    fn two_common_names_are_refused() {
        let length = |bytes: usize| u8::try_from(bytes).unwrap();
        let pair = |name: &str| {
            let value = [&[UTF8_STRING, length(name.len())][..], name.as_bytes()].concat();
            let pair = [&[OBJECT_IDENTIFIER, 3][..], COMMON_NAME, &value].concat();
            [&[SEQUENCE, length(pair.len())][..], &pair].concat()
        };
        let set = |pairs: &[Vec<u8>]| {
            let pairs = pairs.concat();
            [&[SET, length(pairs.len())][..], &pairs].concat()
        };
        let (ann, bob) = (pair("ann"), pair("bob"));
        assert_eq!(common_name(&set(std::slice::from_ref(&ann))), Ok("ann"));
        assert_eq!(common_name(&set(&[ann.clone(), bob.clone()])), Err(Nameless::TwoNames));
        assert_eq!(
            common_name(&[set(std::slice::from_ref(&ann)), set(&[bob])].concat()),
            Err(Nameless::TwoNames)
        );
        // No bytes make it panic.
        let whole = set(&[ann]);
        for end in 1..whole.len() {
            assert_eq!(common_name(&whole[..end]), Err(Nameless::Unreadable), "{end}");
        }
    }
}
