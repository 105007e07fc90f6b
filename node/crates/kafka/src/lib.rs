//! The Kafka listener: the wire protocol, a file per request, and nothing but translation to the broker.
//!
//! [`wire`] reads and writes messages and checks every count and length against the bytes received. [`api`]
//! has a table of fields and a translation for each request. [`connection`] keeps answers in order. The crate
//! knows no log, no Wasm and no other protocol.

mod api;
pub mod client;
mod configs;
mod connection;
mod error;
mod node;
mod skim;
#[cfg(test)]
mod tests;
mod wire;

pub use node::Settings;
pub use wire::WireError;

use bytes::Bytes;
use node::{Node, Session};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use weir_broker::Broker;
use weir_types::sync::Mutex;

/// Pause of accepting when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Maximum log lines per second about connections closed for protocol errors: a client that does not speak
/// Kafka cannot fill the disk with lines.
const LINES_A_SECOND: u32 = 10;

/// Start of the current second, lines written in it, and lines suppressed.
#[derive(Default)]
struct Told(Mutex<(Option<Instant>, u32, u64)>);

impl Told {
    /// Returns the number of lines suppressed since the last written line; `None` if this line is suppressed.
    fn worth_a_line(&self) -> Option<u64> {
        let mut told = self.0.lock();
        let (since, lines, others) = &mut *told;
        if since.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            (*since, *lines) = (Some(Instant::now()), 0);
        }
        if *lines >= LINES_A_SECOND {
            *others += 1;
            return None;
        }
        *lines += 1;
        Some(std::mem::take(others))
    }
}

/// Accepts connections until the future is dropped.
///
/// # Cancel safety
/// Safe: the listener is closed with the future, and accepted connections end.
pub fn serve(
    listener: TcpListener,
    broker: Broker,
    settings: Settings,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let node = Arc::new(Node::new(broker, settings));
        let told = Arc::new(Told::default());
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a Kafka connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let place = match node.broker.ledger().kafka.try_take(1, Some(peer.ip())) {
                Ok(place) => place,
                Err(error) => {
                    tracing::debug!(%peer, %error, "Kafka connection refused");
                    continue;
                }
            };
            let Ok(local) = stream.local_addr() else { continue };
            let session = Session::new(Arc::clone(&node), peer, local);
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                match connection::serve(stream, session).await {
                    Ok(()) => {}
                    Err(connection::ConnectionError::Io(error)) => {
                        tracing::debug!(%peer, %error, "Kafka client went away")
                    }
                    Err(error) => {
                        if let Some(others) = told.worth_a_line() {
                            tracing::warn!(%peer, %error, others, "Kafka connection closed");
                        }
                    }
                }
                drop(place);
            });
        }
    })
}

/// Splits a stream like a connection does: key, version and body of each complete request, up to the first
/// invalid request. For fuzzing.
pub fn requests(stream: Bytes) -> Vec<(i16, i16, Bytes)> {
    connection::requests(stream)
}

/// Decodes `body` as the request `key` of `version` and encodes it again; returns `None` for an unknown
/// request. For fuzzing and for comparison with other implementations.
///
/// # Errors
/// If the bytes are not such a request.
pub fn round_trip(key: i16, version: i16, body: Bytes) -> Option<Result<Vec<u8>, WireError>> {
    api::round_trip(key, version, body)
}
