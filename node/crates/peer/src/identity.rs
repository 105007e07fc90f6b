//! Keys of nodes: made on first start, pinned on first use.

use crate::error::PeerError;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// SHA-256 of a node's certificate, which it signs itself and never changes: its name among peers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(crate) fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node's key and certificate.
pub struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    /// Reads the identity in `dir`, or makes one.
    ///
    /// # Errors
    /// When the files cannot be read or written.
    pub fn load_or_make(dir: &Path) -> Result<Self, PeerError> {
        let (cert_path, key_path) = (dir.join("identity.crt"), dir.join("identity.key"));
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |source| PeerError::Identity { path, source }
        };
        if let (Ok(certificate), Ok(key)) = (fs::read(&cert_path), fs::read(&key_path)) {
            return Ok(Self {
                certificate: CertificateDer::from(certificate),
                key,
            });
        }
        let (certificate, key) = Self::make().map_err(|e| PeerError::Tls(e.to_string()))?;
        fs::create_dir_all(dir).map_err(io(dir))?;
        write_synced(&key_path, 0o600, &key).map_err(io(&key_path))?;
        write_synced(&cert_path, 0o644, &certificate).map_err(io(&cert_path))?;
        Ok(Self {
            certificate: CertificateDer::from(certificate),
            key,
        })
    }

    /// A certificate and its key. Ed25519 (RFC 8032): small, and its signatures are always of one size, so that a
    /// simulated handshake is the same each time.
    fn make() -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let certificate = rcgen::CertificateParams::new(vec!["weir".to_owned()])?.self_signed(&key)?;
        Ok((certificate.der().to_vec(), key.serialize_der()))
    }

    /// Its name among peers.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }
}

fn write_synced(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Keys of the nodes that a client has met: a line each, `HOST:PORT FINGERPRINT`.
/// Clones share what they know.
#[derive(Clone, Debug)]
pub struct KnownNodes {
    /// `None`: remembered only while the program runs.
    path: Option<PathBuf>,
    met: Arc<Mutex<Vec<(String, String)>>>,
}

impl KnownNodes {
    /// Those in the file at `path`, which is made when a first node is met.
    pub fn at(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = |l: &str| {
            l.split_once(' ')
                .map(|(a, f)| (a.to_owned(), f.trim().to_owned()))
        };
        Self {
            met: Arc::new(Mutex::new(text.lines().filter_map(line).collect())),
            path: Some(path),
        }
    }

    /// None, and none are kept.
    pub fn forgetful() -> Self {
        Self {
            path: None,
            met: Arc::default(),
        }
    }

    /// Where they are kept.
    pub(crate) fn path(&self) -> String {
        self.path
            .as_ref()
            .map(|p| p.display().to_string())
            .unwrap_or_default()
    }

    /// The key that the node at `addr` had, or this one from now on.
    pub(crate) fn meet(&self, addr: &str, seen: Fingerprint) -> Result<(), String> {
        let mut met = self.met.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let seen = seen.to_string();
        if let Some((_, known)) = met.iter().find(|(a, _)| a == addr) {
            return if *known == seen {
                Ok(())
            } else {
                Err(known.clone())
            };
        }
        met.push((addr.to_owned(), seen));
        if let Some(path) = &self.path {
            let text: String = met.iter().map(|(a, f)| format!("{a} {f}\n")).collect();
            let written = path
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::write(path, text));
            if let Err(e) = written {
                tracing::warn!(path = %path.display(), error = %e, "the node's key is not remembered");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_known_again_and_another_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_make(dir.path()).unwrap();
        assert_eq!(
            Identity::load_or_make(dir.path()).unwrap().fingerprint(),
            identity.fingerprint()
        );
        let path = dir.path().join("known");
        KnownNodes::at(path.clone())
            .meet("h:1", identity.fingerprint())
            .unwrap();
        let known = KnownNodes::at(path);
        known.meet("h:1", identity.fingerprint()).unwrap();
        assert!(known.meet("h:1", Fingerprint::of(b"other")).is_err());
        known.meet("h:2", Fingerprint::of(b"other")).unwrap();
    }
}
