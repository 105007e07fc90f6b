//! Store of pushed modules. A row per module holds its labels, and further rows hold its bytes on every node
//! of the site. The module is loaded from a file named by its SHA-256.

use crate::error::PushError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use weir_broker::{Broker, StateKey, StateKind};
use weir_runtime::{Descriptor, Digest};
use weir_types::limits::{MODULE_LABELS_MAX, MODULES_BYTES_MAX, MODULES_MAX};

/// Bytes of a component per row. A record that arrives meanwhile waits for the row's sync.
const ROW_BYTES: usize = 64 << 10;

/// Least number of digits of a digest that can name a module.
const DIGITS_MIN: usize = 8;

/// Longest name or version, in bytes.
const NAME_BYTES_MAX: usize = 100;

/// Reference to a module: `name`, `name@version`, or a digest, whole or its first digits.
pub type ModuleRef = str;

/// Description of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModuleInfo {
    /// SHA-256 of the component.
    pub digest: Digest,
    /// Name of the label.
    pub name: String,
    /// Version of the label.
    pub version: String,
    /// Size of the component in bytes.
    pub bytes: u64,
    /// When the label was last pushed, in milliseconds since 1970.
    pub pushed_ms: i64,
    /// Description that the module gives of itself.
    pub descriptor: Descriptor,
    /// Interfaces that the module imports functions from.
    pub imports: Vec<String>,
    /// Further labels of the same bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Label>,
}

/// A name and version of a module. A label always refers to the same bytes; bytes may have several labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Name of the module.
    pub name: String,
    /// Version of the module.
    pub version: String,
    /// When the label was last pushed, in milliseconds since 1970.
    pub pushed_ms: i64,
}

impl ModuleInfo {
    /// Decodes a row. Logs an error and returns `None` if the row cannot be read.
    pub(crate) fn from_row(key: &[u8], value: &[u8]) -> Option<Self> {
        let read = serde_json::from_slice::<Self>(value);
        read.inspect_err(|why| {
            let digest: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
            tracing::error!(%digest, %why, "row of a module cannot be read: push the module again");
        })
        .ok()
    }

    /// Iterates over all labels, the first label first.
    fn labels(&self) -> impl Iterator<Item = (&str, &str, i64)> {
        let first = (self.name.as_str(), self.version.as_str(), self.pushed_ms);
        let also = self.also.iter();
        let also = also.map(|l| (l.name.as_str(), l.version.as_str(), l.pushed_ms));
        std::iter::once(first).chain(also)
    }

    pub(crate) fn is_labelled(&self, name: &str, version: &str) -> bool {
        self.labels().any(|(n, v, _)| (n, v) == (name, version))
    }

    /// Adds a label, or updates its push time.
    pub(crate) fn label(&mut self, name: &str, version: &str, pushed_ms: i64) {
        if (&*self.name, &*self.version) == (name, version) {
            self.pushed_ms = pushed_ms;
            return;
        }
        self.also.retain(|l| (&*l.name, &*l.version) != (name, version));
        self.also.push(Label {
            name: name.to_owned(),
            version: version.to_owned(),
            pushed_ms,
        });
    }

    /// Returns the module without a label, or `None` if the label was the last.
    pub(crate) fn without(&self, name: &str, version: &str) -> Option<Self> {
        let mut left = self.clone();
        if (&*self.name, &*self.version) == (name, version) {
            let next = left.also.first()?.clone();
            left.also.remove(0);
            (left.name, left.version, left.pushed_ms) = (next.name, next.version, next.pushed_ms);
        } else {
            left.also.retain(|l| (&*l.name, &*l.version) != (name, version));
        }
        Some(left)
    }

    /// Iterates over the module as shown under each label.
    pub(crate) fn each(&self) -> impl Iterator<Item = Self> + '_ {
        self.labels().map(|(name, version, pushed_ms)| Self {
            name: name.to_owned(),
            version: version.to_owned(),
            pushed_ms,
            also: Vec::new(),
            ..self.clone()
        })
    }
}

/// Returns true if `name` could be the first digits of a digest.
fn is_digest_like(name: &str) -> bool {
    name.len() >= DIGITS_MIN
        && name
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// The modules of a node: descriptions in memory, files on disk, and rows.
pub(crate) struct Store {
    dir: PathBuf,
    pub(crate) modules: BTreeMap<Digest, ModuleInfo>,
}

impl Store {
    pub(crate) fn open(dir: PathBuf, broker: &Broker) -> Result<Self, PushError> {
        fs::create_dir_all(&dir)?;
        let rows = broker.rows(StateKind::Module);
        Ok(Self {
            dir,
            modules: Self::read_rows(&rows),
        })
    }

    /// Decodes the rows of modules. Unreadable rows are skipped.
    pub(crate) fn read_rows(rows: &[(Vec<u8>, Vec<u8>)]) -> BTreeMap<Digest, ModuleInfo> {
        let infos = rows
            .iter()
            .filter_map(|(key, value)| ModuleInfo::from_row(key, value));
        infos.map(|info| (info.digest, info)).collect()
    }

    /// Rejects invalid names, labels that are taken, and modules beyond the limits.
    pub(crate) fn check(
        modules: &BTreeMap<Digest, ModuleInfo>,
        name: &str,
        version: &str,
        digest: Digest,
        size: usize,
    ) -> Result<(), PushError> {
        let legal = |s: &str| {
            let chars = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let starts = |c: char| c.is_ascii_alphanumeric() || c == '_';
            (1..=NAME_BYTES_MAX).contains(&s.len()) && s.chars().all(chars) && s.starts_with(starts)
        };
        if let Some(bad) = [name, version].into_iter().find(|s| !legal(s)) {
            return Err(PushError::Name(bad.chars().take(NAME_BYTES_MAX).collect()));
        }
        if is_digest_like(name) {
            return Err(PushError::LikeDigest(name.to_owned()));
        }
        let same = |m: &&ModuleInfo| m.is_labelled(name, version) && m.digest != digest;
        if modules.values().any(|m| same(&m)) {
            return Err(PushError::Exists {
                name: name.to_owned(),
                version: version.to_owned(),
            });
        }
        let is_full = |m: &ModuleInfo| m.also.len() + 1 >= MODULE_LABELS_MAX && !m.is_labelled(name, version);
        if modules.get(&digest).is_some_and(is_full) {
            return Err(PushError::Labels(MODULE_LABELS_MAX));
        }
        let known = modules.contains_key(&digest);
        let bytes: u64 = modules.values().map(|m| m.bytes).sum();
        let full = modules.len() >= MODULES_MAX || bytes + size as u64 > MODULES_BYTES_MAX as u64;
        if full && !known {
            Err(PushError::Full(MODULES_MAX))
        } else {
            Ok(())
        }
    }

    /// Writes the file of `digest`. The file is not synced, since a sync would delay the log's syncs: a
    /// damaged file is rewritten from the rows.
    pub(crate) fn write(dir: &std::path::Path, digest: Digest, component: &[u8]) -> Result<(), PushError> {
        let path = dir.join(format!("{digest}.wasm"));
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(component)?;
        Ok(fs::rename(fresh, path)?)
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    pub(crate) fn row(info: &ModuleInfo) -> (Vec<u8>, Bytes) {
        (
            info.digest.as_bytes().to_vec(),
            crate::spec::row::json(info).into(),
        )
    }

    /// Splits a component into rows of [`ROW_BYTES`]. Yields keys and values.
    pub(crate) fn parts(digest: Digest, component: &[u8]) -> impl Iterator<Item = (Vec<u8>, Bytes)> + '_ {
        let parts = component.chunks(ROW_BYTES).zip(0u32..);
        parts.map(move |(part, n)| (Self::part_key(digest, n), Bytes::copy_from_slice(part)))
    }

    /// Returns the key of part `n`.
    fn part_key(digest: Digest, n: u32) -> Vec<u8> {
        [digest.as_bytes(), &n.to_be_bytes()[..]].concat()
    }

    /// Returns the key prefix of all parts.
    pub(crate) fn parts_of(digest: Digest) -> StateKey {
        StateKey::new(StateKind::ModulePart, digest.as_bytes())
    }

    /// Writes the file of a module from its rows, unless the file is intact. Returns false if rows are not on
    /// disk yet.
    pub(crate) fn fetch(
        dir: &std::path::Path,
        broker: &Broker,
        info: &ModuleInfo,
    ) -> Result<bool, PushError> {
        if Self::read(dir, info.digest).is_ok() {
            return Ok(true);
        }
        let mut component = Vec::new();
        // The size of parts depends on the release that wrote them.
        for n in 0.. {
            if component.len() as u64 >= info.bytes {
                break;
            }
            let key = StateKey::new(StateKind::ModulePart, &Self::part_key(info.digest, n));
            let Ok(Some(part)) = broker.log().state_row(&key) else {
                return Ok(false);
            };
            if part.is_empty() {
                break;
            }
            component.extend_from_slice(&part);
        }
        if Digest::of(&component) != info.digest {
            return Err(PushError::Damaged(info.digest.to_string()));
        }
        Self::write(dir, info.digest, &component)?;
        Ok(true)
    }

    /// Returns true if a file of the right size exists. Its content is checked when the file is read.
    pub(crate) fn has(dir: &std::path::Path, info: &ModuleInfo) -> bool {
        let found = fs::metadata(dir.join(format!("{}.wasm", info.digest)));
        found.is_ok_and(|found| found.len() == info.bytes)
    }

    pub(crate) fn read(dir: &std::path::Path, digest: Digest) -> Result<Vec<u8>, PushError> {
        let bytes = fs::read(dir.join(format!("{digest}.wasm")))?;
        if Digest::of(&bytes) != digest {
            return Err(PushError::Damaged(digest.to_string()));
        }
        Ok(bytes)
    }

    pub(crate) fn remove_file(&self, digest: Digest) {
        if let Err(e) = fs::remove_file(self.dir.join(format!("{digest}.wasm"))) {
            tracing::warn!(%digest, error = %e, "module file cannot be removed");
        }
    }

    /// Returns the module that was last pushed under `name`, and its version.
    pub(crate) fn latest(&self, name: &str) -> Option<(&ModuleInfo, &str)> {
        let labels = self
            .modules
            .values()
            .flat_map(|m| m.labels().map(move |label| (m, label)));
        let of_name = labels.filter(|(_, (n, ..))| *n == name);
        let last = of_name.max_by_key(|(_, (_, _, pushed_ms))| *pushed_ms);
        last.map(|(info, (_, version, _))| (info, version))
    }

    /// Returns the label that `reference` names, or `None` for a digest.
    pub(crate) fn label_of(&self, reference: &ModuleRef) -> Option<(String, String)> {
        if let Some((name, version)) = reference.split_once('@') {
            return Some((name.to_owned(), version.to_owned()));
        }
        let (_, version) = self.latest(reference)?;
        Some((reference.to_owned(), version.to_owned()))
    }

    /// Returns the module that `reference` names. A name alone refers to the module pushed last.
    pub(crate) fn resolve(&self, reference: &ModuleRef) -> Result<&ModuleInfo, PushError> {
        // A full digest always means those bytes, even if a label has the same text.
        if let Ok(digest) = reference.parse::<Digest>() {
            let found = self.modules.get(&digest);
            return found.ok_or_else(|| PushError::NotFound(reference.to_owned()));
        }
        let by_label = match reference.split_once('@') {
            Some((name, version)) => self.modules.values().find(|m| m.is_labelled(name, version)),
            None => self.latest(reference).map(|(info, _)| info),
        };
        let mut by_digest = self
            .modules
            .values()
            .filter(|m| is_digest_like(reference) && m.digest.to_string().starts_with(reference));
        let found = by_label.or_else(|| by_digest.next().filter(|_| by_digest.next().is_none()));
        found.ok_or_else(|| PushError::NotFound(reference.to_owned()))
    }
}
