//! Addresses of the nodes of the site.

use crate::core::Broker;
use std::net::SocketAddr;

impl Broker {
    /// Returns true if [`Broker::nodes_are_at`] was given this address.
    pub fn has_node_at(&self, address: SocketAddr) -> bool {
        let addresses = self.0.node_addresses.read();
        addresses.contains(&canonical(address))
    }

    /// Sets the addresses of the nodes of the site.
    pub fn nodes_are_at(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let found = addresses.into_iter().map(canonical).collect();
        *self.0.node_addresses.write() = found;
    }
}

/// Returns the address with IPv4-mapped IPv6 turned into IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
