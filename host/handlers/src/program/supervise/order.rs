//! An order to run a program: what the service sends to the fork server, with three descriptors.
//!
//! On the socket it is a length of 8 bytes (little-endian), which the descriptors come with, and as many bytes of
//! postcard. Both ends are the same program.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use super::Supervision;

/// How many descriptors come with an order.
const DESCRIPTORS: usize = 3;

/// What a supervisor and its program are connected to; the service has the other ends.
pub(in crate::program) struct Ends<S, F> {
    /// For orders to the supervisor, and its reports.
    pub(in crate::program) control: S,
    /// The program's.
    pub(in crate::program) stdout: F,
    /// The program's.
    pub(in crate::program) stderr: F,
}

/// Sends an order.
pub(in crate::program) fn send<S: AsFd, F: AsFd>(
    mut socket: &UnixStream,
    supervision: &Supervision,
    ends: &Ends<S, F>,
) -> io::Result<()> {
    let bytes = postcard::to_stdvec(supervision).map_err(io::Error::other)?;
    let fds: [BorrowedFd<'_>; DESCRIPTORS] = [ends.control.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let length = (bytes.len() as u64).to_le_bytes();
    let sent = sendmsg(socket, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    socket.write_all(&length[sent..])?;
    socket.write_all(&bytes)
}

/// Receives an order; `None` when the service has gone.
pub(super) fn receive(
    mut socket: &UnixStream,
) -> io::Result<Option<(Supervision, Ends<UnixStream, OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut length = [0; size_of::<u64>()];
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut length)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if received == 0 {
        return Ok(None);
    }
    let fds: Vec<OwnedFd> = ancillary
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        })
        .collect();
    let Ok([control, stdout, stderr]) = <[OwnedFd; DESCRIPTORS]>::try_from(fds) else {
        return Err(io::Error::other("an order came without its descriptors"));
    };
    socket.read_exact(&mut length[received..])?;
    let mut bytes = Vec::new();
    socket.take(u64::from_le_bytes(length)).read_to_end(&mut bytes)?;
    let supervision = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
    Ok(Some((supervision, Ends { control: control.into(), stdout, stderr })))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_order_arrives_as_it_was_sent_with_its_descriptors() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (control, far) = UnixStream::pair().unwrap();
        let supervision = Supervision {
            folder: std::ffi::OsString::from_vec(vec![b'/', 0xff]),
            time: Duration::from_millis(1500),
            output_bytes: 7,
            memory_bytes: None,
            command: vec!["a".into(), "ü".repeat(100_000).into()],
            environment: vec![("PATH".into(), "/bin".into())],
        };
        let sent = supervision.clone();
        let sending = std::thread::spawn(move || {
            let ends = Ends { control: &far, stdout: &far, stderr: &far };
            send(&ours, &sent, &ends).unwrap();
        });
        let (received, ends) = receive(&theirs).unwrap().unwrap();
        sending.join().unwrap();
        assert_eq!(received, supervision);
        (&ends.control).write_all(b"hello").unwrap();
        drop(ends);
        let mut heard = String::new();
        (&control).read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello", "and nothing holds the other end any more");
        assert!(receive(&theirs).unwrap().is_none(), "the sender has gone");
    }
}
