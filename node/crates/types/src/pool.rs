//! Bytes that several take from, up to a bound: what is used counts, not what may be.

use std::sync::atomic::{AtomicU64, Ordering};

/// A bound that is shared, and what is taken of it.
#[derive(Debug)]
pub struct Pool {
    max: u64,
    used: AtomicU64,
    refused: AtomicU64,
}

impl Pool {
    /// One of so many bytes.
    pub fn new(max: u64) -> Self {
        Self {
            max,
            used: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Bytes that it has in all.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Bytes that are taken.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How often somebody was refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, if there are so many. Who takes them gives them back.
    pub fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.max);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok()
    }

    /// Somebody went without.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes `bytes` that are in use already, also beyond the bound: then nobody gets more until others are given back.
    pub fn count(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back what was taken.
    pub fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_but_for_what_is_there_already() {
        let pool = Pool::new(10);
        assert!(pool.take(6) && !pool.take(5) && pool.take(4) && !pool.take(1));
        pool.give(6);
        pool.count(20);
        assert_eq!((pool.used(), pool.max()), (24, 10));
        assert!(!pool.take(0) && !pool.take(u64::MAX));
        pool.give(24);
        assert!(pool.take(10));
        pool.refuse();
        assert_eq!(pool.refused(), 1);
    }
}
