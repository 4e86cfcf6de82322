//! Lists of the REST API: what they look for, their order, and their pages.

use serde_json::{Value, json};

use crate::harness::{Reply, Server, Target, event_1_0, merged};

/// Returns the texts of one member of each row.
fn column(rows: &Value, name: &str) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|row| row[name].as_str().unwrap().to_owned()).collect()
}

/// Returns the link to the next page (RFC 8288).
fn next(reply: &Reply) -> Option<String> {
    let link = reply.headers.get("link")?.to_str().unwrap();
    Some(link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned())
}

#[tokio::test]
async fn events_are_found_by_their_attributes_and_their_deliveries() {
    let (server, target) = (Server::start().await, Target::start().await);
    let filter = "$.data[?@ == 'wanted']";
    let wanted = json!({"target_url": target.url("/t"), "jsonpath": filter});
    let subscription = server.subscribe(wanted).await;
    let send = async |id: &str, over: Value| server.receive(&merged(event_1_0(id), over)).await;
    let first = send("first", json!({"source": "/a", "type": "org.a", "subject": "Sample 7"})).await;
    let second = send("second", json!({"source": "/b", "type": "org.b", "data": ["wanted"]})).await;
    let third = send("third", json!({"source": "/a", "type": "org.b"})).await;
    let delivery = server.delivery_in(&second, &subscription, "delivered").await;
    let webhook_id = delivery["id"].as_str().unwrap();
    for (query, expected) in [
        ("type=org.b", vec![&third, &second]),
        ("source=/a", vec![&third, &first]),
        ("source=/a&type=org.b", vec![&third]),
        ("subject=Sample+7", vec![&first]),
        ("q=sample", vec![&first]),
        ("q=SECOND", vec![&second]),
        ("q=nothing+has+this", vec![]),
        (&format!("q={third}"), vec![&third]),
        (&format!("q={webhook_id}"), vec![&second]),
        ("state=delivered", vec![&second]),
        ("state=dead", vec![]),
        (&format!("subscription={subscription}"), vec![&second]),
        (&format!("subscription={subscription}&state=delivered"), vec![&second]),
        (&format!("subscription={subscription}&state=retrying"), vec![]),
        (&format!("subscription={subscription}&type=org.a"), vec![]),
        (&format!("subscription={}", uuid::Uuid::nil()), vec![]),
    ] {
        let page = server.get(&format!("/events?{query}")).await.ok().json();
        assert_eq!(column(&page["events"], "id").iter().collect::<Vec<_>>(), expected, "{query}");
        assert_eq!((&page["next"], &page["truncated_at"]), (&Value::Null, &Value::Null), "{query}");
    }
    server.get("/events?state=lost").await.refused(400).says("dead");
    let page = server.get("/events?source=/a&limit=1").await.ok().json();
    let page = server.get(page["next"].as_str().unwrap()).await.ok().json();
    assert_eq!(column(&page["events"], "id"), [first]);
}

#[tokio::test]
async fn a_search_ends_after_a_while_and_goes_on_where_it_ended() {
    let server = Server::start().await;
    let filter = "$.data[?@ == 'needle']";
    let subscription =
        server.subscribe(json!({"target_url": "http://127.0.0.1:9/", "jsonpath": filter})).await;
    let needle = merged(event_1_0("needle"), json!({"type": "needle", "data": ["needle"]}));
    let needle = server.receive(&needle).await;
    let hay: Vec<_> = (0..600).map(|number| event_1_0(&number.to_string())).collect();
    for _ in 0..9 {
        let batch = serde_json::to_vec(&hay).unwrap();
        server.receive_as("application/cloudevents-batch+json", batch).await.ok();
    }
    let mut page = server.get("/events?type=needle").await.ok().json();
    let mut pages = 1;
    while page["events"].as_array().unwrap().is_empty() {
        assert!(page["truncated_at"].is_string(), "{page}");
        page = server.get(page["next"].as_str().unwrap()).await.ok().json();
        pages += 1;
    }
    assert_eq!(column(&page["events"], "id"), [&*needle]);
    // A subscription has an index, which leads to its events at once.
    for query in ["", "&type=needle"] {
        let page = server.get(&format!("/events?subscription={subscription}{query}")).await.ok().json();
        assert_eq!(column(&page["events"], "id"), [&*needle], "{query}");
        assert_eq!((&page["next"], &page["truncated_at"]), (&Value::Null, &Value::Null), "{query}");
    }
    assert!(pages > 1, "5,400 events are more than one request looks at");
}

#[tokio::test]
async fn subscriptions_are_found_and_sorted() {
    let server = Server::start().await;
    let make = async |name: &str, path: &str| {
        let target = format!("http://127.0.0.1:9/{path}");
        server.subscribe(json!({"name": name, "target_url": target})).await
    };
    let (beta, alpha, gamma) = (make("beta", "x").await, make("Alpha", "y").await, make("gamma", "X").await);
    server.update(&alpha, &json!({"disabled": true})).await;
    for (query, expected) in [
        ("", vec![&beta, &alpha, &gamma]),
        ("sort=-created", vec![&gamma, &alpha, &beta]),
        ("sort=name", vec![&alpha, &beta, &gamma]),
        ("sort=-name", vec![&gamma, &beta, &alpha]),
        ("sort=-updated&limit=1", vec![&alpha]),
        ("state=active", vec![&beta, &gamma]),
        ("state=disabled", vec![&alpha]),
        ("q=/x", vec![&beta, &gamma]),
        ("q=ALPHA", vec![&alpha]),
        (&format!("q={gamma}"), vec![&gamma]),
        ("q=/x&sort=-name&limit=1", vec![&gamma]),
    ] {
        let list = server.get(&format!("/eventmatch?{query}")).await.ok().json();
        assert_eq!(column(&list, "uuid").iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let first = server.get("/eventmatch?q=/x&sort=-name&limit=1").await.ok();
    let second = server.get(&next(&first).unwrap()).await.ok();
    assert_eq!(column(&second.json(), "uuid"), [beta]);
    assert_eq!(next(&second), None);
    server.get("/eventmatch?sort=size").await.refused(400).says("-updated");
}

#[tokio::test]
async fn lists_without_a_place_for_it_link_to_their_next_page() {
    let server = Server::start().await;
    for number in 0..3 {
        server.receive(&event_1_0(&number.to_string())).await;
        server.post("/tokens", &json!({"user": "ann", "name": number.to_string()})).await;
    }
    for (path, id) in [("/", "taskID"), ("/tokens", "id")] {
        let all = column(&server.get(path).await.ok().json(), id);
        let mut found = Vec::new();
        let mut page = Some(format!("{path}?limit=2"));
        while let Some(path) = page {
            let reply = server.get(&path).await.ok();
            found.extend(column(&reply.json(), id));
            page = next(&reply);
        }
        assert_eq!((all.len(), &found), (3, &all), "{path}");
    }
    server.get(&format!("/tokens?after={}", uuid::Uuid::nil())).await.refused(400).says("`after`");
}

/// A client that did not get the answer had no way to ask again without a second subscription.
#[tokio::test]
async fn a_creation_that_is_repeated_with_its_key_makes_nothing_twice() {
    let mut server = Server::start().await;
    let body = json!({"name": "n", "jsonpath": "$", "target_url": "http://127.0.0.1:9/"});
    let create = async |server: &Server, key: &str, body: &Value| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        server.send(http::Method::POST, "/eventmatch", &headers, body.to_string()).await
    };
    let first = create(&server, "k1", &body).await.ok().json()["uuid"].clone();
    // The draft has the key in quotes.
    assert_eq!(create(&server, "\"k1\"", &body).await.ok().json()["uuid"], first);
    server.restart().await;
    assert_eq!(create(&server, "k1", &body).await.ok().json()["uuid"], first);
    assert_ne!(create(&server, "k2", &body).await.ok().json()["uuid"], first);
    let other = merged(body.clone(), json!({"name": "other"}));
    create(&server, "k1", &other).await.refused(422).says("Idempotency-Key");
    create(&server, "", &body).await.refused(400).says("Idempotency-Key");
    create(&server, &"k".repeat(256), &body).await.refused(400).says("255");
    assert_eq!(server.get("/eventmatch").await.ok().json().as_array().unwrap().len(), 2);
    // Another user's key is another key.
    let ann = server.user("ann");
    let headers = [("content-type", "application/json"), ("idempotency-key", "k1")];
    let anns = ann.send(http::Method::POST, "/eventmatch", &headers, body.to_string()).await;
    assert!(anns.status == 401 || anns.json()["uuid"] != first, "{anns:?}");

    let changed = merged(body.clone(), json!({"timeout_ms": 7}));
    create(&server, "k1", &changed).await.refused(422).says("Idempotency-Key");

    // At once, too: the secret of a second one would have stayed valid in memory after it was revoked.
    let make = async || {
        let token = json!({"user": "ann"}).to_string();
        server.send(http::Method::POST, "/tokens", &headers, token).await
    };
    let made = futures_util::future::join_all((0..4).map(|_| make())).await;
    let mut statuses: Vec<_> = made.iter().map(|reply| reply.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
    make().await.refused(409).says("revoke");
    assert_eq!(server.get("/tokens").await.ok().json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_ask() {
    let server = Server::start().await;
    for number in 0..20 {
        server.receive(&event_1_0(&number.to_string())).await;
    }
    let plain = server.get("/events").await.ok();
    let headers = [("accept-encoding", "gzip")];
    let packed = server.send(http::Method::GET, "/events", &headers, "").await.ok();
    assert_eq!((plain.headers.get("content-encoding"), packed.header("content-encoding")), (None, "gzip"));
    assert!(packed.body.len() * 3 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
    let mut unpacked = String::new();
    let mut decoder = flate2::read::GzDecoder::new(&packed.body[..]);
    std::io::Read::read_to_string(&mut decoder, &mut unpacked).unwrap();
    assert_eq!(unpacked, plain.text());
}

#[tokio::test]
async fn the_manual_is_shown_and_loads_nothing() {
    let server = Server::start().await;
    let contents = server.get("/docs").await.ok();
    assert!(contents.text().contains("<a href=\"/docs/filters\">"), "{}", contents.text());
    let page = server.get("/docs/api").await.ok();
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; style-src 'sha256-"));
    assert!(page.text().contains("POST /receive") && !page.text().contains("<script"));
    server.get("/docs/nothing").await.refused(404).says("/docs");
}
