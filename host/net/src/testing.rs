//! What tests of the guard need, here and in the crates that use it.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;

use super::Resolver;

/// Hosts of URLs that lead to what is not public, in each form, and the address that they mean.
pub const CLOSED: [(&str, &str); 40] = [
    ("127.0.0.1", "127.0.0.1"),
    ("127.9.9.9", "127.9.9.9"),
    ("10.1.2.3", "10.1.2.3"),
    ("172.16.0.1", "172.16.0.1"),
    ("192.168.0.1", "192.168.0.1"),
    ("169.254.169.254", "169.254.169.254"),
    ("100.64.0.1", "100.64.0.1"),
    ("0.0.0.0", "0.0.0.0"),
    ("192.0.0.8", "192.0.0.8"),
    ("192.0.2.1", "192.0.2.1"),
    ("198.18.0.1", "198.18.0.1"),
    ("224.0.0.1", "224.0.0.1"),
    ("240.0.0.1", "240.0.0.1"),
    ("255.255.255.255", "255.255.255.255"),
    ("[::1]", "::1"),
    ("[::]", "::"),
    ("[fc00::1]", "fc00::1"),
    ("[fd00:ec2::254]", "fd00:ec2::254"),
    ("[fe80::1]", "fe80::1"),
    ("[fec0::1]", "fec0::1"),
    ("[ff02::1]", "ff02::1"),
    ("[2001:db8::1]", "2001:db8::1"),
    ("[100::1]", "100::1"),
    ("[4000::1]", "4000::1"),
    // IPv4 in IPv6.
    ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1"),
    ("[::ffff:a9fe:a9fe]", "::ffff:169.254.169.254"),
    ("[::127.0.0.1]", "::127.0.0.1"),
    ("[::ffff:0:127.0.0.1]", "::ffff:0:127.0.0.1"),
    ("[64:ff9b::10.1.2.3]", "64:ff9b::10.1.2.3"),
    ("[64:ff9b:1::10.1.2.3]", "64:ff9b:1::10.1.2.3"),
    ("[2002:7f00:1::1]", "2002:7f00:1::1"),
    ("[2001:0:a01:203::1]", "2001:0:a01:203::1"),
    ("[2a00::5efe:10.1.2.3]", "2a00::5efe:10.1.2.3"),
    // Odd spellings.
    ("2130706433", "127.0.0.1"),
    ("0x7f.1", "127.0.0.1"),
    ("0177.0.0.1", "127.0.0.1"),
    ("127.1", "127.0.0.1"),
    ("127.0.0.1.", "127.0.0.1"),
    ("0xA9FEA9FE", "169.254.169.254"),
    ("[0:0:0:0:0:0:0:1]", "::1"),
];

/// Makes a name server that gives these answers in turn, the last one for ever.
pub fn name_server(answers: Vec<Vec<IpAddr>>) -> Resolver {
    let asked = AtomicUsize::new(0);
    Resolver::scripted(move |_| {
        let place = asked.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        Ok(answers[place].clone())
    })
}

/// Tells whether anybody has connected.
pub fn is_untouched(listener: &TcpListener) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    listener.poll_accept(&mut context).is_pending()
}
