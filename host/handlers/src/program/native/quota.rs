//! Measures how much a program has written: at intervals while it runs, and once at its end. The kernel limits the
//! largest single file ([`super::super::supervise`]), so that little can be written between two measurements.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use walkdir::WalkDir;

use crate::program::CallLimits;

/// The shortest pause between two measurements.
const PAUSE: Duration = Duration::from_millis(500);
/// The ratio of the pause to the time of a measurement, which bounds the processor time that measuring takes.
const PAUSE_RATIO: u32 = 19;

/// Resolves once the folders hold too much, and returns which limit they exceed. Cancel safe.
pub(super) async fn exceeded(folders: &[PathBuf], limits: CallLimits) -> String {
    let mut pause = PAUSE;
    loop {
        sleep(pause).await;
        let begin = Instant::now();
        if let Some(excess) = excess(folders.to_vec(), limits).await {
            return excess;
        }
        pause = PAUSE.max(begin.elapsed() * PAUSE_RATIO);
    }
}

/// Returns which limit the folders exceed, if any.
pub(super) async fn excess(folders: Vec<PathBuf>, limits: CallLimits) -> Option<String> {
    let looking = tokio::task::spawn_blocking(move || look(&folders, limits));
    // The task is cancelled only when the runtime shuts down.
    looking.await.unwrap_or_default()
}

/// Adds up the folders until a limit is exceeded. Files that vanish during the walk do not count; a link counts as
/// itself, not as its target.
fn look(folders: &[PathBuf], limits: CallLimits) -> Option<String> {
    let (mut files, mut bytes) = (0, 0_u64);
    let walk = |folder| WalkDir::new(folder).min_depth(1).follow_root_links(false);
    for entry in folders.iter().flat_map(walk).flatten() {
        files += 1;
        if entry.file_type().is_file() {
            bytes = bytes.saturating_add(entry.metadata().map_or(0, |meta| meta.len()));
        }
        if bytes > limits.output_bytes {
            return Some(format!("more than {} bytes of output (output_bytes_max)", limits.output_bytes));
        }
        if files > limits.output_files {
            let most = limits.output_files;
            return Some(format!("more than {most} files and folders of output (output_files_max)"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(output_bytes: u64, output_files: usize) -> CallLimits {
        CallLimits { time: Duration::MAX, output_bytes, output_files, memory_bytes: None, log_bytes: 0 }
    }

    #[test]
    fn all_folders_together_are_within_the_limits_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let folders = ["one", "two"].map(|name| folder.path().join(name));
        std::fs::create_dir_all(folders[0].join("deep")).unwrap();
        std::fs::create_dir(&folders[1]).unwrap();
        std::fs::write(folders[0].join("deep/a"), "12345").unwrap();
        std::fs::write(folders[1].join("b"), "12345").unwrap();
        std::os::unix::fs::symlink("/", folders[1].join("link")).unwrap();
        assert_eq!(look(&folders, limits(10, 4)), None);
        assert!(look(&folders, limits(9, 4)).unwrap().contains("9 bytes of output (output_bytes_max)"));
        assert!(
            look(&folders, limits(10, 3))
                .unwrap()
                .contains("3 files and folders of output (output_files_max)")
        );
        assert_eq!(look(&[folder.path().join("absent")], limits(0, 0)), None);
    }
}
