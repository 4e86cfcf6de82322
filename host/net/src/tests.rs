//! The clients of requests on others' behalf, with name servers, targets and proxies that the tests script.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::testing::{CLOSED, is_untouched, name_server};
use super::*;
use waypost_domain::TargetUrl;

const WAIT: Duration = Duration::from_secs(10);
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1));

fn client(guard: Guard, agent: Agent) -> Client {
    let (reach, kept) = (Reach::guarded(Arc::new(guard), agent), KeptMax { host: 8, all: 8 });
    Client::new(reach, WAIT, kept).unwrap()
}

async fn send(client: &Client, url: &str) -> Result<u16, Error> {
    let request = || Request::post(url).body(Full::new(Bytes::from_static(b"event"))).unwrap();
    client.send(request(), || Some(request()), WAIT).await.map(|reply| reply.status.as_u16())
}

/// Returns URLs with a host. One that is no host by TLS's rules is sent as a target's URL is.
fn urls(host: &str) -> [String; 2] {
    let tls: TargetUrl = format!("https://{host}/").parse().unwrap();
    [format!("http://{host}:9/"), tls.uri().unwrap().to_string()]
}

async fn refused(client: &Client, url: &str) -> Refused {
    match send(client, url).await {
        Err(Error::Refused(refused)) => refused,
        other => panic!("{url}: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_not_public_is_not_connected_to_whoever_asks_and_however_it_is_written() {
    for agent in [Agent::Delivery, Agent::Plugin, Agent::Handler] {
        let client = client(Guard::default(), agent);
        for (host, address) in CLOSED {
            for url in urls(host) {
                let Refused::NotPublic { address: found, .. } = refused(&client, &url).await else {
                    panic!("{url}")
                };
                assert_eq!(found, address.parse::<IpAddr>().unwrap(), "{agent:?} {url}");
            }
        }
    }
}

/// A name whose address is public while it is looked at, and this machine's when it is connected to.
#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_by_the_one_that_is_dialled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for agent in [Agent::Delivery, Agent::Plugin, Agent::Handler] {
        let answers = vec![vec![PUBLIC], vec![Ipv4Addr::LOCALHOST.into()]];
        let guard = Arc::new(Guard::default().resolving(name_server(answers)));
        let seen = guard.preview(agent, "rebind.example", port).await;
        assert!(matches!(&seen, Preview::Addresses(found) if *found == [(PUBLIC, None)]), "{seen:?}");
        let reach = Reach::guarded(guard, agent);
        let client = Client::new(reach, WAIT, KeptMax { host: 8, all: 8 }).unwrap();
        for _ in 0..3 {
            let refused = refused(&client, &format!("http://rebind.example:{port}/")).await;
            assert!(
                matches!(refused, Refused::NotPublic { address, .. } if address.is_loopback()),
                "{refused}"
            );
        }
    }
    assert!(is_untouched(&listener), "0 connections arrive");
}

#[tokio::test]
async fn of_a_names_addresses_only_those_that_are_open_are_dialled() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    let open = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let rules = Rules { allow: vec!["127.0.0.2".parse().unwrap()], ..Rules::default() };
    let answers = ["127.0.0.1", "::1", "10.0.0.1", "127.0.0.2"].map(|address| address.parse().unwrap());
    let guard = Guard::default().resolving(name_server(vec![answers.to_vec()])).with(rules);
    let client = client(guard, Agent::Delivery);
    let url = format!("http://many.example:{port}/");
    let (sent, ()) = tokio::join!(send(&client, &url), async {
        let (mut stream, _) = open.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    });
    assert_eq!(sent.unwrap(), 204);
    assert!(is_untouched(&closed));
}

#[tokio::test]
async fn a_name_that_is_denied_is_not_even_looked_up() {
    let resolver = Resolver::scripted(|name| panic!("{name} is looked up"));
    let rules = Rules { deny: vec!["*.denied.example".parse().unwrap()], ..Rules::default() };
    let client = client(Guard::default().resolving(resolver).with(rules), Agent::Delivery);
    let refused = refused(&client, "http://A.Denied.example./").await;
    assert_eq!(
        refused.to_string(),
        "a.denied.example:80 is refused by `*.denied.example` in the setting deny_targets"
    );
}

#[tokio::test]
async fn a_name_without_an_address_is_unreachable_and_not_refused() {
    let resolver = Resolver::scripted(|_| Err(std::io::Error::other("no such name")));
    for (resolver, why) in [(resolver, "no such name"), (name_server(vec![vec![]]), "")] {
        let client = client(Guard::default().resolving(resolver), Agent::Delivery);
        match send(&client, "http://none.example/").await {
            Err(Error::Unreachable(error)) => assert!(waypost_runtime::chain::text(&error).contains(why)),
            other => panic!("{other:?}"),
        }
    }
}

// Name servers with faults

/// Returns 64 addresses of this machine, the last of them 127.0.0.64.
fn sixty_four() -> Vec<IpAddr> {
    (1..=64).map(|last| Ipv4Addr::new(127, 0, 0, last).into()).collect()
}

fn on_this_machine(resolver: Resolver) -> Guard {
    let rules = Rules { allow: vec!["127.0.0.0/8".parse().unwrap()], ..Rules::default() };
    Guard::default().resolving(resolver).with(rules)
}

#[tokio::test]
async fn of_64_addresses_the_one_that_answers_is_found() {
    let open = TcpListener::bind("127.0.0.64:0").await.unwrap();
    let url = format!("http://many.example:{}/", open.local_addr().unwrap().port());
    let client = client(on_this_machine(name_server(vec![sixty_four()])), Agent::Delivery);
    let (sent, ()) = tokio::join!(send(&client, &url), async {
        let (mut stream, _) = open.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    });
    assert_eq!(sent.unwrap(), 204);
}

/// Addresses share the time to connect: with many of them, an attempt takes no longer.
#[tokio::test]
async fn sixty_four_addresses_that_swallow_connections_take_no_longer_than_one() {
    const CONNECT: Duration = Duration::from_millis(640);
    // A queue that is full: nothing accepts, and what comes then is not answered.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let port = full.local_addr().unwrap().port();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect(("127.0.0.1", port))).await
    {
        queued.push(stream);
    }
    let guard = on_this_machine(name_server(vec![sixty_four()]));
    let (reach, kept) = (Reach::guarded(Arc::new(guard), Agent::Delivery), KeptMax { host: 8, all: 8 });
    let client = Client::new(reach, CONNECT, kept).unwrap();
    let begun = std::time::Instant::now();
    let sent = send(&client, &format!("http://many.example:{port}/")).await;
    assert!(matches!(sent, Err(Error::Unreachable(_))), "{sent:?}");
    assert!(begun.elapsed() < CONNECT * 4, "it took {:?}", begun.elapsed());
}

/// A name server that knows a name, does not, and knows it again: each request asks again, and fails alone.
#[tokio::test]
async fn a_name_that_comes_and_goes_fails_only_meanwhile() {
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://flaps.example:{}/", open.local_addr().unwrap().port());
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let resolver =
        Resolver::scripted(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 3 {
            0 => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
            1 => Err(std::io::Error::other("temporary failure in name resolution")),
            _ => Ok(Vec::new()),
        });
    let client = client(on_this_machine(resolver), Agent::Delivery);
    for _ in 0..3 {
        let (sent, ()) = tokio::join!(send(&client, &url), async {
            let (mut stream, _) = open.accept().await.unwrap();
            let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        });
        assert_eq!(sent.unwrap(), 204);
        for _ in 0..2 {
            let failed = send(&client, &url).await;
            assert!(matches!(failed, Err(Error::Unreachable(_))), "{failed:?}");
        }
    }
}

// The proxy

/// Answers one connection after the other, and returns what each one sent first.
async fn answering(listener: &TcpListener, answers: &[&str]) -> Vec<String> {
    let mut heads = Vec::new();
    for answer in answers {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"event") {
            assert!(stream.read_buf(&mut head).await.unwrap() > 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        heads.push(String::from_utf8(head).unwrap());
    }
    heads
}

/// Makes the guard of a service behind a proxy, which resolves no name itself.
fn proxied(proxy: SocketAddr, deny: &[&str]) -> Guard {
    let rules = Rules {
        proxy: Some(format!("http://user:pass@{proxy}").parse().unwrap()),
        deny: deny.iter().map(|text| text.parse().unwrap()).collect(),
        ..Rules::default()
    };
    Guard::default().resolving(Resolver::scripted(|name| panic!("{name} is looked up"))).with(rules)
}

#[tokio::test]
async fn plain_requests_go_to_the_proxy_whole_and_others_through_a_tunnel() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(proxied(proxy.local_addr().unwrap(), &[]), Agent::Delivery);
    let answers = ["HTTP/1.1 202 Accepted\r\nconnection: close\r\n\r\n", "HTTP/1.1 403 No\r\n\r\n"];
    let sending = async {
        let plain = send(&client, "http://target.example:8080/x?y").await;
        (plain, send(&client, "https://target.example/x").await)
    };
    let ((plain, tunnelled), heads) = tokio::join!(sending, answering(&proxy, &answers));
    assert_eq!(plain.unwrap(), 202);
    assert!(heads[0].starts_with("POST http://target.example:8080/x?y HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains("\r\nhost: target.example:8080\r\n"), "{}", heads[0]);
    assert!(heads[1].starts_with("CONNECT target.example:443 HTTP/1.1\r\n"), "{}", heads[1]);
    for head in heads {
        assert!(
            head.to_ascii_lowercase().contains("\r\nproxy-authorization: basic dxnlcjpwyxnz\r\n"),
            "{head}"
        );
    }
    // Another attempt may succeed.
    let error = tunnelled.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    let text = waypost_runtime::chain::text(&error);
    assert!(text.contains("(http_proxy) opened no connection to target.example"), "{text}");
}

#[tokio::test]
async fn through_a_tunnel_the_target_is_spoken_to_by_tls() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(proxied(proxy.local_addr().unwrap(), &[]), Agent::Delivery);
    let tunnel = async {
        let (mut stream, _) = proxy.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut head).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut hello = vec![0; 512];
        stream.read_exact(&mut hello[..1]).await.unwrap();
        let length = stream.read(&mut hello[1..]).await.unwrap();
        // The name may be the last of the extensions: their order is random.
        (hello[0], String::from_utf8_lossy(&hello[..=length]).contains("target.example"))
    };
    let (sent, hello) = tokio::join!(send(&client, "https://target.example/"), tunnel);
    assert_eq!(hello, (0x16, true), "a client's hello, with the target's name");
    assert!(matches!(sent, Err(Error::Unreachable(_))), "{sent:?}");
}

#[tokio::test]
async fn a_target_is_judged_before_the_proxy_is_asked() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for agent in [Agent::Delivery, Agent::Plugin, Agent::Handler] {
        let client = client(proxied(proxy.local_addr().unwrap(), &["denied.example"]), agent);
        for (host, _) in CLOSED {
            for url in urls(host) {
                assert!(matches!(refused(&client, &url).await, Refused::NotPublic { .. }), "{url}");
            }
        }
        for url in ["http://localhost/", "https://a.localhost./"] {
            assert!(matches!(refused(&client, url).await, Refused::NotPublic { .. }), "{url}");
        }
        for url in ["http://denied.example/", "https://DENIED.example./"] {
            assert!(matches!(refused(&client, url).await, Refused::Denied { .. }), "{url}");
        }
    }
    assert!(is_untouched(&proxy));
}

/// What the operator's proxy does not do is not charged to the target.
#[tokio::test]
async fn a_proxy_that_is_away_or_knows_nobody_is_our_own_shortage() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let client = client(proxied(address, &[]), Agent::Delivery);
    let answers = ["HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"];
    let (unknown, _) = tokio::join!(send(&client, "https://target.example/"), answering(&proxy, &answers));
    drop(proxy);
    let away = send(&client, "http://target.example/").await;
    for (sent, why) in [(unknown, "does not take its credentials"), (away, "cannot be reached")] {
        let error = sent.unwrap_err();
        assert!(matches!(error, Error::Proxy(_)) && error.is_shortage(), "{error:?}");
        let text = waypost_runtime::chain::text(&error);
        assert!(text.contains(&format!("the proxy at {address} (http_proxy) {why}")), "{text}");
        assert!(!text.contains("pass"), "{text}");
    }
}
