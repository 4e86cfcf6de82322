//! Matches a page of the log against one subscription's filter.

use std::sync::Arc;

use crate::directory::Directory;
use waypost_domain::recovery::{Mark, ScanProgress};
use waypost_domain::{Recovery, Subscription};
use waypost_matching::{Document, Filter, FilterError};
use waypost_store::LoggedEvent;

/// Why a page cannot be matched.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The stored filter does not parse.
    #[error("the filter does not parse: {0}")]
    Filter(FilterError),
    /// Matching panicked, or the runtime is shutting down.
    #[error("the filter could not be tried")]
    Broken,
}

/// Matches a page on a blocking thread; `None` for an empty one.
pub(super) async fn look(
    recovery: &Recovery,
    subscription: &Arc<Subscription>,
    directory: &Arc<Directory>,
    page: Vec<Arc<LoggedEvent>>,
) -> Result<Option<ScanProgress>, Error> {
    let (recovery, subscription) = (recovery.clone(), Arc::clone(subscription));
    let directory = Arc::clone(directory);
    let looking = tokio::task::spawn_blocking(move || {
        let filter =
            Filter::parse(&subscription.jsonpath, subscription.filter_dialect).map_err(Error::Filter)?;
        let may_get = |logged: &LoggedEvent| directory.may_get(&subscription, logged);
        Ok(look_now(&recovery, &filter, &page, may_get))
    });
    looking.await.unwrap_or(Err(Error::Broken))
}

fn look_now(
    recovery: &Recovery,
    filter: &Filter,
    page: &[Arc<LoggedEvent>],
    may_get: impl Fn(&LoggedEvent) -> bool,
) -> Option<ScanProgress> {
    let mark = |logged: &Arc<LoggedEvent>| Mark { event: logged.id, received: logged.received };
    let mut scan =
        ScanProgress { first: None, last: mark(page.last()?), events: 0, failed: 0, matched: Vec::new() };
    for logged in page.iter().filter(|logged| recovery.asks_for(logged.received) && may_get(logged)) {
        scan.first.get_or_insert_with(|| mark(logged));
        scan.events += 1;
        match matches(filter, logged) {
            Some(true) => scan.matched.push(logged.id),
            Some(false) => {}
            None => scan.failed += 1,
        }
    }
    Some(scan)
}

/// Tells whether a filter matches an event; `None` when it gives no answer.
fn matches(filter: &Filter, logged: &LoggedEvent) -> Option<bool> {
    let json = logged.event.json();
    filter.matches(&Document::parse(&json).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use waypost_domain::{Event, EventId, FilterDialect, SubscriptionId};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn logged(number: u8, subject: &str) -> Arc<LoggedEvent> {
        let json = format!(
            r#"{{"specversion": "1.0", "id": "{number}", "source": "/t", "type": "t", "subject": "{subject}"}}"#
        );
        Arc::new(LoggedEvent {
            id: EventId::from_uuid(Uuid::from_u128(number.into())),
            event: Event::from_json(json).unwrap(),
            received: at(number.into()),
            sender: "ann".to_owned(),
            matched: Vec::new(),
        })
    }

    #[test]
    fn only_events_of_its_time_are_looked_at_and_all_are_passed() {
        let page: Vec<_> =
            (1..=6).map(|number| logged(number, if number == 4 { "x" } else { "y" })).collect();
        let recovery = Recovery::new(SubscriptionId::NIL, Some(at(2)), Some(at(6)), "ann".to_owned(), at(9));
        let filter = Filter::parse("$[?@ == 'y']", FilterDialect::Rfc9535).unwrap();
        let scan = look_now(&recovery, &filter, &page, |_| true).unwrap();
        assert_eq!(scan.matched, [page[1].id, page[2].id, page[4].id]);
        assert_eq!((scan.events, scan.failed), (4, 0));
        assert_eq!((scan.first.unwrap().event, scan.last.event), (page[1].id, page[5].id));
        assert_eq!(look_now(&recovery, &filter, &[], |_| true), None);
        let none = look_now(&recovery, &filter, &page[5..], |_| true).unwrap();
        assert_eq!((none.first, none.events, none.last.event), (None, 0, page[5].id));
    }
}
