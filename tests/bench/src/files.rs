//! The files that a handler fetches, as a tar that is generated while it is sent. All contents come from one block in
//! memory, so that generating it costs next to nothing.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tar::{EntryType, Header};

/// The size of a tar's blocks.
const BLOCK_BYTES: usize = 512;
/// How much the sender sends in one step.
const PIECE_BYTES: usize = 256 * 1024;
/// How many files share a folder.
const FOLDER_FILES: usize = 100;

/// A number of files of the same size. They differ in their first block.
#[derive(Clone)]
pub(crate) struct Files {
    count: usize,
    /// A file's content after its first block, and the padding.
    rest: Bytes,
    bytes_each: usize,
}

impl Files {
    /// Makes `count` files with `bytes` bytes together, or a little less.
    pub(crate) fn new(count: usize, bytes: usize) -> Self {
        let bytes_each = (bytes / count).max(BLOCK_BYTES);
        let rest = bytes_each - BLOCK_BYTES;
        let mut block = BytesMut::zeroed(rest.next_multiple_of(BLOCK_BYTES));
        // Not all equal, for a disk that compresses or deduplicates.
        let mut state = 1_u64;
        for word in block[..rest].chunks_mut(8) {
            state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            word.copy_from_slice(&state.to_be_bytes()[..word.len()]);
        }
        Self { count, rest: block.freeze(), bytes_each }
    }

    /// Returns the number of files.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Returns their total size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        (self.count * self.bytes_each) as u64
    }

    /// Returns the paths of all.
    pub(crate) fn paths(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.count).map(|n| format!("{}/{}", folder(n), name(n)))
    }

    /// Returns their rows in an event; `sums` are their SHA-1 sums.
    pub(crate) fn rows(&self, sums: &[String]) -> Vec<Value> {
        let row = |(n, sum)| {
            json!({"destinationTable": "Files", "_id": n, "name": name(n), "subdir": folder(n),
                "size": self.bytes_each, "hashtype": "sha1", "hashsum": sum, "mimetype": "text/plain"})
        };
        sums.iter().enumerate().map(row).collect()
    }

    /// Returns the tar with all of them below `data/`, piece by piece.
    pub(crate) fn tar(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        let files = self.clone();
        let members = (0..self.count).flat_map(move |n| {
            let rest = files.rest.clone();
            let pieces = (0..rest.len()).step_by(PIECE_BYTES);
            let pieces = pieces.map(move |at| rest.slice(at..rest.len().min(at + PIECE_BYTES)));
            std::iter::once(files.begin(n)).chain(pieces)
        });
        members.chain([Bytes::from_static(&[0; 2 * BLOCK_BYTES])])
    }

    /// Returns a file's header and its first block.
    fn begin(&self, n: usize) -> Bytes {
        let mut header = Header::new_ustar();
        header.set_path(format!("data/{}/{}", folder(n), name(n))).expect("the path is short");
        header.set_entry_type(EntryType::Regular);
        header.set_size(self.bytes_each as u64);
        header.set_mode(0o644);
        header.set_cksum();
        let mut begin = BytesMut::zeroed(2 * BLOCK_BYTES);
        begin[..BLOCK_BYTES].copy_from_slice(header.as_bytes());
        let name = name(n);
        begin[BLOCK_BYTES..BLOCK_BYTES + name.len()].copy_from_slice(name.as_bytes());
        begin.freeze()
    }
}

fn folder(n: usize) -> String {
    format!("folder-{:03}", n / FOLDER_FILES)
}

fn name(n: usize) -> String {
    format!("file-{n:06}.txt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tar_holds_every_file_and_nothing_else() {
        let files = Files::new(201, 201 * (PIECE_BYTES + 5000) + 7);
        let tar = files.tar().flatten().collect::<Vec<u8>>();
        let mut archive = tar::Archive::new(&tar[..]);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            found.push(entry.path().unwrap().strip_prefix("data").unwrap().to_str().unwrap().to_owned());
            bytes += entry.size();
        }
        assert_eq!(found, files.paths().collect::<Vec<_>>());
        assert_eq!((found.len(), bytes), (files.count(), files.bytes()));
    }
}
