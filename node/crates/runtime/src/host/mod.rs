//! The host's interfaces to a guest, a file each. Permissions are part of the instance's state, and every
//! number from a guest is bounded on arrival.

pub(crate) mod log;
pub(crate) mod metrics;
mod state;
mod timers;
pub(crate) mod wasi;

use crate::bindings::Evolving;
use crate::digest::Digest;
use crate::host::log::LogSink;
use crate::host::metrics::Instruments;
use crate::limits::{CallLimits, PARTS_MAX, TABLE_ELEMENTS_MAX};
use crate::moment::Moment;
use crate::state::table::Table;
use std::sync::Arc;
use wasmtime::ResourceLimiter;
use wasmtime::component::{HasSelf, Linker};
use weir_types::pool::Pool;

/// The host's state for an instance.
pub(crate) struct Guest {
    pub(crate) limits: CallLimits,
    pub(crate) memory: MemoryLimit,
    pub(crate) log: log::Lines,
    pub(crate) metrics: metrics::Defined,
    pub(crate) state: state::State,
    pub(crate) wasi: wasi::Wasi,
}

impl Guest {
    pub(crate) fn new(
        digest: Digest,
        limits: CallLimits,
        sink: Arc<dyn LogSink>,
        instruments: Arc<Instruments>,
        pool: Arc<Pool>,
    ) -> Self {
        Self {
            limits,
            memory: MemoryLimit {
                bytes_max: limits.memory_bytes,
                bytes: 0,
                refused: false,
                pool,
                is_full: false,
                last: 0,
            },
            log: log::Lines::new(sink, limits.log_lines),
            metrics: metrics::Defined::new(instruments),
            state: state::State::default(),
            wasi: wasi::Wasi::new(digest),
        }
    }

    pub(crate) fn link(linker: &mut Linker<Self>) -> wasmtime::Result<()> {
        Evolving::add_to_linker::<_, HasSelf<Self>>(linker, |guest| guest)?;
        wasi::link(linker)
    }

    /// Begins a call, on `table` if state was granted. Resets the counts per call.
    pub(crate) fn begin_call(&mut self, moment: Moment, table: Option<Table>) {
        (self.memory.refused, self.memory.is_full) = (false, false);
        self.log.begin_call();
        self.set_time(moment.now);
        self.state.begin_call(moment, table, self.limits.output_bytes);
    }

    /// Ends a call. Returns the changed table.
    pub(crate) fn end_call(&mut self) -> Option<Table> {
        self.end_lines();
        self.state.table.take()
    }
}

impl crate::bindings::weir::module::types::Host for Guest {}

/// Bounds the growth of all memories together, and remembers a refusal: the guest's abort after a refusal has
/// no message.
pub(crate) struct MemoryLimit {
    bytes_max: usize,
    /// Bytes of all memories.
    bytes: usize,
    pub(crate) refused: bool,
    /// Pool of all modules.
    pub(crate) pool: Arc<Pool>,
    /// The pool was exhausted.
    pub(crate) is_full: bool,
    /// Bytes of the last growth.
    last: u64,
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, now: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes.saturating_sub(now).saturating_add(desired);
        let fits = bytes <= self.bytes_max;
        self.refused |= !fits;
        self.last = 0;
        if !fits {
            return Ok(false);
        }
        let more = bytes.saturating_sub(self.bytes) as u64;
        if !self.pool.take(more) {
            self.pool.refuse();
            self.is_full = true;
            return Ok(false);
        }
        self.last = more;
        self.bytes = bytes;
        Ok(true)
    }

    /// Returns the bytes of a growth that failed after the grant.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        let last = std::mem::take(&mut self.last);
        self.bytes = self.bytes.saturating_sub(last as usize);
        self.pool.give(last);
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        PARTS_MAX
    }

    fn tables(&self) -> usize {
        PARTS_MAX
    }

    fn memories(&self) -> usize {
        PARTS_MAX
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        self.pool.give(self.bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_share_one_limit() {
        let mut limit = MemoryLimit {
            bytes_max: 100,
            bytes: 0,
            refused: false,
            pool: Arc::new(Pool::new(120)),
            is_full: false,
            last: 0,
        };
        assert!(limit.memory_growing(0, 60, None).unwrap());
        assert!(!limit.memory_growing(0, 60, None).unwrap() && limit.refused);
        assert!(limit.memory_growing(0, 30, None).unwrap());
        assert!(limit.memory_growing(60, 70, None).unwrap());
        assert!(!limit.memory_growing(30, 31, None).unwrap());
        // Another instance has its own limit, but shares the pool: 20 are left.
        let pool = Arc::clone(&limit.pool);
        let mut other = MemoryLimit {
            bytes_max: 100,
            bytes: 0,
            refused: false,
            pool: Arc::clone(&pool),
            is_full: false,
            last: 0,
        };
        assert!(!limit.is_full && !other.memory_growing(0, 21, None).unwrap());
        assert!(other.is_full && !other.refused && pool.refused() == 1);
        drop(limit);
        assert!(other.memory_growing(0, 21, None).unwrap());
        drop(other);
        assert_eq!(pool.used(), 0);
    }
}
