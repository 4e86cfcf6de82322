//! The fresh copy of the repository in which the commands run.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The folder of builds. The copy's is the repository's own, because the dependencies take minutes.
const KEPT: &str = "target";

/// Returns the files that git tracks.
pub(crate) fn tracked(root: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output();
    let listed = listed.context("failed to run git")?;
    ensure!(listed.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).context("a file's name is not UTF-8")?;
    Ok(names.split_terminator('\0').map(PathBuf::from).collect())
}

/// Makes `copy` look like a clone: the tracked files, as they are in the working tree, and nothing else.
///
/// Unchanged files stay untouched, so that cargo does not build them again.
pub(crate) fn refresh(root: &Path, files: &[PathBuf], copy: &Path) -> Result<()> {
    let mut kept = BTreeSet::from([copy.to_owned(), copy.join(KEPT)]);
    let present = files.iter().filter(|file| root.join(file).is_file() || root.join(file).is_symlink());
    for file in present.clone() {
        kept.extend(copy.join(file).ancestors().take_while(|path| *path != copy).map(Path::to_owned));
    }
    fs::create_dir_all(copy).with_context(|| format!("failed to make {}", copy.display()))?;
    clean(copy, &kept).with_context(|| format!("failed to clean {}", copy.display()))?;
    for file in present {
        let (from, to) = (root.join(file), copy.join(file));
        update(&from, &to).with_context(|| format!("failed to copy {}", from.display()))?;
    }
    Ok(())
}

/// Lets the copy build into the repository's folder of builds.
pub(crate) fn share_builds(root: &Path, copy: &Path) -> Result<()> {
    let (builds, link) = (root.join(KEPT), copy.join(KEPT));
    if fs::read_link(&link).is_ok_and(|there| there == builds) {
        return Ok(());
    }
    fs::create_dir_all(copy).with_context(|| format!("failed to make {}", copy.display()))?;
    let absent = match fs::symlink_metadata(&link) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(&link),
        Ok(_) => fs::remove_file(&link),
        Err(_) => Ok(()),
    };
    let linked = absent.and_then(|()| std::os::unix::fs::symlink(builds, &link));
    linked.with_context(|| format!("failed to link {}", link.display()))
}

/// Removes everything that is not in `kept`.
fn clean(folder: &Path, kept: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        match (kept.contains(&path), entry.file_type()?.is_dir()) {
            (true, true) if path.file_name().is_some_and(|name| name != KEPT) => clean(&path, kept)?,
            (true, true | false) => {}
            (false, true) => fs::remove_dir_all(&path)?,
            (false, false) => fs::remove_file(&path)?,
        }
    }
    Ok(())
}

/// Copies a file, with its permissions, or a symbolic link, if it differs.
fn update(from: &Path, to: &Path) -> io::Result<()> {
    if let Ok(target) = fs::read_link(from) {
        if fs::read_link(to).is_ok_and(|there| there == target) {
            return Ok(());
        }
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        return std::os::unix::fs::symlink(target, to);
    }
    let is_same = fs::read(to).is_ok_and(|there| fs::read(from).is_ok_and(|here| here == there));
    if is_same && fs::metadata(to)?.permissions() == fs::metadata(from)?.permissions() {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the link, the copy did not build.
    #[test]
    fn a_link_to_a_folder_is_copied_as_one() {
        let (root, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(root.path().join("wit")).unwrap();
        fs::write(root.path().join("wit/a"), "1").unwrap();
        std::os::unix::fs::symlink("wit", root.path().join("link")).unwrap();
        let files = ["wit/a", "link"].map(PathBuf::from);
        for _ in 0..2 {
            refresh(root.path(), &files, copy.path()).unwrap();
            assert_eq!(fs::read_to_string(copy.path().join("link/a")).unwrap(), "1");
        }
    }

    #[test]
    fn a_copy_has_only_the_tracked_files_and_keeps_the_build() {
        let (root, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/b/one"), "1").unwrap();
        fs::write(root.path().join("untracked"), "2").unwrap();
        for stray in ["target/debug", "node_modules/x", "a/.venv"] {
            fs::create_dir_all(copy.path().join(stray)).unwrap();
        }
        fs::write(copy.path().join("a/stray"), "3").unwrap();
        let files = [PathBuf::from("a/b/one"), PathBuf::from("gone")];
        refresh(root.path(), &files, copy.path()).unwrap();
        assert_eq!(fs::read_to_string(copy.path().join("a/b/one")).unwrap(), "1");
        assert!(copy.path().join("target/debug").exists());
        for absent in ["untracked", "node_modules", "a/.venv", "a/stray"] {
            assert!(!copy.path().join(absent).exists(), "{absent}");
        }
    }

    #[test]
    fn the_copy_builds_where_the_repository_does_and_removes_nothing_there() {
        let (root, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(root.path().join("target/debug")).unwrap();
        fs::create_dir_all(copy.path().join("target/old")).unwrap();
        for _ in 0..2 {
            share_builds(root.path(), copy.path()).unwrap();
            refresh(root.path(), &[], copy.path()).unwrap();
            assert!(copy.path().join("target/debug").exists());
            assert!(!copy.path().join("target/old").exists());
        }
        assert!(root.path().join("target/debug").exists());
    }

    // With a new modification time, cargo would build everything again, every time.
    #[test]
    fn an_unchanged_file_stays_untouched() {
        let (root, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(root.path().join("one"), "1").unwrap();
        let files = [PathBuf::from("one")];
        refresh(root.path(), &files, copy.path()).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        let file = fs::File::options().write(true).open(copy.path().join("one")).unwrap();
        file.set_modified(long_ago).unwrap();
        refresh(root.path(), &files, copy.path()).unwrap();
        let changed = || fs::metadata(copy.path().join("one")).unwrap().modified().unwrap();
        assert_eq!(changed(), long_ago);
        fs::write(root.path().join("one"), "2").unwrap();
        refresh(root.path(), &files, copy.path()).unwrap();
        assert_eq!(fs::read_to_string(copy.path().join("one")).unwrap(), "2");
        assert!(changed() > long_ago);
    }
}
