//! Captures what a program writes: the beginning goes to a file that is uploaded, the end is kept for the event's
//! story.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use waypost_domain::handler::{StreamTail, TAIL_BYTES_MAX};

/// A stream's writer. It reads everything, and keeps a bounded part.
#[derive(Debug)]
pub struct Capture {
    path: PathBuf,
    /// Created with the first byte: most programs write nothing, and creating the files costs as much as running a
    /// small program.
    file: Option<File>,
    kept_max: u64,
    kept: u64,
    bytes: u64,
    tail: VecDeque<u8>,
}

impl Capture {
    /// Makes a capture whose file has at most `kept_max` bytes. The file is created with the first byte.
    pub fn new(path: PathBuf, kept_max: u64) -> Self {
        Self { path, file: None, kept_max, kept: 0, bytes: 0, tail: VecDeque::new() }
    }

    /// Returns what was captured.
    pub fn said(&self) -> StreamTail {
        let (one, other) = self.tail.as_slices();
        let tail = [one, other].concat();
        // A character that was cut at the beginning is left out.
        let begin = tail.iter().take(3).take_while(|byte| (**byte & 0xC0) == 0x80).count();
        let is_cut = self.bytes > tail.len() as u64;
        let text = String::from_utf8_lossy(if is_cut { &tail[begin..] } else { &tail });
        let mut tail = text.into_owned();
        // Each byte that is not UTF-8 has become a replacement character of three bytes.
        let surplus = tail.len().saturating_sub(TAIL_BYTES_MAX);
        let begin = (surplus..=tail.len()).find(|place| tail.is_char_boundary(*place)).unwrap_or_default();
        tail.drain(..begin);
        StreamTail { tail, bytes: self.bytes, kept: self.kept }
    }
}

impl Capture {
    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path)?),
        };
        file.write_all(bytes)
    }
}

/// The file that cannot be created. The system's error is kept as the source: its number tells a shortage of this
/// machine from other causes.
#[derive(Debug, thiserror::Error)]
#[error("failed to create {}", path.display())]
struct CreateError {
    path: PathBuf,
    source: io::Error,
}

/// Creates a file, or returns an error that names it.
fn create(path: &Path) -> io::Result<File> {
    let named =
        |source: io::Error| io::Error::new(source.kind(), CreateError { path: path.to_owned(), source });
    File::create(path).map_err(named)
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        let room = usize::try_from(self.kept_max - self.kept).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        self.keep(kept)?;
        self.kept += kept.len() as u64;
        let end = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        let surplus = (self.tail.len() + end.len()).saturating_sub(TAIL_BYTES_MAX);
        self.tail.drain(..surplus);
        self.tail.extend(end);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), File::flush)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// The error number was lost: a shortage of descriptors was counted as the program's failure.
    #[test]
    fn what_cannot_be_created_is_named_and_keeps_the_systems_number() {
        let error = create(Path::new("/no/such/folder/stdout")).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder/stdout"), "{error}");
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(cause.and_then(io::Error::raw_os_error), Some(rustix::io::Errno::NOENT.raw_os_error()));
    }

    #[test]
    fn the_beginning_is_in_the_file_and_the_end_in_the_story() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stdout");
        let mut capture = Capture::new(path.clone(), 10);
        assert!(!path.exists());
        capture.write_all(b"begin").unwrap();
        capture.write_all("ä".repeat(TAIL_BYTES_MAX).as_bytes()).unwrap();
        capture.write_all(b"end").unwrap();
        let said = capture.said();
        assert_eq!(said.bytes, 2 * TAIL_BYTES_MAX as u64 + 8);
        assert_eq!(said.kept, 10);
        assert_eq!(std::fs::read(&path).unwrap().len(), 10);
        assert!(said.tail.len() <= TAIL_BYTES_MAX);
        assert!(said.tail.starts_with('ä') && said.tail.ends_with("äend"));
    }

    #[test]
    fn bytes_that_are_no_text_stay_within_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let mut capture = Capture::new(folder.path().join("x"), u64::MAX);
        capture.write_all(&vec![0xFF; 3 * TAIL_BYTES_MAX]).unwrap();
        let said = capture.said();
        assert!(said.tail.len() <= TAIL_BYTES_MAX && said.tail.len() > TAIL_BYTES_MAX - 3);
        assert_eq!(said.kept, 3 * TAIL_BYTES_MAX as u64);
    }
}
