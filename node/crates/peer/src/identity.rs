//! Keys of nodes: generated on first start, pinned on first connection.

use crate::error::PeerError;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weir_types::sync::Mutex;

/// SHA-256 of a node's certificate. A node signs its own certificate and never changes it, so the fingerprint
/// identifies the node.
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

/// A node's certificate and private key.
pub struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    /// Loads the identity from `dir`, or generates a new identity if neither file exists.
    ///
    /// # Errors
    /// [`PeerError::Identity`] if a file cannot be read or written; a variant of its own for half, broken and
    /// exposed identities.
    pub fn load_or_make(dir: &Path) -> Result<Self, PeerError> {
        let (cert_path, key_path) = (dir.join("identity.crt"), dir.join("identity.key"));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| io_error(&path, source)
        };
        let read = |path: &Path| match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error(path, e)),
        };
        match (read(&cert_path)?, read(&key_path)?) {
            (Some(certificate), Some(key)) => {
                let mode = fs::metadata(&key_path)
                    .map_err(io(&key_path))?
                    .permissions()
                    .mode();
                if mode & 0o077 != 0 {
                    return Err(PeerError::OpenKey {
                        path: key_path.display().to_string(),
                        mode: mode & 0o777,
                    });
                }
                let identity = Self {
                    certificate: CertificateDer::from(certificate),
                    key,
                };
                identity.check().map_err(|why| PeerError::BrokenIdentity {
                    certificate: cert_path.display().to_string(),
                    key: key_path.display().to_string(),
                    why: why.to_string(),
                })?;
                return Ok(identity);
            }
            (None, None) => {}
            // Peers know the node by its certificate: a lone half is reported, never replaced by a new
            // identity.
            (certificate, _) => {
                let (missing, there) = match certificate {
                    None => (&cert_path, &key_path),
                    Some(_) => (&key_path, &cert_path),
                };
                return Err(PeerError::HalfIdentity {
                    missing: missing.display().to_string(),
                    there: there.display().to_string(),
                });
            }
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

    /// Checks that the key is valid and matches the certificate.
    fn check(&self) -> Result<(), rustls::Error> {
        let provider = rustls::crypto::ring::default_provider();
        let key = provider.key_provider.load_private_key(self.key())?;
        rustls::sign::CertifiedKey::new(vec![self.certificate.clone()], key).keys_match()
    }

    /// Generates a certificate and its key. Ed25519 (RFC 8032) keys are small, and all signatures have the
    /// same size, so simulated handshakes are reproducible.
    fn make() -> Result<(Vec<u8>, Vec<u8>), rcgen::Error> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let certificate = rcgen::CertificateParams::new(vec!["weir".to_owned()])?.self_signed(&key)?;
        Ok((certificate.der().to_vec(), key.serialize_der()))
    }

    /// Returns the fingerprint of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()))
    }
}

fn io_error(path: &Path, source: io::Error) -> PeerError {
    PeerError::Identity {
        path: path.display().to_string(),
        source,
    }
}

fn write_synced(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Keys of the nodes that a client has connected to. The file holds a line per node: `HOST:PORT FINGERPRINT`.
/// Clones share the list.
#[derive(Clone, Debug)]
pub struct KnownNodes {
    /// `None`: the keys are kept in memory only.
    path: Option<PathBuf>,
    met: Arc<Mutex<Vec<(String, String)>>>,
    /// Fingerprints accepted from nodes that are not yet known; empty: any.
    expected: Vec<String>,
}

impl KnownNodes {
    /// Loads the known nodes from the file at `path`. The first connection to a node creates the file.
    ///
    /// # Errors
    /// If the file exists and cannot be read or parsed; the file stays as it is.
    pub fn at(path: PathBuf) -> Result<Self, PeerError> {
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(io_error(&path, e)),
        };
        let mut met = Vec::new();
        for (n, line) in bytes
            .split(|b| *b == b'\n')
            .enumerate()
            .filter(|(_, line)| !line.is_empty())
        {
            let line = str::from_utf8(line).ok().and_then(|line| line.split_once(' '));
            let is_key = |key: &str| key.len() == 64 && key.bytes().all(|b| b.is_ascii_hexdigit());
            let (addr, key) =
                line.filter(|(_, key)| is_key(key.trim()))
                    .ok_or_else(|| PeerError::KnownNodes {
                        path: path.display().to_string(),
                        line: n + 1,
                    })?;
            met.push((addr.to_owned(), key.trim().to_owned()));
        }
        Ok(Self {
            met: Arc::new(Mutex::new(met)),
            path: Some(path),
            expected: Vec::new(),
        })
    }

    /// Restricts nodes that are not yet known to the fingerprints in `keys`; an empty list accepts any node.
    pub fn expecting(self, keys: Vec<String>) -> Self {
        Self {
            expected: keys,
            ..self
        }
    }

    /// Returns an empty list that is never written to disk.
    pub fn forgetful() -> Self {
        Self {
            path: None,
            met: Arc::default(),
            expected: Vec::new(),
        }
    }

    /// Returns the path of the file, empty if there is none.
    pub(crate) fn path(&self) -> String {
        self.path
            .as_ref()
            .map(|p| p.display().to_string())
            .unwrap_or_default()
    }

    /// Checks `seen` against the recorded key of the node at `addr`, or records `seen` if the node is new.
    /// The error says which key was expected, or why the key cannot be recorded.
    pub(crate) fn meet(&self, addr: &str, seen: Fingerprint) -> Result<(), String> {
        let mut met = self.met.lock();
        let seen = seen.to_string();
        if let Some((_, known)) = met.iter().find(|(a, _)| a == addr) {
            return if *known == seen {
                Ok(())
            } else {
                Err(known.clone())
            };
        }
        if !self.expected.is_empty() && !self.expected.contains(&seen) {
            return Err(format!("by `--key` {}", self.expected.join(" or ")));
        }
        met.push((addr.to_owned(), seen));
        let Some(path) = &self.path else { return Ok(()) };
        let text: String = met.iter().map(|(a, f)| format!("{a} {f}\n")).collect();
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = made
            .and_then(|()| write_synced(&fresh, 0o600, text.as_bytes()))
            .and_then(|()| fs::rename(&fresh, path));
        written.map_err(|e| {
            met.pop();
            format!(
                "not recorded, because `{}` cannot be written: {e}",
                path.display()
            )
        })
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
            .unwrap()
            .meet("h:1", identity.fingerprint())
            .unwrap();
        let known = KnownNodes::at(path.clone()).unwrap();
        known.meet("h:1", identity.fingerprint()).unwrap();
        assert!(known.meet("h:1", Fingerprint::of(b"other")).is_err());
        known.meet("h:2", Fingerprint::of(b"other")).unwrap();
        // A damaged byte must not erase the known keys.
        let whole = fs::read(&path).unwrap();
        for bad in [&b"\xff"[..], b"h:3", b"h:3 short\n"] {
            fs::write(&path, [&whole, bad].concat()).unwrap();
            let refused = KnownNodes::at(path.clone()).unwrap_err().to_string();
            assert!(
                refused.contains("known") && refused.contains("line 3"),
                "{refused}"
            );
        }
        fs::write(&path, &whole).unwrap();
        let key = Fingerprint::of(b"this").to_string();
        let expecting = KnownNodes::at(path).unwrap().expecting(vec![key]);
        assert!(expecting.meet("h:4", Fingerprint::of(b"other")).is_err());
        expecting.meet("h:4", Fingerprint::of(b"this")).unwrap();
    }

    #[test]
    fn half_an_identity_and_an_open_key_are_refused_and_left_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_make(dir.path()).unwrap();
        let (cert, key) = (dir.path().join("identity.crt"), dir.path().join("identity.key"));
        for (gone, left) in [(&cert, &key), (&key, &cert)] {
            let (was, stays) = (fs::read(gone).unwrap(), fs::read(left).unwrap());
            fs::remove_file(gone).unwrap();
            let refused = Identity::load_or_make(dir.path()).err().unwrap().to_string();
            assert!(refused.contains(&gone.display().to_string()), "{refused}");
            assert_eq!(fs::read(left).unwrap(), stays);
            write_synced(gone, 0o600, &was).unwrap();
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = Identity::load_or_make(dir.path()).err().unwrap().to_string();
        assert!(
            refused.contains("identity.key") && refused.contains("644"),
            "{refused}"
        );
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let again = Identity::load_or_make(dir.path()).unwrap();
        assert_eq!(again.fingerprint(), identity.fingerprint());
    }
}
