//! Waking consumers when a partition grows.

use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;
use weir_types::PartitionId;
use weir_types::sync::Mutex;

/// Signals for consumers, per partition.
#[derive(Debug, Default)]
pub(crate) struct AppendNotifier(Mutex<BTreeMap<PartitionId, Arc<Notify>>>);

impl AppendNotifier {
    /// Returns the signal of `partition`. The number of signals is bounded by the number of partitions.
    pub(crate) fn of(&self, partition: PartitionId) -> Arc<Notify> {
        let mut map = self.0.lock();
        Arc::clone(map.entry(partition).or_default())
    }

    /// Wakes the consumers of `partition`.
    pub(crate) fn grew(&self, partition: PartitionId) {
        let notify = self.0.lock().get(&partition).cloned();
        if let Some(notify) = notify {
            notify.notify_waiters();
        }
    }

    /// Wakes everybody.
    pub(crate) fn all(&self) {
        let map = self.0.lock();
        map.values().for_each(|notify| notify.notify_waiters());
    }

    pub(crate) fn forget(&self, partition: PartitionId) {
        if let Some(notify) = self.0.lock().remove(&partition) {
            notify.notify_waiters();
        }
    }
}
