//! The store under the log: fjall's database, or a simulated one that forgets unsynced writes.
//!
//! Both have the same few calls, under fjall's names and with its types, so that the code above is the same.

#[cfg(any(test, feature = "testing"))]
use crate::store::simulated;
use crate::store::space::free_and_total;
use fjall::{PersistMode, Readable, Slice, UserKey};
use std::io;
use std::ops::RangeBounds;
use std::path::Path;

#[derive(Clone)]
pub(crate) enum Database {
    Files(fjall::Database),
    #[cfg(any(test, feature = "testing"))]
    Simulated(simulated::Open),
}

#[derive(Clone)]
pub(crate) enum Keyspace {
    Files(fjall::Keyspace),
    #[cfg(any(test, feature = "testing"))]
    Simulated(simulated::Keyspace),
}

/// Writes that happen together or not at all.
pub(crate) enum WriteBatch {
    Files(fjall::OwnedWriteBatch),
    #[cfg(any(test, feature = "testing"))]
    Simulated(simulated::Batch),
}

/// The rows at a moment.
pub(crate) enum Snapshot {
    Files(fjall::Snapshot),
    #[cfg(any(test, feature = "testing"))]
    Simulated(simulated::Snapshot),
}

/// A row, which may be unreadable.
pub(crate) enum Row {
    Files(fjall::Guard),
    #[cfg(any(test, feature = "testing"))]
    Simulated(UserKey, Slice),
}

/// Rows in the order of their keys.
pub(crate) struct Rows(Box<dyn DoubleEndedIterator<Item = Row> + Send>);

impl Rows {
    fn of_files(rows: fjall::Iter) -> Self {
        Self(Box::new(rows.map(Row::Files)))
    }

    #[cfg(any(test, feature = "testing"))]
    fn simulated(rows: simulated::Iter) -> Self {
        Self(Box::new(rows.map(|(key, value)| Row::Simulated(key, value))))
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        self.0.next()
    }
}

impl DoubleEndedIterator for Rows {
    fn next_back(&mut self) -> Option<Row> {
        self.0.next_back()
    }
}

impl Row {
    pub(crate) fn key(self) -> fjall::Result<UserKey> {
        match self {
            Self::Files(row) => row.key(),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(key, _) => Ok(key),
        }
    }

    pub(crate) fn into_inner(self) -> fjall::Result<(UserKey, Slice)> {
        match self {
            Self::Files(row) => row.into_inner(),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(key, value) => Ok((key, value)),
        }
    }
}

impl Database {
    pub(crate) fn batch(&self) -> WriteBatch {
        match self {
            Self::Files(db) => WriteBatch::Files(db.batch()),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(db) => WriteBatch::Simulated(db.batch()),
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        match self {
            Self::Files(db) => Snapshot::Files(db.snapshot()),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(db) => Snapshot::Simulated(db.snapshot()),
        }
    }

    pub(crate) fn persist(&self, mode: PersistMode) -> fjall::Result<()> {
        match self {
            Self::Files(db) => db.persist(mode),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(db) => db.persist(),
        }
    }

    /// Returns the bytes that may still be written on the file system of `dir`.
    pub(crate) fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        match self {
            Self::Files(_) => Ok(free_and_total(dir)?.0),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(db) => Ok(db.left()),
        }
    }

    pub(crate) fn disk_space(&self) -> fjall::Result<u64> {
        match self {
            Self::Files(db) => db.disk_space(),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(_) => Ok(0),
        }
    }
}

impl Keyspace {
    pub(crate) fn get(&self, key: impl AsRef<[u8]>) -> fjall::Result<Option<Slice>> {
        match self {
            Self::Files(rows) => rows.get(key),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(rows) => Ok(rows.get(key.as_ref())),
        }
    }

    pub(crate) fn contains_key(&self, key: impl AsRef<[u8]>) -> fjall::Result<bool> {
        match self {
            Self::Files(rows) => rows.contains_key(key),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(rows) => Ok(rows.get(key.as_ref()).is_some()),
        }
    }

    pub(crate) fn size_of(&self, key: impl AsRef<[u8]>) -> fjall::Result<Option<u32>> {
        match self {
            Self::Files(rows) => rows.size_of(key),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(rows) => Ok(rows.get(key.as_ref()).map(|value| value.len() as u32)),
        }
    }

    pub(crate) fn iter(&self) -> Rows {
        match self {
            Self::Files(rows) => Rows::of_files(rows.iter()),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(rows) => Rows::simulated(rows.range(..)),
        }
    }

    pub(crate) fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Rows {
        match self {
            Self::Files(rows) => Rows::of_files(rows.range(range)),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(rows) => Rows::simulated(rows.range(simulated::bounds(&range))),
        }
    }

    pub(crate) fn prefix(&self, prefix: impl AsRef<[u8]>) -> Rows {
        match self {
            Self::Files(rows) => Rows::of_files(rows.prefix(prefix)),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(rows) => Rows::simulated(rows.range(simulated::under(prefix.as_ref()))),
        }
    }

    #[cfg(test)]
    pub(crate) fn rotate_memtable_and_wait(&self) -> fjall::Result<()> {
        match self {
            Self::Files(rows) => rows.rotate_memtable_and_wait(),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(_) => Ok(()),
        }
    }
}

impl Snapshot {
    pub(crate) fn get(&self, of: &Keyspace, key: impl AsRef<[u8]>) -> fjall::Result<Option<Slice>> {
        match (self, of) {
            (Self::Files(all), Keyspace::Files(rows)) => all.get(rows, key),
            #[cfg(any(test, feature = "testing"))]
            (Self::Simulated(all), Keyspace::Simulated(rows)) => Ok(all.get(rows, key.as_ref())),
            #[cfg(any(test, feature = "testing"))]
            _ => unreachable!("a snapshot is of one database"),
        }
    }

    pub(crate) fn range<K: AsRef<[u8]>>(&self, of: &Keyspace, range: impl RangeBounds<K>) -> Rows {
        match (self, of) {
            (Self::Files(all), Keyspace::Files(rows)) => Rows::of_files(all.range(rows, range)),
            #[cfg(any(test, feature = "testing"))]
            (Self::Simulated(all), Keyspace::Simulated(rows)) => {
                Rows::simulated(all.range(rows, simulated::bounds(&range)))
            }
            #[cfg(any(test, feature = "testing"))]
            _ => unreachable!("a snapshot is of one database"),
        }
    }

    pub(crate) fn prefix(&self, of: &Keyspace, prefix: impl AsRef<[u8]>) -> Rows {
        match (self, of) {
            (Self::Files(all), Keyspace::Files(rows)) => Rows::of_files(all.prefix(rows, prefix)),
            #[cfg(any(test, feature = "testing"))]
            (Self::Simulated(all), Keyspace::Simulated(rows)) => {
                Rows::simulated(all.range(rows, simulated::under(prefix.as_ref())))
            }
            #[cfg(any(test, feature = "testing"))]
            _ => unreachable!("a snapshot is of one database"),
        }
    }
}

impl WriteBatch {
    pub(crate) fn insert(&mut self, to: &Keyspace, key: impl Into<UserKey>, value: impl Into<Slice>) {
        match (self, to) {
            (Self::Files(batch), Keyspace::Files(rows)) => batch.insert(rows, key, value),
            #[cfg(any(test, feature = "testing"))]
            (Self::Simulated(batch), Keyspace::Simulated(rows)) => {
                batch.put(rows, key.into(), Some(value.into()));
            }
            #[cfg(any(test, feature = "testing"))]
            _ => unreachable!("a batch is of one database"),
        }
    }

    pub(crate) fn remove(&mut self, from: &Keyspace, key: impl Into<UserKey>) {
        match (self, from) {
            (Self::Files(batch), Keyspace::Files(rows)) => batch.remove(rows, key),
            #[cfg(any(test, feature = "testing"))]
            (Self::Simulated(batch), Keyspace::Simulated(rows)) => batch.put(rows, key.into(), None),
            #[cfg(any(test, feature = "testing"))]
            _ => unreachable!("a batch is of one database"),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Files(batch) => batch.is_empty(),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(batch) => batch.is_empty(),
        }
    }

    /// Writes the batch, as durably as `mode` asks for.
    pub(crate) fn commit(self, mode: PersistMode) -> fjall::Result<()> {
        match self {
            Self::Files(batch) => batch.durability(Some(mode)).commit(),
            #[cfg(any(test, feature = "testing"))]
            Self::Simulated(batch) => batch.commit(mode),
        }
    }
}
