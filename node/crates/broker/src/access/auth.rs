//! Permissions: every call of a listener passes [`authorize`].

use std::net::IpAddr;

/// The identity behind a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Name, as `User:alice`; `User:ANONYMOUS` until a listener can tell.
    pub name: String,
    /// Name that the client gives itself. For the log only, never for permissions or quotas.
    pub client: String,
    /// Account whose quotas apply: listener and client address, until a listener can authenticate clients.
    pub account: String,
    /// Client address; `None` for nodes of the site.
    pub address: Option<IpAddr>,
}

impl Principal {
    /// Returns the identity of a node of the site that acts for the purpose `client`.
    pub fn anonymous(client: impl Into<String>) -> Self {
        let client = client.into();
        Self {
            name: "User:ANONYMOUS".to_owned(),
            account: client.clone(),
            client,
            address: None,
        }
    }

    /// Returns the identity of an unauthenticated client at `address` that calls itself `client`. All clients
    /// at an address share an account per listener. An IPv6 network of 64 bits counts as an address, since a
    /// machine may have a whole network.
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

    /// Returns the identity for display, with the client's own name in quotes.
    pub fn shown(&self) -> String {
        format!("{} ({:?})", self.name, self.client)
    }
}

/// An operation that needs permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reading records or offsets.
    Read,
    /// Writing records.
    Write,
    /// Creating a topic.
    Create,
    /// Deleting a topic, records or a group.
    Delete,
    /// Changing settings, partitions or members.
    Alter,
    /// Reading metadata.
    Describe,
}

/// The object of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource<'a> {
    /// A topic by name.
    Topic(&'a str),
    /// A consumer group by name.
    Group(&'a str),
    /// The node.
    Cluster,
}

/// Returns true if `principal` may perform `operation` on `resource`. Permits everything until there are
/// ACLs: by default, listeners are on loopback.
pub(crate) fn authorize(_principal: &Principal, _operation: Operation, _resource: Resource<'_>) -> bool {
    true
}
