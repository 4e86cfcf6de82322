//! What the calls of different users share: memory and the processors.

use super::*;

/// 128 calls of 64 MiB each took 8 GiB. Beyond what all may have it is our shortage, and not the plugin's failure.
#[tokio::test]
async fn a_call_that_grows_beyond_what_all_may_have_is_put_off() {
    let sandbox = Sandbox::sharing(16 << 20);
    let guest = sandbox.load(waypost_guests::GROW_MEMORY).await;
    let ran = sandbox.run(&guest, json!({})).await;
    let Verdict::Failed(Failure::Host(reason)) = &ran.run.verdict else { panic!("{:?}", ran.run) };
    assert!(reason.contains("(the setting plugin_memory_total_bytes)"), "{reason}");
    assert!(ran.run.memory_bytes <= 16 << 20, "{:?}", ran.run);
    // Nothing of it is left, and its own limit is told as before where it is met first.
    let mut small = call(&guest, json!({}));
    Arc::make_mut(&mut small.plugin).limits.memory_bytes = Some(8 << 20);
    let ran = sandbox.host.run(Arc::clone(&guest), small).await;
    assert_eq!(failure(&ran), "plugin: memory limit of 8 MiB");
    let probe = sandbox.load(waypost_guests::PROBE).await;
    let calls = (0..100).map(|_| sandbox.run(&probe, json!({"filter": "no: too small"})));
    for ran in futures_util::future::join_all(calls).await {
        assert_eq!(skipped(&ran), "too small");
    }
}

/// With six users whose plugins spin, a seventh user's calls waited for a round of all of theirs: 686 ms at the 99th
/// percentile.
#[tokio::test]
async fn spinning_plugins_of_others_leave_a_neighbour_its_turns() {
    let sandbox = Sandbox::with(&[], Limits { time: Duration::from_millis(50), ..Limits::default() });
    let (spin, probe) = (sandbox.load(waypost_guests::SPIN).await, sandbox.load(waypost_guests::PROBE).await);
    let spinning = (0..6 * 8).map(|n| {
        let call = call_of(&format!("spinner {}", n % 6), &spin, json!({}));
        sandbox.host.run(Arc::clone(&spin), call)
    });
    let spinning = futures_util::future::join_all(spinning);
    tokio::pin!(spinning);
    let mut answered = 0;
    loop {
        let neighbour = call_of("neighbour", &probe, json!({"filter": "no: too small"}));
        tokio::select! {
            biased;
            ran = sandbox.host.run(Arc::clone(&probe), neighbour) => {
                assert_eq!(skipped(&ran), "too small");
                answered += 1;
            }
            _ = &mut spinning => break,
        }
    }
    // They have 2.4 s of two threads. In a round of them all each takes a tick of 2 ms: 25 rounds.
    assert!(answered >= 100, "a neighbour was answered {answered} times");
}
