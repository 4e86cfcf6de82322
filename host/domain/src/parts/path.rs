//! The path of a file in an event or an archive, checked once so that it is safe below any folder.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The longest name in a path, in bytes: what Linux's file systems take.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;

/// A path that cannot leave the folder that it is joined to: relative, of plain names only, with `/` between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

/// Why a text is no [`FilePath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It has no characters.
    #[error("the path is empty")]
    Empty,
    /// It begins at the root.
    #[error("the path `{0}` is absolute: it must be relative to the folder of all files")]
    Absolute(String),
    /// A name in it is empty.
    #[error("the path `{0}` has an empty name in it")]
    EmptyName(String),
    /// A name in it is `.` or `..`.
    #[error("the path `{0}` has a `.` or `..` in it, and only plain names are allowed")]
    Dots(String),
    /// It has a NUL, which ends a path.
    #[error("the path `{0}` has a NUL character in it")]
    Nul(String),
    /// A name in it is too long.
    #[error("the path `{0}` has a name of more than {NAME_BYTES_MAX} bytes in it")]
    LongName(String),
    /// It is too long.
    #[error("the path has {0} bytes, more than the {PATH_BYTES_MAX} that are allowed")]
    Long(usize),
}

impl FilePath {
    /// Reads a path.
    ///
    /// # Errors
    /// When it is absolute, has an empty name, `.` or `..` in it, or is too long.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::Long(text.len()));
        }
        let shown = || text.escape_debug().to_string();
        match text {
            "" => return Err(PathError::Empty),
            _ if text.starts_with('/') => return Err(PathError::Absolute(shown())),
            _ if text.contains('\0') => return Err(PathError::Nul(shown())),
            _ => {}
        }
        for name in text.split('/') {
            match name {
                "" => return Err(PathError::EmptyName(shown())),
                "." | ".." => return Err(PathError::Dots(shown())),
                _ if name.len() > NAME_BYTES_MAX => return Err(PathError::LongName(shown())),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads the path of a file `name` in the folder `subdir`, which may be empty and may end with a `/`.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn join(subdir: &str, name: &str) -> Result<Self, PathError> {
        match subdir.strip_suffix('/').unwrap_or(subdir) {
            "" if subdir.is_empty() => Self::parse(name),
            folder => Self::parse(&format!("{folder}/{name}")),
        }
    }

    /// Returns the whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the file's own name: what stands after the last `/`.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the folder that the file is in, without a `/` at its end; empty for a file at the top.
    pub fn folder(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// Returns the path below `root`.
    pub fn below(&self, root: &Path) -> PathBuf {
        root.join(&self.0)
    }

    /// Returns a key that sorts what is in a folder directly behind a file with the folder's name.
    pub(super) fn sort_key(&self) -> impl Iterator<Item = u8> + '_ {
        // No path has a NUL in it, so `/` sorts before all else.
        self.0.bytes().map(|byte| if byte == b'/' { 0 } else { byte })
    }

    /// Tells whether `other` is in a folder of this path's name.
    pub(super) fn is_folder_of(&self, other: &Self) -> bool {
        other.0.strip_prefix(&self.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl FromStr for FilePath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::parse(text)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_of_plain_names() {
        for good in ["a", "a/b.txt", "...", "a b/ü", r"a\b", ".hidden", "a:b", &"x".repeat(255)] {
            assert_eq!(FilePath::parse(good).unwrap().as_str(), good);
        }
        let path = FilePath::parse("a/b/c.txt").unwrap();
        assert_eq!((path.folder(), path.name()), ("a/b", "c.txt"));
        assert_eq!(path.below(Path::new("/x")), Path::new("/x/a/b/c.txt"));
        assert_eq!(FilePath::parse("top").unwrap().folder(), "");
    }

    #[test]
    fn a_path_that_could_leave_its_folder_is_none() {
        let error = |text: &str| FilePath::parse(text).unwrap_err();
        assert_eq!(error(""), PathError::Empty);
        assert_eq!(error("/etc/passwd"), PathError::Absolute("/etc/passwd".into()));
        for dots in ["..", "../a", "a/../b", "a/..", ".", "./a", "a/./b"] {
            assert_eq!(error(dots), PathError::Dots(dots.into()));
        }
        for empty in ["a//b", "a/"] {
            assert_eq!(error(empty), PathError::EmptyName(empty.into()));
        }
        assert_eq!(error("a\0b"), PathError::Nul("a\\0b".into()));
        assert!(matches!(error(&"x".repeat(256)), PathError::LongName(_)));
        assert_eq!(error(&"x/".repeat(2049)), PathError::Long(4098));
    }

    #[test]
    fn a_subdir_may_be_empty_or_end_with_a_slash() {
        for (subdir, whole) in [("", "f"), ("a", "a/f"), ("a/b/", "a/b/f")] {
            assert_eq!(FilePath::join(subdir, "f").unwrap().as_str(), whole);
        }
        for (subdir, name) in
            [("/", "f"), ("/a", "f"), ("a//", "f"), ("..", "f"), ("a", ""), ("", ""), ("a", "..")]
        {
            assert!(FilePath::join(subdir, name).is_err(), "{subdir} {name}");
        }
    }
}
