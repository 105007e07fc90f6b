//! Listening and connecting.

use crate::error::PeerError;
use crate::identity::{Fingerprint, Identity, KnownNodes};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Connection, Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Names in the TLS handshake of what clients speak and of what nodes of a site speak among each other, with their
/// major version.
const CLIENTS: &[u8] = b"weir/0";
const PEERS: &[u8] = b"weir-peer/0";
/// Nodes of a site miss each other soon: a new connection costs a few packets, an old one that is dead holds up votes.
const PEER_KEEP_ALIVE: Duration = Duration::from_millis(500);
const PEER_IDLE: Duration = Duration::from_secs(3);
/// Connecting to a node of the site gives up after this long: two lost packets on a bad radio link.
const PEER_CONNECT: Duration = Duration::from_secs(2);
/// What a node of the site may send ahead in all: the entries under way to a follower.
const PEER_WINDOW_BYTES: u32 = 16 << 20;
/// Several of these fit in [`IDLE`], so that one lost packet ends nothing; a NAT forgets a flow much later.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// A peer that is silent for this long is gone: as Kafka's session timeout once was.
const IDLE: Duration = Duration::from_secs(10);
/// Connecting gives up after this long.
const CONNECT: Duration = Duration::from_secs(5);
/// What a peer may send ahead on one stream and in all: quinn's defaults would allow 250 MB a peer.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// What may wait here for a peer to take it.
const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// Each stream may pin one answer of [`weir_types::limits::FETCH_BYTES_MAX`] while its peer does not read.
const STREAMS_MAX: u32 = 32;
/// Handshakes waiting to be looked at, and what they may send ahead.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL: u64 = 8 << 20;

/// A socket that takes connections.
pub struct Listener {
    endpoint: Endpoint,
}

/// A connection that begins.
pub struct Incoming(quinn::Incoming);

/// A connection to a peer.
#[derive(Clone)]
pub struct Peer {
    connection: Connection,
    /// Kept so that the socket lives as long as the connection.
    _endpoint: Option<Endpoint>,
}

/// Both directions of a stream.
pub struct PeerStream {
    /// To the peer.
    pub tx: quinn::SendStream,
    /// From the peer.
    pub rx: quinn::RecvStream,
}

fn provider() -> Arc<CryptoProvider> {
    // The process's own, if it has one: the simulation brings keys that follow from its seed.
    let own = CryptoProvider::get_default().cloned();
    own.unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok())
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    transport
}

/// Where datagrams come from and go to, and the time that goes by meanwhile: the simulation has its own.
pub trait Network: Send + Sync {
    /// Binds a socket to `addr` and speaks QUIC on it, as a server if `server` says how.
    ///
    /// # Errors
    /// When the address is taken.
    fn bind(&self, addr: SocketAddr, server: Option<quinn::ServerConfig>) -> std::io::Result<Endpoint>;
}

/// The operating system's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNetwork;

impl Network for SystemNetwork {
    fn bind(&self, addr: SocketAddr, server: Option<quinn::ServerConfig>) -> std::io::Result<Endpoint> {
        let socket = UdpSocket::bind(addr)?;
        let runtime = quinn::default_runtime().ok_or_else(|| std::io::Error::other("no async runtime"))?;
        Endpoint::new(EndpointConfig::default(), server, socket, runtime)
    }
}

/// Listens on `addr`.
///
/// # Errors
/// When the address is taken or the identity is not usable.
pub fn listen(addr: SocketAddr, identity: &Identity) -> Result<Listener, PeerError> {
    listen_on(&SystemNetwork, addr, identity)
}

/// As [`listen`], on a network of the caller's.
///
/// # Errors
/// As [`listen`].
pub fn listen_on(
    network: &dyn Network,
    addr: SocketAddr,
    identity: &Identity,
) -> Result<Listener, PeerError> {
    let tls = |e: &dyn std::fmt::Display| PeerError::Tls(e.to_string());
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| tls(&e))?
        .with_client_cert_verifier(Arc::new(Pinned::new()))
        .with_single_cert(vec![identity.certificate.clone()], identity.key())
        .map_err(|e| tls(&e))?;
    config.alpn_protocols = vec![CLIENTS.to_vec(), PEERS.to_vec()];
    let crypto = QuicServerConfig::try_from(config).map_err(|e| tls(&e))?;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    server
        .transport_config(Arc::new(transport()))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    let bound = network.bind(addr, Some(server));
    let endpoint = bound.map_err(|source| PeerError::Listen { addr, source })?;
    Ok(Listener { endpoint })
}

impl Listener {
    /// Where it listens: tells the port when 0 was asked for.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// Connects to the node of the site at `addr`, from this socket, and makes sure that its key is `expected`, if
    /// that is given. Both sides prove their keys.
    ///
    /// # Errors
    /// When nobody answers, or somebody else does.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn connect(
        &self,
        addr: SocketAddr,
        identity: &Identity,
        expected: Option<&str>,
    ) -> Result<Peer, PeerError> {
        let tls = |e: &dyn std::fmt::Display| PeerError::Tls(e.to_string());
        let verifier = Arc::new(Pinned::new());
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| tls(&e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_auth_cert(vec![identity.certificate.clone()], identity.key())
            .map_err(|e| tls(&e))?;
        config.alpn_protocols = vec![PEERS.to_vec()];
        let crypto = QuicClientConfig::try_from(config).map_err(|e| tls(&e))?;
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = transport();
        transport
            .keep_alive_interval(Some(PEER_KEEP_ALIVE))
            .max_idle_timeout(IdleTimeout::try_from(PEER_IDLE).ok())
            .receive_window(VarInt::from_u32(PEER_WINDOW_BYTES))
            .send_window(u64::from(PEER_WINDOW_BYTES));
        client.transport_config(Arc::new(transport));
        let fail = |why: String| PeerError::Connect { addr, why };
        let connecting = self.endpoint.connect_with(client, addr, "weir");
        let connecting = connecting.map_err(|e| fail(e.to_string()))?;
        let connection = tokio::time::timeout(PEER_CONNECT, connecting)
            .await
            .map_err(|_| fail("timed out".to_owned()))?;
        let connection = connection.map_err(|e| fail(e.to_string()))?;
        let seen = verifier.seen().map(|f| f.to_string()).unwrap_or_default();
        if expected.is_some_and(|e| e != seen) {
            connection.close(VarInt::from_u32(1), b"another key was expected");
            return Err(PeerError::Stranger { addr, seen });
        }
        Ok(Peer {
            connection,
            _endpoint: None,
        })
    }

    /// The next connection that begins; `None` once closed.
    pub async fn accept(&self) -> Option<Incoming> {
        self.endpoint.accept().await.map(Incoming)
    }

    /// Tells all peers and takes no more.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"shutting down");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

impl Incoming {
    /// Whether it can be asked to show first that its address is its own.
    pub fn may_retry(&self) -> bool {
        self.0.may_retry()
    }

    /// Asks it to show that its address is its own: it comes again.
    pub fn retry(self) {
        let _ = self.0.retry();
    }

    /// Where it comes from.
    pub fn remote_addr(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Finishes the handshake.
    ///
    /// # Errors
    /// When the peer does not.
    pub async fn handshake(self) -> Result<Peer, PeerError> {
        let lost = |e: quinn::ConnectionError| PeerError::Lost(e.to_string());
        Ok(Peer {
            connection: self.0.await.map_err(lost)?,
            _endpoint: None,
        })
    }

    /// Turns it away.
    pub fn refuse(self) {
        self.0.refuse();
    }
}

/// Connects to the node at `addr` and checks its key against those known.
///
/// # Errors
/// When nobody answers, or the key is another than it was.
///
/// # Cancel safety
/// Safe.
pub async fn connect(addr: SocketAddr, known: &KnownNodes) -> Result<Peer, PeerError> {
    let any = match addr {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    };
    connect_from(any, addr, known).await
}

/// As [`connect`], from an address of this machine.
///
/// # Errors
/// As there, and when `from` is not an address of this machine.
///
/// # Cancel safety
/// Safe.
pub async fn connect_from(from: SocketAddr, addr: SocketAddr, known: &KnownNodes) -> Result<Peer, PeerError> {
    let tls = |e: &dyn std::fmt::Display| PeerError::Tls(e.to_string());
    let verifier = Arc::new(Pinned::new());
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| tls(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_no_client_auth();
    config.alpn_protocols = vec![CLIENTS.to_vec()];
    let crypto = QuicClientConfig::try_from(config).map_err(|e| tls(&e))?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(transport()));
    let fail = |why: String| PeerError::Connect { addr, why };
    let endpoint = SystemNetwork.bind(from, None).map_err(|e| fail(e.to_string()))?;
    let connecting = endpoint
        .connect_with(client, addr, "weir")
        .map_err(|e| fail(e.to_string()))?;
    let connection = tokio::time::timeout(CONNECT, connecting)
        .await
        .map_err(|_| fail("timed out".to_owned()))?;
    let connection = connection.map_err(|e| fail(e.to_string()))?;
    // The handshake proved that the node holds the key of the certificate it showed.
    let seen = verifier.seen();
    let seen = seen.ok_or_else(|| PeerError::Tls("node showed no certificate".to_owned()))?;
    known
        .meet(&addr.to_string(), seen)
        .map_err(|was| PeerError::KeyChanged {
            addr,
            seen: seen.to_string(),
            known: was,
            path: known.path(),
        })?;
    Ok(Peer {
        connection,
        _endpoint: Some(endpoint),
    })
}

impl Peer {
    /// Where the peer is now.
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Lets it send ahead what a node of the site may; for one that is known.
    pub fn widen(&self) {
        self.connection
            .set_receive_window(VarInt::from_u32(PEER_WINDOW_BYTES));
        self.connection.set_send_window(u64::from(PEER_WINDOW_BYTES));
    }

    /// Whether it speaks as a node of the site does, not as a client.
    pub fn is_node(&self) -> bool {
        let data = self.connection.handshake_data();
        let data = data.and_then(|d| d.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
        data.and_then(|d| d.protocol).as_deref() == Some(PEERS)
    }

    /// The key that the other side proved, in hexadecimal; `None` for a client without.
    pub fn key(&self) -> Option<String> {
        let certificates = self.connection.peer_identity()?;
        let certificates = certificates.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        certificates.first().map(|c| Fingerprint::of(c).to_string())
    }

    /// Bytes that both sides of this connection know, and nobody else: what a proof is bound to.
    pub fn binding(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // Fails only for absurd lengths.
        let _ = self
            .connection
            .export_keying_material(&mut bytes, b"weir join", b"");
        bytes
    }

    /// Datagrams that have come so far: a connection that lives brings some, if only keep-alives.
    pub fn datagrams_received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn open(&self) -> Result<PeerStream, PeerError> {
        let (tx, rx) = self
            .connection
            .open_bi()
            .await
            .map_err(|e| PeerError::Lost(e.to_string()))?;
        Ok(PeerStream { tx, rx })
    }

    /// The next stream that the peer opens.
    ///
    /// # Errors
    /// When the connection is lost or closed.
    pub async fn accept(&self) -> Result<PeerStream, PeerError> {
        let (tx, rx) = self
            .connection
            .accept_bi()
            .await
            .map_err(|e| PeerError::Lost(e.to_string()))?;
        Ok(PeerStream { tx, rx })
    }

    /// Ends the connection, with a reason for the peer.
    pub fn close(&self, reason: &str) {
        self.connection.close(VarInt::from_u32(0), reason.as_bytes());
    }

    /// Waits until what was sent is acknowledged, or a second has passed. For a client that is done.
    pub async fn finish(&self) {
        self.close("done");
        if let Some(endpoint) = &self._endpoint {
            let _ = tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
        }
    }
}

/// Takes any certificate in the handshake and notes it: whether it is the right one is decided after, against the
/// known nodes. Names and dates are not looked at; a gateway may have neither a name nor a clock.
#[derive(Debug)]
struct Pinned {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<Fingerprint>>,
}

impl Pinned {
    fn new() -> Self {
        Self {
            provider: provider(),
            seen: Mutex::new(None),
        }
    }

    /// That the other side holds the key of the certificate it showed.
    fn verify(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }

    fn seen(&self) -> Option<Fingerprint> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("TLS 1.2 is not used".to_owned()))
}

/// Clients need no certificate; nodes of the site show theirs, and prove that they hold its key. Whether it is one of
/// the site's is looked at when the connection stands.
impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(Fingerprint::of(end_entity));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
