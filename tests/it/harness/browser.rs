//! A real headless Chromium, controlled through a pipe (Chrome DevTools Protocol: JSON texts that end with NUL).

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::wait_until;

/// With the value `required`, tests that need Chromium fail on a machine without it; `.ci/run` sets it.
const REQUIRED: &str = "TEST_CHROMIUM";
/// The longest that Chromium may take for one answer.
const BOUND: Duration = Duration::from_secs(60);
/// It resolves only this machine's names, and a foreign one that leads to this machine.
const FLAGS: [&str; 12] = [
    "--remote-debugging-pipe",
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP rebound.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1, \
     EXCLUDE 0.0.0.0, EXCLUDE ::ffff:7f00:1",
];

/// A running Chromium with a profile of its own.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    calls: u64,
    _profile: TempDir,
}

/// An open page.
pub(crate) struct Page {
    session: String,
}

impl Browser {
    /// Starts a Chromium; returns `None` if there is none and it is not required.
    pub(crate) async fn start() -> Option<Self> {
        if !Self::is_installed() {
            let required = std::env::var(REQUIRED).is_ok_and(|value| value == "required");
            assert!(!required, "{REQUIRED} requires a `chromium` in PATH (Debian's package of this name)");
            return None;
        }
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // Chromium reads from descriptor 3 and writes to descriptor 4.
        command.args(["-c", "exec chromium \"$@\" 3<&0 4>&1 >/dev/null 2>&1", "chromium"]).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.path().display())).env("HOME", profile.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, to, from, calls: 0, _profile: profile })
    }

    fn is_installed() -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join("chromium").is_file())
    }

    /// Opens a page and waits until it is loaded.
    pub(crate) async fn open(&mut self, url: &str) -> Page {
        let created = self.call(None, "Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": created["targetId"], "flatten": true});
        let attached = self.call(None, "Target.attachToTarget", attach).await;
        let page = Page { session: attached["sessionId"].as_str().unwrap().to_owned() };
        self.call(Some(&page), "Page.navigate", json!({"url": url})).await;
        wait_until(&format!("Chromium shows {url}"), async || {
            let state = "({at: location.href, is: document.readyState})";
            (self.evaluate(&page, state).await == json!({"at": url, "is": "complete"})).then_some(())
        })
        .await;
        page
    }

    /// Evaluates a script in a page, waits for its promise, and returns its value.
    pub(crate) async fn evaluate(&mut self, page: &Page, script: &str) -> Value {
        let parameters = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        let evaluated = self.call(Some(page), "Runtime.evaluate", parameters).await;
        assert!(evaluated.get("exceptionDetails").is_none(), "{script}: {evaluated}");
        evaluated["result"]["value"].clone()
    }

    /// Ends Chromium.
    pub(crate) async fn close(mut self) {
        self.call(None, "Browser.close", json!({})).await;
        tokio::time::timeout(BOUND, self.child.wait()).await.expect("Chromium ends").unwrap();
    }

    async fn call(&mut self, page: Option<&Page>, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": parameters});
        if let Some(page) = page {
            call["sessionId"] = json!(page.session);
        }
        self.to.write_all(format!("{call}\0").as_bytes()).await.unwrap();
        let answered = async {
            loop {
                let mut text = Vec::new();
                self.from.read_until(0, &mut text).await.unwrap();
                assert_eq!(text.pop(), Some(0), "Chromium ended in the middle of {method}");
                let mut said: Value = serde_json::from_slice(&text).unwrap();
                if said["id"] == self.calls {
                    assert!(said.get("error").is_none(), "{method}: {said}");
                    return said["result"].take();
                }
            }
        };
        tokio::time::timeout(BOUND, answered).await.unwrap_or_else(|_| panic!("no answer to {method}"))
    }
}
