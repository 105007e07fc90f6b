//! The sockets of a node, all bound before any of them is served.

use crate::settings::Settings;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use weir_peer::Identity;

/// Bound sockets, and the addresses that they got.
pub(crate) struct Listeners {
    pub(crate) quic: Arc<weir_peer::Listener>,
    pub(crate) quic_addr: SocketAddr,
    pub(crate) http: TcpListener,
    pub(crate) http_addr: SocketAddr,
    pub(crate) kafka: Option<TcpListener>,
    pub(crate) kafka_addr: Option<SocketAddr>,
}

impl Listeners {
    /// Binds each address of `settings`. A witness keeps no records and has no port for Kafka clients.
    ///
    /// # Errors
    ///
    /// An address that cannot be bound, by its name.
    pub(crate) async fn bind(settings: &Settings, identity: &Identity, witness: bool) -> Result<Self> {
        let quic = Arc::new(weir_peer::listen(settings.quic, identity)?);
        let http = TcpListener::bind(settings.http).await;
        let http = http.with_context(|| format!("cannot listen on {}", settings.http))?;
        let kafka = match settings.kafka.0.filter(|_| !witness) {
            Some(addr) => {
                let bound = TcpListener::bind(addr).await;
                Some(bound.with_context(|| {
                    format!("cannot listen on {addr} for Kafka clients; `--kafka off` starts without")
                })?)
            }
            None => None,
        };
        Ok(Self {
            quic_addr: quic.local_addr().unwrap_or(settings.quic),
            http_addr: http.local_addr()?,
            kafka_addr: kafka.as_ref().map(TcpListener::local_addr).transpose()?,
            quic,
            http,
            kafka,
        })
    }
}
