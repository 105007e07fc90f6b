//! Connections: their number, and the time limits of each.

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use weir_broker::{Broker, Taken, UsedUp};
use weir_types::limits::FETCH_WAIT_MS_MAX;
use weir_types::sync::Mutex;

/// Time for the head of a request, from its first byte or from the answer before: a keep-alive connection
/// that idles longer is closed.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Time after which a client that reads nothing of its answer counts as gone.
const WRITE_WITHIN: Duration = Duration::from_secs(60);
/// Time without bytes from a client: longer than an answer may wait for records.
const READ_WITHIN: Duration = Duration::from_millis(FETCH_WAIT_MS_MAX + 15_000);
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Pause after the system ran short of files or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Time for connections to end when the node stops.
const END_WITHIN: Duration = Duration::from_secs(2);
/// Answer to a client that finds no place.
fn full(error: &UsedUp) -> String {
    let body = json!({ "error": { "kind": "retry", "message": error.to_string() } }).to_string();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Serves `router` on `listener` until `stop` resolves, on as many connections at once as the ledger of
/// `broker` allows.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    broker: Broker,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let ledger = broker.ledger();
    let ending = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A lost connection or a shortage: neither ends the listener.
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let from = Some(peer.ip());
        match ledger.http.try_take(1, from) {
            Ok(place) => connection(socket, Client(peer.ip()), router.clone(), place, &ending),
            Err(error) => {
                tracing::debug!(%peer, %error, "HTTP connection refused");
                let _ = socket.try_write(full(&error).as_bytes());
            }
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(END_WITHIN, ending.shutdown()).await;
    Ok(())
}

/// Address of the client of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(pub(crate) IpAddr);

/// Deadline for the client to take the answer that a connection sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<Mutex<Option<Instant>>>);

impl Watch {
    /// Starts an answer, which the client has to take `within` this time.
    pub(crate) fn begin(&self, within: Duration) -> Watching {
        let watching = Watching {
            watch: self.clone(),
            begun: Instant::now(),
        };
        watching.until(within);
        watching
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock() = until;
    }

    /// Resolves once an answer is overdue.
    async fn over(self) {
        loop {
            let until = *self.0.lock();
            if until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
            tokio::time::sleep(WRITE_WITHIN / 2).await;
        }
    }
}

/// An answer in transit.
pub(crate) struct Watching {
    watch: Watch,
    begun: Instant,
}

impl Watching {
    /// Extends the time to `within`, counted from the beginning.
    pub(crate) fn until(&self, within: Duration) {
        self.watch.set(Some(self.begun + within));
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watch.set(None);
    }
}

fn connection(socket: TcpStream, client: Client, router: Router, place: Taken, ending: &GracefulShutdown) {
    let _ = socket.set_nodelay(true);
    let mut timed = TimeoutStream::new(socket);
    timed.set_read_timeout(Some(READ_WITHIN));
    timed.set_write_timeout(Some(WRITE_WITHIN));
    let router = TowerToHyperService::new(router);
    let watch = Watch::default();
    let slow = watch.clone().over();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(watch.clone());
        router.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(timed)), service);
    let served = ending.watch(served);
    tokio::spawn(async move {
        tokio::select! {
            served = served => if let Err(error) = served {
                tracing::debug!(%error, "HTTP connection ended");
            },
            () = slow => tracing::debug!("HTTP connection ended: its answer was taken too slowly"),
        }
        drop(place);
    });
}
