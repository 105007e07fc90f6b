//! A shared bound on bytes: actual use counts, not possible use.

use std::sync::atomic::{AtomicU64, Ordering};

/// A shared bound, and the bytes taken.
#[derive(Debug)]
pub struct Pool {
    max: u64,
    used: AtomicU64,
    refused: AtomicU64,
}

impl Pool {
    /// Makes a pool of `max` bytes.
    pub fn new(max: u64) -> Self {
        Self {
            max,
            used: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Returns the bound in bytes.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Returns the bytes taken.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns the number of refusals.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, if available. The caller gives them back.
    pub fn take(&self, bytes: u64) -> bool {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.max);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok()
    }

    /// Counts a refusal.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes `bytes` in use already, also beyond the bound: nobody gets more until others are given back.
    pub fn count(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives `bytes` back.
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
