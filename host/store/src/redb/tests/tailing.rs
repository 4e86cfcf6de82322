//! A worker reads what was just accepted from memory, and everything else from the file: each delivery once, in order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use futures_util::future::join;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use waypost_domain::{Activity, Subscription};

/// How many first attempts a reader asks for.
const PAGE: usize = 4;
const SENDERS: usize = 8;

/// Reads as a worker does between wakes.
async fn next(store: &Store, recipient: RecipientId, after: EventId) -> ReadyPage {
    store.ready(query(recipient, after, PAGE)).await.unwrap()
}

fn query(recipient: RecipientId, after: EventId, first_attempts: usize) -> ReadyQuery {
    ReadyQuery { recipient, after, first_attempts, now: clock::now(), due: 0 }
}

fn ids(page: &ReadyPage) -> Vec<EventId> {
    page.first_attempts.iter().map(|pending| pending.event.id).collect()
}

#[tokio::test]
async fn what_was_just_accepted_is_read_at_once() {
    let (folder, store) = fresh();
    let old = accept(&store, "old", &[sub(1)]).await;
    close(store).await;
    let store = open(folder.path());
    let at_once = |after| store.reader.tails.read(&query(sub(1), after, PAGE), &store.reader.recent);
    assert!(at_once(EventId::NIL).is_none(), "the file has it");
    let page = next(&store, sub(1), EventId::NIL).await;
    assert_eq!((ids(&page), page.read_to), (vec![old], old));
    let other = accept(&store, "other", &[sub(2)]).await;
    let new = accept(&store, "new", &[sub(1)]).await;
    let page = at_once(old).expect("from memory");
    assert_eq!((ids(&page), page.read_to), (vec![new], new));
    assert!(at_once(new).expect("from memory").first_attempts.is_empty());
    assert!(at_once(EventId::NIL).is_none(), "another worker of it starts");
    // The end of the file was reached: no older event can come.
    let page = next(&store, sub(3), EventId::NIL).await;
    assert!(page.first_attempts.is_empty() && page.read_to == new && other < new);
    let third = accept(&store, "third", &[sub(3)]).await;
    let page = store
        .reader
        .tails
        .read(&query(sub(3), page.read_to, PAGE), &store.reader.recent)
        .expect("from memory");
    assert_eq!(ids(&page), [third]);
}

#[tokio::test]
async fn what_is_due_is_read_from_the_file() {
    let (_folder, store) = fresh();
    let id = accept(&store, "a", &[sub(1)]).await;
    let page = next(&store, sub(1), EventId::NIL).await;
    settle(&store, sub(1), &page.first_attempts[0], retry(after(1))).await;
    let page = next(&store, sub(1), page.read_to).await;
    assert!(page.first_attempts.is_empty() && page.due.is_empty() && page.next_due.is_none());
    let query = ReadyQuery { now: after(2), due: 1, ..query(sub(1), page.read_to, 0) };
    assert_eq!(store.ready(query).await.unwrap().due[0].event.id, id);
}

/// The deliveries of a deleted or long disabled subscription must not come back from memory.
#[tokio::test]
async fn what_is_given_up_is_not_read_from_memory() {
    let (_folder, store) = fresh();
    let target = "http://localhost/".parse().unwrap();
    let mut disabled = Subscription::new("ann".into(), "all".into(), "$".into(), target, after(0));
    disabled.id = sub(1);
    disabled.activity = Activity::Disabled { since: Timestamp::MAX, error: None };
    store.put(disabled, Quota::Holds).await.unwrap();
    for recipient in [sub(1), sub(2)] {
        next(&store, recipient, EventId::NIL).await;
    }
    // The third recipient keeps the event, and with it the batch as it was.
    accept(&store, "a", &[sub(1), sub(2), sub(3)]).await;
    assert_eq!(store.expire_backlog(sub(1), Timestamp::MAX).await.unwrap(), 1);
    assert!(!store.cancel_pending(sub(2), 10).await.unwrap());
    for recipient in [sub(1), sub(2)] {
        assert!(next(&store, recipient, EventId::NIL).await.first_attempts.is_empty());
    }
    assert_eq!(next(&store, sub(3), EventId::NIL).await.first_attempts.len(), 1);
}

/// Commits and reads at the same time: a read may see a commit of which memory does not know yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_beside_many_senders_sees_each_delivery_once_and_in_order() {
    let (_folder, store) = fresh();
    let store = Arc::new(store);
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let store = Arc::clone(&store);
        senders.spawn(async move {
            for number in 0..60 {
                let matched = [sub(2), sub(1)];
                let matched = if number % 3 == 0 { &matched[..1] } else { &matched };
                store.log(vec![arrival("a", matched); 1 + number % 5]).await.unwrap();
            }
        });
    }
    let reader = async {
        let (mut read, mut after, wakes) = (Vec::new(), EventId::NIL, store.wakes());
        while read.len() < 120 * SENDERS {
            wakes.drain().await;
            loop {
                let page = next(&store, sub(1), after).await;
                after = page.read_to;
                read.extend(ids(&page));
                if page.first_attempts.len() < PAGE {
                    break;
                }
            }
        }
        read
    };
    let reader = tokio::time::timeout(Duration::from_secs(120), reader);
    let (_sent, read) = join(senders.join_all(), reader).await;
    assert_eq!(read.unwrap(), ids(&ready(&store, sub(1)).await), "once, and in order");
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// Events come in one request, each matching the recipients in its mask.
    Accept(Vec<u8>),
    /// So many that memory does not keep them.
    AcceptMany(u8),
    /// The worker of a recipient reads a page.
    Read(usize, usize),
    /// An attempt at a delivery that a worker has read ends, for good or not.
    Settle(usize, Index, bool),
    /// A worker ends, and another one starts.
    Restart(usize),
    /// An event is redelivered, which changes its batch.
    Redeliver(Index),
    /// Everything that is over is purged, which changes batches.
    Purge,
    Cancel(usize),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (mask, whose) = (|| 0..4u8, || 0..2usize);
    let step = prop_oneof![
        8 => prop::collection::vec(mask(), 1..5).prop_map(Step::Accept),
        1 => mask().prop_map(Step::AcceptMany),
        12 => (whose(), 0..5usize).prop_map(|(whose, page)| Step::Read(whose, page)),
        6 => (whose(), any::<Index>(), any::<bool>()).prop_map(|(whose, index, good)| Step::Settle(whose, index, good)),
        1 => whose().prop_map(Step::Restart),
        1 => any::<Index>().prop_map(Step::Redeliver),
        1 => Just(Step::Purge),
        1 => whose().prop_map(Step::Cancel),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..80)
}

/// A worker, and what the store owes its recipient.
struct Reader {
    after: EventId,
    /// First attempts that are not settled, and those of them that this worker has not read yet.
    pending: BTreeSet<EventId>,
    unread: VecDeque<EventId>,
    read: Vec<PendingDelivery>,
}

impl Reader {
    fn new() -> Self {
        Self { after: EventId::NIL, pending: BTreeSet::new(), unread: VecDeque::new(), read: Vec::new() }
    }

    fn restart(&mut self) {
        self.after = EventId::NIL;
        self.unread = self.pending.iter().copied().collect();
        self.read.clear();
    }

    /// Reads a page, which must be what this worker has not read yet, and what the file would answer.
    async fn next(&mut self, store: &Store, recipient: RecipientId, page: usize) {
        let query = query(recipient, self.after, page);
        let answer = store.ready(query).await.unwrap();
        let (of_file, dead) = super::super::deliveries::ready(&store.reader, query).unwrap();
        assert_eq!(ids(&answer), ids(&of_file));
        assert!(dead.is_empty());
        let is_end = answer.first_attempts.len() < page;
        for pending in answer.first_attempts {
            assert_eq!(self.unread.pop_front(), Some(pending.event.id), "each once, and in order");
            assert!(!pending.rendered && pending.position.due.is_none());
            self.read.push(pending);
        }
        assert!(self.unread.is_empty() || !is_end, "nothing is left out");
        self.after = answer.read_to;
    }
}

struct Readers {
    folder: tempfile::TempDir,
    store: Store,
    readers: [Reader; 2],
    all: Vec<EventId>,
}

impl Readers {
    async fn step(mut self, step: Step) -> Self {
        match step {
            Step::Accept(masks) => self.accept(&masks).await,
            Step::AcceptMany(mask) => self.accept(&[mask; 70]).await,
            Step::Read(whose, page) => {
                self.readers[whose].next(&self.store, recipient(whose), page).await;
            }
            Step::Settle(whose, index, good) => {
                let reader = &mut self.readers[whose];
                if !reader.read.is_empty() {
                    let pending = reader.read.swap_remove(index.index(reader.read.len()));
                    reader.pending.remove(&pending.event.id);
                    let outcome = if good { Outcome::Delivered } else { retry(after(1)) };
                    let settling = settle(&self.store, recipient(whose), &pending, outcome);
                    // The probe gives the settlement a commit to join, so that it does not wait.
                    join(settling, self.store.probe()).await.1.unwrap();
                }
            }
            Step::Restart(whose) => self.readers[whose].restart(),
            Step::Redeliver(index) => {
                if !self.all.is_empty() {
                    let id = self.all[index.index(self.all.len())];
                    let by = "bob".to_owned();
                    self.store.redeliver(id, vec![sub(9), recipient(0)], by, after(0), None).await.unwrap();
                }
            }
            Step::Purge => {
                purge(&self.store, Purge::Before(Timestamp::MAX)).await;
            }
            Step::Cancel(whose) => {
                while self.store.cancel_pending(sub(1 + whose as u128), 5).await.unwrap() {}
                let reader = &mut self.readers[whose];
                reader.pending.clear();
                reader.unread.clear();
                reader.read.clear();
            }
            Step::Reopen => {
                close(self.store).await;
                self.store = open(self.folder.path());
                self.readers.iter_mut().for_each(Reader::restart);
            }
        }
        self
    }

    async fn accept(&mut self, masks: &[u8]) {
        let of_mask = |mask: u8| (0..2).filter(move |whose| mask >> whose & 1 == 1);
        let matched = |mask: &u8| of_mask(*mask).map(recipient).collect::<Vec<_>>();
        let arrivals = masks.iter().map(|mask| arrival("a", &matched(mask))).collect();
        let ids = self.store.log(arrivals).await.unwrap();
        for (id, mask) in ids.iter().zip(masks) {
            for whose in of_mask(*mask) {
                self.readers[whose].pending.insert(*id);
                self.readers[whose].unread.push_back(*id);
            }
        }
        self.all.extend(ids);
    }
}

fn recipient(whose: usize) -> RecipientId {
    sub(1 + whose as u128)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_reader_between_commits_sees_each_delivery_once_and_in_order(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (folder, store) = fresh();
            let mut readers = Readers { folder, store, readers: [Reader::new(), Reader::new()], all: Vec::new() };
            for step in steps {
                readers = readers.step(step).await;
            }
            for whose in 0..2 {
                readers = readers.step(Step::Read(whose, usize::MAX)).await;
            }
        });
    }
}
