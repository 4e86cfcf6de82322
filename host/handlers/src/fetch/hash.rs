//! Hash sums by the names that events give them.

use data_encoding::HEXLOWER;
use md5::Md5;
use sha1::Sha1;
use sha2::digest::DynDigest;
use sha2::{Sha256, Sha384, Sha512};

/// A hash algorithm.
#[derive(Debug)]
pub(super) struct Algorithm {
    /// Its name as `hashtype`.
    pub(super) name: &'static str,
    /// How many hexadecimal digits a sum has.
    pub(super) digits: usize,
    begin: fn() -> Box<dyn DynDigest>,
}

const KNOWN: [Algorithm; 5] = [
    Algorithm { name: "md5", digits: 32, begin: || Box::new(Md5::default()) },
    Algorithm { name: "sha1", digits: 40, begin: || Box::new(Sha1::default()) },
    Algorithm { name: "sha256", digits: 64, begin: || Box::new(Sha256::default()) },
    Algorithm { name: "sha384", digits: 96, begin: || Box::new(Sha384::default()) },
    Algorithm { name: "sha512", digits: 128, begin: || Box::new(Sha512::default()) },
];

impl Algorithm {
    /// Returns the algorithm of a name in lower case.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        static ALL: [Algorithm; 5] = KNOWN;
        ALL.iter().find(|algorithm| algorithm.name == name)
    }

    /// Begins a sum.
    pub(super) fn begin(&self) -> Sum {
        Sum((self.begin)())
    }
}

/// Returns the names of all algorithms, for an error.
pub(super) fn known() -> String {
    KNOWN.map(|algorithm| algorithm.name).join(", ")
}

/// A sum that is being computed.
pub(super) struct Sum(Box<dyn DynDigest>);

impl Sum {
    /// Adds bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Returns the sum in hexadecimal, in lower case.
    pub(super) fn hex(self) -> String {
        HEXLOWER.encode(&self.0.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_usual_tools() {
        let sum = |name: &str| {
            let algorithm = Algorithm::named(name).unwrap();
            let mut sum = algorithm.begin();
            sum.update(b"a");
            sum.update(b"bc");
            let hex = sum.hex();
            assert_eq!(hex.len(), algorithm.digits);
            hex
        };
        assert_eq!(sum("md5"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(sum("sha1"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert!(sum("sha256").starts_with("ba7816bf8f01cfea"));
        assert!(sum("sha384").starts_with("cb00753f45a35e8b"));
        assert!(sum("sha512").starts_with("ddaf35a193617aba"));
        assert!(Algorithm::named("crc32").is_none());
        assert_eq!(known(), "md5, sha1, sha256, sha384, sha512");
    }
}
