//! The command line: outputs, exit codes, configuration (FACTS 6).

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Api, Output, Process, Server, Target, event, event_1_0, merged, run, run_in, wait_until,
};

/// Asserts that a command failed with this code and that stderr contains all of these texts.
#[track_caller]
fn failed(output: &Output, code: i32, says: &[&str]) {
    assert_eq!(output.code, code, "{output:?}");
    assert_eq!(output.stdout, "", "data goes to stdout, errors do not");
    for text in says {
        assert!(output.stderr.contains(text), "`{text}` is not in: {}", output.stderr);
    }
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);
}

#[track_caller]
fn succeeded(output: &Output) -> Vec<String> {
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout.lines().map(str::to_owned).collect()
}

// serve

#[tokio::test]
async fn serve_needs_no_argument_and_documents_its_defaults() {
    let output = run(&["serve", "--help"], "").await;
    assert_eq!(output.code, 0);
    for default in [
        "127.0.0.1:8070",
        "./waypost-data",
        "anonymous",
        "Http-Remote-User",
        "5s,5m,30m,2h,5h,10h,14h,20h,24h",
    ] {
        assert!(output.stdout.contains(default), "{default} in {}", output.stdout);
    }
    let keys = [
        "--policy-url",
        "--admin-users",
        "--trusted-proxies",
        "--log-level",
        "--event-bytes-max",
        "--config",
        "--subscription-bytes-max",
        "--connections-max",
        "--header-timeout-ms",
        "--body-timeout-ms",
        "--log-format",
        "--attempt-timeout-ms",
        "--connect-timeout-ms",
        "--policy-timeout-ms",
        "--in-flight-max",
        "--dedup-window",
        "--subscription-in-flight-max",
        "--retention",
        "--shutdown-grace-ms",
    ];
    for key in keys {
        assert!(output.stdout.contains(key), "{key} in {}", output.stdout);
    }
}

#[tokio::test]
async fn the_first_line_says_where_it_listens_and_logs_go_to_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Process::waypost(&["serve", "--listen", "127.0.0.1:0"], folder.path());
    let api = Api::new(server.address().await);
    api.receive(&event("a")).await;
    assert!(folder.path().join("waypost-data").is_dir(), "data goes to ./waypost-data by default");
    assert_eq!(server.stdout().lines().count(), 1, "{}", server.stdout());
    assert!(!server.stderr().is_empty());
}

#[tokio::test]
async fn json_logs_are_json() {
    let server = Server::start().await;
    server.receive(&event("a")).await;
    for line in server.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line.is_object());
    }
}

#[tokio::test]
async fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let user = async |flags: &[&str], env: &[(&str, &str)], file: Option<&str>| {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("waypost.toml");
        let mut arguments = flags.to_vec();
        if let Some(text) = file {
            std::fs::write(&config, text).unwrap();
            arguments.extend(["--config", config.to_str().unwrap()]);
        }
        let server = Server::launch(crate::harness::Launch::Plain, &arguments, env).await;
        let body = json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"});
        server.post("/eventmatch", &body).await.ok().json()["user"].as_str().unwrap().to_owned()
    };
    let (flag, env, file) =
        (["--default-user", "flag"], [("WAYPOST_DEFAULT_USER", "env")], "default_user = \"file\"\n");
    assert_eq!(user(&flag, &env, Some(file)).await, "flag");
    assert_eq!(user(&[], &env, Some(file)).await, "env");
    assert_eq!(user(&[], &[], Some(file)).await, "file");
    assert_eq!(user(&[], &[], None).await, "anonymous");
}

#[tokio::test]
async fn every_kind_of_value_can_stand_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("waypost.toml");
    let text = "event_bytes_max = 2000\nadmin_users = [\"root\"]\nretention = \"1d\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    std::fs::write(&config, text).unwrap();
    let server = Server::with(&["--config", config.to_str().unwrap()]).await;
    server.receive_as("application/json", "x".repeat(3000)).await.refused(413);
    server.delete("/events?before=2001-01-01T00:00:00Z").await.refused(403);
    server.user("root").delete("/events?before=2001-01-01T00:00:00Z").await.ok();
}

#[tokio::test]
async fn bad_configuration_exits_2_and_suggests() {
    let folder = tempfile::tempdir().unwrap();
    let serve = async |text: &str, flags: &[&str], env: &[(&str, &str)]| {
        std::fs::write(folder.path().join("bad.toml"), text).unwrap();
        let arguments = [&["serve", "--listen", "127.0.0.1:0", "--config", "bad.toml"], flags].concat();
        run_in(folder.path(), &arguments, env, "").await
    };
    failed(&serve("retry_shedule = \"5s\"", &[], &[]).await, 2, &["retry_shedule", "retry_schedule"]);
    failed(&serve("defaultuser = \"x\"", &[], &[]).await, 2, &["defaultuser", "default_user"]);
    failed(&serve("retry_schedule = \"5x\"", &[], &[]).await, 2, &["5x"]);
    failed(&serve("event_bytes_max = \"many\"", &[], &[]).await, 2, &["event_bytes_max"]);
    failed(&serve("event_bytes_max = ", &[], &[]).await, 2, &["bad.toml"]);
    failed(&serve("", &["--retry-schedule", "soon"], &[]).await, 2, &["soon"]);
    failed(&serve("", &["--retry-shedule", "5s"], &[]).await, 2, &["--retry-schedule"]);
    failed(&serve("", &["--policy-url", "no url"], &[]).await, 2, &["policy"]);
    failed(&serve("", &["--trusted-proxies", "everywhere"], &[]).await, 2, &["everywhere"]);
    failed(&serve("", &["--log-format", "xml"], &[]).await, 2, &["xml"]);
    failed(&serve("", &[], &[("WAYPOST_EVENT_BYTES_MAX", "many")]).await, 2, &["many"]);
    let missing = run(&["serve", "--listen", "127.0.0.1:0", "--config", "absent.toml"], "").await;
    failed(&missing, 2, &["absent.toml"]);
    failed(&run(&["server"], "").await, 2, &["serve"]);
    assert!(!folder.path().join("waypost-data").exists(), "nothing is made before the configuration is read");
}

/// Kubernetes sets these for a Service called waypost: `serve` exited with 2, in a crash loop.
#[tokio::test]
async fn the_variables_of_a_kubernetes_service_are_logged_and_ignored() {
    let foreign = [
        ("WAYPOST_PORT", "tcp://10.0.0.1:8070"),
        ("WAYPOST_PORT_8070_TCP", "tcp://10.0.0.1:8070"),
        ("WAYPOST_PORT_8070_TCP_ADDR", "10.0.0.1"),
        ("WAYPOST_SERVICE_HOST", "10.0.0.1"),
        ("WAYPOST_SERVICE_PORT", "8070"),
    ];
    let server = Server::launch(crate::harness::Launch::Plain, &[], &foreign).await;
    server.receive(&event("a")).await;
    let log = server.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("WAYPOST_PORT_8070_TCP_ADDR")).collect();
    assert!(matches!(told[..], [line] if line.contains("Kubernetes") && line.contains("INFO")), "{log}");
    let folder = tempfile::tempdir().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let typo = run_in(folder.path(), &serve, &[foreign[0], ("WAYPOST_PORT_", "1")], "").await;
    failed(&typo, 2, &["WAYPOST_PORT_"]);
    failed(
        &run_in(folder.path(), &serve, &[("WAYPOST_PORT", "8070")], "").await,
        2,
        &["did you mean `listen`?"],
    );
}

#[tokio::test]
async fn an_address_in_use_and_a_folder_that_cannot_be_made_exit_1() {
    let server = Server::start().await;
    let taken = server.url.strip_prefix("http://").unwrap().to_owned();
    failed(&run(&["serve", "--listen", &taken], "").await, 1, &["error: ", &taken]);
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--data", "/dev/null/x"], "").await;
    failed(&output, 1, &["error: ", "/dev/null/x"]);
}

// send and listen

#[tokio::test]
async fn send_posts_an_event_or_a_batch_and_prints_the_ids() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("event.json"), event("from-file").to_string()).unwrap();
    let sent = succeeded(&run_in(folder.path(), &["send", "event.json", "--to", &server.url], &[], "").await);
    assert_eq!(server.story(&sent[0]).await["event"], event("from-file"));
    assert_eq!(sent.len(), 1);
    let stdin = event_1_0("from-stdin").to_string();
    let sent = succeeded(&run(&["send", "-", "--to", &server.url, "--user", "alice"], &stdin).await);
    assert_eq!(server.story(&sent[0]).await["event"], event_1_0("from-stdin"));
    let batch = json!([event("1"), event_1_0("2"), event("3")]).to_string();
    let sent = succeeded(&run(&["send", "-", "--to", &server.url], &batch).await);
    assert_eq!(sent.len(), 3);
    assert_eq!(server.story(&sent[1]).await["event"], event_1_0("2"));
}

/// A byte order mark, which some editors write, made a file invalid JSON; and there was no warning for data that claim to
/// be JSON and are not.
#[tokio::test]
async fn send_skips_a_byte_order_mark_and_warns_of_data_that_are_not_json() {
    let server = Server::start().await;
    let marked = format!("\u{feff}{}", event("marked"));
    let sent = succeeded(&run(&["send", "-", "--to", &server.url], &marked).await);
    assert_eq!(server.story(&sent[0]).await["event"], event("marked"));
    let members = json!({"datacontenttype": "application/json", "data": null, "data_base64": "TmFO"});
    let nan = merged(event_1_0("nan"), members).to_string();
    let output = run(&["send", "-", "--to", &server.url], &nan).await;
    assert_eq!((output.code, output.stdout.lines().count()), (0, 1), "{output:?}");
    let told =
        "warning: the data of the event `nan`: application/json, but `NaN` at line 1 column 1 is no JSON";
    assert!(output.stderr.contains(told), "{output:?}");
}

#[tokio::test]
async fn send_fails_with_the_servers_message() {
    let server = Server::start().await;
    let no_id = merged(event("a"), json!({"eventID": null})).to_string();
    failed(&run(&["send", "-", "--to", &server.url], &no_id).await, 1, &["error: ", "eventID"]);
    failed(&run(&["send", "-", "--to", &server.url], "garbage").await, 1, &["error: "]);
    failed(&run(&["send", "absent.json", "--to", &server.url], "").await, 1, &["error: ", "absent.json"]);
    let nobody = crate::harness::Reserved::new();
    failed(&run(&["send", "-", "--to", &nobody.url("")], &event("a").to_string()).await, 1, &["error: "]);
    failed(&run(&["send"], "").await, 2, &[]);
}

#[tokio::test]
async fn listen_prints_what_a_server_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let mut listener = Process::waypost(&["listen", "--port", "0"], folder.path());
    let url = listener.address().await;
    let server = Server::start().await;
    let subscription = server.subscribe(json!({"target_url": format!("{url}/hook")})).await;
    for id in ["first-event", "second-event"] {
        let id = server.receive(&event(id)).await;
        server.delivery_in(&id, &subscription, "delivered").await;
    }
    let printed = wait_until("both are printed", async || {
        let printed = listener.stdout();
        printed.contains("second-event").then_some(printed)
    })
    .await;
    assert!(printed.find("first-event").unwrap() < printed.find("second-event").unwrap());
    for part in ["/hook", "webhook-id", "application/json", "org.pacifica.metadata.ingest"] {
        assert!(printed.contains(part), "{part} in {printed}");
    }
}

#[tokio::test]
async fn listen_answers_the_given_status_and_survives_binary_bodies() {
    let folder = tempfile::tempdir().unwrap();
    let mut listener = Process::waypost(&["listen", "--port", "0", "--status", "503"], folder.path());
    let api = Api::new(listener.address().await);
    let reply =
        api.send(Method::POST, "/", &[("content-type", "x/y")], vec![0xff, 0x1b, 0x5b, 0x32, 0x4a]).await;
    assert_eq!(reply.status, 503);
    let printed = wait_until("it is printed", async || {
        let printed =
            String::from_utf8_lossy(&std::fs::read(folder.path().join("stdout")).unwrap()).into_owned();
        printed.contains("x/y").then_some(printed)
    })
    .await;
    assert!(!printed.contains('\u{1b}'), "no control character of a stranger reaches the terminal");
    assert_eq!(api.send(Method::POST, "/again", &[], "").await.status, 503);
}

// match

#[tokio::test]
async fn match_prints_nodes_and_sets_its_exit_code() {
    let stdin = r#"{"data": [{"a": 1.5}, {"a": "x", "b": null}, 3]}"#;
    assert_eq!(succeeded(&run(&["match", "$.data[*].a"], stdin).await), ["1.5", "\"x\""]);
    assert_eq!(succeeded(&run(&["match", "$.data[1]", "-"], stdin).await), [r#"{"a":"x","b":null}"#]);
    assert_eq!(succeeded(&run(&["match", "$.data[1].b"], stdin).await), ["null"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("e.json"), event("a").to_string()).unwrap();
    let found = run_in(folder.path(), &["match", "$.data[?@.value == 'Blah'].key", "e.json"], &[], "").await;
    assert_eq!(succeeded(&found), ["\"Taggy\""]);
    let none = run(&["match", "$.nothing"], stdin).await;
    assert_eq!((none.code, none.stdout.as_str()), (1, ""));
}

/// C1 controls and direction overrides were printed unescaped, and terminals obey them.
#[tokio::test]
async fn match_escapes_control_and_format_characters() {
    let stdin = "{\"a\": \"\u{9b}2J\u{7f}\u{202e}é\"}";
    assert_eq!(succeeded(&run(&["match", "$.a"], stdin).await), [r#""\u009b2J\u007f\u202eé""#]);
    let explained = run(&["match", "--explain", "$[?@.b == 1].a"], stdin).await;
    assert!(!explained.stderr.contains(['\u{9b}', '\u{202e}']), "{explained:?}");
    let explained = run(&["match", "--explain", "$[?@ == 1]"], stdin).await;
    assert!(
        explained.stderr.contains(r"2J") && !explained.stderr.contains(['\u{9b}', '\u{202e}']),
        "{explained:?}"
    );
}

#[tokio::test]
async fn match_points_at_the_place_in_a_bad_expression() {
    for bad in ["$.data[?(@.a =!= 1)]", "$[", "$.a..", "$.data[*]x y", ""] {
        let output = run(&["match", bad], "{}").await;
        failed(&output, 2, &[bad]);
        let lines: Vec<_> = output.stderr.lines().collect();
        let caret = lines.iter().position(|line| line.trim_start_matches([' ', '|']).starts_with('^'));
        let caret = caret.unwrap_or_else(|| panic!("no caret: {}", output.stderr));
        let begin =
            lines[caret - 1].find(bad).unwrap_or_else(|| panic!("not above the caret: {}", output.stderr));
        let column = lines[caret].find('^').unwrap();
        assert!((begin..=begin + bad.len()).contains(&column), "{}", output.stderr);
    }
}

#[tokio::test]
async fn match_fails_on_unreadable_input() {
    let garbage = run(&["match", "$"], "garbage").await;
    assert!(garbage.code == 1 || garbage.code == 2, "{garbage:?}");
    assert!(garbage.stderr.contains("error: ") && garbage.stdout.is_empty());
    let absent = run(&["match", "$", "absent.json"], "").await;
    assert!(absent.code != 0 && absent.stderr.contains("absent.json"), "{absent:?}");
}

// event

#[tokio::test]
async fn event_get_prints_the_event_and_a_line_for_each_match() {
    let (policy, target) = (Target::start().await, Target::start().await);
    let policy_url = policy.url("");
    let server = Server::with(&["--retry-schedule", "20ms", "--policy-url", &policy_url]).await;
    target.answers("/t", [Answer::status(503), Answer::status(202)]);
    policy.always("/events/bob", Answer::status(403));
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let denied = server.user("bob").subscribe(json!({"target_url": target.url("/never")})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &subscription, "delivered").await;
    server.delivery_in(&id, &denied, "denied").await;
    let lines = succeeded(&run(&["event", "get", &id, "--server", &server.url], "").await);
    assert_eq!(lines[0], format!("Event - {id}"));
    let matches: Vec<_> = lines.iter().filter(|line| line.starts_with("    ELM ")).collect();
    assert_eq!(matches.len(), 2, "{lines:?}");
    let line = |uuid: &str| matches.iter().find(|line| line.contains(uuid)).unwrap().as_str();
    assert!(line(&subscription).starts_with(&format!("    ELM {subscription} (")));
    assert!(line(&subscription).ends_with("target 202"), "the last attempt: {}", line(&subscription));
    assert!(line(&denied).ends_with("policy 403 target -"), "{}", line(&denied));
    let json: String =
        lines[1..].iter().filter(|line| !line.starts_with("    ELM ")).map(String::as_str).collect();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), event("a"));
}

#[tokio::test]
async fn event_get_lists_by_limit_and_date() {
    let server = Server::start().await;
    let mut sent = Vec::new();
    for n in 0..12 {
        sent.push(server.receive(&event(&n.to_string())).await);
    }
    let get = async |arguments: &[&str]| {
        let arguments = [&["event", "get", "--server", &server.url], arguments].concat();
        let lines = succeeded(&run(&arguments, "").await);
        let ids = lines.iter().filter_map(|line| line.strip_prefix("Event - ")).map(str::to_owned);
        ids.collect::<Vec<_>>()
    };
    let listed = get(&[]).await;
    assert_eq!(listed.len(), 10, "the default limit");
    assert!(listed.iter().all(|id| sent[2..].contains(id)), "the newest");
    assert_eq!(get(&["--limit", "3"]).await.len(), 3);
    assert_eq!(get(&[&sent[0], &sent[5]]).await, [sent[0].clone(), sent[5].clone()]);
    assert!(get(&["--start-date", "2100-01-01T00:00:00Z"]).await.is_empty());
    assert!(get(&["--end-date", "2001-01-01T00:00:00Z"]).await.is_empty());
    assert_eq!(get(&["--start-date", "2001-01-01T00:00:00Z", "--limit", "100"]).await.len(), 12);
    let unknown = uuid::Uuid::now_v7().to_string();
    failed(&run(&["event", "get", &unknown, "--server", &server.url], "").await, 1, &["error: "]);
}

#[tokio::test]
async fn event_purge_says_how_many() {
    let server = Server::start().await;
    let (one, two) = (server.receive(&event("1")).await, server.receive(&event("2")).await);
    let purge = async |arguments: &[&str]| {
        let arguments = [&["event", "purge", "--server", &server.url], arguments].concat();
        succeeded(&run(&arguments, "").await).join("\n")
    };
    assert!(purge(&[]).await.contains('0'), "nothing is older than a day");
    server.story(&one).await;
    assert!(purge(&[&one]).await.contains('1'));
    server.get(&format!("/events/{one}")).await.refused(404);
    assert!(purge(&["--older-than-date", "2100-01-01T00:00:00Z"]).await.contains('1'));
    server.get(&format!("/events/{two}")).await.refused(404);
}

#[tokio::test]
async fn event_retry_sends_again() {
    let (server, target) = (Server::start().await, Target::start().await);
    let subscription = server.subscribe(json!({"target_url": target.url("/t")})).await;
    let id = server.receive(&event("a")).await;
    server.delivery_in(&id, &subscription, "delivered").await;
    assert_eq!(run(&["event", "retry", &id, "--server", &server.url], "").await.code, 0);
    let got = target.wait_for("/t", 2).await;
    assert_eq!(got[0].webhook_id(), got[1].webhook_id());
    let unknown = uuid::Uuid::now_v7().to_string();
    failed(&run(&["event", "retry", &unknown, "--server", &server.url], "").await, 1, &["error: "]);
    failed(&run(&["event", "retry"], "").await, 2, &[]);
}

#[tokio::test]
async fn event_commands_act_as_the_user_given() {
    let server = Server::with(&["--admin-users", "root"]).await;
    let id = server.receive(&event("a")).await;
    let purge = ["event", "purge", &id, "--server", &server.url, "--user"];
    failed(&run(&[&purge[..], &["mallory"]].concat(), "").await, 1, &["error: "]);
    server.user("root").story(&id).await;
    assert_eq!(run(&[&purge[..], &["root"]].concat(), "").await.code, 0);
    server.user("root").get(&format!("/events/{id}")).await.refused(404);
}

// db

#[tokio::test]
async fn db_sync_creates_the_schema_that_db_check_wants() {
    let folder = tempfile::tempdir().unwrap();
    let db = async |arguments: &[&str]| {
        run_in(folder.path(), &[&["db"], arguments, &["--data", "made"]].concat(), &[], "").await
    };
    let missing = db(&["check"]).await;
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(!(missing.stdout + &missing.stderr).trim().is_empty(), "with a sentence");
    assert!(!Path::new(&folder.path().join("made")).exists(), "a check makes nothing");
    assert_eq!(db(&["sync"]).await.code, 0);
    for check in [&["check"][..], &["check", "--equal"]] {
        let there = db(check).await;
        assert_eq!(there.code, 0, "{there:?}");
        assert!(!(there.stdout + &there.stderr).trim().is_empty(), "with a sentence");
    }
    assert_eq!(db(&["sync"]).await.code, 0, "a second time changes nothing");
    let mut server = Process::waypost(&["serve", "--listen", "127.0.0.1:0", "--data", "made"], folder.path());
    let api = Api::new(server.address().await);
    api.receive(&event("a")).await;
    let busy = db(&["check"]).await;
    assert!(busy.code == 1 && !busy.stderr.contains("panicked"), "a running server owns the file: {busy:?}");
}

/// A bit that flips on the disk, in the pages of the storage engine.
#[tokio::test]
async fn db_check_and_serve_name_a_damaged_file() {
    let mut server = Server::start().await;
    server.receive(&event("a")).await;
    server.terminate();
    assert!(server.exited().await.success());
    let file = server.data().join("waypost.redb");
    let data = server.data().to_str().unwrap().to_owned();
    let check = async || run(&["db", "check", "--data", &data], "").await;
    assert!(succeeded(&check().await)[0].contains("every page"));
    let mut bytes = std::fs::read(&file).unwrap();
    // The kind of each page is in its first byte.
    bytes.chunks_mut(4096).skip(1).filter(|page| page[0] == 1 || page[0] == 2).for_each(|page| page[0] ^= 4);
    std::fs::write(&file, &bytes).unwrap();
    let serve = run(&["serve", "--listen", "127.0.0.1:0", "--data", &data], "").await;
    let damaged = format!("{} is damaged", file.display());
    for output in [check().await, serve] {
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains(&damaged) && output.stderr.contains("backup"), "{}", output.stderr);
    }
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "it is left as it is");
}

#[tokio::test]
async fn every_command_documents_itself() {
    for command in ["serve", "listen", "send", "match", "event", "db"] {
        let output = run(&[command, "--help"], "").await;
        assert_eq!(output.code, 0, "{command}");
        assert!(output.stdout.contains("Usage"), "{command}");
    }
    assert_eq!(succeeded(&run(&["--version"], "").await).len(), 1);
    failed(&run(&[], "").await, 2, &["Usage"]);
    assert_eq!(run(&["db", "check", "--nope"], "").await.code, 2);
}

// config

#[tokio::test]
async fn config_show_says_where_each_setting_comes_from_and_leaves_credentials_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("waypost.toml");
    let text =
        "retention = \"7d\"\nin_flight_max = 9\nhttp_proxy = \"http://me:s3cret@proxy.example:3128\"\n";
    std::fs::write(&file, text).unwrap();
    let arguments = ["config", "show", "--config", file.to_str().unwrap(), "--in-flight-max", "8"];
    let shown = succeeded(&run(&arguments, "").await);
    let line = |key: &str| {
        let found = shown.iter().find(|line| line.starts_with(&format!("{key} = ")));
        found.unwrap_or_else(|| panic!("{key} in {shown:#?}")).clone()
    };
    assert_eq!(line("in_flight_max"), "in_flight_max = 8  # the flag --in-flight-max");
    assert_eq!(line("retention"), format!("retention = \"7d\"  # {}", file.display()));
    assert_eq!(line("dedup_window"), "dedup_window = 0  # default");
    assert!(shown.contains(&"# policy_url is not set".to_owned()), "{shown:#?}");
    assert!(line("http_proxy").starts_with("http_proxy = \"http://proxy.example:3128/\""), "{shown:#?}");
    assert!(!shown.concat().contains("s3cret"));

    // What is shown is a configuration file.
    std::fs::write(&file, shown.join("\n")).unwrap();
    let checked = succeeded(&run(&["config", "check", file.to_str().unwrap()], "").await);
    assert!(checked[0].contains("all right; settings: "), "{checked:?}");
}

#[tokio::test]
async fn config_check_names_what_is_wrong_with_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("waypost.toml");
    let path = file.to_str().unwrap();
    for (text, says) in [
        ("in_flight_max = \"many\"", "in_flight_max"),
        ("in_flight = 1", "in_flight_max"),
        ("retention = ", "waypost.toml"),
        ("plugin_networks = \"10.0.0.0/8\"", "allow_targets"),
        ("[[handler]]\nname = \"h\"", "h"),
    ] {
        std::fs::write(&file, text).unwrap();
        failed(&run(&["config", "check", path], "").await, 2, &[says, path]);
    }
    let absent = folder.path().join("absent.toml");
    failed(&run(&["config", "check", absent.to_str().unwrap()], "").await, 2, &["absent.toml"]);
}

// docs

#[tokio::test]
async fn docs_lists_the_manual_and_shows_a_page() {
    let pages = succeeded(&run(&["docs"], "").await);
    assert!(pages.len() >= 19 && pages.iter().any(|page| page.starts_with("filters ")), "{pages:#?}");
    let page = succeeded(&run(&["docs", "filters"], "").await);
    assert_eq!(page[0], "# Filters");
    assert!(!page.iter().any(|line| line.contains("<!-- readme")), "what is for the test of the page");
    failed(&run(&["docs", "filterz"], "").await, 1, &["no page `filterz`", "filters"]);
}
