//! TLS of the listener: its clients, and changes of its files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::Version;
use rcgen::DnType;
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Authority, Pair, Process, RawConnection, Reply, Server, event_1_0, run_in, wait_until};

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
const BOTH: [&str; 2] = ["1.2", "1.3"];
const FILES: &str = "tls_certificate = \"chain.pem\"\ntls_key = \"key.pem\"\n";

/// Starts a server with this certificate and further lines of configuration.
async fn serving(pair: &Pair, more: &str) -> Server {
    Server::configured(&format!("{FILES}{more}"), |folder| pair.write(folder)).await
}

/// Returns an HTTPS client that keeps no idle connections.
fn client(config: ClientConfig) -> reqwest::Client {
    let mut config = config;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    #[expect(clippy::disallowed_methods, reason = "a client of the test, with its own certificates")]
    let builder = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(config);
    builder.pool_max_idle_per_host(0).build().unwrap()
}

/// Requests `/healthz` over a new connection.
async fn ask(server: &Server, config: ClientConfig) -> Option<Reply> {
    let mut connection = RawConnection::open_tls(&server.url, config).await.ok()?.connection;
    connection.write(GET).await;
    connection.reply().await
}

#[tokio::test]
async fn both_versions_of_tls_and_of_http_are_spoken() {
    let authority = Authority::new();
    let server = serving(&authority.server(), "").await;
    assert!(server.url.starts_with("https://"), "{}", server.url);
    for version in BOTH {
        let cases: [(&[&str], Option<&str>); 3] =
            [(&["h2", "http/1.1"], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)];
        for (offered, chosen) in cases {
            let mut config = authority.trusting(&[version], None);
            config.alpn_protocols = offered.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
            let shaken = RawConnection::open_tls(&server.url, config).await.unwrap();
            assert_eq!(shaken.alpn.as_deref(), chosen.map(str::as_bytes), "{version}");
            if chosen != Some("h2") {
                let mut connection = shaken.connection;
                connection.write(GET).await;
                let reply = connection.reply().await.unwrap().ok();
                assert_eq!(reply.header("strict-transport-security"), "max-age=31536000");
                assert_eq!(reply.header("x-content-type-options"), "nosniff");
            }
        }
        let reply =
            client(authority.trusting(&[version], None)).get(format!("{}/healthz", server.url)).send().await;
        let reply = reply.unwrap();
        assert_eq!((reply.version(), reply.status().as_u16()), (Version::HTTP_2, 200));
    }
    // A client that does not know the authority refuses the certificate.
    assert!(RawConnection::open_tls(&server.url, Authority::new().trusting(&BOTH, None)).await.is_err());
}

#[tokio::test]
async fn plain_http_gets_an_answer_that_says_so() {
    let authority = Authority::new();
    let server = serving(&authority.server(), "").await;
    let mut connection = RawConnection::open(&server.url).await;
    connection.write(GET).await;
    let reply = connection.reply().await.unwrap();
    assert_eq!(reply.header("connection"), "close");
    assert_eq!(reply.header("strict-transport-security"), "", "over plain HTTP it would count for nothing");
    reply.refused(400).says("https://");
    assert!(connection.reply().await.is_none());
}

/// A silent connection, or one with half of a handshake, could otherwise occupy its place forever.
#[tokio::test]
async fn a_slow_handshake_ends_at_the_header_timeout() {
    let authority = Authority::new();
    let server = serving(&authority.server(), "connections_max = 2\nheader_timeout_ms = 300\n").await;
    let (begun, mut silent) = (Instant::now(), RawConnection::open(&server.url).await);
    let mut half = RawConnection::open(&server.url).await;
    half.write([0x16, 0x03, 0x01, 0x02]).await;
    wait_until("there is room again", async || {
        ask(&server, authority.trusting(&BOTH, None)).await.filter(|reply| reply.status == 200)
    })
    .await;
    assert!(silent.reply().await.is_none() && half.reply().await.is_none());
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

/// The limits on headers, idle time and the number of connections are those of plain connections.
#[tokio::test]
async fn the_limits_of_connections_hold_over_tls() {
    let authority = Authority::new();
    let more = "connections_max = 1\nheader_timeout_ms = 2000\nidle_timeout_ms = 500\n";
    let server = serving(&authority.server(), more).await;
    let open = async || {
        RawConnection::open_tls(&server.url, authority.trusting(&BOTH, None)).await.unwrap().connection
    };
    // The connection that has found room is the next one: while it closes, there would be none.
    let room = async || {
        wait_until("there is room again", async || {
            let mut connection = open().await;
            connection.write_if_open(GET).await;
            connection.reply().await.filter(|reply| reply.status == 200).map(|_| connection)
        })
        .await
    };
    let mut first = open().await;
    first.write(GET).await;
    first.reply().await.unwrap().ok();
    let mut over = open().await;
    over.write_if_open(GET).await;
    over.reply().await.unwrap().refused(503).says("connections_max");
    first.write("rubbish\r\n\r\n").await;
    first.reply().await.unwrap().refused(400).says("percent-encoded");
    assert!(first.reply().await.is_none());
    // A request head that does not end.
    let mut slow = room().await;
    slow.write("GET /healthz HTTP/1.1\r\n").await;
    assert!(slow.reply().await.is_none());
    // A client that does not read: the answers, a megabyte each, fill all buffers.
    let mut sender = room().await;
    let body =
        json!({"specversion": "1.0", "id": "a", "source": "/s", "type": "t", "data": "x".repeat(900_000)});
    let body = body.to_string();
    let head = format!(
        "POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    sender.write(head + &body).await;
    let id = sender.reply().await.unwrap().ok().text();
    sender.write(format!("GET /events/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(40)).await;
    room().await;
}

/// Requests under way are answered, and an incomplete handshake delays nothing.
#[tokio::test]
async fn a_shutdown_over_tls_is_graceful() {
    let authority = Authority::new();
    let more = "header_timeout_ms = 60000\nshutdown_grace_ms = 60000\n";
    let mut server = serving(&authority.server(), more).await;
    let shaken = RawConnection::open_tls(&server.url, authority.trusting(&BOTH, None)).await.unwrap();
    let (mut asking, _silent) = (shaken.connection, RawConnection::open(&server.url).await);
    let body = event_1_0("1").to_string();
    let head = "POST /receive HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    asking.write(format!("{head}Content-Length: {}\r\nExpect: 100-continue\r\n\r\n", body.len())).await;
    assert_eq!(asking.reply().await.unwrap().status, 100, "it is being read");
    server.terminate();
    asking.write(body).await;
    asking.reply().await.unwrap().ok();
    assert!(server.exited().await.success());
}

#[tokio::test]
async fn a_new_certificate_is_used_under_load_and_no_request_is_lost() {
    let authority = Authority::new();
    let first = authority.server();
    let server = Arc::new(serving(&first, "").await);
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = JoinSet::new();
    for version in [BOTH[0], BOTH[1], BOTH[1]] {
        let (server, stop, asked) = (Arc::clone(&server), Arc::clone(&stop), Arc::clone(&asked));
        let config = authority.trusting(&[version], None);
        let kept = RawConnection::open_tls(&server.url, config.clone()).await.unwrap();
        load.spawn(async move {
            // One connection is kept the whole time; each other request opens a new one.
            let mut kept = kept.connection;
            while !stop.load(Relaxed) {
                ask(&server, config.clone()).await.expect("an answer").ok();
                kept.write(GET).await;
                kept.reply().await.expect("an answer").ok();
                asked.fetch_add(1, Relaxed);
            }
        });
    }
    for _ in 0..3 {
        let next = authority.server();
        next.write(server.folder());
        wait_until("new connections get the new certificate", async || {
            let shaken = RawConnection::open_tls(&server.url, authority.trusting(&BOTH, None)).await.unwrap();
            (shaken.certificate == next.der()).then_some(())
        })
        .await;
        let before = asked.load(Relaxed);
        wait_until("the load goes on", async || (asked.load(Relaxed) > before + 10).then_some(())).await;
    }
    stop.store(true, Relaxed);
    load.join_all().await;
    assert!(!server.log().contains("\"ERROR\""), "{}", server.log());
}

#[tokio::test]
async fn a_bad_new_pair_is_reported_once_and_the_old_one_stays() {
    let authority = Authority::new();
    let (first, second) = (authority.server(), authority.server());
    let server = serving(&first, "").await;
    let shown = async || {
        let shaken = RawConnection::open_tls(&server.url, authority.trusting(&BOTH, None)).await;
        shaken.unwrap().certificate
    };
    let reports = || server.log().matches("the new TLS files cannot be used").count();
    std::fs::write(server.folder().join("key.pem"), &second.key).unwrap();
    wait_until("it is reported", async || (reports() == 1).then_some(())).await;
    assert!(server.log().contains("(the settings tls_certificate and tls_key) cannot be used together"));
    assert_eq!(shown().await, first.der());
    // Another mistake is reported too; the first one is not reported again.
    std::fs::write(server.folder().join("key.pem"), &second.key[..100]).unwrap();
    wait_until("it is reported", async || (reports() == 2).then_some(())).await;
    assert!(server.log().contains("(the setting tls_key) is not a complete PEM file"), "{}", server.log());
    second.write(server.folder());
    wait_until("the good one is taken", async || (shown().await == second.der()).then_some(())).await;
    assert_eq!(reports(), 2);
    assert!(!server.log().contains(&second.key[60..90]), "no key is in the log");
}

/// A server whose proxies are elsewhere accepts neither the default user nor the user header from here, but a certificate.
#[tokio::test]
async fn a_client_certificate_names_the_user() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let more = "tls_client_ca = \"clients.pem\"\ntrusted_proxies = \"192.0.2.1\"\n";
    let server = Server::configured(&format!("{FILES}{more}"), |folder| {
        authority.server().write(folder);
        std::fs::write(folder.join("clients.pem"), clients.pem()).unwrap();
    })
    .await;
    let url = format!("{}/eventmatch", server.url);
    let organization = (DnType::OrganizationName, "boss");
    for version in BOTH {
        let config = |shown: Option<&Pair>| authority.trusting(&[version], shown);
        let ann = clients.client(&[organization.clone(), (DnType::CommonName, "ann")]);
        let ann = client(config(Some(&ann)));
        let body = json!({"name": version, "jsonpath": "$", "target_url": "http://127.0.0.1:9/"});
        let made = ann.post(&url).json(&body).send().await.unwrap();
        let made: Value = made.error_for_status().unwrap().json().await.unwrap();
        assert_eq!(made["user"], "ann", "{made}");
        // Only a proxy may set the header.
        let as_boss = ann.get(&url).header("http-remote-user", "boss").send().await.unwrap();
        assert_eq!(as_boss.status().as_u16(), 401);
        let bob = client(config(Some(&clients.client(&[(DnType::CommonName, "bob")]))));
        let bobs: Value = bob.get(&url).send().await.unwrap().json().await.unwrap();
        assert_eq!(bobs, json!([]));
        // A client without a certificate may connect, and authenticate by other means.
        let nobody = client(config(None)).get(&url).send().await.unwrap();
        assert_eq!(nobody.status().as_u16(), 401);
        // A certificate of another authority ends the connection; one without a user is refused with the reason.
        let stranger = Authority::new().client(&[(DnType::CommonName, "ann")]);
        assert!(client(config(Some(&stranger))).get(&url).send().await.is_err());
        assert!(client(config(Some(&clients.server()))).get(&url).send().await.is_err());
        let nameless = client(config(Some(&clients.client(std::slice::from_ref(&organization)))));
        let refused = nameless.get(&url).send().await.unwrap();
        assert_eq!(refused.status().as_u16(), 401);
        let said = refused.text().await.unwrap();
        assert!(said.contains("names no user: its subject has no common name"), "{said}");
    }
}

#[tokio::test]
async fn unusable_tls_files_end_the_start() {
    let (one, other) = (Authority::new().server(), Authority::new().server());
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        let arguments =
            ["serve", "--listen", "127.0.0.1:0", "--tls-certificate", "chain.pem", "--tls-key", "key.pem"];
        let ended = run_in(folder.path(), &arguments, &[], "").await;
        assert!(ended.code == 1 && ended.stdout.is_empty(), "{ended:?}");
        ended.stderr
    };
    let said = start().await;
    assert!(said.contains("chain.pem (the setting tls_certificate): No such file"), "{said}");
    Pair { key: other.key, ..one }.write(folder.path());
    let said = start().await;
    assert!(
        said.contains("the certificate chain.pem and the key key.pem") && said.contains("tls_key"),
        "{said}"
    );
    assert!(!folder.path().join("waypost-data").exists(), "nothing is begun");
}

#[tokio::test]
async fn the_commands_ask_over_tls() {
    let authority = Authority::new();
    let server = serving(&authority.server(), "").await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let event = event_1_0("1").to_string();
    let send = async |more: &[&str], env: &[(&str, &str)]| {
        let arguments = [&["send", "-", "--to", &server.url][..], more].concat();
        run_in(folder.path(), &arguments, env, &event).await
    };
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);
    let cases: [Case<'_>; 2] = [(&["--ca-file", "ca.pem"], &[]), (&[], &[("WAYPOST_CA_FILE", "ca.pem")])];
    for (more, env) in cases {
        let sent = send(more, env).await;
        assert!(sent.code == 0 && sent.stdout.trim().len() == 36, "{sent:?}");
    }
    let unknown = send(&[], &[]).await;
    assert!(unknown.code == 1 && unknown.stderr.contains("certificate"), "{unknown:?}");
    for file in ["empty.pem", "none.pem"] {
        let broken = send(&["--ca-file", file], &[]).await;
        assert!(broken.code == 1 && broken.stderr.contains(&format!("failed to trust {file}")), "{broken:?}");
    }
    // The variable is not a setting of the server.
    let data = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(crate::harness::WAYPOST);
    command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("WAYPOST_CA_FILE", "ca.pem")
        .current_dir(data.path());
    Process::spawn(&mut command, data.path()).address().await;
}
