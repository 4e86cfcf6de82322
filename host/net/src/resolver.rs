//! Resolves names with the system's resolver, on threads of its own.
//!
//! The system knows `/etc/hosts`, `nsswitch.conf` and the caches of the machine, but it blocks a thread until a name
//! server answers, even if the request was given up. So there is a bound of such threads, which other work does not
//! need. A name is looked up once at a time, for all that wait for it. The names below one site (`example.org`) have
//! few of the threads, and a site that has none comes first: names that hang delay others of their site alone.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::Failure;
use waypost_runtime::fair_semaphore::{FairPermit, FairSemaphore};

/// How many names are looked up at once.
const LOOKUPS_MAX: usize = 64;
/// How many of them are below one site.
const SITE_LOOKUPS_MAX: usize = 8;
/// How long a lookup waits to begin.
const BEGIN_WAIT: Duration = Duration::from_secs(2);
/// How long a request waits for a name.
const NAME_WAIT: Duration = Duration::from_secs(10);
/// The stack of a lookup's thread: the C library and what it loads need more than a few pages.
const STACK_BYTES: usize = 512 * 1024;

/// Where addresses come from.
enum Source {
    System,
    #[cfg(any(test, feature = "testing"))]
    Script(Script),
}

#[cfg(any(test, feature = "testing"))]
type Script = Box<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Resolves names. Its clones share what is under way.
#[derive(Clone)]
pub struct Resolver(Arc<Shared>);

struct Shared {
    source: Source,
    permits: FairSemaphore,
    name_wait: Duration,
    /// The lookups that have begun or wait to.
    under_way: Mutex<HashMap<Arc<str>, watch::Receiver<Option<Found>>>>,
}

type Found = Result<Arc<[IpAddr]>, Unresolved>;

/// Why a name has no addresses: an error of the system's, which all can have that wait for it.
#[derive(Clone, Debug)]
enum Unresolved {
    Number(Errno),
    Said(String),
}

/// The right to make a lookup. While it is there, others wait for this one; when it goes without a lookup, one of them has
/// its turn.
struct Turn {
    name: Arc<str>,
    tell: watch::Sender<Option<Found>>,
    of: Arc<Shared>,
}

impl Turn {
    /// Lets the next who asks have a turn.
    fn end(&self) {
        let mut under_way = self.of.under_way.lock();
        // Another one may have its turn by now.
        if under_way.get(&self.name).is_some_and(|told| told.same_channel(&self.tell.subscribe())) {
            under_way.remove(&self.name);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end();
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::of(Source::System, LOOKUPS_MAX, NAME_WAIT)
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    fn of(source: Source, lookups_max: usize, name_wait: Duration) -> Self {
        let permits = FairSemaphore::new(lookups_max, SITE_LOOKUPS_MAX);
        Self(Arc::new(Shared { source, permits, name_wait, under_way: Mutex::default() }))
    }

    /// Makes one that answers by a script.
    #[cfg(any(test, feature = "testing"))]
    pub fn scripted(script: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self::of(Source::Script(Box::new(script)), LOOKUPS_MAX, NAME_WAIT)
    }

    /// Returns a name's addresses. Dropping the future ends the wait; the lookup goes on.
    ///
    /// # Errors
    /// When there are none, in time; or, as the system's own error, when this machine has no room for a lookup.
    pub(super) async fn addresses(&self, name: &str) -> Result<Arc<[IpAddr]>, Failure> {
        match timeout(self.0.name_wait, self.found(name)).await {
            Ok(found) => found,
            Err(_) => {
                let wait = self.0.name_wait.as_secs_f32();
                Err(format!("the name servers of {name} did not answer within {wait} s").into())
            }
        }
    }

    async fn found(&self, name: &str) -> Result<Arc<[IpAddr]>, Failure> {
        loop {
            let (mut told, turn) = self.join(name);
            if let Some(turn) = turn {
                self.begin(turn).await?;
            }
            // An error means that a lookup was given up before it began.
            if let Ok(found) = told.wait_for(Option::is_some).await
                && let Some(found) = found.clone()
            {
                return found.map_err(Failure::from);
            }
        }
    }

    /// Joins the lookup of a name; its turn, where there is none.
    fn join(&self, name: &str) -> (watch::Receiver<Option<Found>>, Option<Turn>) {
        let mut under_way = self.0.under_way.lock();
        if let Some(told) = under_way.get(name) {
            return (told.clone(), None);
        }
        let (tell, told) = watch::channel(None);
        let name: Arc<str> = name.into();
        under_way.insert(Arc::clone(&name), told.clone());
        (told, Some(Turn { name, tell, of: Arc::clone(&self.0) }))
    }

    /// Starts a lookup's thread.
    async fn begin(&self, turn: Turn) -> Result<(), Failure> {
        let site = site(&turn.name);
        let Ok(permit) = timeout(BEGIN_WAIT, self.0.permits.take(site, 1)).await else {
            // Others may keep the name servers of this one's site busy: it is charged to nobody.
            return Err(io::Error::from(Errno::AGAIN).into());
        };
        let thread = std::thread::Builder::new().name("resolver".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || look_up(&turn, permit))?;
        Ok(())
    }
}

fn look_up(turn: &Turn, permit: FairPermit) {
    let found = turn.of.source.addresses(&turn.name);
    drop(permit);
    // Before it is told: whoever asks after an answer gets a new one.
    turn.end();
    turn.tell.send_replace(Some(found.map_err(|error| Unresolved::of(&error))));
}

impl Source {
    fn addresses(&self, name: &str) -> io::Result<Arc<[IpAddr]>> {
        match self {
            Self::System => Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()),
            #[cfg(any(test, feature = "testing"))]
            Self::Script(script) => Ok(script(name)?.into()),
        }
    }
}

impl Unresolved {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::Number(Errno::from_raw_os_error(number)),
            None => Self::Said(error.to_string()),
        }
    }
}

impl From<Unresolved> for Failure {
    fn from(unresolved: Unresolved) -> Self {
        match unresolved {
            Unresolved::Number(errno) => io::Error::from(errno).into(),
            Unresolved::Said(text) => text.into(),
        }
    }
}

/// Returns what a name has in common with those whose name servers are most likely the same: its last two labels.
fn site(name: &str) -> &str {
    let name = name.strip_suffix('.').unwrap_or(name);
    let dots = name.rmatch_indices('.').nth(1);
    dots.map_or(name, |(place, _)| &name[place + 1..])
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::future::join_all;

    use super::*;
    use waypost_runtime::shortage;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1));

    /// Makes a resolver whose names that begin with `hang` hang until what this returns is dropped, and the number of
    /// lookups that it has begun.
    fn hanging(lookups_max: usize, name_wait: Duration) -> (Resolver, mpsc::Sender<()>, Arc<AtomicUsize>) {
        let (end, ended) = mpsc::channel::<()>();
        let (ended, begun) = (Mutex::new(ended), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&begun);
        let script = move |name: &str| {
            counted.fetch_add(1, Ordering::SeqCst);
            if name.starts_with("hang") {
                // One holds the lock, and the others wait for that.
                assert!(ended.lock().recv().is_err());
            }
            Ok(vec![ADDRESS])
        };
        (Resolver::of(Source::Script(Box::new(script)), lookups_max, name_wait), end, begun)
    }

    #[tokio::test]
    async fn the_system_is_asked_as_operators_expect() {
        let found = Resolver::default().addresses("localhost").await.unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty(), "{found:?}");
        let none = Resolver::default().addresses("no-such-name.invalid").await.unwrap_err();
        assert!(!shortage::is_behind(&*none), "{none}");
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_that_wait_for_it() {
        let (resolver, end, begun) = hanging(4, NAME_WAIT);
        let asked = join_all((0..100).map(|_| resolver.addresses("hang.example")));
        let ending = async {
            while begun.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            drop(end);
        };
        let (found, ()) = tokio::join!(asked, ending);
        assert!(found.iter().all(|found| found.as_ref().is_ok_and(|found| **found == [ADDRESS])));
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        resolver.addresses("hang.example").await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 2, "it is not remembered");
    }

    /// Names that no server resolved kept the names of others waiting.
    #[tokio::test]
    async fn names_that_hang_starve_no_other_site() {
        let (resolver, _end, begun) = hanging(16, Duration::from_millis(300));
        let names: Vec<_> = (0..200).map(|n| format!("hang-{n}.evil.example")).collect();
        let hang = join_all(names.iter().map(|name| resolver.addresses(name)));
        let (hung, found) = tokio::join!(hang, resolver.addresses("www.good.example"));
        assert_eq!(*found.unwrap(), [ADDRESS]);
        assert!(hung.iter().all(Result::is_err));
        assert!(begun.load(Ordering::SeqCst) <= SITE_LOOKUPS_MAX + 1);
        // They hang still, and the others are served.
        for n in 0..100 {
            assert_eq!(*resolver.addresses(&format!("{n}.good.example")).await.unwrap(), [ADDRESS]);
        }
        let late = resolver.addresses("hang-0.evil.example").await.unwrap_err();
        assert_eq!(late.to_string(), "the name servers of hang-0.evil.example did not answer within 0.3 s");
    }

    /// Names that no server resolved kept other lookups waiting until they timed out, which counted as failures of
    /// their targets.
    #[tokio::test]
    async fn a_name_that_is_not_resolved_because_of_others_is_our_own_shortage() {
        let (resolver, _end, begun) = hanging(2, NAME_WAIT);
        for name in ["hang.one.example", "hang.other.example"] {
            let waiting = resolver.clone();
            #[expect(clippy::disallowed_methods, reason = "it waits to the end of the test")]
            tokio::spawn(async move { waiting.addresses(name).await });
        }
        while begun.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        let failure = resolver.addresses("www.good.example").await.unwrap_err();
        assert!(shortage::is_behind(&*failure), "{failure}");
    }

    /// One who gives up while he waits for a thread hands his turn to the next.
    #[tokio::test]
    async fn a_wait_that_is_given_up_leaves_the_lookup_to_the_next() {
        let (resolver, end, begun) = hanging(1, NAME_WAIT);
        let mut first = Box::pin(resolver.addresses("hang.example"));
        let mut given_up = Box::pin(resolver.addresses("good.example"));
        let mut next = Box::pin(resolver.addresses("good.example"));
        for future in [&mut first, &mut given_up, &mut next] {
            assert!(futures_util::poll!(future).is_pending());
        }
        drop(given_up);
        drop(end);
        assert_eq!(*next.await.unwrap(), [ADDRESS]);
        assert_eq!(*first.await.unwrap(), [ADDRESS]);
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_site_is_what_names_have_in_common() {
        for (name, expected) in [
            ("a.b.example.org", "example.org"),
            ("example.org.", "example.org"),
            ("example.org", "example.org"),
            ("localhost", "localhost"),
            ("", ""),
        ] {
            assert_eq!(site(name), expected, "{name}");
        }
    }
}
