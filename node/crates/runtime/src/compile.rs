//! Native code: made in a process of its own, kept under a key that only this node has.
//!
//! Loading native code means running it: the files of the cache are authenticated.

use crate::child::{CHILD_WITHIN, CONFINED, MAKE_COMPONENT, precompile, run_child};
use crate::componentize::componentize;
use crate::error::LoadError;
use crate::inspect::Digest;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::borrow::Cow;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use wasmtime::Engine;

/// Where compiling happens.
#[derive(Clone, Debug)]
pub enum CompileBy {
    /// In this process: for tools and tests, which have nothing to lose.
    Here,
    /// In a child: this program with these arguments, which calls [`compile_in_child`](crate::compile_in_child).
    Child(PathBuf, Vec<String>),
}

const TAG_BYTES: usize = 32;

/// Compiles and caches.
pub(crate) struct Compiler {
    pub(crate) by: CompileBy,
    /// Whether a child is confined.
    pub(crate) confined: bool,
    pub(crate) cache: Option<Cache>,
}

impl Compiler {
    /// Native code for `component`, from the cache if it is there.
    pub(crate) fn native(
        &self,
        engine: &Engine,
        digest: Digest,
        component: &[u8],
    ) -> Result<Vec<u8>, LoadError> {
        let key = format!("{digest}-{:016x}", compatibility(engine));
        if let Some(native) = self.cache.as_ref().and_then(|c| c.load(&key)) {
            return Ok(native);
        }
        let native = match &self.by {
            CompileBy::Here => precompile(engine.clone(), component.to_vec())?,
            CompileBy::Child(program, args) => {
                run_child(program, &self.args(args, None), component, CHILD_WITHIN)?
            }
        };
        if let Some(cache) = &self.cache {
            cache.store(&key, &native)?;
        }
        Ok(native)
    }
}

impl Compiler {
    fn args(&self, args: &[String], what: Option<&str>) -> Vec<String> {
        let confined = self.confined.then_some(CONFINED);
        let more = what.into_iter().chain(confined).map(str::to_owned);
        args.iter().cloned().chain(more).collect()
    }

    /// A component of `bytes`, made in the child: what makes it follows a module's metadata as deep as that goes.
    pub(crate) fn componentize<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, LoadError> {
        match &self.by {
            CompileBy::Child(program, args) if wasmparser::Parser::is_core_wasm(bytes) => {
                let args = self.args(args, Some(MAKE_COMPONENT));
                run_child(program, &args, bytes, CHILD_WITHIN).map(Cow::Owned)
            }
            _ => componentize(bytes),
        }
    }
}

/// What native code depends on besides the component: wasmtime's version, its settings and the processor.
fn compatibility(engine: &Engine) -> u64 {
    use std::hash::{Hash, Hasher};
    #[expect(
        deprecated,
        reason = "stable across processes, unlike RandomState; not for untrusted input"
    )]
    let mut hasher = std::hash::SipHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// Files of native code, each with an HMAC-SHA256 in front.
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
}

impl Cache {
    /// Uses `dir`, which only its owner may enter.
    pub(crate) fn open(dir: &Path, random: impl FnOnce() -> io::Result<[u8; 32]>) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let path = dir.join("key");
        // A key that others could read is nobody's: what is in the cache is made anew.
        let is_open = fs::metadata(&path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0);
        if is_open {
            fs::remove_file(&path)?;
        }
        let key = match fs::read(&path).ok().and_then(|k| <[u8; 32]>::try_from(k).ok()) {
            Some(key) => key,
            None => {
                let key = random()?;
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(path)?;
                file.write_all(&key)?;
                key
            }
        };
        Ok(Self {
            dir: dir.to_owned(),
            key,
        })
    }

    fn mac(&self, name: &str, native: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(name.as_bytes());
        mac.update(native);
        Some(mac)
    }

    fn load(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.dir.join(name)).ok()?;
        let (tag, native) = bytes.split_first_chunk::<TAG_BYTES>()?;
        if self.mac(name, native)?.verify_slice(tag).is_err() {
            tracing::warn!(name, "cached native code is not what was stored: compiling again");
            return None;
        }
        bytes.drain(..TAG_BYTES);
        Some(bytes)
    }

    fn store(&self, name: &str, native: &[u8]) -> io::Result<()> {
        let Some(mac) = self.mac(name, native) else {
            return Ok(());
        };
        let fresh = self.dir.join(format!("{name}.new"));
        let mut file = fs::File::create(&fresh)?;
        file.write_all(&mac.finalize().into_bytes())?;
        file.write_all(native)?;
        fs::rename(fresh, self.dir.join(name))
    }
}
