//! The index, from bytes to matches.

use std::process::Command;
use std::sync::Arc;

use uuid::Uuid;
use waypost_domain::{FilterDialect, SubscriptionId};
use waypost_matching::{Filter, Index};

use crate::print;
use crate::stopwatch::{Contestant, median, processor_time, race};

/// A form of filter, from which the n-th filter is made.
struct Form {
    name: &'static str,
    dialect: FilterDialect,
    filter: fn(usize) -> String,
}

const FORMS: [Form; 3] = [
    Form {
        name: "equality",
        dialect: FilterDialect::Rfc9535,
        filter: |n| format!("$[?$.eventType=='type-{n}']"),
    },
    Form {
        name: "two conditions",
        dialect: FilterDialect::Rfc9535,
        filter: |n| format!("$.data[?@.destinationTable=='TransactionKeyValue' && @.key=='tag-{n}']"),
    },
    Form {
        name: "two conditions, jsonpath2",
        dialect: FilterDialect::Jsonpath2,
        filter: |n| {
            format!(r#"$["data"][*][?(@["destinationTable"]="TransactionKeyValue" and @["key"]="tag-{n}")]"#)
        },
    },
];

const SIZES: [usize; 4] = [1, 100, 10_000, 100_000];

/// The argument that makes this program measure one form only.
pub(crate) const FORM: &str = "--form=";

/// Prints the table of the index, where one filter matches. Each row is measured in its own process: otherwise a row
/// would reuse the memory that an earlier one freed, and seem to need none.
pub(crate) fn measure() -> std::io::Result<()> {
    print("The index, one filter matching, µs from the event's bytes to the match\n");
    print(
        "| filters | 1 | 100 | 10,000 | 100,000 | 100,000 : 100 | add, remove one at 100,000 | build 100,000 | memory each |",
    );
    print("|---|---|---|---|---|---|---|---|---|");
    for number in 0..FORMS.len() {
        let row = Command::new(std::env::current_exe()?).arg(format!("{FORM}{number}")).output()?;
        print(String::from_utf8_lossy(&row.stdout).trim_end());
        assert!(row.status.success(), "{}", String::from_utf8_lossy(&row.stderr));
    }
    Ok(())
}

/// Measures the form of this number, and prints its row.
pub(crate) fn measure_form(number: &str) {
    let form = number.parse().ok().and_then(|number: usize| FORMS.get(number)).expect("the number of a form");
    let event = include_str!("../src/event.json")
        .replace("org.pacifica.metadata.ingest", "type-0")
        .replace("tag-none", "tag-0");
    let (before, begin) = (resident_bytes(), processor_time());
    let largest = build(form, SIZES[3]);
    let (built, after) = (processor_time() - begin, resident_bytes());
    let each = after.saturating_sub(before) / SIZES[3];
    let mut indexes: Vec<Index> = SIZES[..3].iter().map(|size| build(form, *size)).collect();
    indexes.push(largest);
    for index in &indexes {
        let matches = index.matches(event.as_bytes(), |_| 0).expect("the event is JSON");
        assert_eq!(matches.matched.len(), 1, "{}", form.name);
    }
    let contestants = indexes.iter().map(|index| -> Contestant<'_> {
        Box::new(|| index.matches(event.as_bytes(), |_| 0).map_or(0, |matches| matches.matched.len()))
    });
    let times = race(&mut contestants.collect::<Vec<_>>());
    let (added, removed) = change(form, &indexes[3]);
    print(&format!(
        "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {added:.0} µs, {removed:.0} µs | {:.2} s | {each} bytes |",
        form.name,
        times[0],
        times[1],
        times[2],
        times[3],
        times[3] / times[1],
        built.as_secs_f64(),
    ));
}

fn build(form: &Form, size: usize) -> Index {
    let mut index = Index::default();
    for n in 0..size {
        index.insert(id(n), filter(form, n));
    }
    index
}

fn filter(form: &Form, n: usize) -> Arc<Filter> {
    Arc::new(Filter::parse(&(form.filter)(n), form.dialect).expect("the bench's filters parse"))
}

fn id(n: usize) -> SubscriptionId {
    SubscriptionId::from_uuid(Uuid::from_u128(u128::try_from(n).unwrap_or_default()))
}

/// Returns how long adding a filter to a clone and removing one from a clone take, in microseconds.
fn change(form: &Form, index: &Index) -> (f64, f64) {
    let time = |change: &dyn Fn(&mut Index, usize)| {
        let times = (0..200).map(|n| {
            let begin = processor_time();
            let mut next = index.clone();
            change(&mut next, n);
            (processor_time() - begin).as_secs_f64() * 1e6
        });
        median(times.collect())
    };
    let new = filter(form, SIZES[3] + 1);
    let added = time(&|index, n| index.insert(id(SIZES[3] + n), Arc::clone(&new)));
    (added, time(&|index, n| index.remove(id(n * 400))))
}

/// Returns the resident memory of this process, in bytes.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_usize) * rustix::param::page_size()
}
