//! One instance of a module, and its calls.

use crate::bindings::exports::weir::module::{timed, transform, upgrade};
use crate::bindings::weir::module::types as wit;
use crate::configuration::TICK;
use crate::engine::Module;
use crate::error::{CallError, CallFailure, InitError, LoadError};
use crate::host::{Guest, Instruments, LogSink};
use crate::limits::CallLimits;
use crate::outcome::Outcome;
use crate::table::{Mark, Table};
use crate::timers::{Timer, TimerClock};
use crate::words::tidy;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::{Store, Trap};
use weir_types::columns::HeaderColumns;
use weir_types::limits::{MODULE_NAME_BYTES_MAX, MODULE_PARAMETERS_MAX, MODULE_TEXT_BYTES_MAX, OUTPUTS_MAX};
use weir_types::{Column, Columns, TopicName, Wanted};

/// A parameter's value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Any number.
    Number(f64),
    /// Text; for a parameter of JSON, its text.
    Text(String),
    /// Anything else, for a parameter of JSON.
    Json(serde_json::Value),
}

/// What a module says it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// One sentence on what it does.
    pub about: String,
    /// What can be set.
    pub parameters: Vec<ParameterInfo>,
    /// Version of its state; 0 for none.
    pub state_version: u32,
}

/// A parameter of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterInfo {
    /// Its name.
    pub name: String,
    /// `text`, `integer`, `number`, `boolean` or `json`.
    pub kind: String,
    /// Its value when nothing is set; it is required when there is none.
    pub preset: Option<Setting>,
    /// Its purpose.
    pub about: String,
}

/// What an instance is made for.
#[derive(Clone, Debug, Default)]
pub struct InstanceConfig {
    /// Partition that it works for.
    pub partition: u32,
    /// Topics that records come from.
    pub sources: Vec<String>,
    /// Parameters that are set.
    pub settings: BTreeMap<String, Setting>,
}

/// What an instance said in `init`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanInfo {
    /// Names of its outputs; the first is output 1.
    pub outputs: Vec<String>,
    /// Columns that it wants.
    pub wanted: Wanted,
}

/// The times at which a call happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When the node took the records in or called on its own, in milliseconds since 1970.
    pub now: i64,
    /// No record before this time is expected any more; the smallest number when that is not known.
    pub watermark: i64,
}

impl Default for Moment {
    /// No time at all.
    fn default() -> Self {
        Self {
            now: 0,
            watermark: i64::MIN,
        }
    }
}

/// Timers that are due.
#[derive(Clone, Copy, Debug)]
pub struct Fired<'a> {
    /// What they go by.
    pub clock: TimerClock,
    /// In order.
    pub timers: &'a [Timer],
}

/// What a module says of itself.
pub(crate) struct Described {
    /// For people: its texts are cut.
    pub(crate) descriptor: Descriptor,
    /// What is too long, if something is.
    pub(crate) excess: Option<Excess>,
}

/// Something that a module says of itself is longer than it may be.
#[derive(Clone, Debug)]
pub(crate) struct Excess {
    what: String,
    bytes: usize,
    limit: usize,
}

impl Module {
    /// Refuses a module that says more of itself than anybody reads. For one that comes anew: what was taken once is loaded, with
    /// its texts cut.
    ///
    /// # Errors
    /// Names the first text that is too long.
    pub fn check_texts(&self) -> Result<(), LoadError> {
        match self.excess.clone() {
            None => Ok(()),
            Some(Excess { what, bytes, limit }) => Err(LoadError::Text { what, bytes, limit }),
        }
    }
}

/// An instance that has been through `init`. After any error it must be dropped: its memory may hold anything.
pub struct Instance {
    store: Store<Guest>,
    exports: Exports,
    plan: PlanInfo,
    module: Module,
}

/// What a module exports, as far as it does.
#[derive(Clone)]
struct Exports {
    transform: transform::Guest,
    timed: Option<timed::Guest>,
    upgrade: Option<upgrade::Guest>,
}

impl Module {
    /// Asks the module what it is.
    ///
    /// # Errors
    /// When the call does not return.
    pub(crate) fn describe(&self) -> Result<Described, LoadError> {
        let limits = CallLimits {
            deadline_ms: 1_000,
            ..CallLimits::default()
        };
        let started = self.start(limits, Arc::new(()), Arc::default());
        let (mut store, exports) = started.map_err(LoadError::Describe)?;
        let result = self.call(&mut store, 0, Moment::default(), &mut None, |s| {
            exports.transform.call_describe(s)
        });
        let d = result.map_err(LoadError::Describe)?;
        let mut excess = None;
        let mut check = |what: String, bytes: usize, limit: usize| {
            if bytes > limit && excess.is_none() {
                excess = Some(Excess { what, bytes, limit });
            }
        };
        check(
            "the list of parameters".to_owned(),
            d.parameters.len(),
            MODULE_PARAMETERS_MAX,
        );
        check("`about`".to_owned(), d.about.len(), MODULE_TEXT_BYTES_MAX);
        let parameters = d.parameters.into_iter().map(|p| {
            let (bytes, name) = (p.name.len(), tidy(p.name));
            check("the name of a parameter".to_owned(), bytes, MODULE_NAME_BYTES_MAX);
            check(
                format!("`about` of parameter `{name}`"),
                p.about.len(),
                MODULE_TEXT_BYTES_MAX,
            );
            let preset = p.preset.map(setting_of);
            if let Some(Setting::Text(text)) = &preset {
                check(
                    format!("the preset of parameter `{name}`"),
                    text.len(),
                    MODULE_TEXT_BYTES_MAX,
                );
            }
            ParameterInfo {
                name,
                kind: kind_name(p.kind).to_owned(),
                preset,
                about: tidy(p.about),
            }
        });
        let descriptor = Descriptor {
            parameters: parameters.collect(),
            about: tidy(d.about),
            state_version: d.state_version,
        };
        Ok(Described { descriptor, excess })
    }

    /// Makes an instance and runs its `init`.
    ///
    /// # Errors
    /// When a setting does not fit a parameter, the module refuses, or the call does not return.
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
        // They are names of topics in a pipeline's text, and labels of metrics.
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

    fn start(
        &self,
        limits: CallLimits,
        sink: Arc<dyn LogSink>,
        instruments: Arc<Instruments>,
    ) -> Result<(Store<Guest>, Exports), CallFailure> {
        let pool = Arc::clone(&self.runtime.inner().memory);
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

    /// One entry into the guest, under its limits, on `table`. What a call that fails did to it is taken back.
    fn call<R>(
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
        // What is read and written of a large state is more than records make.
        store.set_hostcall_fuel(limits.output_bytes.max(bytes.saturating_mul(4)));
        let running = self.runtime.inner().ticker.running();
        let result = enter(store);
        drop(running);
        *table = store.data_mut().end_call();
        if let (Err(_), Some(table)) = (&result, table) {
            table.roll_back(mark);
        }
        result.map_err(|e| failure(&e, store.data(), deadline))
    }
}

impl Instance {
    /// What it said in `init`.
    pub fn plan(&self) -> &PlanInfo {
        &self.plan
    }

    /// Processes a batch that holds at least the columns of its plan, on the module's state if it was granted any. `marks`
    /// has a byte a record, or is empty when all are 0: see `batch.marks` in the contract.
    ///
    /// # Errors
    /// When there is no outcome; nothing of the call then counts, and `table` is as it was.
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

    /// Tells the module that timers are due. They are not set any more.
    ///
    /// # Errors
    /// As [`Instance::process`]; indexes are those of the timers.
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

    /// Has the module take over what version `earlier` of it wrote: all of `table`, whose changes are not limited meanwhile.
    ///
    /// # Errors
    /// When it does not, in words; `table` is as it was.
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

    /// A call that has an outcome for `items` records or timers.
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

fn ticks(deadline: Duration) -> u64 {
    // The tick under way when the call begins is not a whole one.
    deadline.as_millis().div_ceil(TICK.as_millis()) as u64 + 1
}

fn failure(error: &wasmtime::Error, guest: &Guest, deadline: Duration) -> CallFailure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => CallFailure::Deadline(deadline),
        _ if guest.memory.is_full => CallFailure::Full(guest.memory.pool.max()),
        _ if guest.memory.refused => CallFailure::Memory(guest.limits.memory_bytes),
        _ if guest.state.crowded.is_some() => CallFailure::Crowded(guest.state.crowded.unwrap_or_default()),
        _ if guest.state.refused.is_some() => {
            CallFailure::State(guest.state.refused.clone().unwrap_or_default())
        }
        Some(trap) => CallFailure::Trap(trap.to_string()),
        None => {
            let words = format!("{error:#}");
            if words.contains("fuel") {
                CallFailure::Output(guest.limits.output_bytes)
            } else {
                CallFailure::Trap(tidy(words))
            }
        }
    }
}

fn column_param(c: &Column) -> wit::ColumnParam<'_> {
    wit::ColumnParam {
        ends: &c.ends,
        data: &c.data,
        nulls: c.nulls.as_deref(),
    }
}

fn headers_param(h: &HeaderColumns) -> wit::HeadersParam<'_> {
    wit::HeadersParam {
        ends: &h.ends,
        names: column_param(&h.names),
        values: column_param(&h.values),
    }
}

fn kind_name(kind: wit::Kind) -> &'static str {
    match kind {
        wit::Kind::Text => "text",
        wit::Kind::Integer => "integer",
        wit::Kind::Number => "number",
        wit::Kind::Boolean => "boolean",
        wit::Kind::Json => "json",
    }
}

fn setting_of(value: wit::ValueResult) -> Setting {
    match value {
        wit::ValueResult::Text(v) | wit::ValueResult::Json(v) => Setting::Text(v),
        wit::ValueResult::Integer(v) => Setting::Integer(v),
        wit::ValueResult::Number(v) => Setting::Number(v),
        wit::ValueResult::Boolean(v) => Setting::Boolean(v),
    }
}

/// A value of the kind that its parameter has.
enum Fitted {
    Text(String),
    Integer(i64),
    Number(f64),
    Boolean(bool),
    Json(String),
}

fn value_param(value: &Fitted) -> wit::ValueParam<'_> {
    match value {
        Fitted::Text(v) => wit::ValueParam::Text(v),
        Fitted::Integer(v) => wit::ValueParam::Integer(*v),
        Fitted::Number(v) => wit::ValueParam::Number(*v),
        Fitted::Boolean(v) => wit::ValueParam::Boolean(*v),
        Fitted::Json(v) => wit::ValueParam::Json(v),
    }
}

/// Matches settings with parameters, and fills in presets.
fn fit(
    parameters: &[ParameterInfo],
    set: &BTreeMap<String, Setting>,
) -> Result<Vec<(String, Fitted)>, InitError> {
    if let Some(name) = set
        .keys()
        .find(|name| !parameters.iter().any(|p| &p.name == *name))
    {
        let known = parameters.iter().map(|p| p.name.clone()).collect();
        return Err(InitError::UnknownParameter {
            name: name.clone(),
            known,
        });
    }
    let mut values = Vec::with_capacity(parameters.len());
    for parameter in parameters {
        let setting = set.get(&parameter.name).or(parameter.preset.as_ref());
        let setting = setting.ok_or_else(|| InitError::Missing(parameter.name.clone()))?;
        values.push((parameter.name.clone(), fit_one(parameter, setting)?));
    }
    Ok(values)
}

fn fit_one(parameter: &ParameterInfo, setting: &Setting) -> Result<Fitted, InitError> {
    let wrong = |want| InitError::Kind {
        name: parameter.name.clone(),
        want,
        value: serde_json::to_string(setting).unwrap_or_default(),
    };
    match (parameter.kind.as_str(), setting) {
        ("text", Setting::Text(v)) => Ok(Fitted::Text(v.clone())),
        // From a command line everything is text, and some text looks like a number.
        ("text", Setting::Integer(v)) => Ok(Fitted::Text(v.to_string())),
        ("text", Setting::Number(v)) => Ok(Fitted::Text(v.to_string())),
        ("text", Setting::Boolean(v)) => Ok(Fitted::Text(v.to_string())),
        ("text", _) => Err(wrong("text")),
        ("integer", Setting::Integer(v)) => Ok(Fitted::Integer(*v)),
        ("integer", Setting::Text(v)) => v.parse().map(Fitted::Integer).map_err(|_| wrong("whole number")),
        ("integer", _) => Err(wrong("whole number")),
        ("number", Setting::Integer(v)) => Ok(Fitted::Number(*v as f64)),
        ("number", Setting::Number(v)) => Ok(Fitted::Number(*v)),
        ("number", Setting::Text(v)) => v.parse().map(Fitted::Number).map_err(|_| wrong("number")),
        ("number", _) => Err(wrong("number")),
        ("boolean", Setting::Boolean(v)) => Ok(Fitted::Boolean(*v)),
        ("boolean", Setting::Text(v)) => v
            .parse()
            .map(Fitted::Boolean)
            .map_err(|_| wrong("`true` or `false`")),
        ("boolean", _) => Err(wrong("`true` or `false`")),
        (_, Setting::Text(v)) if serde_json::from_str::<serde_json::Value>(v).is_ok() => {
            Ok(Fitted::Json(v.clone()))
        }
        (_, Setting::Text(_)) => Err(wrong("JSON")),
        (_, other) => serde_json::to_string(other)
            .map(Fitted::Json)
            .map_err(|_| wrong("JSON")),
    }
}
