//! Programs that leave behind or print what they should not: this affects no other run and does not mislead the operator.

use serde_json::json;

use super::{ended, script};
use crate::harness::{Server, event, run_in, wait_until};

/// A run that had left a link in its output kept failing for a day after its program was fixed, because the program was
/// not run again.
#[tokio::test]
async fn a_program_with_an_invalid_output_runs_again_once_it_is_fixed() {
    let config = r#"
[[handler]]
name = "h"
filter = "$"
command = ["./h.sh"]
upload = { local = "results" }
"#;
    for (wrong, reason) in [
        ("ln -s /etc/passwd output/x", "is a link"),
        ("mkfifo output/x", "is a pipe"),
        ("rm -r output; ln -s /etc output", "is a link"),
        ("rm -r output", "output"),
        ("ln -s /etc/passwd output/kvp.csv", "is a link"),
        ("mkfifo output/kvp.csv", "is a pipe"),
        ("mkdir output/kvp.csv", "is a folder"),
        ("echo a,b,c > output/kvp.csv", "line 1 has 3 fields"),
        ("touch output/$(printf '\\377')", "not UTF-8"),
        ("rm -r ../work/*", "output"),
    ] {
        let server = Server::configured(config, |folder| script(folder, "h.sh", wrong)).await;
        let id = server.receive(&event("1")).await;
        let delivery = ended(&server, &id, "dead").await;
        assert!(delivery["reason"].as_str().unwrap().contains(reason), "{wrong}: {delivery:#}");
        script(server.folder(), "h.sh", "echo good > output/x");
        server.post(&format!("/events/{id}/retry"), &json!(null)).await.ok();
        let mended = async || {
            let delivery = &server.story(&id).await["deliveries"][0];
            (delivery["attempts"].as_array().unwrap().len() == 2).then(|| delivery.clone())
        };
        let delivery = wait_until("it was tried again", mended).await;
        assert_eq!(delivery["state"], "delivered", "{wrong}: {delivery:#}");
    }
}

/// Files and processes that a program leaves behind do not fail its run, and are removed.
#[tokio::test]
async fn files_and_processes_that_a_program_leaves_behind_do_not_matter() {
    let config = r#"
[[handler]]
name = "h"
filter = "$"
command = ["./h.sh"]
upload = { local = "results" }
"#;
    let text = r#"
mkfifo pipe; ln -s / root; mkdir -p ran.json began.json notes-0 "$(printf 'odd\377')"; truncate -s 1G hole
mkdir -p closed/inner; chmod 000 closed/inner closed
sleep 1000 & echo $! > output/left
echo made > output/event.json
"#;
    let server = Server::configured(config, |folder| script(folder, "h.sh", text)).await;
    let id = server.receive(&event("1")).await;
    let delivery = ended(&server, &id, "delivered").await;
    let place = delivery["attempts"][0]["run"]["uploads"][0]["place"].as_str().unwrap().to_owned();
    let bundle = server.folder().join(place);
    assert_eq!(std::fs::read_to_string(bundle.join("data/event.json")).unwrap(), "made\n");
    let left = std::fs::read_to_string(bundle.join("data/left")).unwrap();
    assert!(!std::path::Path::new("/proc").join(left.trim()).exists(), "what it had started is gone");
    wait_until("nothing of it stays", async || {
        (std::fs::read_dir(server.data().join("runs")).unwrap().count() == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_output_of_a_program_cannot_control_the_operators_terminal() {
    let config = r#"
[[handler]]
name = "h"
filter = "$"
command = ["sh", "-c", "printf '\\033]0;owned\\007out\\233\\302\\2331m\\r'; printf 'err\\033[2J\\n\\377' >&2; exit 3"]
"#;
    let server = Server::configured(config, |_| ()).await;
    let json = crate::harness::merged(event("1"), json!({"data": {"text": "\u{9b}31m\u{7f}"}}));
    let id = server.receive(&json).await;
    ended(&server, &id, "dead").await;
    let got = run_in(server.folder(), &["event", "get", &id, "--server", &server.url], &[], "").await;
    assert!(got.stdout.contains("]0;owned") && got.stdout.contains("stderr: err"), "{got:?}");
    std::fs::write(server.folder().join("event.json"), json.to_string()).unwrap();
    let arguments = ["handler", "run", "h", "--config", "waypost.toml", "--event", "event.json"];
    let ran = run_in(server.folder(), &arguments, &[], "").await;
    assert!(ran.stderr.contains("the run failed"), "{ran:?}");
    for text in [got.stdout, got.stderr, ran.stderr] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
    }
    // REST returns the text unchanged.
    let story = server.story(&id).await;
    let stdout = story["deliveries"][0]["attempts"][0]["run"]["program"]["stdout"].clone();
    assert_eq!(stdout["tail"], "\u{1b}]0;owned\u{7}out\u{fffd}\u{9b}1m\r");
}
