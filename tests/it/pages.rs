//! Pages of other sites: requests that a browser sends for them are refused, in every form.

use http::Method;
use serde_json::json;

use crate::harness::{Answer, Browser, RawConnection, Reply, Server, Target, event_1_0};

const HANDLER: &str = "[[handler]]\nname = \"add\"\ncommand = [\"true\"]\ndispatch = true\n";

/// A server with something to attack: subscriptions, events, and a handler that a GET starts.
async fn attacked() -> Server {
    Server::configured(HANDLER, |_| ()).await
}

/// Asserts that nothing was started or created.
async fn nothing_happened(server: &Server) {
    assert_eq!(server.get("/eventmatch").await.ok().json(), json!([]));
    assert_eq!(server.get("/").await.ok().json(), json!([]));
}

/// Returns a JavaScript function of the URL to attack. It sends every request that a page may send without a preflight, and
/// some that need one.
fn attack() -> String {
    let subscription = json!({"name": "stolen", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"});
    let event = event_1_0("forged");
    format!(
        r#"async (base) => {{
            const send = (path, options) => fetch(base + path, {{mode: "no-cors", ...options}}).catch(() => null);
            const plain = {{"Content-Type": "text/plain"}}, json = {{"Content-Type": "application/json"}};
            const subscription = JSON.stringify({subscription}), event = JSON.stringify({event});
            await send("/eventmatch", {{method: "POST", headers: plain, body: subscription}});
            await send("/receive", {{method: "POST", headers: plain, body: event}});
            await send("/dispatch/add/fetched");
            await send("/eventmatch", {{mode: "cors", method: "POST", headers: json, body: subscription}});
            navigator.sendBeacon(base + "/receive", new Blob([event], {{type: "text/plain"}}));
            const loaded = (element) => new Promise((done) => {{
                element.onload = element.onerror = done;
                document.body.append(element);
            }});
            for (const [tag, path] of [["img", "seen"], ["script", "run"], ["iframe", "framed"]]) {{
                const element = document.createElement(tag);
                element.src = base + "/dispatch/add/" + path;
                await loaded(element);
            }}
            const form = document.createElement("form"), field = document.createElement("input");
            const frame = document.createElement("iframe");
            frame.name = form.target = base;
            await loaded(frame);
            [field.name, field.value] = [subscription.slice(0, -1) + ', "extensions": {{"a": "', '"}}}}'];
            Object.assign(form, {{method: "POST", enctype: "text/plain", action: base + "/eventmatch"}});
            form.append(field);
            document.body.append(form);
            const answered = new Promise((done) => frame.onload = done);
            form.submit();
            await answered;
        }}"#
    )
}

/// Any web page that was opened on a Waypost's machine could subscribe to everything and forge events as its admin:
/// `text/plain` needs no CORS preflight, and the origin was not checked.
#[tokio::test]
async fn a_page_in_a_real_browser_can_do_nothing_unless_it_is_our_own() {
    let Some(mut browser) = Browser::start().await else { return };
    let (server, elsewhere) = (attacked().await, Target::start().await);
    elsewhere.always("/page", Answer::status(200).header("content-type", "text/html").body("<body>"));
    let attack = attack();
    let port = server.url.rsplit_once(':').unwrap().1;
    let page = browser.open(&elsewhere.url("/page").replace("127.0.0.1", "localhost")).await;

    // A server that accepts everything shows that the browser does send all this.
    browser.evaluate(&page, &format!("({attack})({:?})", elsewhere.url(""))).await;
    // One is the beacon's, whose end the page does not wait for.
    elsewhere.wait_for("/receive", 2).await;
    let sent: Vec<_> = elsewhere.all().iter().map(|got| format!("{} {}", got.method, got.path)).collect();
    for expected in [
        "POST /eventmatch",
        "POST /receive",
        "GET /dispatch/add/fetched",
        "GET /dispatch/add/seen",
        "GET /dispatch/add/run",
        "GET /dispatch/add/framed",
        "OPTIONS /eventmatch",
    ] {
        assert!(sent.iter().any(|sent| sent == expected), "{expected} is not among {sent:?}");
    }
    let forms = elsewhere.requests("/eventmatch");
    let form = forms.iter().rfind(|got| got.method == Method::POST).unwrap();
    assert_eq!(form.json()["name"], "stolen", "the form is JSON");

    for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"] {
        browser.evaluate(&page, &format!("({attack})('http://{host}:{port}')")).await;
        nothing_happened(&server).await;
    }
    let subscribe = "fetch('/eventmatch', {method: 'POST', headers: {'Content-Type': 'application/json'}, body: \
        JSON.stringify({name: 'own', jsonpath: '$', target_url: 'http://127.0.0.1:9/'})}).then((got) => got.status)";
    let page = browser.open(&format!("http://rebound.example:{port}/events")).await;
    let text = browser.evaluate(&page, "document.body.innerText").await;
    assert!(text.as_str().unwrap().contains("allowed_hosts"), "{text}");
    assert_eq!(browser.evaluate(&page, subscribe).await, 421);
    assert_eq!(browser.evaluate(&page, "fetch('/events').then((got) => got.status)").await, 421);
    nothing_happened(&server).await;

    let page = browser.open(&format!("{}/healthz", server.url)).await;
    assert_eq!(browser.evaluate(&page, subscribe).await, 200);
    assert_eq!(server.get("/eventmatch").await.ok().json()[0]["name"], "own");
    browser.close().await;
}

#[tokio::test]
async fn a_refusal_names_the_setting_that_helps() {
    let server = attacked().await;
    let event = event_1_0("1").to_string();
    let send = async |server: &Server, headers: &[(&str, &str)]| {
        let headers = [&[("content-type", "text/plain")], headers].concat();
        server.send(Method::POST, "/receive", &headers, event.clone()).await
    };
    let page = [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")];
    send(&server, &page).await.refused(403).says("allowed_origins").says("http://evil.example");
    send(&server, &[("host", "evil.example")]).await.refused(421).says("allowed_hosts").says("evil.example");
    for path in ["/nothing", "/healthz", "/dispatch/add/1"] {
        server.send(Method::GET, path, &[("sec-fetch-site", "same-site")], "").await.refused(403);
        server.send(Method::GET, path, &[("host", "evil.example")], "").await.refused(421);
    }
    nothing_happened(&server).await;

    let settings =
        ["--allowed-hosts", "waypost.example,*.lab.example", "--allowed-origins", "http://evil.example"];
    let server = Server::with(&settings).await;
    for headers in [&page[..], &[("host", "waypost.example:80")], &[("host", "a.lab.example")]] {
        send(&server, headers).await.ok();
    }
    send(&server, &[("host", "evil.example")]).await.refused(421);
}

#[tokio::test]
async fn clients_other_than_browsers_are_not_affected() {
    let server = attacked().await;
    let headers = [("webhook-request-origin", "producer.example"), ("webhook-request-rate", "100")];
    let reply = server.send(Method::OPTIONS, "/receive", &headers, "").await.ok();
    assert_eq!(reply.header("webhook-allowed-origin"), "producer.example");
    server.get("/dispatch/add/1").await.ok();
    // The `fetch` of Node.
    let node = [("content-type", "application/json"), ("sec-fetch-mode", "cors")];
    server.send(Method::POST, "/receive", &node, event_1_0("1").to_string()).await.ok();
    let mut old = RawConnection::open(&server.url).await;
    old.write("GET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.reply().await.unwrap().ok().json(), json!({"status": "ok"}));
}

/// A sender chooses what an event contains: a browser that shows an answer must not treat it as a page.
#[tokio::test]
async fn no_answer_is_a_page_whatever_an_event_contains() {
    let server = attacked().await;
    let page = "<!DOCTYPE html><script>fetch('/eventmatch')</script>";
    let mut ids = Vec::new();
    let binary = [
        ("content-type", "text/html"),
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
    ];
    let structured = json!({"specversion": "1.0", "id": page, "source": "/s", "type": page, "datacontenttype": "text/html", "data": page});
    let structured_type = [("content-type", "application/cloudevents+json")];
    let sent: [(&[(&str, &str)], String); 2] =
        [(&binary, page.to_owned()), (&structured_type, structured.to_string())];
    for (headers, body) in sent {
        ids.push(server.send(Method::POST, "/receive", headers, body).await.ok().text());
    }
    let of_events = ids
        .iter()
        .flat_map(|id| ["events", "get", "status", "scriptlog"].map(|route| format!("/{route}/{id}")));
    let paths = [
        "/events",
        "/",
        "/scriptlog",
        "/eventmatch",
        "/plugins",
        "/healthz",
        "/readyz",
        "/<script>",
        "/events/<b>",
    ];
    for path in of_events.chain(paths.map(str::to_owned)) {
        let path = path.replace('<', "%3C").replace('>', "%3E");
        is_no_page(&server.get(&path).await, &path);
        is_no_page(&server.send(Method::PATCH, &path, &[("accept", "text/html")], page).await, &path);
    }
    let refused: [(&[(&str, &str)], &str); 3] =
        [(&[("content-type", page)], page), (&[], ""), (&[("origin", "http://evil.example")], page)];
    for (headers, body) in refused {
        is_no_page(&server.send(Method::POST, "/receive", headers, body).await, "/receive");
    }
    let mut connection = RawConnection::open(&server.url).await;
    connection.write(format!("{page}\r\n\r\n")).await;
    is_no_page(&connection.reply().await.unwrap(), "no HTTP");
}

#[track_caller]
fn is_no_page(reply: &Reply, path: &str) {
    let kind = reply.header("content-type");
    assert!(
        kind.starts_with("application/json") || kind.starts_with("text/plain") || reply.body.is_empty(),
        "{path}: {kind}"
    );
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; connect-src 'self'; frame-ancestors 'none'"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        // Only over TLS.
        ("strict-transport-security", ""),
    ] {
        assert_eq!(reply.header(name), value, "{path}: {name}");
    }
}
