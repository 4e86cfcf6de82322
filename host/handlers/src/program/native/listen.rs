//! Reads what a program writes, until neither it nor any process that it started can write any more.

use std::io::Write as _;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Capture;
use crate::program::{Fault, UNKEPT};
use waypost_domain::handler::StreamTail;

/// The size of a pipe's buffer.
const BUFFER_BYTES: usize = 64 * 1024;
/// The longest time to read on after the program's end: only a process that could not be ended keeps a pipe open.
const DRAINING: Duration = Duration::from_secs(2);

/// What was read.
#[derive(Default)]
pub(super) struct StreamEnd {
    pub(super) said: StreamTail,
    /// Why the rest was not read.
    pub(super) broken: Option<Fault>,
}

/// Reads to the end of the stream, or until some time after `ended`. Cancels `broken` when reading fails.
pub(super) async fn listen(
    mut stream: impl AsyncRead + Unpin,
    mut capture: Capture,
    ended: &CancellationToken,
    broken: &CancellationToken,
) -> StreamEnd {
    let mut buffer = vec![0; BUFFER_BYTES];
    let overdue = async {
        ended.cancelled().await;
        sleep(DRAINING).await;
    };
    let mut overdue = std::pin::pin!(overdue);
    let fault = loop {
        let read = tokio::select! {
            biased;
            read = stream.read(&mut buffer) => read,
            () = &mut overdue => break None,
        };
        let read = match read {
            Ok(0) => break None,
            Ok(read) => read,
            Err(error) => break Some(error),
        };
        // The file is on a disk, which may be slow.
        let keeping = tokio::task::spawn_blocking(move || {
            let kept = capture.write_all(&buffer[..read]);
            (capture, buffer, kept)
        });
        let Ok(kept) = keeping.await else {
            broken.cancel();
            let broken = Some(Fault::Failure("the service is ending".to_owned()));
            return StreamEnd { said: StreamTail::default(), broken };
        };
        (capture, buffer) = (kept.0, kept.1);
        if let Err(error) = kept.2 {
            break Some(error);
        }
    };
    let fault = fault.map(|error| {
        broken.cancel();
        Fault::of(UNKEPT, &error)
    });
    StreamEnd { said: capture.said(), broken: fault }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    async fn heard(path: &Path) -> Option<Fault> {
        let (ended, broken) = (CancellationToken::new(), CancellationToken::new());
        let heard = listen(&b"a word"[..], Capture::new(path.to_owned(), 100), &ended, &broken).await;
        assert!(broken.is_cancelled(), "the program is ended");
        heard.broken
    }

    /// A full disk failed the run, for good where it had no schedule.
    #[tokio::test]
    async fn a_full_disk_is_not_the_programs_fault() {
        let full = heard(Path::new("/dev/full")).await;
        assert!(matches!(full, Some(Fault::Shortage(_))), "{full:?}");
        let absent = heard(Path::new("/no/such/folder/stdout")).await;
        let Some(Fault::Failure(reason)) = &absent else { panic!("{absent:?}") };
        assert!(reason.contains("/no/such/folder/stdout"), "{reason}");
    }
}
