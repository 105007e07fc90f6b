//! Native code: made in a process of its own, cached under a key of this node.
//!
//! Loading native code means running it, so cached files are authenticated.

use crate::compile::child::{CONFINED, MAKE_COMPONENT, To, Wanted, precompile, run_child};
use crate::compile::componentize::componentize;
use crate::digest::Digest;
use crate::error::LoadError;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wasmtime::Engine;
use weir_types::sync::Mutex;

/// Place of compilation.
#[derive(Clone, Debug)]
pub enum CompileBy {
    /// In this process: for tools and tests.
    Here,
    /// In a child: this program with these arguments, which calls
    /// [`compile_in_child`](crate::compile::child::compile_in_child).
    Child(PathBuf, Vec<String>),
}

/// Bytes of a file read at a time.
const PART_BYTES: usize = 64 << 10;

/// Remembered modules that exceeded their limits: enough for modules that somebody retries.
const COSTLY_MAX: usize = 64;
/// Time for which such modules are remembered: the machine may have been short of memory.
const COSTLY_FOR: Duration = Duration::from_secs(600);

/// Compiles and caches.
pub(crate) struct Compiler {
    pub(crate) by: CompileBy,
    /// Confine the child.
    pub(crate) confined: bool,
    pub(crate) cache: Option<Cache>,
    /// Modules that exceeded their limits: digest, time, reason.
    pub(crate) costly: Mutex<VecDeque<(Digest, Instant, String)>>,
}

/// Native code.
pub(crate) enum Native {
    /// In memory, without a cache.
    Bytes(Vec<u8>),
    /// In the cache, authenticated, with its name there.
    File(PathBuf, String),
}

impl Compiler {
    /// Returns native code for `component`, from the cache if present.
    pub(crate) fn native(
        &self,
        engine: &Engine,
        digest: Digest,
        component: &[u8],
        wanted: &Wanted,
    ) -> Result<Native, LoadError> {
        let Some(cache) = &self.cache else {
            let native = self.make(engine, component, To::Memory, wanted);
            return native.map(Native::Bytes);
        };
        let key = format!("{digest}-{:016x}", compatibility(engine));
        if let Some(native) = cache.load(&key) {
            return Ok(Native::File(native, key));
        }
        if let Some(why) = self.refused(digest) {
            return Err(LoadError::Costly(why));
        }
        // Directly to the file, to save this process's memory.
        let made = cache.store(&key, |file| {
            let native = self.make(engine, component, To::File(file), wanted)?;
            let mut file = file;
            Ok(file.write_all(&native)?)
        });
        match made {
            Ok(native) => Ok(Native::File(native, key)),
            // Go on without the cache: the next start compiles again.
            Err(LoadError::Io(full)) if full.kind() == io::ErrorKind::StorageFull => {
                let native = self.make(engine, component, To::Memory, wanted);
                native.map(Native::Bytes)
            }
            Err(e) => {
                if let LoadError::Costly(why) = &e {
                    self.remember(digest, why);
                }
                Err(e)
            }
        }
    }

    /// Reads the code cached under `key`, for a file system that allows no execution.
    pub(crate) fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        self.cache.as_ref()?.bytes(key)
    }

    /// Returns the reason of a recent refusal: another attempt would take the same again.
    fn refused(&self, digest: Digest) -> Option<String> {
        let costly = self.costly.lock();
        let is_lately = |at: &Instant| at.elapsed() < COSTLY_FOR;
        let found = costly
            .iter()
            .find(|(known, at, _)| *known == digest && is_lately(at));
        found.map(|(_, _, why)| why.clone())
    }

    fn remember(&self, digest: Digest, why: &str) {
        let mut costly = self.costly.lock();
        if costly.len() >= COSTLY_MAX {
            costly.pop_front();
        }
        costly.push_back((digest, Instant::now(), why.to_owned()));
    }

    fn make(
        &self,
        engine: &Engine,
        component: &[u8],
        to: To<'_>,
        wanted: &Wanted,
    ) -> Result<Vec<u8>, LoadError> {
        match &self.by {
            CompileBy::Here => precompile(engine.clone(), component.to_vec()),
            CompileBy::Child(program, args) => {
                run_child(program, &self.args(args, None), component, to, wanted)
            }
        }
    }

    fn args(&self, args: &[String], what: Option<&str>) -> Vec<String> {
        let confined = self.confined.then_some(CONFINED);
        let more = what.into_iter().chain(confined).map(str::to_owned);
        args.iter().cloned().chain(more).collect()
    }

    /// Makes a component of `bytes` in the child, since the encoder follows a module's metadata to any depth.
    pub(crate) fn componentize(&self, bytes: Vec<u8>, wanted: &Wanted) -> Result<Vec<u8>, LoadError> {
        match &self.by {
            CompileBy::Child(program, args) if wasmparser::Parser::is_core_wasm(&bytes) => {
                let args = self.args(args, Some(MAKE_COMPONENT));
                run_child(program, &args, &bytes, To::Memory, wanted)
            }
            _ => match componentize(&bytes)? {
                Cow::Owned(component) => Ok(component),
                Cow::Borrowed(_) => Ok(bytes),
            },
        }
    }
}

/// Returns a hash of the other inputs of native code: wasmtime's version, its settings and the processor.
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

/// Removes unfinished files of a stopped process, and files in an earlier release's form. Best effort.
fn tidy(dir: &Path) {
    for file in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = file.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        let is_ours = ["native", "tag"].iter().any(|ours| ending == Some(ours));
        if !is_ours && !path.ends_with("key") {
            let _ = fs::remove_file(path);
        }
    }
}

/// Files of native code, each with its HMAC-SHA256 in a second file.
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    /// Counts unfinished files.
    made: AtomicU64,
}

impl Cache {
    /// Opens the cache in `dir`, which only its owner may enter.
    pub(crate) fn open(dir: &Path, random: impl FnOnce() -> io::Result<[u8; 32]>) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let path = dir.join("key");
        // A key that others could read is worthless: replace it, and compile again.
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
        tidy(dir);
        Ok(Self {
            dir: dir.to_owned(),
            key,
            made: AtomicU64::new(0),
        })
    }

    /// Computes the HMAC of the contents of `file` under `name`, without loading the file into memory.
    fn mac(&self, name: &str, mut file: impl Read) -> io::Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(io::Error::other)?;
        mac.update(name.as_bytes());
        let mut part = vec![0; PART_BYTES];
        loop {
            match file.read(&mut part)? {
                0 => return Ok(mac),
                n => mac.update(part.get(..n).unwrap_or_default()),
            }
        }
    }

    fn paths(&self, name: &str) -> (PathBuf, PathBuf) {
        let at = |ending| self.dir.join(format!("{name}.{ending}"));
        (at("native"), at("tag"))
    }

    fn load(&self, name: &str) -> Option<PathBuf> {
        let (native, tag) = self.paths(name);
        let tag = fs::read(tag).ok()?;
        let mac = self.mac(name, File::open(&native).ok()?).ok()?;
        if mac.verify_slice(&tag).is_err() {
            tracing::warn!(name, "cached native code is not what was stored: compiling again");
            return None;
        }
        Some(native)
    }

    /// Loads authenticated code into memory.
    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let (native, tag) = self.paths(name);
        let (tag, bytes) = (fs::read(tag).ok()?, fs::read(native).ok()?);
        let mac = self.mac(name, &bytes[..]).ok()?;
        mac.verify_slice(&tag).is_ok().then_some(bytes)
    }

    /// Caches the code that `make` writes to its file.
    fn store(
        &self,
        name: &str,
        make: impl FnOnce(&File) -> Result<(), LoadError>,
    ) -> Result<PathBuf, LoadError> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        // No other call writes this file now: an existing file is from a stopped process.
        let fresh = self.dir.join(format!("{name}.{number}.new"));
        let (native, tag) = self.paths(name);
        let stored = self.store_as(name, &fresh, make).and_then(|mac| {
            let fresh_tag = fresh.with_extension("tag.new");
            fs::write(&fresh_tag, mac)?;
            fs::rename(fresh_tag, &tag)?;
            Ok(fs::rename(&fresh, &native)?)
        });
        if stored.is_err() {
            let _ = fs::remove_file(&fresh);
        }
        stored.map(|()| native)
    }

    fn store_as(
        &self,
        name: &str,
        fresh: &Path,
        make: impl FnOnce(&File) -> Result<(), LoadError>,
    ) -> Result<Vec<u8>, LoadError> {
        make(&File::create(fresh)?)?;
        let mac = self.mac(name, File::open(fresh)?)?;
        Ok(mac.finalize().into_bytes().to_vec())
    }
}
