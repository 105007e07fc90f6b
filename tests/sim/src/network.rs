//! QUIC over turmoil's datagrams, some of which are lost or come twice.

use crate::entropy::Dice;
use crate::knobs::Knobs;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, ServerConfig, UdpPoller};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep};
use weir_peer::Network;

/// The network of a node.
pub(crate) struct Simulated {
    pub(crate) socket: Arc<turmoil::net::UdpSocket>,
    pub(crate) knobs: Arc<Knobs>,
    pub(crate) dice: Dice,
    pub(crate) seed: u64,
}

impl Network for Simulated {
    fn bind(&self, _: SocketAddr, server: Option<ServerConfig>) -> io::Result<Endpoint> {
        let socket = Socket {
            inner: Arc::clone(&self.socket),
            readable: Mutex::new(None),
            knobs: Arc::clone(&self.knobs),
            dice: Mutex::new(self.dice.clone()),
        };
        let mut config = EndpointConfig::default();
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.seed.to_be_bytes());
        config.rng_seed(Some(bytes));
        Endpoint::new_with_abstract_socket(config, server, Arc::new(socket), Arc::new(VirtualTime))
    }
}

type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

struct Socket {
    inner: Arc<turmoil::net::UdpSocket>,
    readable: Mutex<Option<Readable>>,
    knobs: Arc<Knobs>,
    dice: Mutex<Dice>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

/// There is always room to send.
#[derive(Debug)]
struct Ready;

impl UdpPoller for Ready {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Ready)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        let (lost, twice) = (
            self.knobs.lost_permille.load(Ordering::Relaxed),
            self.knobs.twice_permille.load(Ordering::Relaxed),
        );
        if dice.roll(1_000) < u64::from(lost) {
            return Ok(());
        }
        let copies = 1 + u32::from(dice.roll(1_000) < u64::from(twice));
        for _ in 0..copies {
            match self.inner.try_send_to(transmit.contents, transmit.destination) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(e),
                // Nobody there, or no way there: as on a real network, that is no error of this side.
                _ => {}
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.inner.try_recv_from(&mut bufs[0]) {
                Ok((len, addr)) => {
                    meta[0] = RecvMeta {
                        addr,
                        len,
                        stride: len,
                        ecn: None,
                        dst_ip: None,
                    };
                    return Poll::Ready(Ok(1));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let mut readable = self.readable.lock().unwrap_or_else(PoisonError::into_inner);
                    let inner = Arc::clone(&self.inner);
                    let waiting =
                        readable.get_or_insert_with(|| Box::pin(async move { inner.readable().await }));
                    let is = ready!(waiting.as_mut().poll(cx));
                    *readable = None;
                    is?;
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// The clock of the node's runtime.
#[derive(Debug)]
struct VirtualTime;

impl Runtime for VirtualTime {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer(Box::pin(tokio::time::sleep_until(at.into()))))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::other("there are no real sockets here"))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

#[derive(Debug)]
struct Timer(Pin<Box<Sleep>>);

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: std::time::Instant) {
        self.0.as_mut().reset(at.into());
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(self.0.as_mut(), cx)
    }
}
