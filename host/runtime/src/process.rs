//! What a process that works for a Waypost does to itself. It asks to be killed first when the machine runs out of
//! memory, since its work can be repeated, and it gives up the ability to gain privileges.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::process::Pid;

/// The score of what can be done again at once: a compiling child.
pub const FIRST: i32 = 1000;
/// The score of what may be in the middle of something: a handler's program.
pub const EARLY: i32 = 500;

/// Where Linux keeps a process's score, from -1000 to 1000. The system ends those with a higher one first.
const SCORE: &str = "/proc/self/oom_score_adj";

/// Makes the system kill this process, and those that it starts from now on, before others when memory runs out, unless
/// it is set so already. Returns the score before.
pub fn end_before_others(score: i32) -> Option<i32> {
    let before = fs::read_to_string(SCORE).ok()?.trim().parse().ok()?;
    if before < score
        && let Err(error) = set_score(score)
    {
        tracing::debug!(%error, "this process keeps its place among those that end when memory runs out");
    }
    Some(before)
}

/// Gives this process a score, such as the one that it had. Those that it has started keep theirs.
///
/// # Errors
/// When the system does not have such scores, or the score is lower than this process may have.
pub fn set_score(score: i32) -> io::Result<()> {
    fs::write(SCORE, score.to_string())
}

/// Sees that neither this thread nor what it starts from now on gains privileges, as by a program that is root's and says
/// so (set-user-ID), or has more capabilities. It cannot be undone.
///
/// # Errors
/// When the system refuses.
#[cfg(target_os = "linux")]
pub fn gain_no_privileges() -> Result<(), rustix::io::Errno> {
    // It is variadic and reads each as an `unsigned long`; the unused ones have to be 0 (prctl(2)).
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    #[expect(
        unsafe_code,
        reason = "rustix has it in a feature for which all that uses rustix is compiled again"
    )]
    // SAFETY: it takes numbers alone, and changes an attribute of this thread.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) };
    if done == 0 { Ok(()) } else { Err(rustix::io::Errno::INVAL) }
}

/// Does nothing, where the system has no such thing.
///
/// # Errors
/// Never.
#[cfg(not(target_os = "linux"))]
pub fn gain_no_privileges() -> Result<(), rustix::io::Errno> {
    Ok(())
}

/// Starts a copy of this process, and returns its id; in the copy, nothing. Call it only in a process of one thread: the
/// copy has the calling thread alone, and waits for ever for a lock that another thread held.
///
/// # Errors
/// When the system has no process or memory to give.
pub fn fork() -> io::Result<Option<Pid>> {
    #[expect(unsafe_code, reason = "rustix has it as an experiment alone")]
    // SAFETY: with one thread there is no lock that the copy would miss the owner of, and all that this thread has is as
    // valid in the copy.
    let forked = unsafe { libc::fork() };
    if forked < 0 { Err(io::Error::last_os_error()) } else { Ok(Pid::from_raw(forked)) }
}

/// Takes what stdin is, so that it can be closed; `/dev/null` is there from now on.
///
/// # Errors
/// When the system refuses.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let taken = io::stdin().as_fd().try_clone_to_owned()?;
    let null = fs::File::open("/dev/null")?;
    #[expect(
        unsafe_code,
        reason = "rustix has it in a feature for which all that uses rustix is compiled again"
    )]
    // SAFETY: both are open descriptors, and what stands for stdin owns none.
    let done = unsafe { libc::dup2(null.as_raw_fd(), io::stdin().as_raw_fd()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(taken) }
}
