//! An instance of a module, and its calls.

mod describe;
mod failure;
pub(crate) mod outcome;
mod settings;
mod start;

use crate::bindings::weir::module::types as wit;
use crate::error::{CallError, CallFailure, InitError};
use crate::host::Guest;
use crate::host::log::LogSink;
use crate::host::metrics::Instruments;
use crate::instance::outcome::Outcome;
use crate::instance::settings::{column_param, fit, headers_param, value_param};
use crate::instance::start::Exports;
use crate::limits::CallLimits;
use crate::module::{Module, Setting};
use crate::moment::Moment;
use crate::state::table::{Mark, Table};
use crate::state::timers::{Timer, TimerClock};
use crate::words::tidy;
use std::collections::BTreeMap;
use std::sync::Arc;
use wasmtime::Store;
use weir_types::limits::OUTPUTS_MAX;
use weir_types::{Column, Columns, TopicName, Wanted};

/// Purpose of an instance.
#[derive(Clone, Debug, Default)]
pub struct InstanceConfig {
    /// Partition of the instance.
    pub partition: u32,
    /// Topics of the records.
    pub sources: Vec<String>,
    /// Settings of parameters.
    pub settings: BTreeMap<String, Setting>,
}

/// The instance's answer to `init`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanInfo {
    /// Names of its outputs; the first is output 1.
    pub outputs: Vec<String>,
    /// Columns to fill.
    pub wanted: Wanted,
}

/// Timers that are due.
#[derive(Clone, Copy, Debug)]
pub struct Fired<'a> {
    /// Clock of the timers.
    pub clock: TimerClock,
    /// Timers in order.
    pub timers: &'a [Timer],
}

/// An instance after `init`. After any error it must be dropped: its memory may hold anything.
pub struct Instance {
    store: Store<Guest>,
    exports: Exports,
    plan: PlanInfo,
    module: Module,
}

impl Instance {
    /// Returns the instance's answer to `init`.
    pub fn plan(&self) -> &PlanInfo {
        &self.plan
    }

    /// Processes a batch with at least the columns of the plan, on the module's state if granted. `marks` has
    /// a byte per record, or is empty when all are 0: see `batch.marks` in the contract.
    ///
    /// # Errors
    /// Fails when there is no outcome: nothing of the call counts, and `table` is unchanged.
    pub fn process(
        &mut self,
        source: u32,
        moment: Moment,
        columns: &Columns,
        marks: &[u8],
        table: &mut Option<Table>,
    ) -> Result<Outcome, CallError> {
        let wanted = self.plan.wanted;
        let batch = wit::Batch {
            source,
            now: moment.now,
            watermark: moment.watermark,
            timestamps: &columns.timestamps,
            marks: (!marks.is_empty()).then_some(marks),
            keys: columns.keys.as_ref().filter(|_| wanted.keys).map(column_param),
            values: columns
                .values
                .as_ref()
                .filter(|_| wanted.values)
                .map(column_param),
            headers: columns
                .headers
                .as_ref()
                .filter(|_| wanted.headers)
                .map(headers_param),
        };
        let data = |c: &Option<Column>| c.as_ref().map_or(0, |c| c.data.len());
        let bytes = data(&columns.keys) + data(&columns.values);
        let guest = self.exports.transform.clone();
        self.work(columns.len(), bytes, moment, table, |s| {
            guest.call_process(s, batch)
        })
    }

    /// Calls the module for due timers, which are cleared before.
    ///
    /// # Errors
    /// Fails when there is no outcome: nothing of the call counts, and `table` is unchanged. Indexes are
    /// those of the timers.
    pub fn on_timers(
        &mut self,
        moment: Moment,
        fired: Fired<'_>,
        table: &mut Option<Table>,
    ) -> Result<Outcome, CallError> {
        let Some(timed) = self.exports.timed.clone() else {
            let why = "it has no `weir:module/timed`: its timers are another module's".to_owned();
            return Err(CallError::Failed(CallFailure::Host(why)));
        };
        let mut keys = Column::default();
        fired.timers.iter().for_each(|t| keys.push(Some(&t.key)));
        let (at, tags): (Vec<_>, Vec<_>) = fired.timers.iter().map(|t| (t.at, t.tag)).unzip();
        let param = wit::Fired {
            clock: fired.clock.into(),
            now: moment.now,
            watermark: moment.watermark,
            at: &at,
            keys: column_param(&keys),
            tags: &tags,
        };
        let outcome = self.work(tags.len(), keys.data.len(), moment, table, |s| {
            timed.call_on_timers(s, param)
        })?;
        match outcome.is_emits_only() {
            true => Ok(outcome),
            false => {
                let lie = "`on-timers` kept, copied or rejected a record: there is none".to_owned();
                Err(CallError::Failed(CallFailure::Lies(lie)))
            }
        }
    }

    /// Has the module migrate state from version `earlier`: all of `table`, without a limit on its changes.
    ///
    /// # Errors
    /// Returns the module's reason for a failure; `table` is unchanged.
    pub fn migrate(&mut self, earlier: u32, table: &mut Option<Table>) -> Result<(), CallError> {
        let failed = |why: String| CallError::Failed(CallFailure::Host(why));
        let Some(upgrade) = self.exports.upgrade.clone() else {
            return Err(failed("it has no `weir:module/upgrade`".to_owned()));
        };
        let mark = table.as_mut().map(|table| {
            table.begin_migration();
            table.mark()
        });
        let bytes = table.as_ref().map_or(0, Table::bytes);
        let module = self.module.clone();
        let called = module.call(&mut self.store, bytes, Moment::default(), table, |s| {
            upgrade.call_migrate(s, earlier)
        });
        let refused = match called {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(why)) => CallError::Fatal(tidy(why)),
            Err(failure) => CallError::Failed(failure),
        };
        if let (Some(table), Some(mark)) = (table, mark) {
            table.roll_back(mark);
        }
        Err(refused)
    }

    /// Makes a call with an outcome for `items` records or timers.
    fn work(
        &mut self,
        items: usize,
        bytes: usize,
        moment: Moment,
        table: &mut Option<Table>,
        enter: impl FnOnce(&mut Store<Guest>) -> wasmtime::Result<Result<wit::Outcome, wit::Fault>>,
    ) -> Result<Outcome, CallError> {
        let mark = table.as_ref().map_or_else(Mark::default, Table::mark);
        let result = self.module.call(&mut self.store, bytes, moment, table, enter);
        let outcome = match result.map_err(CallError::Failed)? {
            Ok(outcome) => Outcome::check(outcome, items, self.plan.outputs.len())
                .map_err(|lie| CallError::Failed(CallFailure::Lies(lie))),
            Err(wit::Fault::Retry(why)) => Err(CallError::Retry(tidy(why))),
            Err(wit::Fault::Poison((index, why))) => Err(match (index as usize) < items {
                true => CallError::Poison(index, tidy(why)),
                false => {
                    CallError::Failed(CallFailure::Lies(format!("poison record {index}: {}", tidy(why))))
                }
            }),
            Err(wit::Fault::Fatal(why)) => Err(CallError::Fatal(tidy(why))),
        };
        if let (Err(_), Some(table)) = (&outcome, table) {
            table.roll_back(mark);
        }
        outcome
    }
}

impl Module {
    /// Makes an instance and runs its `init`.
    ///
    /// # Errors
    /// Fails when a setting does not fit a parameter, the module refuses, or the call does not return.
    pub fn instantiate(
        &self,
        config: &InstanceConfig,
        limits: CallLimits,
        sink: Arc<dyn LogSink>,
        instruments: Arc<Instruments>,
    ) -> Result<Instance, InitError> {
        let values = fit(&self.descriptor.parameters, &config.settings)?;
        let started = self.start(limits, sink, instruments);
        let (mut store, exports) = started.map_err(InitError::Failed)?;
        store.data_mut().metrics.in_init = true;
        let sources: Vec<&str> = config.sources.iter().map(String::as_str).collect();
        let values: Vec<(&str, wit::ValueParam<'_>)> =
            values.iter().map(|(n, v)| (n.as_str(), value_param(v))).collect();
        let param = wit::Config {
            partition: config.partition,
            sources: &sources,
            values: &values,
        };
        let result = self.call(&mut store, 0, Moment::default(), &mut None, |s| {
            exports.transform.call_init(s, param)
        });
        store.data_mut().metrics.in_init = false;
        let plan = result.map_err(InitError::Failed)?;
        let plan = plan.map_err(|why| InitError::Refused(tidy(why)))?;
        if plan.outputs.len() > OUTPUTS_MAX {
            return Err(InitError::Outputs(plan.outputs.len()));
        }
        // Output names become topic names and labels of metrics.
        if let Some(bad) = plan
            .outputs
            .iter()
            .position(|name| name.parse::<TopicName>().is_err())
        {
            return Err(InitError::OutputName(bad + 1));
        }
        let wanted = Wanted {
            keys: plan.keys,
            values: plan.values,
            headers: plan.headers,
        };
        let plan = PlanInfo {
            outputs: plan.outputs,
            wanted,
        };
        Ok(Instance {
            store,
            exports,
            plan,
            module: self.clone(),
        })
    }
}
