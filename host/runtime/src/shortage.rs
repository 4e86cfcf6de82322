//! Tells which failures are caused by this machine: it is out of descriptors, memory, ports or disk. They say nothing
//! about the target or the program.

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// Tells whether this machine's own shortage is behind a failure.
pub fn is_behind(error: &(dyn Error + 'static)) -> bool {
    find(error).is_some()
}

/// Returns the system's error if a failure is caused by a lack of descriptors, memory, ports or disk.
pub fn find(error: &(dyn Error + 'static)) -> Option<io::Error> {
    // The name resolver does not report that it had no descriptor for its query.
    let is_silent = || numbers(error).next().is_none() && has_no_descriptor();
    named(error).or_else(|| is_silent().then(|| Errno::MFILE.into()))
}

/// Returns the same where the failure names it.
pub fn named(error: &(dyn Error + 'static)) -> Option<io::Error> {
    numbers(error).find(|errno| is_ours(*errno)).map(Into::into)
}

/// Returns the system's numbers among an error and its causes.
fn numbers<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = Errno> + 'a {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.filter_map(|cause| errno(cause.downcast_ref()?))
}

/// Returns the system's number of an error, also of one that stands inside another.
fn errno(error: &io::Error) -> Option<Errno> {
    if let Some(number) = error.raw_os_error() {
        return Some(Errno::from_raw_os_error(number));
    }
    error.get_ref()?.downcast_ref::<io::Error>().and_then(errno)
}

fn is_ours(errno: Errno) -> bool {
    const OURS: [Errno; 9] = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
        Errno::AGAIN,
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::FBIG,
    ];
    OURS.contains(&errno)
}

fn has_no_descriptor() -> bool {
    match std::fs::File::open("/dev/null") {
        Ok(_) => false,
        Err(error) => errno(&error).is_some_and(is_ours),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("connect")]
    struct Connect(#[source] io::Error);

    fn failed(errno: Errno) -> Connect {
        Connect(errno.into())
    }

    #[test]
    fn want_of_descriptors_memory_or_ports_is_ours_and_a_refusal_is_not() {
        for ours in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::NOSPC] {
            assert!(is_behind(&failed(ours)), "{ours:?}");
        }
        for theirs in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::HOSTUNREACH, Errno::TIMEDOUT] {
            assert!(!is_behind(&failed(theirs)), "{theirs:?}");
        }
        assert!(is_behind(&Connect(io::Error::other(io::Error::from(Errno::MFILE)))), "inside another one");
        assert!(!is_behind(&Connect(io::Error::other("no such name"))), "there are descriptors");
        let no_way = io::Error::new(io::ErrorKind::AddrNotAvailable, "no IPv6 here");
        assert!(!is_behind(&Connect(no_way)), "only the system's own word counts");
    }
}
