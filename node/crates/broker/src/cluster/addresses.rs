//! Addresses of the nodes of the site.

use crate::core::Broker;
use std::net::SocketAddr;
use std::sync::PoisonError;

impl Broker {
    /// Whether a node of the site is reached at this address, as far as [`Broker::nodes_are_at`] was told.
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

/// The same, whether it was said as IPv4 or as that within IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
