//! The consumer groups of a node.

use crate::coordinator::group::Group;
use crate::coordinator::types::GroupError;
use crate::state::rows::consumer_group::GroupRow;
use std::collections::BTreeMap;
use std::sync::MutexGuard;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::time::Instant;
use weir_types::sync::Mutex;

/// The groups of a node.
pub(crate) struct Coordinator {
    pub(crate) groups: Mutex<BTreeMap<String, Group>>,
    pub(crate) initial_delay: Duration,
    /// Metadata and assignments of all groups, counted now and then.
    pub(crate) bytes: AtomicUsize,
}

impl Coordinator {
    pub(crate) fn restore(rows: &BTreeMap<String, GroupRow>, initial_delay: Duration) -> Self {
        let now = Instant::now();
        let groups = rows
            .iter()
            .map(|(name, row)| (name.clone(), Group::restore(row, initial_delay, now)));
        Self {
            groups: Mutex::new(groups.collect()),
            initial_delay,
            bytes: AtomicUsize::new(0),
        }
    }

    /// Restarts from the stored rows; waiting members must retry.
    pub(crate) fn reload(&self, rows: &BTreeMap<String, GroupRow>) {
        let now = Instant::now();
        let groups = rows
            .iter()
            .map(|(name, row)| (name.clone(), Group::restore(row, self.initial_delay, now)));
        *self.lock() = groups.collect();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Group>> {
        self.groups.lock()
    }

    /// Creates a unique member id in Kafka's form.
    pub(crate) fn fresh_id(client: &str) -> Result<String, GroupError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| GroupError::Unavailable)?;
        let id = u128::from_be_bytes(random);
        let part = |from: u32, bits: u32| (id >> (128 - from - bits)) & ((1 << bits) - 1);
        Ok(format!(
            "{client}-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(0, 32),
            part(32, 16),
            part(48, 16),
            part(64, 16),
            part(80, 48)
        ))
    }
}
