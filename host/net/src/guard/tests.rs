//! The guard's rules. What they mean for connections is in [`crate::tests`].

use super::*;

/// Makes a guard of a service that only this machine reaches, with these rules.
fn guard(allow: &[&str], deny: &[&str]) -> Guard {
    let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Guard::default().with(Rules { allow: read(allow), deny: read(deny), is_local: true, proxy: None })
}

fn serving_at(address: &str) -> Guard {
    let guard = guard(&["127.0.0.0/8", "0.0.0.0", "::1"], &[]);
    guard.serves_at(address.parse().unwrap());
    guard
}

fn is_own_by_text(guard: &Guard, host: &str, port: u16) -> bool {
    matches!(guard.check_url(Agent::Delivery, host, port), Err(Refused::Own(_)))
}

#[test]
fn a_url_may_say_so_itself() {
    let guard = serving_at("127.0.0.1:8070");
    for own in ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "[::ffff:7f00:1]", "0.0.0.0"] {
        assert!(is_own_by_text(&guard, own, 8070), "{own}");
        assert!(!is_own_by_text(&guard, own, 8071), "{own}");
    }
    for other in ["example.org", "localhost.example", "127.0.0.2", "[::1]"] {
        assert!(!is_own_by_text(&guard, other, 8070), "{other}");
    }
}

#[test]
fn the_user_header_is_nobodys_however_it_is_written() {
    let guard = Guard::new(HeaderName::from_static("x-request-id"), vec!["x-*".parse().unwrap()]);
    for voice in [Voice::Output, Voice::Request] {
        for name in ["X-Request-ID", "x_request_id", "x-request_id"] {
            let refused = guard.check_header(&name.parse().unwrap(), voice);
            assert!(refused.unwrap_err().contains("who is asking"), "{name}");
        }
    }
}

/// Says what the guard makes of an address, and of the name that was resolved to it.
fn checked(guard: &Guard, name: Option<&str>, to: &str) -> Result<(), String> {
    guard.check(Agent::Delivery, name, to.parse().unwrap()).map_err(|failure| failure.to_string())
}

#[test]
fn each_form_of_an_entry_opens_what_it_names_and_nothing_else() {
    for (entry, name, open, closed) in [
        ("10.0.0.0/8", None, "10.1.2.3:80", "192.168.0.1:80"),
        ("10.0.0.0/8", None, "[::ffff:10.1.2.3]:80", "[64:ff9b::a01:203]:80"),
        ("10.0.0.0/8:8080", None, "10.1.2.3:8080", "10.1.2.3:80"),
        ("10.1.2.3", None, "10.1.2.3:80", "10.1.2.4:80"),
        ("10.1.2.3:8080", None, "10.1.2.3:8080", "10.1.2.3:80"),
        ("fd00::/8", None, "[fd00::1]:80", "[fc00::1]:80"),
        ("[fd00::1]:443", None, "[fd00::1]:443", "[fd00::1]:80"),
        ("64:ff9b::/96", None, "[64:ff9b::a01:203]:80", "10.1.2.3:80"),
        ("intra.example:80", Some("intra.example"), "10.1.2.3:80", "10.1.2.3:81"),
        ("*.intra.example:80", Some("a.intra.example"), "10.1.2.3:80", "10.1.2.3:81"),
    ] {
        let guard = guard(&[entry], &[]);
        assert_eq!(checked(&guard, name, open), Ok(()), "{entry} {open}");
        let refused = checked(&guard, name, closed).unwrap_err();
        assert!(refused.contains("is not public") && refused.contains("allow_targets"), "{entry}: {refused}");
    }
    let refused = checked(&guard(&["intra.example"], &[]), Some("other.example"), "10.1.2.3:80").unwrap_err();
    assert_eq!(
        refused,
        "the address 10.1.2.3 is not public (private, 10.0.0.0/8), and the setting allow_targets does not open it"
    );
}

#[test]
fn what_is_denied_is_refused_although_it_is_allowed_in_every_form_of_it() {
    for (deny, to) in [
        ("10.1.0.0/16", "10.1.2.3:80"),
        ("10.1.2.3:80", "10.1.2.3:80"),
        ("10.1.0.0/16", "[::ffff:10.1.2.3]:80"),
        ("10.1.0.0/16", "[64:ff9b::a01:203]:80"),
        ("10.1.0.0/16", "[2002:a01:203::1]:80"),
        ("10.1.0.0/16", "[::10.1.2.3]:80"),
        ("10.1.0.0/16", "[2001:0:a01:203::1]:80"),
        ("8.8.8.8", "8.8.8.8:53"),
        ("8.8.8.8", "[64:ff9b::808:808]:53"),
        ("127.0.0.0/8", "127.0.0.1:80"),
        ("2a00::/16", "[2a00::1]:80"),
    ] {
        let guard = guard(&["0.0.0.0/0", "::/0"], &[deny]);
        let refused = checked(&guard, None, to).unwrap_err();
        let to: SocketAddr = to.parse().unwrap();
        assert_eq!(refused, format!("{to} is refused by `{deny}` in the setting deny_targets"));
    }
    let denied = guard(&["*.intra.example"], &["*.secret.intra.example", "bad.example:443"]);
    for (host, port, is_refused) in [
        ("a.secret.intra.example", 80, true),
        ("A.Secret.Intra.Example.", 80, true),
        ("secret.intra.example", 80, false),
        ("bad.example", 443, true),
        ("bad.example", 80, false),
    ] {
        let refused = denied.check_url(Agent::Delivery, host, port);
        assert_eq!(
            refused.is_err_and(|refused| matches!(refused, Refused::Denied { .. })),
            is_refused,
            "{host}"
        );
    }
}

#[test]
fn loopback_is_open_to_targets_and_programs_of_a_service_that_only_this_machine_reaches() {
    let loopback = ["127.0.0.1:9", "127.9.9.9:9", "[::1]:9", "[::ffff:127.0.0.1]:9"];
    let opened = |guard: &Guard, agent| {
        let open = loopback.iter().filter(|to| guard.check(agent, None, to.parse().unwrap()).is_ok()).count();
        assert!(open == 0 || open == loopback.len());
        assert_eq!(guard.check_url(agent, "localhost", 9).is_ok(), open > 0);
        open > 0
    };
    let local = guard(&[], &[]);
    for (agent, expected) in [(Agent::Delivery, true), (Agent::Handler, true), (Agent::Plugin, false)] {
        assert_eq!(opened(&local, agent), expected, "{agent:?}");
        assert!(!opened(&Guard::default(), agent), "{agent:?}");
    }
    // What stands for it by way of another machine is not this one's.
    for to in ["[64:ff9b::7f00:1]:9", "[2002:7f00:1::]:9", "[::7f00:1]:9", "0.0.0.0:9", "10.0.0.1:9"] {
        assert!(checked(&local, None, to).is_err(), "{to}");
    }
    // A program may serve the router at another address than its configuration says.
    local.serves_at("192.0.2.1:8070".parse().unwrap());
    assert!(!opened(&local, Agent::Delivery));
    // The loopback of a proxy elsewhere is not this machine's.
    for (proxy, expected) in [("http://127.0.0.1:3128", true), ("http://proxy.example:3128", false)] {
        let proxy = Some(proxy.parse().unwrap());
        let guard = Guard::default().with(Rules { is_local: true, proxy, ..Rules::default() });
        assert_eq!(opened(&guard, Agent::Delivery), expected);
    }
}

#[test]
fn a_program_may_come_back_to_this_service_where_a_target_may_not() {
    let guard = serving_at("127.0.0.1:8070");
    let to = "127.0.0.1:8070".parse().unwrap();
    assert!(guard.check(Agent::Delivery, None, to).is_err() && guard.check(Agent::Plugin, None, to).is_err());
    assert!(guard.check(Agent::Handler, None, to).is_ok());
}

#[test]
fn a_host_is_judged_as_what_it_means() {
    let closed = Guard::default();
    for (host, address) in [
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("%31%32%37.0.0.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
        ("[0:0::1]", "::1"),
        ("localhost", "127.0.0.1"),
        ("a.localhost.", "127.0.0.1"),
    ] {
        let refused = closed.check_url(Agent::Delivery, host, 80).unwrap_err();
        let Refused::NotPublic { address: found, .. } = refused else { panic!("{host}: {refused}") };
        assert_eq!(found, address.parse::<IpAddr>().unwrap(), "{host}");
    }
    for host in ["1.2.3.4.5", "256.1.1.1", "[zz]", "a b", ""] {
        assert!(matches!(closed.check_url(Agent::Delivery, host, 80), Err(Refused::NoHost(_))), "{host}");
    }
    for host in ["example.org", "1.1.1.1", "[2a00::1]", "127.0.0.1.nip.example"] {
        assert_eq!(closed.check_url(Agent::Delivery, host, 80), Ok(()), "{host}");
    }
}
