use http::Request;
use uuid::Uuid;

use super::*;

fn settings() -> Settings {
    Settings {
        user_header: HeaderName::from_static("http-remote-user"),
        default_user: "nobody".to_owned(),
        trusted: vec![
            "127.0.0.0/8".parse().unwrap(),
            "::1/128".parse().unwrap(),
            "10.0.0.1/32".parse().unwrap(),
        ],
        names_proxies: true,
        is_private: true,
        admins: vec!["root".to_owned()],
        receive: None,
        cookie: "waypost",
    }
}

fn token(id: u128, secret: &str, scopes: &[Scope], session_of: Option<u128>) -> Token {
    let id_of = |id| TokenId::from_uuid(Uuid::from_u128(id));
    Token {
        id: id_of(id),
        name: String::new(),
        user: "ann".to_owned(),
        scopes: scopes.iter().copied().collect(),
        hash: SecretHash::of(secret),
        created: clock::now(),
        by: "root".to_owned(),
        expires: None,
        session_of: session_of.map(id_of),
    }
}

/// Returns an identity with these tokens.
fn identity_with(receive: Option<ReceiveAuth>, tokens: Vec<Token>) -> Identity {
    let known = Tokens::new(tokens.into_iter().map(|token| (token, None)).collect());
    let producers = "one whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    Identity::new(Settings { receive, ..settings() }, Arc::new(known), producers)
}

fn identity() -> Identity {
    identity_with(None, Vec::new())
}

fn parts(uri: &str, headers: &[(&str, &[u8])]) -> Parts {
    let mut request = Request::builder().uri(uri).body(()).unwrap();
    for (name, value) in headers {
        let name = HeaderName::try_from(*name).unwrap();
        request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
    }
    request.into_parts().0
}

fn read(identity: &Identity, address: &str, headers: &[(&str, &[u8])]) -> Result<User, Refusal> {
    identity.user(address.parse().unwrap(), &parts("/", headers), Scope::Read)
}

fn user(address: &str, headers: &[(&str, &[u8])]) -> Result<(String, bool), Refusal> {
    read(&identity(), address, headers).map(|caller| (caller.name.clone(), caller.is_admin()))
}

fn sender_of(identity: &Identity, address: &str, headers: &[(&str, &[u8])]) -> Result<String, Refusal> {
    match identity.sender(address.parse().unwrap(), &parts("/receive", headers))? {
        Sender::Known(name) => Ok(name),
        Sender::Signed(signed) => panic!("no signature was asked for: {signed:?}"),
    }
}

fn named(name: &str) -> Result<(String, bool), Refusal> {
    Ok((name.to_owned(), false))
}

fn untrusted(address: &str) -> Refusal {
    Refusal::Untrusted { address: address.parse::<IpAddr>().unwrap().to_canonical() }
}

fn unknown() -> Refusal {
    Refusal::Unknown { header: settings().user_header }
}

const ROOT: (&str, &[u8]) = ("http-remote-user", b"root");

/// A delivery to `/eventmatch` created a subscription for the user that its plugin named, or for the default user.
#[test]
fn what_a_waypost_sends_is_from_nobody() {
    let tokens = vec![token(1, "wp_x", &[Scope::Admin], None)];
    let identity = identity_with(None, tokens);
    for mark in [&b"delivery"[..], b"", b"\xff"] {
        for name in ["waypost-agent", "Waypost-Agent"] {
            let marked = (name, mark);
            let bearer = ("authorization", &b"Bearer wp_x"[..]);
            for headers in [&[marked, ROOT][..], &[ROOT, marked, marked], &[marked], &[marked, bearer]] {
                assert_eq!(read(&identity, "127.0.0.1", headers).unwrap_err(), Refusal::Marked);
            }
            assert_eq!(sender_of(&identity, "127.0.0.1", &[marked, ROOT]), Ok(String::new()));
            assert_eq!(sender_of(&identity, "192.0.2.1", &[marked]), Err(untrusted("192.0.2.1")));
            // The token was given to Waypost for this.
            assert_eq!(sender_of(&identity, "192.0.2.1", &[marked, bearer]), Ok("ann".to_owned()));
        }
    }
    assert_eq!(sender_of(&identity, "127.0.0.1", &[("http-remote-user", b"alice")]), Ok("alice".to_owned()));
    assert_eq!(sender_of(&identity, "127.0.0.1", &[("http-remote-user", b"")]), Ok("nobody".to_owned()));
}

#[test]
fn the_header_counts_and_nothing_else() {
    assert_eq!(user("127.0.0.1", &[("Http-Remote-User", b"alice")]), named("alice"));
    assert_eq!(user("10.0.0.1", &[("Http-Remote-User", b"alice")]), named("alice"));
    assert_eq!(user("127.0.0.1", &[("http-remote-user", b" alice ")]), named("alice"));
    assert_eq!(user("127.0.0.1", &[("http-remote-user", "Zo\u{eb}".as_bytes())]), named("Zo\u{eb}"));
    assert_eq!(user("127.0.0.1", &[("remote-user", b"alice"), ("x-user", b"bob")]), named("nobody"));
    assert_eq!(user("127.0.0.1", &[ROOT]), Ok(("root".to_owned(), true)));
    assert_eq!(user("127.0.0.1", &[("http-remote-user", b"Root")]), named("Root"));
}

#[test]
fn without_a_name_it_is_the_default_user_on_this_machine_alone() {
    assert_eq!(user("127.9.9.9", &[]), named("nobody"));
    assert_eq!(user("::1", &[]), named("nobody"));
    assert_eq!(user("127.0.0.1", &[("http-remote-user", b"  ")]), named("nobody"));
    assert_eq!(user("10.0.0.1", &[]), Err(unknown()), "a proxy that has not said who it is");
    assert_eq!(user("192.0.2.1", &[]), Err(unknown()));
    // A proxy on this machine forwards requests from elsewhere.
    for forwarded in ["x-forwarded-for", "forwarded", "via", "x-real-ip"] {
        assert_eq!(user("127.0.0.1", &[(forwarded, b"127.0.0.1")]), Err(unknown()), "{forwarded}");
    }
    let none = Identity::new(
        Settings { default_user: String::new(), ..settings() },
        Arc::default(),
        Producers::default(),
    );
    assert_eq!(read(&none, "127.0.0.1", &[]).unwrap_err(), unknown());
}

#[test]
fn only_trusted_addresses_are_believed_however_they_are_written() {
    for address in ["192.0.2.1", "::2", "::ffff:192.0.2.1"] {
        assert_eq!(user(address, &[("http-remote-user", b"alice")]), Err(untrusted(address)), "{address}");
        assert_eq!(user(address, &[]), Err(unknown()), "{address}");
    }
    // How a dual-stack listener sees 127.0.0.1.
    assert_eq!(user("::ffff:127.0.0.1", &[("http-remote-user", b"alice")]), named("alice"));
}

/// A proxy that only terminates TLS passes on the header that its client writes: any client could name any
/// user.
#[test]
fn a_proxy_that_the_operator_has_not_named_cannot_name_a_user() {
    let with = |names_proxies, is_private, headers: &[(&str, &[u8])]| {
        let settings = Settings { names_proxies, is_private, ..settings() };
        let identity = Identity::new(settings, Arc::default(), Producers::default());
        read(&identity, "127.0.0.1", headers).map(|user| user.name)
    };
    let forwarded = ("x-forwarded-for", &b"203.0.113.5"[..]);
    let root = Ok("root".to_owned());
    assert_eq!(with(false, true, &[ROOT]), root, "a program of this machine");
    assert_eq!(with(false, true, &[ROOT, forwarded]), Err(untrusted("127.0.0.1")));
    assert_eq!(with(false, false, &[ROOT]), Err(untrusted("127.0.0.1")), "there is a public URL");
    assert_eq!(with(true, false, &[ROOT, forwarded]), root);
}

#[test]
fn an_invalid_name_is_refused() {
    for bad in [&b"."[..], b"..", b"\xff"] {
        let refused = user("127.0.0.1", &[("http-remote-user", bad)]).unwrap_err();
        assert!(matches!(refused, Refusal::Name(_) | Refusal::NotText(_)), "{refused:?}");
    }
}

/// What sends operator events has a name that no user can have, however they are identified.
#[test]
fn nobody_is_called_as_what_sends_operator_events() {
    assert!(HeaderValue::from_str(waypost_domain::OPERATOR).is_err());
    let local = "127.0.0.1".parse().unwrap();
    let mut parts = parts("/", &[]);
    parts.extensions.insert(Caller(waypost_domain::OPERATOR.to_owned()));
    let refused = identity().user(local, &parts, Scope::Read).unwrap_err();
    assert!(matches!(&refused, Refusal::Name(name) if name == "\\u{1f}waypost"), "{refused:?}");
    let settings = Settings { default_user: waypost_domain::OPERATOR.to_owned(), ..settings() };
    let producers = "one whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    let identity = Identity::new(settings, Arc::new(Tokens::new(Vec::new())), producers);
    assert!(matches!(read(&identity, "127.0.0.1", &[]), Err(Refusal::Name(_))));
}

/// The first of two headers counted. Behind a proxy that adds its own, a client could name any user.
#[test]
fn repeated_headers_are_refused() {
    let twice = user("127.0.0.1", &[ROOT, ("http-remote-user", b"mallory")]);
    assert_eq!(twice, Err(Refusal::Twice(settings().user_header)));
    let two = [("authorization", &b"Bearer wp_a"[..]), ("authorization", b"Bearer wp_b")];
    assert_eq!(user("127.0.0.1", &two), Err(Refusal::Twice(AUTHORIZATION)));
}

#[test]
fn a_token_counts_from_everywhere_and_before_everything_else() {
    let identity = identity_with(None, vec![token(1, "wp_good", &[Scope::Subscribe], None)]);
    let of = |address, headers: &[(&str, &[u8])]| {
        read(&identity, address, headers)
            .map(|caller| (caller.name.clone(), caller.via.name(), caller.is_admin()))
    };
    let ann = Ok(("ann".to_owned(), "token", false));
    let good = ("authorization", &b"Bearer wp_good"[..]);
    assert_eq!(of("192.0.2.1", &[good]), ann);
    assert_eq!(of("127.0.0.1", &[good]), ann, "not the default user");
    assert_eq!(of("127.0.0.1", &[good, ROOT]), ann, "not the admin that the header names");
    assert_eq!(of("127.0.0.1", &[("authorization", b"bearer  wp_good ")]), ann);
    for wrong in [&b"Bearer wp_bad"[..], b"Bearer wp_", b"Bearer wp_good2"] {
        let refused = of("127.0.0.1", &[("authorization", wrong), ROOT]);
        assert_eq!(refused, Err(Refusal::Expired { what: "token" }), "it does not count as none");
    }
    // Credentials between a client and its proxy are not for us, and do not count here.
    for other in [&b"Basic YTpi"[..], b"Bearer eyJ", b"\xff", b"wp_good"] {
        assert_eq!(of("127.0.0.1", &[("authorization", other)]), Err(Refusal::Credentials));
        assert_eq!(
            of("127.0.0.1", &[("authorization", other), ROOT]),
            Ok(("root".to_owned(), "header", true))
        );
    }
}

#[test]
fn a_token_is_good_for_its_scopes_and_until_its_end() {
    let old = Token { expires: Some(clock::now()), ..token(1, "wp_old", &[Scope::Admin], None) };
    let tokens = vec![
        old,
        token(2, "wp_send", &[Scope::Receive], None),
        token(3, "wp_read", &[Scope::Read], None),
        token(4, "wp_all", &[Scope::Admin], None),
    ];
    let identity = identity_with(None, tokens);
    let address = "192.0.2.1".parse().unwrap();
    let of = |secret: &str, needs| {
        let bearer = format!("Bearer {secret}");
        identity
            .user(address, &parts("/", &[("authorization", bearer.as_bytes())]), needs)
            .map(|caller| caller.name)
    };
    assert_eq!(of("wp_old", Scope::Read), Err(Refusal::Expired { what: "token" }));
    assert_eq!(identity.spent(clock::now()), [TokenId::from_uuid(Uuid::from_u128(1))]);
    for (secret, allowed) in
        [("wp_send", &[Scope::Receive][..]), ("wp_read", &[Scope::Read]), ("wp_all", &Scope::ALL)]
    {
        for needs in Scope::ALL {
            let found = of(secret, needs);
            assert_eq!(found.is_ok(), allowed.contains(&needs), "{secret} {needs}: {found:?}");
        }
    }
    let refused = of("wp_read", Scope::Subscribe).unwrap_err().to_string();
    assert_eq!(refused, "this token has the scopes `read`, and this needs `subscribe`");
    let reader = sender_of(&identity, "192.0.2.1", &[("authorization", b"Bearer wp_read")]);
    assert!(matches!(reader, Err(Refusal::Scope { .. })), "{reader:?}");
    let by_header = identity.user("127.0.0.1".parse().unwrap(), &parts("/", &[]), Scope::Admin);
    assert_eq!(by_header.unwrap_err(), Refusal::NoAdmin { user: "nobody".to_owned() });
}

#[test]
fn a_session_is_for_browsers_and_ends_by_itself() {
    let hours = |hours| clock::now() - SignedDuration::from_hours(hours);
    let idle = Token { created: hours(12), ..token(3, "idle", &[Scope::Read], Some(1)) };
    let tokens = vec![token(1, "wp_t", &[Scope::Read], None), token(2, "s", &[Scope::Read], Some(1)), idle];
    let identity = identity_with(None, tokens);
    let page = ("sec-fetch-site", &b"same-origin"[..]);
    let of =
        |headers: &[(&str, &[u8])]| read(&identity, "192.0.2.1", headers).map(|caller| caller.via.name());
    assert_eq!(of(&[("cookie", b"a=b; waypost=s"), page]), Ok("session"));
    assert_eq!(of(&[("cookie", b"waypost=s")]), Err(Refusal::NoBrowser));
    for bad in [&b"waypost=idle"[..], b"waypost=wp_t", b"waypost=x"] {
        assert_eq!(of(&[("cookie", bad), page]), Err(Refusal::Expired { what: "session" }), "{bad:?}");
    }
    let token = ("authorization", &b"Bearer wp_t"[..]);
    assert_eq!(of(&[token, ("cookie", b"waypost=idle"), page]), Ok("token"), "it begins a new one");
    assert_eq!(of(&[("authorization", b"Bearer s")]), Err(Refusal::Credentials));
    assert_eq!(of(&[("cookie", b"other=s"), page]), Err(unknown()));
    assert_eq!(identity.spent(clock::now()), [TokenId::from_uuid(Uuid::from_u128(3))]);
}

#[test]
fn receive_may_ask_for_nothing_or_for_a_token() {
    let tokens = || vec![token(1, "wp_t", &[Scope::Receive], None)];
    let bearer = ("authorization", &b"Bearer wp_t"[..]);
    let open = identity_with(Some(ReceiveAuth::None), tokens());
    assert_eq!(sender_of(&open, "192.0.2.1", &[]), Ok(String::new()));
    assert_eq!(sender_of(&open, "192.0.2.1", &[bearer]), Ok("ann".to_owned()));
    assert_eq!(
        sender_of(&open, "192.0.2.1", &[ROOT]),
        Err(untrusted("192.0.2.1")),
        "an anonymous sender cannot name a user"
    );
    assert_eq!(sender_of(&open, "192.0.2.1", &[("waypost-agent", b"delivery")]), Ok(String::new()));
    let closed = identity_with(Some(ReceiveAuth::Token), tokens());
    assert_eq!(sender_of(&closed, "192.0.2.1", &[bearer]), Ok("ann".to_owned()));
    for headers in [&[][..], &[ROOT], &[("waypost-agent", b"delivery")]] {
        assert_eq!(sender_of(&closed, "127.0.0.1", headers), Err(Refusal::TokenNeeded));
    }
}

#[test]
fn a_producer_signs_its_body_and_the_time() {
    let identity = identity_with(Some(ReceiveAuth::Signature), Vec::new());
    let sign = |id: &str, time: i64, body: &str| {
        use data_encoding::BASE64;
        use hmac::{Hmac, KeyInit as _, Mac as _};
        let secret = BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
        mac.update(format!("{id}.{time}.{body}").as_bytes());
        format!("v1a,AAAA v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
    };
    let send = |uri: &str, id: &str, time: i64, signature: &str, body: &str| {
        let time = time.to_string();
        let headers = [("webhook-id", id.as_bytes()), ("webhook-timestamp", time.as_bytes())];
        let headers = [&headers[..], &[("webhook-signature", signature.as_bytes())]].concat();
        match identity.sender("192.0.2.1".parse().unwrap(), &parts(uri, &headers))? {
            Sender::Signed(signed) => signed.by(body.as_bytes()),
            Sender::Known(name) => panic!("{name} has not signed"),
        }
    };
    let now = clock::now().as_second();
    let good = sign("m1", now, "{}");
    assert_eq!(send("/receive", "m1", now, &good, "{}"), Ok("one".to_owned()));
    assert_eq!(send("/receive?producer=one", "m1", now, &good, "{}"), Ok("one".to_owned()));
    for (uri, id, time, body) in [
        ("/receive", "m1", now, "{} "),
        ("/receive", "m2", now, "{}"),
        ("/receive", "m1", now - 1, "{}"),
        ("/receive?producer=two", "m1", now, "{}"),
    ] {
        let refused = send(uri, id, time, &good, body).unwrap_err().to_string();
        assert!(refused.contains("is not the producer's"), "{refused}");
    }
    let late = send("/receive", "m1", now - 301, &sign("m1", now - 301, "{}"), "{}").unwrap_err();
    assert!(late.to_string().contains("within five minutes"), "{late}");
    let unsigned = identity.sender("127.0.0.1".parse().unwrap(), &parts("/receive", &[ROOT])).unwrap_err();
    assert!(unsigned.to_string().contains("send `webhook-id`"), "{unsigned}");
}

#[test]
fn this_machine_does_not_count_and_a_silent_proxy_counts_for_its_users() {
    let asker = |peer: &str, headers: &[(&str, &[u8])]| {
        identity().asker(peer.parse().unwrap(), &parts("/", headers).headers)
    };
    let address = |text: &str| Asker::Address(text.parse().unwrap());
    assert_eq!(
        ["127.0.0.1", "::1", "10.0.0.1"].map(|peer| asker(peer, &[])),
        [Asker::Here, Asker::Here, Asker::Behind]
    );
    assert_eq!(asker("192.0.2.1", &[("x-forwarded-for", b"127.0.0.1")]), address("192.0.2.1"));
    for peer in ["127.0.0.1", "10.0.0.1"] {
        assert_eq!(asker(peer, &[("x-forwarded-for", b"127.0.0.1, 192.0.2.1")]), address("192.0.2.1"));
        assert_eq!(asker(peer, &[("x-forwarded-for", b"127.0.0.1")]), Asker::Behind);
    }
    assert_eq!(asker("127.0.0.1", &[("via", b"1.1 proxy")]), Asker::Behind);
}
