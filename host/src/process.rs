//! What a process that works for a Waypost does to itself. It asks to be killed first when the machine runs out of
//! memory, since its work can be repeated, and it gives up the ability to gain privileges.

use std::fs;
use std::io;

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
