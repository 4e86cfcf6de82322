//! The forms on disk. The bytes below were written by versions 1 and 2, without a checksum, and by the version with one, and
//! must stay readable for ever.

mod entries;
mod group;
mod json;
mod parts;
mod rendered;

use proptest::prelude::*;

use super::super::record::*;
use super::*;
use crate::LoggedEvent;
use waypost_domain::{
    Activity, Answer, Auth, KeyId, OnDead, Order, OrderBy, Recovery, RetrySchedule, Sealed, Subscription,
    recovery,
};

fn unhex(text: &str) -> Vec<u8> {
    let text: String = text.split_whitespace().collect();
    (0..text.len()).step_by(2).map(|place| u8::from_str_radix(&text[place..place + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id(number: u128) -> EventId {
    EventId::from_uuid(Uuid::from_u128(number))
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap()
}

fn batch() -> Vec<Option<LoggedEvent>> {
    let part = |spec_version, wire| {
        Event::from_parts(spec_version, "e-1".to_owned(), "/src".to_owned(), "type".to_owned(), wire)
    };
    let json = |content_type: Option<&str>| Wire::Structured {
        content_type: content_type.map(str::to_owned),
        body: Bytes::from_static(b"{\"id\":1}"),
    };
    let binary = Wire::Binary {
        attributes: vec![("subject".to_owned(), "ü".to_owned()), ("x".to_owned(), String::new())],
        content_type: Some("text/plain".to_owned()),
        data: Bytes::from_static(&[0, 255]),
    };
    let logged = |number, event, matched: &[u128]| {
        let (received, sender) = (at(1_700_000_000_000_001), "ann".to_owned());
        Some(LoggedEvent {
            id: id(number),
            event,
            received,
            sender,
            matched: matched.iter().copied().map(sub).collect(),
        })
    };
    vec![
        logged(
            0x0190_0000_0000_7000_8000_0000_0000_0001,
            part(SpecVersion::V1_0, json(Some("a/b"))),
            &[1, 2 << 100],
        ),
        None,
        logged(2, part(SpecVersion::V0_1, binary), &[]),
        logged(3, part(SpecVersion::V0_2, json(None)), &[]),
        logged(4, part(SpecVersion::V0_3, json(None)), &[]),
    ]
}

const BATCH: &str = "
    01050181808080808080808081c0838080808090038280f2818389850603616e6e020180808080808080808080808080
    80080a03652d31042f73726304747970650103612f6200087b226964223a317d0001028280f2818389850603616e6e00
    0103652d31042f7372630474797065010a746578742f706c61696e0102077375626a65637402c3bc0178000200ff0103
    8280f2818389850603616e6e000203652d31042f73726304747970650000087b226964223a317d01048280f281838985
    0603616e6e000303652d31042f73726304747970650000087b226964223a317d
";

#[test]
fn a_batch_of_version_1_is_read() {
    assert_eq!(events(&decode_batch(&unhex(BATCH).into()).unwrap()), batch());
}

fn events(batch: &Batch) -> Vec<Option<LoggedEvent>> {
    batch.iter().map(|logged| logged.as_deref().cloned()).collect()
}

fn summed_batch() -> Vec<u8> {
    encode_batch(batch().iter().map(Option::as_ref), &[])
}

#[test]
fn a_batch_has_a_checksum_for_each_event() {
    let record = summed_batch();
    let read = decode_batch(&record.clone().into()).unwrap();
    assert_eq!((events(&read), read.damaged.len()), (batch(), 0));
    assert_eq!(events(&decode_new_batch(&record.into()).unwrap()), batch());
    // One event, and a purged and a damaged one.
    let one = batch().remove(3);
    let record = encode_batch([one.as_ref(), None, None].into_iter(), &[2]);
    assert_eq!(hex(&record), ONE_EVENT);
    let read = decode_batch(&unhex(ONE_EVENT).into()).unwrap();
    assert_eq!((events(&read), read.damaged), (vec![one, None, None], vec![2]));
}

const ONE_EVENT: &str = "04030000002800000027501ccd0000000000000000ffffffff00000000244b3e8a038280f2818389850603616e6e000203652d31042f73726304747970650000087b226964223a317d";

fn entries() -> Vec<HistoryRecord> {
    let answer = |status, body: &str| Some(Answer { status, body: body.to_owned() });
    let reason = || "why".to_owned();
    let outcomes = [
        Outcome::Delivered,
        Outcome::Denied,
        Outcome::Skipped { reason: reason() },
        Outcome::Retry { reason: reason(), due: at(1_700_000_005_000_000) },
        Outcome::Dead { reason: reason() },
    ];
    let attempts = (1..).zip(outcomes).map(|(number, outcome)| {
        let (policy, target) = (answer(200, ""), answer(503, "no"));
        let took = Duration::from_micros(1_500);
        Entry::Attempt(Attempt { number, at: at(1_700_000_000_000_000), took, policy, target, outcome })
    });
    let others = [
        Entry::Redelivery { at: at(-1), by: "bob".to_owned() },
        Entry::Dropped { at: at(0), reason: reason() },
    ];
    (0..)
        .zip(attempts.chain(others))
        .map(|(index, entry)| HistoryRecord { index, recipient: 7, entry })
        .collect()
}

const HISTORY: &str = "
    0107000700018080f2818389850600e0c65b01c8010001f703026e6f00010700028080f2818389850600e0c65b01c801
    0001f703026e6f01020700038080f2818389850600e0c65b01c8010001f703026e6f0203776879030700048080f28183
    89850600e0c65b01c8010001f703026e6f030377687980add48683898506040700058080f2818389850600e0c65b01c8
    010001f703026e6f04037768790507010103626f620607020003776879
";

#[test]
fn a_row_of_history_of_version_1_is_read() {
    assert_eq!(decode_history(&unhex(HISTORY)).unwrap(), entries());
    let summed = encode_history(&entries());
    assert_eq!(decode_history(&summed).unwrap(), entries());
    assert_eq!(summed[1..summed.len() - 4], unhex(HISTORY)[1..], "nothing but the frame is another");
}

const FILTER_FAILED: &str = "01010307038080f281838985060d746f6f20657870656e73697665";

#[test]
fn a_failed_filter_in_a_row_of_history_of_version_1_is_read() {
    let entry = Entry::FilterFailed { at: at(1_700_000_000_000_000), reason: "too expensive".to_owned() };
    let records = [HistoryRecord { index: 3, recipient: 7, entry }];
    assert_eq!(decode_history(&unhex(FILTER_FAILED)).unwrap(), records);
    assert_eq!(
        hex(&encode_history(&records)),
        "04010307038080f281838985060d746f6f20657870656e7369766506d7ccb1"
    );
    assert_eq!(decode_history(&encode_history(&records)).unwrap(), records);
}

#[test]
fn a_recovered_delivery_of_version_1_is_read() {
    let entry = Entry::Recovered { at: at(1_700_000_000_000_000), by: "bob".to_owned() };
    let records = [HistoryRecord { index: 2, recipient: 7, entry }];
    let golden = "01010207048080f2818389850603626f62";
    assert_eq!(decode_history(&encode_history(&records)).unwrap(), records);
    assert_eq!(decode_history(&unhex(golden)).unwrap(), records);
}

const RECOVERY: &str = concat!(
    r#"{"subscription":"00000000-0000-0000-0000-000000000007","since":"2023-11-14T22:13:20Z","until":null,"asked":""#,
    r#"2023-11-14T22:13:21Z","by":"bob","end":{"event":"00000000-0000-0000-0000-000000000003","received":"2023-11-1"#,
    r#"4T22:13:20.000001Z"},"oldest":null,"position":null,"looked_at":4,"matched":3,"created":2,"failed":1,"state":"#,
    r#"{"Failed":{"at":"2023-11-14T22:13:22Z","reason":"why"}}}"#,
);

#[test]
fn a_recovery_of_version_1_is_read() {
    let since = Some(at(1_700_000_000_000_000));
    let mut recovery = Recovery::new(sub(7), since, None, "bob".to_owned(), at(1_700_000_001_000_000));
    recovery.end = Some(recovery::Mark { event: id(3), received: at(1_700_000_000_000_001) });
    (recovery.looked_at, recovery.matched, recovery.created, recovery.failed) = (4, 3, 2, 1);
    recovery.state = recovery::State::Failed { at: at(1_700_000_002_000_000), reason: "why".to_owned() };
    let summed = encode_recovery(&recovery);
    assert_eq!(std::str::from_utf8(&summed[1..summed.len() - 4]).unwrap(), RECOVERY);
    assert_eq!(decode_recovery(&[b"\x01", RECOVERY.as_bytes()].concat()).unwrap(), recovery);
    assert!(decode_recovery(b"\x02{}").is_err() && decode_recovery(b"").is_err());
    for state in [
        recovery::State::Running,
        recovery::State::Done { at: at(0) },
        recovery::State::Cancelled { at: at(0) },
    ] {
        recovery.state = state;
        assert_eq!(decode_recovery(&encode_recovery(&recovery)).unwrap(), recovery);
    }
}

fn retries() -> [RetryRecord; 2] {
    let begun = Progress {
        failed: 3,
        first_attempt: Some(at(1_700_000_000_000_000)),
        allowed: true,
        ..Progress::default()
    };
    [RetryRecord::new(1 << 80, 255, begun), RetryRecord::new(1, 0, Progress::default())]
}

const RETRIES: [&str; 2] = ["01808080808080808080808008ff0103018080f2818389850601", "010100000000"];

#[test]
fn a_retry_row_of_version_1_is_read() {
    for (golden, record) in RETRIES.into_iter().zip(retries()) {
        assert_eq!(RetryRecord::decode(&unhex(golden)).unwrap(), record);
        assert_eq!(RetryRecord::decode(&record.encode()).unwrap(), record);
    }
}

#[test]
fn a_retry_row_of_version_2_is_read() {
    let begun = Progress { failed: 3, passed: true, sent: 1 << 63 | 5, ..Progress::default() };
    let record = RetryRecord::new(1, 0, begun);
    let golden = "0201000300000185808080808080808001";
    assert_eq!(RetryRecord::decode(&unhex(golden)).unwrap().progress().unwrap(), begun);
    let held = Progress { held: Some(at(-7)), ..begun };
    let summed = RetryRecord::new(1, 0, held).encode();
    assert_eq!(RetryRecord::decode(&summed).unwrap().progress().unwrap(), held);
    for length in 0..record.encode().len() {
        assert!(RetryRecord::decode(&record.encode()[..length]).is_err());
    }
}

fn subscription() -> Subscription {
    let target = "http://localhost:1/a?b".parse().unwrap();
    let mut all =
        Subscription::new("ann".into(), "all".into(), "$.id".into(), target, at(1_700_000_000_000_001));
    all.id = sub(7);
    all.extensions.insert("x".to_owned(), 1.into());
    all.auth = Auth::Basic { username: "u".to_owned(), password: Sealed::unsealed("p".to_owned().into()) };
    all.deleted = Some(at(1_700_000_001_000_000));
    all.activity = Activity::Disabled { since: at(0), error: Some("410".to_owned()) };
    all.retry = Some("5s,5m".parse::<RetrySchedule>().unwrap());
    all.timeout = Some(Duration::from_millis(1_500));
    all.max_in_flight = Some(2);
    all
}

const SUBSCRIPTION: &str = concat!(
    r#"{"id":"00000000-0000-0000-0000-000000000007","name":"all","user":"ann","jsonpath":"$.id","target"#,
    r#"_url":"http://localhost:1/a?b","version":"v0.1","extensions":{"x":1},"auth":{"Basic":{"username""#,
    r#":"u","password":"p"}},"created":"2023-11-14T22:13:20.000001Z","updated":"2023-11-14T22:13:20.000"#,
    r#"001Z","deleted":"2023-11-14T22:13:21Z","activity":{"Disabled":{"since":"1970-01-01T00:00:00Z","e"#,
    r#"rror":"410"}},"retry":"5s,5m","timeout":{"secs":1,"nanos":500000000},"max_in_flight":2,"event_fo"#,
    r#"rmat":"original","content_mode":"structured"}"#,
);

#[test]
fn an_order_survives() {
    let orders = [(OrderBy::Fifo, OnDead::Continue), (OrderBy::Key("$.id".to_owned()), OnDead::Stop)];
    for (by, on_dead) in orders {
        let ordered = Subscription { order: Some(Order { by, on_dead }), ..subscription() };
        assert_eq!(decoded(&encoded(&ordered)).unwrap(), ordered);
    }
}

#[test]
fn a_subscription_of_version_1_is_read() {
    let golden = [b"\x01", SUBSCRIPTION.as_bytes()].concat();
    assert_eq!(decoded(&golden).unwrap(), subscription());
    // What has come since then has a default, so that the version could stay.
    let since = r#""filter_dialect":"auto","event_format""#;
    let now = SUBSCRIPTION.replace(r#""event_format""#, since);
    let now = now.replace(
        r#""content_mode":"structured"}"#,
        r#""content_mode":"structured","content_type":"application/cloudevents+json","plugin":null}"#,
    );
    let summed = encoded(&subscription());
    assert_eq!(summed[1..summed.len() - 4], *now.as_bytes());
    assert_eq!(decoded(&summed).unwrap(), subscription());
}

#[test]
fn places_are_read() {
    let places = [0, 1, 255, u32::MAX];
    assert_eq!(hex(&encode_places(&places)), "040000000001000000ff000000ffffffff18bcb2d9");
    assert_eq!(
        decode_places(&unhex("0000000001000000ff000000ffffffff")).unwrap(),
        places,
        "without a checksum"
    );
    assert_eq!(decode_places(&encode_places(&places)).unwrap(), places);
    assert!(decode_places(&[]).unwrap().is_empty());
    assert!(decode_places(&[0; 7]).is_err());
}

/// Reads bytes as each kind of record; tells which of them took them.
fn readable(bytes: &[u8]) -> [bool; 4] {
    [
        decode_batch(&Bytes::copy_from_slice(bytes)).is_ok(),
        decode_history(bytes).is_ok(),
        RetryRecord::decode(bytes).and_then(|record| record.progress()).is_ok(),
        decoded(bytes).is_ok(),
    ]
}

#[test]
fn a_record_that_is_cut_off_or_of_another_version_is_damaged() {
    let subscription = encoded(&subscription());
    let whole = [summed_batch(), unhex(HISTORY), unhex(RETRIES[0]), subscription];
    for (kind, record) in whole.into_iter().enumerate() {
        assert!(readable(&record)[kind]);
        for length in 0..record.len() {
            assert!(!readable(&record[..length])[kind], "kind {kind}, {length} bytes of {}", record.len());
        }
        for version in [0, 3, 5, 255] {
            let mut other = record.clone();
            other[0] = version;
            assert_eq!(readable(&other), [false; 4]);
        }
    }
}

/// A damaged byte was decoded as other values wherever they happened to fit.
#[test]
fn a_damaged_byte_anywhere_in_a_record_is_noticed() {
    let notices = |name: &str, record: &[u8], is_noticed: &dyn Fn(&[u8]) -> bool| {
        assert!(!is_noticed(record), "{name} is whole");
        for place in 0..record.len() {
            for byte in [0, 1, 2, 3, 4, 5, 0x80, 0xff, record[place] ^ 1, record[place] ^ 0x40] {
                let mut damaged = record.to_vec();
                damaged[place] = byte;
                assert_eq!(is_noticed(&damaged), damaged != record, "{name}: byte {place} is {byte}");
            }
        }
    };
    notices("a batch", &summed_batch(), &|bytes| match decode_batch(&Bytes::copy_from_slice(bytes)) {
        Err(_) => true,
        Ok(read) => {
            for (place, (read, written)) in events(&read).into_iter().zip(batch()).enumerate() {
                assert!(read.is_none() || read == written, "event {place} is another one");
            }
            !read.damaged.is_empty()
        }
    });
    notices("a history", &encode_history(&entries()), &|bytes| decode_history(bytes).is_err());
    notices("places", &encode_places(&[3, 7]), &|bytes| decode_places(bytes).is_err());
    let recovery = Recovery::new(sub(7), None, None, "bob".to_owned(), at(0));
    notices("a recovery", &encode_recovery(&recovery), &|bytes| decode_recovery(bytes).is_err());
    notices("a subscription", &encoded(&subscription()), &|bytes| decoded(bytes).is_err());
    for retry in retries() {
        notices("a retry", &retry.encode(), &|bytes| RetryRecord::decode(bytes).is_err());
    }
}

#[test]
fn one_damaged_event_leaves_the_others_of_its_batch() {
    let mut record = summed_batch();
    let last = record.len() - 1;
    record[last] ^= 1;
    let read = decode_batch(&record.into()).unwrap();
    assert_eq!(read.damaged, [4]);
    assert_eq!(events(&read)[..4], batch()[..4]);
    let again = encode_batch(read.iter().map(Option::as_deref), &read.damaged);
    assert_eq!(decode_batch(&again.into()).unwrap().damaged, [4], "it stays marked");
}

/// A damaged length must not make the reader reserve memory for what is not there.
#[test]
fn a_length_beyond_the_record_is_damaged() {
    for length in [unhex("01ffffffff0f"), unhex("01ffffffffffffffffff01"), unhex("0180808080808080808001")] {
        for rest in [0, 1, 0xff] {
            let bytes = [length.clone(), vec![rest; 64]].concat();
            assert_eq!(readable(&bytes)[..2], [false; 2]);
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), versioned: bool) {
        let bytes = if versioned { [vec![1], bytes].concat() } else { bytes };
        readable(&bytes);
        let _places = decode_places(&bytes);
    }

    #[test]
    fn no_flipped_byte_makes_a_reader_panic(kind in 0..4usize, place: prop::sample::Index, byte: u8) {
        let mut record = unhex([BATCH, HISTORY, RETRIES[0], ONE_EVENT][kind]);
        let place = place.index(record.len());
        record[place] = byte;
        readable(&record);
    }
}
