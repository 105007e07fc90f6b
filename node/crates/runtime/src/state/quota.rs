//! Memory of tables: bounded by actual use, not by possible use.

use crate::error::StateError;
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_types::pool::Pool;
use weir_types::sync::Mutex;

/// Bounds on tables: those of a pipeline together, and those of all pipelines of a node.
#[derive(Clone, Debug)]
pub struct Quota(Arc<Bounds>);

#[derive(Debug)]
struct Bounds {
    pipeline: Pool,
    node: Arc<Pool>,
    /// By partition: bytes of stored rows without a table in memory; `None` with a table.
    aside: Mutex<BTreeMap<u32, Option<usize>>>,
}

impl Quota {
    /// Makes the quota of a pipeline with `bytes` in all, which also takes from `node`, shared with other
    /// pipelines.
    pub fn new(bytes: usize, node: Arc<Pool>) -> Self {
        Self(Arc::new(Bounds {
            pipeline: Pool::new(bytes as u64),
            node,
            aside: Mutex::default(),
        }))
    }

    /// Makes a quota for tables that share nothing.
    pub fn alone(bytes: usize) -> Self {
        Self::new(bytes, Arc::new(Pool::new(u64::MAX)))
    }

    /// Notes that the tables of a partition are in memory and count themselves.
    pub fn load(&self, partition: u32) {
        self.set(partition, Some(None));
    }

    /// Notes that the tables of a partition are evicted: `bytes` of rows count until they are loaded again.
    pub fn put_aside(&self, partition: u32, bytes: usize) {
        self.set(partition, Some(Some(bytes)));
    }

    /// Notes `bytes` of stored rows of a partition. A partition in memory already counts.
    pub fn find_stored(&self, partition: u32, bytes: usize) {
        let is_in_memory = matches!(self.aside().get(&partition), Some(None));
        if !is_in_memory {
            self.put_aside(partition, bytes);
        }
    }

    /// Notes that another node has the partition.
    pub fn forget(&self, partition: u32) {
        self.set(partition, None);
    }

    fn set(&self, partition: u32, to: Option<Option<usize>>) {
        let mut aside = self.aside();
        let before = match to {
            Some(stands) => aside.insert(partition, stands),
            None => aside.remove(&partition),
        };
        self.count(to.flatten().unwrap_or(0));
        self.give(before.flatten().unwrap_or(0));
    }

    fn aside(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Option<usize>>> {
        self.0.aside.lock()
    }

    fn take(&self, bytes: usize) -> Result<(), StateError> {
        if !self.0.pipeline.take(bytes as u64) {
            return Err(StateError::Quota(self.0.pipeline.max()));
        }
        if !self.0.node.take(bytes as u64) {
            self.0.pipeline.give(bytes as u64);
            return Err(StateError::Node(self.0.node.max()));
        }
        Ok(())
    }

    fn count(&self, bytes: usize) {
        self.0.pipeline.count(bytes as u64);
        self.0.node.count(bytes as u64);
    }

    fn give(&self, bytes: usize) {
        self.0.pipeline.give(bytes as u64);
        self.0.node.give(bytes as u64);
    }
}

impl Drop for Bounds {
    fn drop(&mut self) {
        let aside = self.aside.get_mut();
        self.node
            .give(aside.values().flatten().map(|bytes| *bytes as u64).sum());
    }
}

/// A table's share of a quota, returned when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Quota,
    taken: usize,
}

/// Returns bytes taken in advance, so that few rows have to ask.
fn slack(bytes: usize) -> usize {
    bytes / 8 + 512
}

impl Share {
    /// Makes an empty share.
    pub(crate) fn of(quota: &Quota) -> Self {
        Self {
            quota: quota.clone(),
            taken: 0,
        }
    }

    /// Takes enough for `bytes`.
    #[inline]
    pub(crate) fn need(&mut self, bytes: usize) -> Result<(), StateError> {
        if bytes <= self.taken {
            Ok(())
        } else {
            self.take_more(bytes)
        }
    }

    #[cold]
    fn take_more(&mut self, bytes: usize) -> Result<(), StateError> {
        let more = bytes - self.taken;
        if self.quota.take(more + slack(bytes)).is_ok() {
            self.taken = bytes + slack(bytes);
            return Ok(());
        }
        if let Err(e) = self.quota.take(more) {
            if matches!(e, StateError::Node(_)) {
                self.quota.0.node.refuse();
            }
            return Err(e);
        }
        self.taken = bytes;
        Ok(())
    }

    /// Takes enough for `bytes` that already exist.
    pub(crate) fn have(&mut self, bytes: usize) {
        // Take exactly that much, without asking.
        if bytes > self.taken {
            self.quota.count(bytes - self.taken);
            self.taken = bytes;
        }
    }

    /// Returns the surplus over `bytes`, if large.
    pub(crate) fn settle(&mut self, bytes: usize) {
        let kept = bytes + slack(bytes);
        if self.taken > kept + slack(bytes) {
            self.quota.give(self.taken - kept);
            self.taken = kept;
        }
    }
}

impl Clone for Share {
    fn clone(&self) -> Self {
        self.quota.count(self.taken);
        Self {
            quota: self.quota.clone(),
            taken: self.taken,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.quota.give(self.taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::table::Table;
    use crate::state::timers::TimerClock;

    #[test]
    fn tables_take_what_they_use_of_the_pipeline_and_of_the_node() {
        let node = Arc::new(Pool::new(100_000));
        let (one, other) = (
            Quota::new(60_000, Arc::clone(&node)),
            Quota::new(60_000, Arc::clone(&node)),
        );
        let fill = |table: &mut Table, rows: u32| {
            (0..rows).try_for_each(|n| table.put(&n.to_be_bytes(), Some(&[0; 868])))
        };
        // A row of a thousand bytes.
        let (mut a, mut b, mut c) = (Table::within(&one), Table::within(&one), Table::within(&other));
        fill(&mut a, 40).unwrap();
        assert_eq!(fill(&mut b, 40), Err(StateError::Quota(60_000)));
        assert_eq!(fill(&mut c, 60), Err(StateError::Node(100_000)));
        assert!(node.used() <= 100_000 && node.refused() == 1);
        // Others may use removed bytes, once the removal is passed on.
        for n in 0..40u32 {
            a.put(&n.to_be_bytes(), None).unwrap();
        }
        a.take_changes(|_, _| {});
        b.put(b"more", Some(&[0; 868])).unwrap();
        c.set_timer(TimerClock::Event, b"due", 0, Some(7)).unwrap();
        // Stored rows count always, until they are gone.
        let before = node.used();
        one.find_stored(7, 50_000);
        one.find_stored(7, 90_000);
        one.load(8);
        one.find_stored(8, 10_000);
        assert_eq!(node.used(), before + 90_000);
        one.put_aside(8, 10_000);
        one.forget(8);
        // A few rows fit the bytes taken in advance.
        assert!(fill(&mut b, 200).is_err());
        drop((a, b, c));
        assert_eq!(node.used(), 90_000);
        let again = Table::within(&one);
        drop((one, other));
        assert_eq!(node.used(), 90_000);
        drop(again);
        assert_eq!(node.used(), 0);
    }
}
