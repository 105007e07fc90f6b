//! Who may do what: the one function that every listener's calls pass.

use std::net::IpAddr;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Name, as `User:alice`; `User:ANONYMOUS` until a listener can tell.
    pub name: String,
    /// Name that the client gives itself: for the log, never for rights or quotas.
    pub client: String,
    /// Whose quotas it uses: the listener and the address that it comes from, until a listener can tell who it is.
    pub account: String,
    /// Where it comes from; none for nodes.
    pub address: Option<IpAddr>,
}

impl Principal {
    /// The node itself, or another one of the site, for the purpose `client`.
    pub fn anonymous(client: impl Into<String>) -> Self {
        let client = client.into();
        Self {
            name: "User:ANONYMOUS".to_owned(),
            account: client.clone(),
            client,
            address: None,
        }
    }

    /// Somebody at `address` who did not say, and names itself `client`. All at one address, and all in one IPv6 network of
    /// 64 bits, which is what one machine may have, share an account at each listener.
    pub fn at(listener: &str, address: IpAddr, client: impl Into<String>) -> Self {
        let account = match address.to_canonical() {
            IpAddr::V4(address) => format!("{listener} {address}"),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{listener} {a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        };
        Self {
            account,
            address: Some(address),
            ..Self::anonymous(client)
        }
    }

    /// Who it is, for people: what the client says of itself is in quotes.
    pub fn shown(&self) -> String {
        format!("{} ({:?})", self.name, self.client)
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "Kafka's names")]
pub enum Operation {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
}

/// Of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource<'a> {
    /// A topic by name.
    Topic(&'a str),
    /// A consumer group by name.
    Group(&'a str),
    /// The node itself.
    Cluster,
}

/// Whether `principal` may do `operation` on `resource`. Allows everything until there are ACLs: the listeners are on
/// loopback by default.
pub(crate) fn authorize(_principal: &Principal, _operation: Operation, _resource: Resource<'_>) -> bool {
    true
}
