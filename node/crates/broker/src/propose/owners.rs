//! Ownership of idempotent producers: a leader remembers the account that last wrote for each.
//!
//! Producer ids can be guessed. Until listeners authenticate clients, another account can continue a producer
//! only after a silence, as after a change of address. An account with many producers loses its oldest first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use weir_types::PartitionId;
use weir_types::limits::{PRODUCERS_MAX, PRODUCERS_PER_ACCOUNT_MAX};

/// A producer on a partition.
pub(crate) type Key = (PartitionId, i64);

/// Silence, in milliseconds, after which another account can continue a producer. Kafka clients retry for two
/// minutes.
const SILENT_MS: i64 = 60_000;

/// The last to write for each producer.
#[derive(Default)]
pub(crate) struct Owners {
    of: HashMap<Key, (Arc<str>, i64)>,
    /// The producers of each account, the longest silent first.
    by_account: HashMap<Arc<str>, BTreeSet<(i64, Key)>>,
}

impl Owners {
    /// Creates ownership for producers that wrote under earlier leaders, with unknown owners.
    pub(crate) fn unknown(producers: impl Iterator<Item = (Key, i64)>) -> Self {
        let mut owners = Self::default();
        let nobody: Arc<str> = "".into();
        producers.for_each(|(key, last_ms)| owners.wrote(key, &nobody, last_ms));
        owners
    }

    /// Returns true if `account` may continue a producer.
    pub(crate) fn may_write(&self, key: &Key, account: &str, now_ms: i64) -> bool {
        match self.of.get(key) {
            Some((owner, last_ms)) => {
                owner.is_empty() || **owner == *account || now_ms.saturating_sub(*last_ms) >= SILENT_MS
            }
            None => true,
        }
    }

    /// Records that `account` wrote.
    pub(crate) fn wrote(&mut self, key: Key, account: &Arc<str>, now_ms: i64) {
        self.forget(&key);
        self.of.insert(key, (Arc::clone(account), now_ms));
        let all = self.by_account.entry(Arc::clone(account)).or_default();
        all.insert((now_ms, key));
    }

    /// Forgets a producer.
    pub(crate) fn forget(&mut self, key: &Key) {
        let Some((account, last_ms)) = self.of.remove(key) else {
            return;
        };
        if let Some(all) = self.by_account.get_mut(&account) {
            all.remove(&(last_ms, *key));
            if all.is_empty() {
                self.by_account.remove(&account);
            }
        }
    }

    /// Returns true if entries of dropped partitions should be removed.
    pub(crate) fn are_stale(&self) -> bool {
        self.of.len() > 2 * PRODUCERS_MAX
    }

    /// Forgets producers that are not `kept`.
    pub(crate) fn retain(&mut self, kept: impl Fn(&Key) -> bool) {
        let gone: Vec<Key> = self.of.keys().filter(|key| !kept(key)).copied().collect();
        gone.iter().for_each(|key| self.forget(key));
    }

    /// Returns the producer to forget so that `account` can have another. An account at its limit loses its
    /// own oldest. If the total is at its limit, the account with most producers loses its oldest. Considers
    /// only producers that `may_go`.
    pub(crate) fn to_forget(
        &self,
        account: &str,
        is_full: bool,
        may_go: impl Fn(&Key) -> bool,
    ) -> Option<Key> {
        let own = self.by_account.get(account);
        let from = match own.filter(|own| own.len() >= PRODUCERS_PER_ACCOUNT_MAX) {
            Some(own) => own,
            None if is_full => self.by_account.values().max_by_key(|all| all.len())?,
            None => return None,
        };
        from.iter().map(|(_, key)| *key).find(may_go)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: i64) -> Key {
        (PartitionId(1), id)
    }

    #[test]
    fn another_account_goes_on_only_after_silence() {
        let (mut owners, here): (_, Arc<str>) = (Owners::default(), "kafka 10.0.0.1".into());
        owners.wrote(key(1), &here, 1_000);
        assert!(owners.may_write(&key(1), "kafka 10.0.0.1", 1_001));
        assert!(!owners.may_write(&key(1), "kafka 10.0.0.2", 60_999));
        assert!(owners.may_write(&key(1), "kafka 10.0.0.2", 61_000));
        assert!(owners.may_write(&key(2), "kafka 10.0.0.2", 0));
        let before = Owners::unknown([(key(1), 5)].into_iter());
        assert!(before.may_write(&key(1), "kafka 10.0.0.2", 6));
    }

    #[test]
    fn who_makes_many_has_his_own_forgotten() {
        let mut owners = Owners::default();
        let (honest, flood): (Arc<str>, Arc<str>) = ("honest".into(), "flood".into());
        owners.wrote(key(0), &honest, 0);
        for id in 1..=PRODUCERS_PER_ACCOUNT_MAX as i64 {
            assert_eq!(owners.to_forget("flood", false, |_| true), None);
            owners.wrote(key(id), &flood, id);
        }
        assert_eq!(owners.to_forget("flood", false, |_| true), Some(key(1)));
        assert_eq!(owners.to_forget("flood", false, |k| *k != key(1)), Some(key(2)));
        assert_eq!(owners.to_forget("honest", false, |_| true), None);
        // The same holds when the total is at its limit, though the honest producer is silent for longer.
        assert_eq!(owners.to_forget("another", true, |_| true), Some(key(1)));
        owners.forget(&key(1));
        owners.wrote(key(2), &flood, 1 << 20);
        assert_eq!(owners.to_forget("another", true, |_| true), Some(key(3)));
    }
}
