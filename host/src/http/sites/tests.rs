use super::*;

/// Returns the status with which a request is refused, or 200.
fn status(sites: &Sites, request: &str, headers: &[(&str, &str)]) -> u16 {
    let (method, path) = request.split_once(' ').unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let refused = sites.refuse(&method.parse().unwrap(), &path.parse().unwrap(), &map);
    refused.map_or(200, |refused| refused.into_response().status().as_u16())
}

fn sites(hosts: &[&str], origins: &[&str], is_local: bool) -> Sites {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Sites { hosts: owned(hosts), origins: owned(origins), is_local }
}

#[test]
fn on_loopback_only_names_that_no_attacker_can_register_are_accepted() {
    let local = sites(&["waypost.example", "*.lab.example"], &[], true);
    let host = |host| status(&local, "GET /events", &[("host", host)]);
    for own in [
        "localhost",
        "LOCALHOST:8070",
        "a.localhost",
        "127.0.0.1:8070",
        "127.9.9.9",
        "[::1]:8070",
        "192.0.2.1",
        "127.1:8070",
        "Waypost.Example",
        "waypost.example.:443",
        "a.b.lab.example",
        "",
    ] {
        assert_eq!(host(own), 200, "{own}");
    }
    for foreign in [
        "evil.example:8070",
        "localhost.evil.example",
        "xlocalhost",
        "localhost.",
        "evil.example..",
        ".",
        "waypost.example.evil",
        "lab.example",
        "evil-lab.example",
        "127.0.0.1.evil.example",
        "[::1].evil.example",
        "[::1",
        "localhost:http",
        "a@localhost:x",
        "0.0.0.0:8070",
        "[::]:8070",
        "[::ffff:127.0.0.1]:8070",
        "[::ffff:7f00:1]",
    ] {
        assert_eq!(host(foreign), 421, "{foreign}");
    }
    assert_eq!(status(&local, "GET /events", &[]), 200, "HTTP/1.0 has no host");
    assert_eq!(status(&local, "GET /events", &[("host", "localhost"), ("host", "evil.example")]), 421);
    assert_eq!(status(&local, "GET http://evil.example/events", &[("host", "localhost")]), 421);
    assert_eq!(status(&sites(&["*"], &[], true), "GET /events", &[("host", "evil.example")]), 200);
}

#[test]
fn elsewhere_any_name_is_accepted_unless_names_are_configured() {
    let host = |sites: &Sites, host| status(sites, "POST /receive", &[("host", host)]);
    assert_eq!(host(&sites(&[], &[], false), "waypost.svc.cluster.local:8070"), 200);
    assert_eq!(host(&sites(&[], &[], false), "0.0.0.0:8070"), 200);
    assert_eq!(host(&sites(&["waypost.example"], &[], false), "evil.example"), 421);
    assert_eq!(host(&sites(&["waypost.example"], &[], false), "10.0.0.7:8070"), 200);
}

#[test]
fn no_header_of_a_page_helps_a_foreign_host() {
    let local = sites(&[], &["http://evil.example"], true);
    let headers = [
        ("host", "evil.example"),
        ("origin", "http://evil.example"),
        ("authorization", "Bearer x"),
        ("sec-fetch-site", "same-origin"),
    ];
    assert_eq!(status(&local, "GET /events", &headers), 421);
}

#[test]
fn the_browser_says_whose_page_asks() {
    let local = sites(&[], &["https://portal.example"], true);
    let asks = |request, site, more: &[(&str, &str)]| {
        status(&local, request, &[&[("host", "127.0.0.1:8070"), ("sec-fetch-site", site)], more].concat())
    };
    for own in ["same-origin", "none"] {
        assert_eq!(asks("POST /receive", own, &[("origin", "http://127.0.0.1:8070")]), 200);
        assert_eq!(asks("GET /dispatch/add/1", own, &[]), 200);
    }
    for other in ["same-site", "cross-site", "", "Same-Origin", "other"] {
        for request in
            ["POST /receive", "GET /events", "GET /dispatch/add/1", "OPTIONS /receive", "DELETE /events/1"]
        {
            assert_eq!(asks(request, other, &[]), 403, "{other} {request}");
        }
        assert_eq!(asks("POST /receive", other, &[("origin", "http://localhost:9000")]), 403);
        assert_eq!(asks("POST /receive", other, &[("origin", "https://portal.example")]), 200);
    }
    let mixed = [("host", "localhost"), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
    assert_eq!(status(&local, "POST /receive", &mixed), 403);
}

#[test]
fn a_link_may_be_followed_but_starts_nothing() {
    let local = sites(&[], &[], true);
    let follow = |request, mode, dest| {
        let headers = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
        status(&local, request, &headers)
    };
    assert_eq!(follow("GET /events/1", "navigate", "document"), 200);
    assert_eq!(follow("GET /dispatch/add/1", "navigate", "document"), 403);
    assert_eq!(follow("POST /receive", "navigate", "document"), 403);
    assert_eq!(follow("GET /events/1", "navigate", "iframe"), 403);
    assert_eq!(follow("GET /events/1", "no-cors", "script"), 403);
}

/// Browsers send `Sec-Fetch-Site` to this machine and over TLS only.
#[test]
fn without_fetch_metadata_the_origin_must_be_our_own() {
    let wide = sites(&[], &["https://portal.example"], false);
    let asks = |host, origin| status(&wide, "POST /receive", &[("host", host), ("origin", origin)]);
    for (host, own) in [
        ("waypost.lan:8070", "http://waypost.lan:8070"),
        ("waypost.lan", "http://waypost.lan"),
        ("waypost.lan:80", "http://waypost.lan"),
        ("Waypost.lan", "https://waypost.lan"),
        ("waypost.lan:443", "https://waypost.lan"),
        ("[fd00::1]:8070", "http://[fd00::1]:8070"),
        ("waypost.lan:8070", "https://portal.example"),
    ] {
        assert_eq!(asks(host, own), 200, "{host} {own}");
    }
    for (host, other) in [
        ("waypost.lan:8070", "http://evil.example"),
        ("waypost.lan:8070", "http://waypost.lan"),
        ("waypost.lan", "http://waypost.lan:8070"),
        ("waypost.lan", "http://waypost.lan.evil.example"),
        ("waypost.lan", "null"),
        ("waypost.lan", ""),
        ("waypost.lan", "https://portal.example.evil"),
    ] {
        assert_eq!(asks(host, other), 403, "{host} {other}");
    }
    assert_eq!(status(&wide, "POST /receive", &[("host", "waypost.lan")]), 200, "no browser");
    let both = [("host", "a"), ("origin", "http://a"), ("origin", "http://evil.example")];
    assert_eq!(status(&wide, "POST /receive", &both), 403);
    assert_eq!(status(&wide, "POST http://a/receive", &[("host", "evil"), ("origin", "http://evil")]), 403);
}

#[test]
fn a_request_with_a_token_is_accepted() {
    let wide = sites(&[], &[], false);
    let asks = |token| {
        status(&wide, "POST /receive", &[("host", "a"), ("origin", "http://b"), ("authorization", token)])
    };
    assert_eq!(asks("Bearer x"), 200);
    assert_eq!(asks("bearer x"), 200);
    assert_eq!(asks("Basic eDp4"), 403);
}
