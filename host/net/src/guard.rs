//! The one place that decides where requests on others' behalf go: those of subscriptions, plugins and handlers'
//! programs. They do not name a user either.
//!
//! An address is judged in this order: `deny_targets` beats everything, this service itself is no target, `allow_targets`
//! opens what it names, loopback is open while only this machine reaches the service, and what is public is open.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::HeaderName;
use url::Host;

use super::addresses::special;
use super::error::{Failure, Refused};
use super::headers::{self, HeaderPattern, Voice};
use super::mark::Agent;
use super::own::Own;
use super::owner_headers;
use super::pattern::{TargetPattern, name};
use super::proxy::Proxy;
use super::resolver::Resolver;

/// The operator's rules about where requests on others' behalf go.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What is open besides public addresses.
    pub allow: Vec<TargetPattern>,
    /// What is refused, whatever else is open.
    pub deny: Vec<TargetPattern>,
    /// Only this machine reaches the service. Then its users may reach this machine: they are on it.
    pub is_local: bool,
    /// What the requests go through.
    pub proxy: Option<Proxy>,
}

/// The rules for requests that are sent on others' behalf.
#[derive(Debug)]
pub struct Guard {
    /// Where this service is served.
    own: Own,
    allow: Vec<TargetPattern>,
    deny: Vec<TargetPattern>,
    is_local: bool,
    proxy: Option<Arc<Proxy>>,
    resolver: Resolver,
    user_header: HeaderName,
    further: Vec<HeaderPattern>,
}

impl Default for Guard {
    fn default() -> Self {
        Self::new(HeaderName::from_static("http-remote-user"), Vec::new())
    }
}

impl Guard {
    /// Makes a guard that lets requests reach public addresses alone, keeps back `user_header`, and lets plugins set
    /// `further` headers besides the usual ones.
    pub fn new(user_header: HeaderName, further: Vec<HeaderPattern>) -> Self {
        let (own, allow, deny, resolver) = Default::default();
        Self { own, allow, deny, is_local: false, proxy: None, resolver, user_header, further }
    }

    /// Sets the rules about where requests go.
    pub fn with(self, rules: Rules) -> Self {
        let Rules { allow, deny, is_local, proxy } = rules;
        Self { allow, deny, is_local, proxy: proxy.map(Arc::new), ..self }
    }

    /// Resolves names by a script in the place of the system.
    #[cfg(any(test, feature = "testing"))]
    pub fn resolving(self, resolver: Resolver) -> Self {
        Self { resolver, ..self }
    }

    /// Names an address at which this service is served: no target leads there from now on.
    pub fn serves_at(&self, address: SocketAddr) {
        self.own.serves_at(address);
    }

    /// Judges a URL's host and port by their text, without resolving a name: an address in any spelling, a name that
    /// `deny_targets` has, or `localhost`.
    ///
    /// # Errors
    /// Says why requests of `agent` must not go there.
    pub fn check_url(&self, agent: Agent, host: &str, port: u16) -> Result<(), Refused> {
        self.check_text(agent, host, port).map_err(|failure| match failure.downcast() {
            Ok(refused) => *refused,
            // Whether it is this service cannot be found out now, so it may be.
            Err(_) => Refused::Own(format!("{host}:{port}")),
        })
    }

    /// Does what [`Self::check_url`] does.
    ///
    /// # Errors
    /// [`Refused`], or what keeps this machine from telling.
    pub(super) fn check_text(&self, agent: Agent, host: &str, port: u16) -> Result<(), Failure> {
        let domain = match Host::parse(host).map_err(|_| Refused::NoHost(host.to_owned()))? {
            Host::Ipv4(address) => return self.check(agent, None, SocketAddr::new(address.into(), port)),
            Host::Ipv6(address) => return self.check(agent, None, SocketAddr::new(address.into(), port)),
            Host::Domain(domain) => name(&domain),
        };
        self.check_name(&domain, port)?;
        if domain != "localhost" && !domain.ends_with(".localhost") {
            return Ok(());
        }
        // RFC 6761 §6.3: it means this machine. It may listen on either address.
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let check = |address| self.check(agent, Some(&domain), SocketAddr::new(address, port)).err();
        let mut failures: Vec<Failure> = loopback.into_iter().filter_map(check).collect();
        let is_weak = |failure: &Failure| {
            matches!(failure.downcast_ref(), Some(Refused::NotPublic { .. } | Refused::Denied { .. }))
        };
        match failures.iter().position(|failure| !is_weak(failure)) {
            Some(place) => Err(failures.swap_remove(place)),
            None if failures.len() == loopback.len() => Err(failures.swap_remove(0)),
            None => Ok(()),
        }
    }

    /// Judges a name, in the form of [`name`], as far as it can be done without its addresses.
    ///
    /// # Errors
    /// When `deny_targets` has it.
    pub(super) fn check_name(&self, name: &str, port: u16) -> Result<(), Refused> {
        match self.deny.iter().find(|pattern| pattern.names(name, port)) {
            Some(pattern) => {
                Err(Refused::Denied { what: format!("{name}:{port}"), pattern: pattern.clone() })
            }
            None => Ok(()),
        }
    }

    /// Judges an address, and the name that was resolved to it.
    ///
    /// # Errors
    /// [`Refused`], or what keeps this machine from telling.
    pub(super) fn check(&self, agent: Agent, name: Option<&str>, to: SocketAddr) -> Result<(), Failure> {
        if let Some(pattern) = self.deny.iter().find(|pattern| pattern.has_in_any_form(to)) {
            return Err(Refused::Denied { what: to.to_string(), pattern: pattern.clone() }.into());
        }
        // The operator has written down where a program may go, and may want it to come back.
        let may_return = agent == Agent::Handler;
        if !may_return && self.own.has(to)? {
            return Err(Refused::Own(to.to_string()).into());
        }
        let names = |pattern: &TargetPattern| name.is_some_and(|name| pattern.names(name, to.port()));
        if self.allow.iter().any(|pattern| pattern.has(to) || names(pattern)) {
            return Ok(());
        }
        match special(to.ip()) {
            Some(_) if to.ip().to_canonical().is_loopback() && self.opens_loopback(agent) => Ok(()),
            Some(special) => Err(Refused::NotPublic { address: to.ip(), special }.into()),
            None => Ok(()),
        }
    }

    /// A plugin is another's program, whose user need not know what it asks of this machine; and the loopback of a proxy
    /// elsewhere is another machine's.
    fn opens_loopback(&self, agent: Agent) -> bool {
        let is_trusted = match agent {
            Agent::Delivery | Agent::Handler => true,
            Agent::Plugin | Agent::Service => false,
        };
        is_trusted
            && self.is_local
            && self.own.is_local()
            && self.proxy.as_ref().is_none_or(|proxy| proxy.is_local())
    }

    /// Returns what resolves names for these requests.
    pub(super) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Returns what these requests go through.
    pub(super) fn proxy(&self) -> Option<&Arc<Proxy>> {
        self.proxy.as_ref()
    }

    /// Checks a header that a plugin wants to set.
    ///
    /// # Errors
    /// Says why it is not a plugin's to set.
    pub fn check_header(&self, name: &HeaderName, voice: Voice) -> Result<(), &'static str> {
        if headers::is_same(name.as_str(), self.user_header.as_str()) {
            return Err("it says who is asking, and a plugin speaks for nobody");
        }
        headers::check(name.as_str(), voice, &self.further)
    }

    /// Checks a header that a subscription's owner adds to its requests.
    ///
    /// # Errors
    /// Says why it is not theirs to set.
    pub fn check_owner_header(&self, name: &HeaderName) -> Result<(), &'static str> {
        if headers::is_same(name.as_str(), self.user_header.as_str()) {
            return Err("it says who is asking, and a delivery speaks for nobody");
        }
        owner_headers::check(name.as_str())
    }
}

#[cfg(test)]
mod tests;
