//! Programs that fill their output: the quota is exact, and deleting frees it.

use std::os::unix::fs::MetadataExt as _;

use walkdir::WalkDir;

use super::*;

const BYTES: u64 = LIMITS.output_bytes;
const FILES: usize = LIMITS.output_files;

async fn fill(way: &str, number: u64) -> (Run, Exit) {
    let (run, exit) = once(waypost_guests::FILL, &[way, &number.to_string()], LIMITS).await;
    let (mut bytes, mut entries) = (0, 0);
    for entry in WalkDir::new(run.output()).min_depth(1).into_iter().filter_map(Result::ok) {
        // What is too deep to be looked at.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { 0 } else { metadata.size() };
        entries += 1;
    }
    assert!(bytes <= BYTES && entries <= FILES, "{way}: {bytes} bytes, {entries} entries");
    (run, exit)
}

fn full() -> Exit {
    Exit::Limit("output quota of 100000 bytes (output_bytes_max)".to_owned())
}

#[tokio::test]
pub(in super::super) async fn bytes_are_counted_exactly_however_they_are_written() {
    for way in ["write", "append", "direct", "stream", "sparse", "far"] {
        let (run, exit) = fill(way, BYTES).await;
        assert_eq!(exit, Exit::Code(0), "{way}: {}", run.stderr.text());
        let (run, exit) = fill(way, BYTES + 1).await;
        assert_eq!(exit, full(), "{way}");
        // Rust's library calls each error of a stream EIO, though wasi:io/streams has told it better.
        let said = run.stderr.text();
        let says = ["insufficient-space", "StorageFull", "I/O error"];
        assert!(says.iter().any(|text| said.contains(text)), "{way}: {said}");
        assert_eq!(["direct", "stream"].contains(&way), said.contains("insufficient-space"), "{way}: {said}");
    }
}

#[tokio::test]
async fn files_folders_and_links_are_counted_exactly() {
    for way in ["files", "folders", "symlinks"] {
        let (run, exit) = fill(way, FILES as u64).await;
        assert_eq!(exit, Exit::Code(0), "{way}: {}", run.stderr.text());
        let (run, exit) = fill(way, FILES as u64 + 1).await;
        let limit = "output quota of 50 files, folders and links (output_files_max)";
        assert_eq!(exit, Exit::Limit(limit.to_owned()), "{way}");
        assert_eq!(run.stdout.text(), format!("{FILES}\n"), "{way}");
    }
}

#[tokio::test]
async fn a_file_counts_once_for_each_of_its_names() {
    // A file of 1000 bytes and 49 links are 50 entries and 50,000 bytes.
    assert_eq!(fill("links", 49).await.1, Exit::Code(0));
    assert_eq!(fill("grow-links", 10).await.1, Exit::Code(0));
    assert_eq!(fill("grow-links", 11).await.1, full());
}

#[tokio::test]
async fn what_is_rewritten_replaced_or_deleted_makes_room() {
    for way in ["again", "cut", "replace", "temporary"] {
        let (run, exit) = fill(way, 2000).await;
        assert_eq!(exit, Exit::Code(0), "{way}: {}", run.stderr.text());
        assert_eq!(run.stdout.text(), "2000\n", "{way}");
    }
    assert_eq!(fill("twice", BYTES).await.1, Exit::Code(0));
}

#[tokio::test]
async fn files_that_are_deleted_and_kept_open_count() {
    let (run, exit) = fill("hoard", 101).await;
    assert_eq!((exit, &*run.stdout.text()), (full(), "100\n"));
}

#[tokio::test]
async fn what_is_too_deep_to_be_measured_stays_counted() {
    // 30 folders and at most 20 files: the limit on bytes is not what refuses.
    let (run, exit) = fill("deep", 30).await;
    assert!(matches!(exit, Exit::Limit(limit) if limit.contains("output_files_max")));
    let made: usize = run.stdout.text().trim().parse().unwrap();
    assert!((10..=20).contains(&made), "{made}");
}

#[tokio::test]
async fn a_program_that_copes_with_a_full_output_succeeds() {
    let (run, exit) = fill("cope", BYTES + 1).await;
    assert_eq!((exit, &*run.stdout.text()), (Exit::Code(0), "it is full\n"));
}
