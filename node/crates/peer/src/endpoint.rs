//! QUIC endpoints: listening, connecting, and the connections that result.

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
use std::sync::Arc;
use std::time::Duration;
use weir_types::sync::Mutex;

/// ALPN names (with major version) of the client protocol and of the protocol between nodes of a site.
const CLIENTS: &[u8] = b"weir/0";
const PEERS: &[u8] = b"weir-peer/0";
/// Interval of keep-alives between nodes of a site. Nodes must detect a dead connection soon: a new
/// connection costs a few packets, a dead connection delays votes.
const PEER_KEEP_ALIVE: Duration = Duration::from_millis(500);
const PEER_IDLE: Duration = Duration::from_secs(3);
/// Timeout for connecting to a node of the site: two lost packets on a bad radio link.
const PEER_CONNECT: Duration = Duration::from_secs(2);
/// Flow-control window of a connection between nodes, in bytes: the entries in flight to a follower.
const PEER_WINDOW_BYTES: u32 = 16 << 20;
/// Interval of keep-alives. Several intervals fit in [`IDLE`], so a lost packet ends no connection; NATs
/// forget a flow much later.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Idle time after which a silent peer counts as dead; Kafka's former default session timeout.
const IDLE: Duration = Duration::from_secs(10);
/// Timeout for connecting as a client.
const CONNECT: Duration = Duration::from_secs(5);
/// Receive windows of a stream and of a connection, in bytes; quinn's defaults would allow 250 MB per peer.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Unacknowledged bytes that a connection buffers for its peer.
const SEND_WINDOW_BYTES: u64 = 4 << 20;
/// Concurrent streams per connection: each may pin an answer of [`weir_types::limits::FETCH_BYTES_MAX`] while
/// its peer does not read.
const STREAMS_MAX: u32 = 32;
/// Limits of pending handshakes: their number, and the bytes buffered for each and for all.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL: u64 = 8 << 20;

/// A bound socket that accepts connections.
pub struct Listener {
    endpoint: Endpoint,
}

/// An incoming connection before its handshake.
pub struct Incoming(quinn::Incoming);

/// An established connection to a peer. Clones share the connection.
#[derive(Clone)]
pub struct Peer {
    connection: Connection,
    /// Keeps the socket open as long as the connection.
    _endpoint: Option<Endpoint>,
}

/// A bidirectional stream.
pub struct PeerStream {
    /// Sending half.
    pub tx: quinn::SendStream,
    /// Receiving half.
    pub rx: quinn::RecvStream,
}

fn provider() -> Arc<CryptoProvider> {
    // A provider installed for the process wins: the simulation derives its keys from its seed.
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

/// Source of datagrams and time. The simulation implements its own.
pub trait Network: Send + Sync {
    /// Binds a socket to `addr` and starts QUIC, as a server if `server` is given.
    ///
    /// # Errors
    /// If the address is in use or does not belong to this machine.
    fn bind(&self, addr: SocketAddr, server: Option<quinn::ServerConfig>) -> std::io::Result<Endpoint>;
}

/// The operating system's sockets and clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNetwork;

impl Network for SystemNetwork {
    fn bind(&self, addr: SocketAddr, server: Option<quinn::ServerConfig>) -> std::io::Result<Endpoint> {
        let socket = UdpSocket::bind(addr)?;
        let runtime = quinn::default_runtime().ok_or_else(|| std::io::Error::other("no async runtime"))?;
        Endpoint::new(EndpointConfig::default(), server, socket, runtime)
    }
}

/// Listens on `addr` for clients and nodes.
///
/// # Errors
/// [`PeerError::Listen`] if the address cannot be bound, [`PeerError::Tls`] if the identity is not usable.
pub fn listen(addr: SocketAddr, identity: &Identity) -> Result<Listener, PeerError> {
    listen_on(&SystemNetwork, addr, identity)
}

/// Listens on `addr` of the given `network`.
///
/// # Errors
/// [`PeerError::Listen`] if the address cannot be bound, [`PeerError::Tls`] if the identity is not usable.
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
    /// Returns the bound address, with the actual port if port 0 was requested.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    /// Connects from this socket to the node of the site at `addr`. Both sides prove their keys; if
    /// `expected` is given, the node's fingerprint (hexadecimal) must match.
    ///
    /// # Errors
    /// [`PeerError::Connect`] if no node answers, [`PeerError::Stranger`] if the node has another key.
    ///
    /// # Cancel safety
    /// Safe: a connection under way is abandoned.
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

    /// Waits for the next incoming connection; returns `None` once the listener is closed.
    ///
    /// # Cancel safety
    /// Safe: no connection is lost.
    pub async fn accept(&self) -> Option<Incoming> {
        self.endpoint.accept().await.map(Incoming)
    }

    /// Closes all connections, rejects new connections, and waits up to a second for peers to acknowledge.
    ///
    /// # Cancel safety
    /// Safe: the listener is closed; only the wait ends early.
    pub async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"shutting down");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

impl Incoming {
    /// Returns true if the peer has not yet validated its address.
    pub fn may_retry(&self) -> bool {
        self.0.may_retry()
    }

    /// Asks the peer to validate its address and connect again.
    pub fn retry(self) {
        let _ = self.0.retry();
    }

    /// Returns the address of the peer.
    pub fn remote_addr(&self) -> SocketAddr {
        self.0.remote_address()
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// [`PeerError::Lost`] if the peer breaks off or does not speak the protocol.
    ///
    /// # Cancel safety
    /// Safe: dropping the future ends the connection.
    pub async fn handshake(self) -> Result<Peer, PeerError> {
        let lost = |e: quinn::ConnectionError| PeerError::Lost(e.to_string());
        Ok(Peer {
            connection: self.0.await.map_err(lost)?,
            _endpoint: None,
        })
    }

    /// Refuses the connection.
    pub fn refuse(self) {
        self.0.refuse();
    }
}

/// Connects as a client to the node at `addr` and checks its key against the known nodes.
///
/// # Errors
/// [`PeerError::Connect`] if no node answers, [`PeerError::KeyChanged`] if the node's key differs from the
/// known key.
///
/// # Cancel safety
/// Safe: a connection under way is abandoned. The node's key may already be recorded.
pub async fn connect(addr: SocketAddr, known: &KnownNodes) -> Result<Peer, PeerError> {
    let any = match addr {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    };
    connect_from(any, addr, known).await
}

/// Connects as a client to the node at `addr`, from the local address `from`.
///
/// # Errors
/// [`PeerError::Connect`] if no node answers or `from` is not an address of this machine,
/// [`PeerError::KeyChanged`] if the node's key differs from the known key.
///
/// # Cancel safety
/// Safe: a connection under way is abandoned. The node's key may already be recorded.
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
    // The handshake proved that the node holds the private key of its certificate.
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
    /// Returns the current address of the peer.
    pub fn remote_addr(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// Raises the flow-control windows to those of a node. For authenticated nodes only.
    pub fn widen(&self) {
        self.connection
            .set_receive_window(VarInt::from_u32(PEER_WINDOW_BYTES));
        self.connection.set_send_window(u64::from(PEER_WINDOW_BYTES));
    }

    /// Returns true if the peer negotiated the protocol between nodes, false for a client.
    pub fn is_node(&self) -> bool {
        let data = self.connection.handshake_data();
        let data = data.and_then(|d| d.downcast::<quinn::crypto::rustls::HandshakeData>().ok());
        data.and_then(|d| d.protocol).as_deref() == Some(PEERS)
    }

    /// Returns the fingerprint (hexadecimal) of the key that the peer proved; `None` for a client without a
    /// certificate.
    pub fn key(&self) -> Option<String> {
        let certificates = self.connection.peer_identity()?;
        let certificates = certificates.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        certificates.first().map(|c| Fingerprint::of(c).to_string())
    }

    /// Returns 32 bytes that only the two ends of this connection know. Proofs are bound to these bytes.
    pub fn binding(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // Fails only for absurd lengths.
        let _ = self
            .connection
            .export_keying_material(&mut bytes, b"weir join", b"");
        bytes
    }

    /// Returns the number of UDP datagrams received so far. Keep-alives raise the number on an idle
    /// connection.
    pub fn datagrams_received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// Returns true if the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// [`PeerError::Lost`] if the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: the stream is not opened.
    pub async fn open(&self) -> Result<PeerStream, PeerError> {
        let (tx, rx) = self
            .connection
            .open_bi()
            .await
            .map_err(|e| PeerError::Lost(e.to_string()))?;
        Ok(PeerStream { tx, rx })
    }

    /// Waits for the next stream that the peer opens.
    ///
    /// # Errors
    /// [`PeerError::Lost`] if the connection is lost or closed.
    ///
    /// # Cancel safety
    /// Safe: no stream is lost.
    pub async fn accept(&self) -> Result<PeerStream, PeerError> {
        let (tx, rx) = self
            .connection
            .accept_bi()
            .await
            .map_err(|e| PeerError::Lost(e.to_string()))?;
        Ok(PeerStream { tx, rx })
    }

    /// Closes the connection and sends the peer a reason.
    pub fn close(&self, reason: &str) {
        self.connection.close(VarInt::from_u32(0), reason.as_bytes());
    }

    /// Waits until all sent data is acknowledged, for at most a second. Clients call this before they exit.
    ///
    /// # Cancel safety
    /// Safe: only the wait ends early.
    pub async fn finish(&self) {
        self.close("done");
        if let Some(endpoint) = &self._endpoint {
            let _ = tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
        }
    }
}

/// Accepts any certificate in the handshake and records its fingerprint. The caller compares the fingerprint
/// with the known nodes afterwards. Names and dates are ignored: a gateway may have neither a name nor a
/// clock.
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

    /// Verifies that the peer holds the private key of its certificate.
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
        *self.seen.lock()
    }
}

fn no_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::Error::General("TLS 1.2 is not used".to_owned()))
}

/// Clients need no certificate. Nodes of the site present their certificate and prove possession of its key;
/// membership is checked after the handshake.
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
        let mut seen = self.seen.lock();
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
