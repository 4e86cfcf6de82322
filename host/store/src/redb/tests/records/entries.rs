//! The bytes of every kind of entry. They are the same with and without a checksum; see [`super`].

use super::*;
use waypost_domain::handler::{Exit, FetchSummary, ProgramEnd, RunStart, StreamTail, UploadSummary};
use waypost_domain::plugin::{LogLevel, LogLine, Verdict};
use waypost_domain::{HandlerRun, Holder};

/// Checks that an entry is written as these bytes, and read from them.
#[track_caller]
fn check(entry: Entry, bytes: &str) {
    let records = [HistoryRecord { index: 3, recipient: 7, entry }];
    let row = format!("010307{bytes}");
    let summed = encode_history(&records);
    assert_eq!(hex(&summed[1..summed.len() - 4]), row, "{records:?}");
    assert_eq!(decode_history(&summed).unwrap(), records);
    assert_eq!(decode_history(&unhex(&format!("01{row}"))).unwrap(), records);
}

fn why() -> String {
    "why".to_owned()
}

#[test]
fn an_attempt_has_its_bytes_with_every_outcome() {
    let outcomes = [
        (Outcome::Delivered, "00"),
        (Outcome::Denied, "01"),
        (Outcome::Skipped { reason: why() }, "0203776879"),
        (Outcome::Retry { reason: why(), due: at(1_700_000_005_000_000) }, "030377687980add48683898506"),
        (Outcome::Dead { reason: why() }, "0403776879"),
    ];
    for (outcome, bytes) in outcomes {
        let attempt = Attempt {
            number: 300,
            at: at(1_700_000_000_000_000),
            took: Duration::new(70, 5),
            policy: None,
            target: Some(Answer { status: 503, body: "nö".to_owned() }),
            outcome,
        };
        check(Entry::Attempt(attempt), &format!("00ac028080f2818389850646050001f703036ec3b6{bytes}"));
    }
}

#[test]
fn what_people_and_the_service_decide_has_its_bytes() {
    let (when, by) = (at(1_700_000_000_000_000), "bob".to_owned());
    check(Entry::Redelivery { at: when, by: by.clone() }, "018080f2818389850603626f62");
    check(Entry::Dropped { at: when, reason: why() }, "028080f2818389850603776879");
    check(Entry::FilterFailed { at: when, reason: why() }, "038080f2818389850603776879");
    check(Entry::Recovered { at: when, by }, "048080f2818389850603626f62");
}

#[test]
fn a_hold_has_its_bytes_with_every_holder() {
    let holders = [
        (Holder::Policy, "00"),
        (Holder::Plugins, "01"),
        (Holder::Store, "02"),
        (Holder::Host, "03"),
        (Holder::Quota, "04"),
    ];
    for (by, bytes) in holders {
        let held = Entry::Held {
            since: at(1_700_000_000_000_000),
            by,
            reason: why(),
            due: at(1_700_000_005_000_000),
        };
        check(held, &format!("078080f28183898506{bytes}0377687980add48683898506"));
    }
}

/// The digest of `abc`: how long its text is, and the text.
const DIGEST: &str = "
    477368613235363a62613738313662663866303163666561343134313430646535646165323232336230303336316133393631
    373761396362343130666636316632303031356164
";

#[test]
fn a_run_of_a_plugin_has_its_bytes_with_every_verdict() {
    let unavailable = |retry_after| Failure::Unavailable { message: why(), retry_after };
    let verdicts = [
        (Verdict::Deliver, "00"),
        (Verdict::Transformed { outputs: 200 }, "01c801"),
        (Verdict::Denied { reason: why() }, "0203776879"),
        (Verdict::Skipped { reason: why() }, "0303776879"),
        (Verdict::Failed(Failure::InvalidEvent(why())), "040003776879"),
        (Verdict::Failed(Failure::InvalidConfig(why())), "040103776879"),
        (Verdict::Failed(unavailable(None)), "04020377687900"),
        (Verdict::Failed(unavailable(Some(Duration::new(1, 2)))), "040203776879010102"),
        (Verdict::Failed(Failure::Internal(why())), "040303776879"),
        (Verdict::Failed(Failure::Limit(why())), "040403776879"),
        (Verdict::Failed(Failure::Trap(why())), "040503776879"),
        (Verdict::Failed(Failure::Host(why())), "040603776879"),
        (Verdict::Failed(Failure::Breaker(why())), "040703776879"),
    ];
    for (verdict, bytes) in verdicts {
        let run = PluginRun {
            took: Duration::from_micros(1_500),
            verdict,
            ..PluginRun::failed(
                PluginDigest::of(b"abc"),
                2,
                at(1_700_000_000_000_000),
                Failure::Host(String::new()),
            )
        };
        check(
            Entry::Plugin(Box::new(run)),
            &format!("05{}8080f281838985060200e0c65b{bytes}0000000000", hex(&unhex(DIGEST))),
        );
    }
}

#[test]
fn what_a_plugin_said_has_its_bytes() {
    let line = |level, fields: &[(&str, &str)]| LogLine {
        level,
        message: "m".to_owned(),
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let mut run = PluginRun::failed(PluginDigest::of(b"abc"), 1, at(0), Failure::Trap(String::new()));
    run.answered = vec!["policy".to_owned(), "filter".to_owned()];
    run.logs = vec![
        line(LogLevel::Trace, &[]),
        line(LogLevel::Debug, &[("k", "v"), ("l", "")]),
        line(LogLevel::Info, &[]),
        line(LogLevel::Warn, &[]),
        line(LogLevel::Error, &[("k", "ü")]),
    ];
    (run.logs_dropped, run.stderr, run.memory_bytes) = (400, "panic".to_owned(), 1 << 33);
    check(
        Entry::Plugin(Box::new(run)),
        &format!(
            "05{}000100000405000206706f6c6963790666696c7465720500016d0001016d02016b0176016c0002016d0003016d0004016d01016b02c3bc90030570616e69638080808020",
            hex(&unhex(DIGEST))
        ),
    );
}

#[test]
fn a_run_of_a_handler_has_its_bytes_with_every_start() {
    let starts = [
        (RunStart::Fresh, "00"),
        (RunStart::Again { interrupted: at(-1) }, "0101"),
        (RunStart::Upload { ran: at(1_700_000_000_000_000) }, "028080f28183898506"),
    ];
    for (start, bytes) in starts {
        let run = HandlerRun {
            handler: "sum".to_owned(),
            start,
            fetched: None,
            program: None,
            uploads: Vec::new(),
        };
        check(Entry::Run(Box::new(run)), &format!("060373756d{bytes}000000"));
    }
}

#[test]
fn what_a_handler_did_has_its_bytes_with_every_exit() {
    let exits = [
        (Exit::Code(-1), "0001"),
        (Exit::Signal(9), "0112"),
        (Exit::Limit(why()), "0203776879"),
        (Exit::Failed(why()), "0303776879"),
    ];
    for (exit, bytes) in exits {
        let stdout = StreamTail { tail: "out".to_owned(), bytes: 1_000, kept: 999 };
        let stderr = StreamTail { tail: "err".to_owned(), bytes: 3, kept: 3 };
        let upload =
            UploadSummary { output: "o".to_owned(), files: 1, bytes: 200, place: "job 1".to_owned() };
        let run = HandlerRun {
            handler: "sum".to_owned(),
            start: RunStart::Fresh,
            fetched: Some(FetchSummary { files: 2, bytes: 1 << 40, took: Duration::from_millis(1) }),
            program: Some(ProgramEnd { exit, took: Duration::new(1, 7), stdout, stderr }),
            uploads: vec![upload],
        };
        check(
            Entry::Run(Box::new(run)),
            &format!(
                "060373756d00010280808080802000c0843d01{bytes}0107036f7574e807e70703657272030301016f01c801056a6f622031"
            ),
        );
    }
}
