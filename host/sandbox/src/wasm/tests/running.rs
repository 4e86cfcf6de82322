//! Guests that do what they are for.

use super::*;

#[tokio::test]
pub(super) async fn a_filter_alone_lets_pass_or_skips() {
    let sandbox = Sandbox::shared();
    let sieve = sandbox.load(waypost_guests::SIEVE).await;
    assert!(!sieve.uses_state() && !sieve.has_policy() && !sieve.has_transform());
    let ran = sandbox.run(&sieve, json!({})).await;
    assert_eq!((ran.run.verdict, ran.run.answered), (Verdict::Deliver, vec!["filter".to_owned()]));
    let ran = sandbox.run(&sieve, json!({"filter": "no: too small"})).await;
    assert_eq!(skipped(&ran), "too small");
}

#[tokio::test]
pub(super) async fn a_plugin_filters_and_transforms() {
    let sandbox = Sandbox::shared();
    let probe = sandbox.load(waypost_guests::PROBE).await;
    let ran = sandbox.run(&probe, json!({"transform": "upper", "log": "hello"})).await;
    assert_eq!(ran.run.verdict, Verdict::Transformed { outputs: 1 });
    assert_eq!(ran.run.answered, ["policy", "filter", "transform"]);
    assert_eq!(ran.run.logs[0].message, "hello");
    assert!(matches!(&ran.outputs[..], [Output::Raw { body, .. }] if body.as_ref() == br#"{"A": "B"}"#));
    let ran = sandbox.run(&probe, json!({"filter": "no: too small"})).await;
    assert_eq!(skipped(&ran), "too small");
    assert_eq!(ran.run.answered, ["policy", "filter"]);
    let ran = sandbox.run(&probe, json!({"policy": "no: not yours"})).await;
    assert_eq!(ran.run.verdict, Verdict::Denied { reason: "not yours".to_owned() });
    let ran = sandbox.run(&probe, json!({"transform": "none"})).await;
    assert_eq!(skipped(&ran), "the transform made no output");
}

#[tokio::test]
async fn a_panic_is_told_with_its_text_and_its_place() {
    let sandbox = Sandbox::shared();
    let probe = sandbox.load(waypost_guests::PROBE).await;
    let ran = sandbox.run(&probe, json!({"filter": "panic: oh no"})).await;
    let failure = failure(&ran);
    assert!(failure.starts_with("plugin: it panicked or aborted: oh no, at examples/probe.rs:"), "{failure}");
    assert!(ran.run.stderr.contains("oh no"), "{}", ran.run.stderr);
    assert_eq!(ran.run.answered, ["policy"]);
}

#[tokio::test]
async fn each_error_of_a_plugin_keeps_its_kind() {
    let sandbox = Sandbox::shared();
    let probe = sandbox.load(waypost_guests::PROBE).await;
    for (says, failure) in [
        ("invalid-event: a", Failure::InvalidEvent("a".to_owned())),
        ("invalid-config: b", Failure::InvalidConfig("b".to_owned())),
        ("internal: c", Failure::Internal("c".to_owned())),
        (
            "unavailable: d",
            Failure::Unavailable { message: "d".to_owned(), retry_after: Some(Duration::from_secs(1)) },
        ),
    ] {
        let ran = sandbox.run(&probe, json!({"filter": says})).await;
        assert_eq!(ran.run.verdict, Verdict::Failed(failure));
    }
}

#[tokio::test]
async fn the_operators_policy_is_asked_alone() {
    let sandbox = Sandbox::shared();
    let probe = sandbox.load(waypost_guests::PROBE).await;
    let config = json!({"filter": "no: never asked"});
    let ran =
        sandbox.host.run(Arc::clone(&probe), Call { steps: Steps::Policy, ..call(&probe, config) }).await;
    assert_eq!((ran.run.verdict, ran.run.answered), (Verdict::Deliver, vec!["policy".to_owned()]));
}

#[tokio::test]
async fn state_is_what_earlier_calls_left() {
    let sandbox = Sandbox::shared();
    let probe = sandbox.load(waypost_guests::PROBE).await;
    assert!(probe.uses_state());
    let config = json!({"transform": "count", "count": "n"});
    let first = sandbox.run(&probe, config.clone()).await;
    let kept = first.state.changes().into_iter().map(|change| (change.key, change.value.unwrap())).collect();
    let second = Call { state: State::over(Arc::new(kept)), ..call(&probe, config) };
    let second = sandbox.host.run(Arc::clone(&probe), second).await;
    assert!(matches!(&second.outputs[..], [Output::Raw { body, .. }] if body.as_ref() == b"2"));
}

#[tokio::test]
async fn an_event_of_a_mebibyte_goes_through_unchanged() {
    let sandbox = Sandbox::shared();
    let probe = sandbox.load(waypost_guests::PROBE).await;
    let data = "x".repeat((1 << 20) - 2);
    let event = format!(
        r#"{{"specversion": "1.0", "type": "t", "source": "/s", "id": "1", "n": 5, "data": "{data}"}}"#
    );
    let event = Event::from_json(event).unwrap();
    let same = Call { event: event.clone(), ..call(&probe, json!({})) };
    let ran = sandbox.host.run(Arc::clone(&probe), same).await;
    assert_eq!(ran.run.verdict, Verdict::Transformed { outputs: 1 });
    assert!(ran.outputs == [Output::Event(event)]);
}

#[tokio::test]
async fn more_calls_than_there_are_instances_wait_for_one() {
    let sandbox = Sandbox::shared();
    let probe = sandbox.load(waypost_guests::PROBE).await;
    let calls = (0..400).map(|_| sandbox.run(&probe, json!({"filter": "no: too small"})));
    for ran in futures_util::future::join_all(calls).await {
        assert_eq!(skipped(&ran), "too small");
    }
}

#[tokio::test]
async fn a_call_ends_when_its_future_is_dropped() {
    // Its own time is far longer than the wait here.
    let limits = Limits { time: Duration::from_secs(600), ..Limits::default() };
    let sandbox = Sandbox::with(&[], limits);
    let spin = sandbox.load(waypost_guests::SPIN).await;
    let runner = sandbox.host.runner().await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(50), sandbox.run(&spin, json!({}))).await;
    assert!(waited.is_err());
    let all = runner.calls().take("another", engine::CALLS_MAX as usize);
    let all = tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    assert_eq!(all.weight(), engine::CALLS_MAX as usize);
}
