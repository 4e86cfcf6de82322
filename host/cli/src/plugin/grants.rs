//! What a plugin may reach when it runs here: what the command line grants, whatever a case file asks for.
//!
//! On a server, two settings decide: a subscription's `allow_hosts` names hosts, and the operator's `allow_targets`
//! opens networks that are not public. Here both are flags. A case file may come from a stranger, so what it asks for
//! is granted only if the command line grants it too.

use std::net::IpAddr;

use ipnet::IpNet;
use waypost_domain::plugin::AllowHost;
use waypost_net::{Guard, Rules, TargetPattern};

/// The grants of the command line.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Grants {
    /// A host that the plugin may call over HTTP, as in a subscription's allow_hosts; may be given several times
    #[arg(long = "allow-host", value_name = "HOST")]
    pub(super) hosts: Vec<AllowHost>,
    /// A network that the plugin may reach although it is not public, as in the server's allow_targets; may be given
    /// several times
    #[arg(long = "allow-network", value_name = "CIDR", value_parser = network)]
    pub(super) networks: Vec<IpNet>,
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = |_| text.parse::<IpAddr>().map(IpNet::from);
    let wrong = |_| "an IP address or a network, such as `10.0.0.0/8`, is expected".to_owned();
    text.parse().or_else(address).map_err(wrong)
}

impl Grants {
    /// Returns the guard for the plugin's requests.
    pub(super) fn guard(&self) -> Guard {
        let allow = self.networks.iter().copied().map(TargetPattern::network).collect();
        Guard::default().with(Rules { allow, ..Rules::default() })
    }

    /// Returns an error text if any of these hosts is not granted.
    pub(super) fn refuse(&self, asked: &[AllowHost]) -> Option<String> {
        let is_granted = |host: &&AllowHost| self.hosts.iter().any(|granted| granted.covers(host));
        let missing: Vec<_> = asked.iter().filter(|host| !is_granted(host)).collect();
        let hosts: Vec<_> = missing.iter().map(|host| format!("`{host}`")).collect();
        let flags: String = missing.iter().map(|host| format!(" --allow-host {host}")).collect();
        (!missing.is_empty()).then(|| {
            format!("it asks for HTTP to {}, which is not granted: if it may, add{flags}", hosts.join(", "))
        })
    }

    /// Returns what is granted, on one line; `None` if nothing is.
    pub(super) fn shown(&self) -> Option<String> {
        let list = |list: Vec<String>| (!list.is_empty()).then(|| list.join(", "));
        let hosts = list(self.hosts.iter().map(ToString::to_string).collect());
        let networks = list(self.networks.iter().map(ToString::to_string).collect());
        let hosts = hosts.map(|hosts| format!("HTTP to {hosts}"));
        let networks = networks.map(|networks| format!("networks {networks}"));
        match (hosts, networks) {
            (Some(hosts), Some(networks)) => Some(format!("{hosts}; {networks}")),
            (hosts, networks) => hosts.or(networks),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(texts: &[&str]) -> Vec<AllowHost> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A case file from a stranger granted itself the hosts that it wanted.
    #[test]
    fn what_a_file_asks_for_has_to_be_granted_by_a_flag() {
        let granted = Grants { hosts: hosts(&["*.example.org", "127.0.0.1:8071"]), networks: Vec::new() };
        assert_eq!(
            granted.refuse(&hosts(&["a.example.org", "https://b.example.org", "127.0.0.1:8071"])),
            None
        );
        assert_eq!(
            granted.refuse(&hosts(&["a.example.org", "example.org", "127.0.0.1:80"])).unwrap(),
            "it asks for HTTP to `example.org`, `127.0.0.1:80`, which is not granted: if it may, add --allow-host \
             example.org --allow-host 127.0.0.1:80"
        );
        assert!(Grants::default().refuse(&hosts(&["a"])).is_some());
    }

    #[test]
    fn grants_are_shown_on_one_line() {
        let networks = vec!["127.0.0.0/8".parse().unwrap()];
        let grants = Grants { hosts: hosts(&["a", "b:1"]), networks };
        assert_eq!(grants.shown().unwrap(), "HTTP to a, b:1; networks 127.0.0.0/8");
        assert_eq!(Grants { hosts: Vec::new(), ..grants }.shown().unwrap(), "networks 127.0.0.0/8");
        assert_eq!(Grants::default().shown(), None);
    }
}
