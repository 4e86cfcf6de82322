//! Values with everything that they may have, for the records that hold them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::{Module, QueuePosition};
use waypost_domain::handler::{Exit, FetchSummary, ProgramEnd, RunStart, StreamTail, UploadSummary};
use waypost_domain::plugin::{Import, LogLevel, LogLine, Manifest, Offer, Output, Report, Verdict};
use waypost_domain::recovery::{Mark, State as RecoveryState};
use waypost_domain::{HandlerRun, PluginUse};

pub(super) fn whole_subscription() -> Subscription {
    let mut plugin = PluginUse::new(PluginDigest::of(b"abc"));
    plugin.config.insert("a".to_owned(), 1.into());
    Subscription { plugin: Some(Arc::new(plugin)), ..subscription() }
}

pub(super) fn recovery_of(number: u128) -> Recovery {
    let time = |nanos| Timestamp::from_nanosecond(nanos).unwrap();
    let mark = |number| Some(Mark { event: id(number), received: at(1) });
    Recovery {
        since: Some(time(1_700_000_000_000_000_001)),
        until: Some(time(1_700_000_000_000_000_002)),
        end: mark(3),
        oldest: mark(1),
        position: mark(2),
        looked_at: 4,
        matched: 3,
        created: 2,
        failed: 1,
        state: RecoveryState::Failed { at: at(5), reason: "why".to_owned() },
        ..Recovery::new(sub(number), None, None, "bob".to_owned(), at(1))
    }
}

pub(super) fn module() -> Module {
    let import = |name: &str, offered| Import { name: name.to_owned(), offered };
    let report = Report {
        digest: PluginDigest::of(b"abc"),
        bytes: 3,
        exports: vec!["filter".to_owned()],
        imports: vec![
            import("a:b/c@1.0.0", Offer::Yes("a:b/c@1.1.0".to_owned())),
            import("a:b/d@2.0.0", Offer::OtherVersion("a:b/d@1.0.0".to_owned())),
            import("e", Offer::No),
        ],
        manifest: Some(Manifest {
            name: "n".to_owned(),
            version: "1".to_owned(),
            description: "d".to_owned(),
            config_schema: Some(true.into()),
            wanted_hosts: vec!["h".to_owned()],
        }),
        compile_time: Duration::new(1, 2),
        compiled_bytes: 4,
        memory_bytes: 5,
    };
    let uploads = BTreeMap::from([("ann".to_owned(), at(0)), ("bob".to_owned(), at(1))]);
    Module { report, uploaded: at(1), by: "ann".to_owned(), uploads }
}

pub(super) fn plugin_run() -> PluginRun {
    let line = |level, fields| LogLine { level, message: "m".to_owned(), fields };
    PluginRun {
        digest: PluginDigest::of(b"abc"),
        at: at(1_700_000_000_000_000),
        attempt: 2,
        took: Duration::new(70, 5),
        verdict: Verdict::Failed(Failure::Unavailable {
            message: "m".to_owned(),
            retry_after: Some(Duration::new(1, 2)),
        }),
        answered: vec!["policy".to_owned(), "filter".to_owned()],
        logs: vec![
            line(LogLevel::Trace, Vec::new()),
            line(LogLevel::Error, vec![("k".to_owned(), "ü".to_owned())]),
        ],
        logs_dropped: 400,
        stderr: "panic".to_owned(),
        memory_bytes: 1 << 33,
    }
}

pub(super) fn handler_run() -> HandlerRun {
    let stream = |tail: &str| StreamTail { tail: tail.to_owned(), bytes: 1_000, kept: 999 };
    let exit = Exit::Code(-1);
    HandlerRun {
        handler: "sum".to_owned(),
        start: RunStart::Again { interrupted: at(-1) },
        fetched: Some(FetchSummary { files: 2, bytes: 1 << 40, took: Duration::from_millis(1) }),
        program: Some(ProgramEnd {
            exit,
            took: Duration::new(1, 7),
            stdout: stream("out"),
            stderr: stream("err"),
        }),
        uploads: vec![UploadSummary {
            output: "o".to_owned(),
            files: 1,
            bytes: 200,
            place: "job 1".to_owned(),
        }],
    }
}

/// A rendering with each result.
pub(super) fn renderings() -> Vec<Rendering> {
    let events = batch().into_iter().flatten().map(|logged| Output::Event(logged.event));
    let raw = Output::Raw {
        content_type: "a/b".to_owned(),
        headers: vec![("k".to_owned(), "v".to_owned())],
        body: Bytes::from_static(&[0, 255]),
    };
    let results = [
        PluginResult::Event,
        PluginResult::Outputs(events.chain([raw]).collect()),
        PluginResult::Denied { reason: "no".to_owned() },
        PluginResult::Skipped { reason: "why".to_owned() },
    ];
    let value = |expires| Some(StateValue { bytes: vec![0, 255], expires });
    let change = |key: &str, value| StateChange { key: key.to_owned(), value };
    let state = vec![change("a", value(Some(at(-1)))), change("b", value(None)), change("c", None)];
    let digest = PluginDigest::of(b"abc");
    let rendering = |result| Rendering {
        recipient: sub(1),
        event: id(2),
        position: QueuePosition { batch: id(1), index: 1, due: Some(at(3)) },
        run: Box::new(plugin_run()),
        payload: RenderedPayload { digest, config: PluginDigest::of(b"{}"), result },
        state: state.clone(),
    };
    let mut all: Vec<_> = results.map(rendering).into();
    all[0].position.due = None;
    all[0].state.clear();
    all
}
