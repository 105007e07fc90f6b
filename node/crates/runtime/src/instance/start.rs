//! Starting a guest, and entering it under its limits.

use crate::bindings::exports::weir::module::{timed, transform, upgrade};
use crate::error::CallFailure;
use crate::host::Guest;
use crate::host::log::LogSink;
use crate::host::metrics::Instruments;
use crate::instance::failure::{failure, ticks};
use crate::limits::CallLimits;
use crate::module::Module;
use crate::moment::Moment;
use crate::state::table::{Mark, Table};
use std::sync::Arc;
use wasmtime::Store;

/// The exports of a module.
#[derive(Clone)]
pub(super) struct Exports {
    pub(super) transform: transform::Guest,
    pub(super) timed: Option<timed::Guest>,
    pub(super) upgrade: Option<upgrade::Guest>,
}

impl Module {
    pub(super) fn start(
        &self,
        limits: CallLimits,
        sink: Arc<dyn LogSink>,
        instruments: Arc<Instruments>,
    ) -> Result<(Store<Guest>, Exports), CallFailure> {
        let pool = Arc::clone(&self.shared.memory);
        let mut store = Store::new(
            self.engine(),
            Guest::new(self.digest, limits, sink, instruments, pool),
        );
        store.limiter(|guest| &mut guest.memory);
        self.call(&mut store, 0, Moment::default(), &mut None, |s| {
            let instance = self.pre.instantiate(&mut *s)?;
            let timed = self.timed.as_ref().map(|timed| timed.load(&mut *s, &instance));
            let upgrade = self.upgrade.as_ref().map(|with| with.load(&mut *s, &instance));
            Ok(Exports {
                transform: self.transform.load(&mut *s, &instance)?,
                timed: timed.transpose()?,
                upgrade: upgrade.transpose()?,
            })
        })
        .map(|exports| (store, exports))
    }

    /// Enters the guest once, under its limits, on `table`. Takes back the changes of a failed call.
    pub(super) fn call<R>(
        &self,
        store: &mut Store<Guest>,
        bytes: usize,
        moment: Moment,
        table: &mut Option<Table>,
        enter: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<R>,
    ) -> Result<R, CallFailure> {
        let limits = store.data().limits;
        let deadline = limits.deadline(bytes);
        let mark = table.as_ref().map_or_else(Mark::default, Table::mark);
        store.data_mut().begin_call(moment, table.take());
        store.set_epoch_deadline(ticks(deadline));
        // Reads and writes of a large state exceed the bytes of the records.
        store.set_hostcall_fuel(limits.output_bytes.max(bytes.saturating_mul(4)));
        let running = self.shared.ticker.running();
        let result = enter(store);
        drop(running);
        *table = store.data_mut().end_call();
        if let (Err(_), Some(table)) = (&result, table) {
            table.roll_back(mark);
        }
        result.map_err(|e| failure(&e, store.data(), deadline))
    }
}
