//! Variables that Kubernetes sets in a pod for each Service of its namespace (as Docker's links did before).
//!
//! A Service named `waypost`, or `waypost-…`, adds `WAYPOST_PORT=tcp://10.0.0.1:8070` and a dozen more. They
//! look like settings but are not: refusing them would keep Waypost from starting under its own name. Both
//! name and value have to match, so that a misspelt setting is still an error.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Removes the variables of Services, and returns their keys. A variable whose key `is_key` knows is a
/// setting, and stays.
pub(super) fn take(variables: &mut BTreeMap<String, String>, is_key: impl Fn(&str) -> bool) -> Vec<String> {
    let services: Vec<String> = variables
        .iter()
        .filter(|(key, value)| !is_key(key) && value.parse::<IpAddr>().is_ok())
        .filter_map(|(key, _)| key.strip_suffix("service_host"))
        .filter(|service| service.is_empty() || service.ends_with('_'))
        .map(str::to_owned)
        .collect();
    let is_foreign = |key: &str, value: &str| {
        !is_key(key) && (is_of_service(key, value, &services) || is_of_port(key, value))
    };
    variables.extract_if(.., |key, value| is_foreign(key, value)).map(|(key, _)| key).collect()
}

/// Matches `WAYPOST_SERVICE_HOST`, and with it `WAYPOST_SERVICE_PORT` and
/// `WAYPOST_SERVICE_PORT_<NAME OF A PORT>`.
fn is_of_service(key: &str, value: &str, services: &[String]) -> bool {
    services.iter().filter_map(|service| key.strip_prefix(service.as_str())).any(|rest| match rest {
        "service_host" => true,
        rest => {
            let is_port = rest == "service_port" || rest.starts_with("service_port_");
            is_port && value.parse::<u16>().is_ok()
        }
    })
}

/// Matches `WAYPOST_PORT` and `WAYPOST_PORT_8070_TCP`, the latter also with the suffixes `_PROTO`, `_PORT`
/// and `_ADDR`.
fn is_of_port(key: &str, value: &str) -> bool {
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let is_protocol = |text: &str| ["tcp", "udp", "sctp"].contains(&text);
    let words: Vec<&str> = key.split('_').collect();
    match words.as_slice() {
        [.., "port", number, protocol, what] if is_number(number) && is_protocol(protocol) => match *what {
            "proto" => value == *protocol,
            "port" => value == *number,
            "addr" => value.parse::<IpAddr>().is_ok(),
            _ => false,
        },
        [.., "port", number, protocol] => {
            address(value).is_some_and(|(found, port)| found == *protocol && port.to_string() == *number)
        }
        [.., "port"] => address(value).is_some_and(|(protocol, _)| is_protocol(protocol)),
        _ => false,
    }
}

/// Reads `tcp://10.0.0.1:8070`.
fn address(value: &str) -> Option<(&str, u16)> {
    let (protocol, address) = value.split_once("://")?;
    Some((protocol, address.parse::<SocketAddr>().ok()?.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the keys that are removed from `KEY=value` lines, if `listen` and two names with `proxy` are
    /// settings.
    fn taken(lines: &str) -> Vec<String> {
        let pairs = lines.lines().map(|line| line.trim().split_once('=').unwrap());
        let mut variables = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        take(&mut variables, |key| ["listen", "proxy_port", "proxy_service_host"].contains(&key))
    }

    #[test]
    fn all_variables_of_a_service_are_taken() {
        let of_service = "port=tcp://10.0.0.1:8070
            port_8070_tcp=tcp://10.0.0.1:8070
            port_8070_tcp_addr=10.0.0.1
            port_8070_tcp_port=8070
            port_8070_tcp_proto=tcp
            port_9000_udp=udp://10.0.0.1:9000
            service_host=10.0.0.1
            service_port=8070
            service_port_http_api=8070";
        let keys = |lines: &str| -> Vec<String> {
            lines.lines().map(|line| line.trim().split_once('=').unwrap().0.to_owned()).collect()
        };
        assert_eq!(taken(of_service), keys(of_service));
        // Of a Service `waypost-console`, with IPv6.
        let other = "console_port=tcp://[fd00::1]:80
            console_port_80_tcp_addr=fd00::1
            console_service_host=fd00::1
            console_service_port=80";
        assert_eq!(taken(other), keys(other));
    }

    #[test]
    fn settings_known_and_misspelt_ones_are_left() {
        for line in [
            "listen=127.0.0.1:80",
            // A later version's settings, which look like a Service's variables.
            "proxy_port=tcp://10.0.0.1:8070",
            "proxy_service_host=10.0.0.1",
            // Close matches for `listen`.
            "port=8070",
            "port=8070/tcp",
            "host=10.0.0.1",
            "service_host=waypost.example",
            "service_port=8070",
            "listen_port=8070",
            "port_8070_tcp=tcp://10.0.0.1:8071",
            "port_8070_tcp_port=8071",
            "port_8070_tcp_name=x",
            "service_hosts=10.0.0.1",
            "export=tcp://10.0.0.1:8070",
        ] {
            assert_eq!(taken(line), [""; 0], "{line}");
        }
    }
}
