//! TLS of the listener: certificate, key and the CAs of clients, read from files, and read again when these
//! change.
//!
//! TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. New files that cannot be used are reported once, and the old ones
//! stay in use: neither a mistake of the operator nor a half-written file stops the service. Open connections
//! keep the certificate that they began with. `handshake` uses this for each connection.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use waypost_runtime::chain;

/// How often the files are checked. They are small, and read as a whole, because a modification time can stay
/// the same.
const INTERVAL: Duration = Duration::from_secs(1);
/// The most bytes of one file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

const CERTIFICATE: &str = "tls_certificate";
const KEY: &str = "tls_key";
const CLIENT_CA: &str = "tls_client_ca";

/// The files of the listener's certificate.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
    /// The CAs of client certificates, as PEM. If there are some, clients are asked for a certificate, but
    /// need not have one.
    pub client_ca: Option<PathBuf>,
}

/// Why files cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("failed to read {path} (the setting {setting})", path = path.display())]
    Read {
        /// Its setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is broken.
    #[error("{path} (the setting {setting}) is not a complete PEM file", path = path.display())]
    Pem {
        /// Its setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// A file has no certificate.
    #[error("{path} (the setting {setting}) has no certificate in PEM", path = path.display())]
    NoCertificate {
        /// Its setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The key file has no key, or one that needs a passphrase.
    #[error("{path} (the setting tls_key) has no unencrypted private key in PEM", path = path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or one of them is of an unknown kind.
    #[error("the certificate {certificate} and the key {key} (the settings tls_certificate and tls_key) cannot be used together",
        certificate = certificate.display(), key = key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// One of the CAs cannot be used.
    #[error("{path} (the setting tls_client_ca) has an authority that cannot be used", path = path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The check of client certificates cannot be set up.
    #[error("failed to set up the check of clients' certificates (the setting tls_client_ca)")]
    Verifier(#[source] VerifierBuilderError),
}

/// TLS of the listener.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    /// The digest of the files at the start.
    digest: Digest,
}

/// A digest of the bytes of all files.
type Digest = [u8; 32];

/// What the watch has seen so far.
#[derive(Debug)]
struct Seen {
    /// The digest of the files in use.
    used: Digest,
    /// The files that were refused last.
    refused: Option<Refused>,
}

/// A set of files that cannot be used.
#[derive(Debug)]
struct Refused {
    /// The digest, if the files could be read.
    digest: Option<Digest>,
    reason: String,
    reported: Reported,
}

/// Whether the refusal was logged. The first check may see half of a change, so only the second one logs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    NotYet,
    Once,
}

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files)?;
        let config = ArcSwap::from_pointee(contents.config(&files)?);
        Ok(Self { files, config, digest: contents.digest() })
    }

    /// Returns the configuration of new connections.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Checks the files regularly until `stop` is cancelled.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = Seen { used: self.digest, refused: None };
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            let files = self.files.clone();
            let reading = tokio::task::spawn_blocking(move || Contents::read(&files)).await;
            self.look(&mut seen, reading.expect("reading files does not panic"));
        }
    }

    /// Takes over the files that were read, if they are new and can be used.
    fn look(&self, seen: &mut Seen, read: Result<Contents, TlsError>) {
        let digest = read.as_ref().ok().map(Contents::digest);
        if digest == Some(seen.used) {
            seen.refused = None;
            return;
        }
        match read.and_then(|contents| contents.config(&self.files)) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                *seen = Seen { used: digest.unwrap_or(seen.used), refused: None };
                tracing::info!("new connections get the new tls_certificate");
            }
            Err(error) => seen.refuse(digest, chain::text(&error)),
        }
    }
}

impl Seen {
    fn refuse(&mut self, digest: Option<Digest>, reason: String) {
        match &mut self.refused {
            Some(refused) if refused.digest == digest && refused.reason == reason => {
                if refused.reported == Reported::NotYet {
                    refused.reported = Reported::Once;
                    tracing::error!(
                        reason,
                        "the new TLS files cannot be used: connections get the old certificate"
                    );
                }
            }
            _ => self.refused = Some(Refused { digest, reason, reported: Reported::NotYet }),
        }
    }
}

/// The bytes of the files.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let client_ca = files.client_ca.as_deref().map(|path| read(path, CLIENT_CA)).transpose()?;
        Ok(Self {
            certificate: read(&files.certificate, CERTIFICATE)?,
            key: read(&files.key, KEY)?,
            client_ca,
        })
    }

    fn digest(&self) -> Digest {
        let mut hasher = Sha256::new();
        for part in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()] {
            let part = part.map_or(&[][..], Vec::as_slice);
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    fn config(&self, files: &TlsFiles) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&self.certificate, &files.certificate, CERTIFICATE)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::NoKey { path: files.key.clone() },
            source => TlsError::Pem { setting: KEY, path: files.key.clone(), source },
        })?;
        let pair = |source| {
            let (certificate, key) = (files.certificate.clone(), files.key.clone());
            TlsError::Pair { certificate, key, source }
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(pair)?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(authorities), Some(path)) => {
                let roots = Arc::new(roots(authorities, path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = verifier.allow_unauthenticated().build().map_err(TlsError::Verifier)?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.client_ca.is_some() {
            // A resumed session is not verified again, and its certificate may have expired by then.
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        Ok(config)
    }
}

fn read(path: &Path, setting: &'static str) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let whole = read.and_then(|_| match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB")),
        false => Ok(bytes),
    });
    whole.map_err(|source| TlsError::Read { setting, path: path.to_owned(), source })
}

fn certificates(
    pem: &[u8],
    path: &Path,
    setting: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = read.map_err(|source| TlsError::Pem { setting, path: path.to_owned(), source })?;
    match found.is_empty() {
        true => Err(TlsError::NoCertificate { setting, path: path.to_owned() }),
        false => Ok(found),
    }
}

fn roots(pem: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem, path, CLIENT_CA)? {
        roots.add(authority).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    /// A certificate for `localhost` and its key.
    fn pair() -> (String, String) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    struct Folder {
        files: TlsFiles,
        _folder: TempDir,
    }

    impl Folder {
        fn new((certificate, key): &(String, String)) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let files = TlsFiles {
                certificate: folder.path().join("chain.pem"),
                key: folder.path().join("key.pem"),
                client_ca: None,
            };
            fs::write(&files.certificate, certificate).unwrap();
            fs::write(&files.key, key).unwrap();
            Self { files, _folder: folder }
        }

        fn open(&self) -> Result<Tls, String> {
            Tls::open(self.files.clone()).map_err(|error| chain::text(&error))
        }
    }

    /// A watch that the test steps.
    struct Watch {
        tls: Tls,
        seen: Seen,
    }

    impl Watch {
        fn of(folder: &Folder) -> Self {
            let tls = folder.open().unwrap();
            let seen = Seen { used: tls.digest, refused: None };
            Self { tls, seen }
        }

        /// Checks the files; returns whether connections get another certificate now, and whether a refusal
        /// was reported.
        fn look(&mut self) -> (bool, Option<Reported>) {
            let before = self.tls.config();
            let read = Contents::read(&self.tls.files);
            self.tls.look(&mut self.seen, read);
            let reported = self.seen.refused.as_ref().map(|refused| refused.reported);
            (!Arc::ptr_eq(&before, &self.tls.config()), reported)
        }
    }

    #[test]
    fn errors_name_the_file_and_the_setting() {
        let (one, other) = (pair(), pair());
        let folder = Folder::new(&one);
        folder.open().unwrap();
        let at = |folder: &Folder, text: String| text.replace(folder._folder.path().to_str().unwrap(), "");
        let with = |certificate: &str, key: &str| {
            let folder = Folder::new(&(certificate.to_owned(), key.to_owned()));
            at(&folder, folder.open().unwrap_err())
        };
        let both = "the certificate /chain.pem and the key /key.pem (the settings tls_certificate and tls_key) cannot be \
                    used together: ";
        assert!(with(&one.0, &other.1).starts_with(both), "{}", with(&one.0, &other.1));
        assert_eq!(with("", &one.1), "/chain.pem (the setting tls_certificate) has no certificate in PEM");
        assert_eq!(
            with(&one.1, &one.0),
            "/chain.pem (the setting tls_certificate) has no certificate in PEM"
        );
        let half = &one.0[..one.0.len() / 2];
        assert!(
            with(half, &one.1)
                .starts_with("/chain.pem (the setting tls_certificate) is not a complete PEM file: ")
        );
        let no_key = "/key.pem (the setting tls_key) has no unencrypted private key in PEM";
        assert_eq!(with(&one.0, &one.1.replace("PRIVATE", "ENCRYPTED PRIVATE")), no_key);
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(with(garbage, &one.1).starts_with(both));
        assert!(
            with(&"x".repeat(2 << 20), &one.1)
                .ends_with("(the setting tls_certificate): it is larger than 1 MiB")
        );
        fs::remove_file(&folder.files.key).unwrap();
        let missing = at(&folder, folder.open().unwrap_err());
        assert_eq!(
            missing,
            "failed to read /key.pem (the setting tls_key): No such file or directory (os error 2)"
        );
    }

    #[test]
    fn an_invalid_client_ca_is_refused() {
        let one = pair();
        let mut folder = Folder::new(&one);
        folder.files.client_ca = Some(folder.files.key.clone());
        assert!(folder.open().unwrap_err().contains("(the setting tls_client_ca) has no certificate in PEM"));
        folder.files.client_ca = Some(folder.files.certificate.clone());
        let config = folder.open().unwrap().config();
        assert!(!config.session_storage.can_cache(), "each connection shows its certificate");
    }

    #[test]
    fn a_new_pair_is_taken_and_a_bad_one_reported_once() {
        let (one, other) = (pair(), pair());
        let folder = Folder::new(&one);
        let mut watch = Watch::of(&folder);
        assert_eq!(watch.look(), (false, None));
        // The certificate comes before its key.
        fs::write(&folder.files.certificate, &other.0).unwrap();
        assert_eq!(watch.look(), (false, Some(Reported::NotYet)));
        fs::write(&folder.files.key, &other.1).unwrap();
        assert_eq!(watch.look(), (true, None));
        assert_eq!(watch.look(), (false, None));
        // A bad one stays bad.
        fs::write(&folder.files.key, &other.1[..other.1.len() / 2]).unwrap();
        assert_eq!(watch.look(), (false, Some(Reported::NotYet)));
        assert_eq!(watch.look(), (false, Some(Reported::Once)));
        assert_eq!(watch.look(), (false, Some(Reported::Once)));
        fs::remove_file(&folder.files.key).unwrap();
        assert_eq!(watch.look(), (false, Some(Reported::NotYet)), "that is another mistake");
        assert_eq!(watch.look(), (false, Some(Reported::Once)));
        // The old one is back, and then the first.
        fs::write(&folder.files.key, &other.1).unwrap();
        assert_eq!(watch.look(), (false, None));
        fs::write(&folder.files.key, &one.1).unwrap();
        fs::write(&folder.files.certificate, &one.0).unwrap();
        assert_eq!(watch.look(), (true, None));
    }
}
