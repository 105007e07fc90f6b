//! Addresses of the nodes of the site.

use crate::core::Broker;
use std::net::SocketAddr;
use std::sync::PoisonError;

impl Broker {
    /// Returns true if [`Broker::nodes_are_at`] was given this address.
    pub fn has_node_at(&self, address: SocketAddr) -> bool {
        let addresses = self
            .0
            .node_addresses
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.contains(&canonical(address))
    }

    /// The addresses at which the nodes of the site say they are reached.
    pub fn nodes_are_at(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let found = addresses.into_iter().map(canonical).collect();
        *self
            .0
            .node_addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// Returns the address with IPv4-mapped IPv6 turned into IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
