//! Decides, by its header alone, what to extract from a member of a cart's tar.

use tar::{Entry, EntryType};

use super::TarError;
use super::stream::Incoming;
use waypost_domain::parts::FilePath;

/// The folder of a cart's files in its tar, as the client requests it.
const FOLDER: &str = "data/";
/// The most characters of a member's path that an error shows.
const SHOWN_MAX: usize = 300;
/// What the PAX records of a file with holes begin with. Its content in the tar is not the file's.
const SPARSE: &[u8] = b"GNU.sparse.";

/// The folders that a cart's files may lie in, each with a `/` at its end.
pub(super) struct Folders([String; 2]);

impl Folders {
    /// Returns those of a cart: [`FOLDER`], or the cart's own id if the service packs carts in advance (`bundle_task`).
    pub(super) fn of(cart: Option<&str>) -> Self {
        Self([FOLDER.to_owned(), format!("{}/", cart.unwrap_or_default())])
    }

    /// Returns a path below one of them.
    fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        self.0.iter().find_map(|folder| path.strip_prefix(folder))
    }
}

/// What a member is.
pub(super) enum Member {
    /// A file: its path below one of the [`Folders`].
    File(FilePath),
    /// A folder, or a header that describes no member. It is skipped, since each file creates its folders.
    Other,
}

impl Member {
    /// Looks at a member's header.
    pub(super) fn of(entry: &mut Entry<'_, &Incoming>, folders: &Folders) -> Result<Self, TarError> {
        let member = shown(&entry.path_bytes());
        let kind = match entry.header().entry_type() {
            EntryType::Directory | EntryType::XGlobalHeader => return Ok(Self::Other),
            EntryType::Regular if is_sparse(entry) => "a file with holes",
            EntryType::Regular => return path(&entry.path_bytes(), member, folders).map(Self::File),
            EntryType::GNUSparse => "a file with holes",
            EntryType::Symlink => "a symbolic link",
            EntryType::Link => "a hard link",
            EntryType::Char | EntryType::Block => "a device",
            EntryType::Fifo => "a named pipe",
            _ => "a member of an unknown kind",
        };
        Err(TarError::Kind { kind, member })
    }
}

fn is_sparse(entry: &mut Entry<'_, &Incoming>) -> bool {
    let Ok(Some(records)) = entry.pax_extensions() else { return false };
    records.flatten().any(|record| record.key_bytes().starts_with(SPARSE))
}

fn path(path: &[u8], member: String, folders: &Folders) -> Result<FilePath, TarError> {
    let Ok(path) = str::from_utf8(path) else { return Err(TarError::Encoding { member }) };
    let whole = FilePath::parse(path).map_err(|source| TarError::Path { member: member.clone(), source })?;
    let inner = folders.below(whole.as_str()).and_then(|inner| FilePath::parse(inner).ok());
    inner.ok_or(TarError::Elsewhere { member })
}

/// Returns a member's path for a message.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(&path[..path.len().min(4 * SHOWN_MAX)]);
    let mut shown: String = text.chars().take(SHOWN_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}
