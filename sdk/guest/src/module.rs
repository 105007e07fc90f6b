//! What a module implements, and the way from there to the contract.

use crate::batch::Batch;
use crate::bindings::exports::weir::module::{timed, transform, upgrade};
use crate::bindings::weir::module::types as wit;
use crate::config::{Config, Parameter};
use crate::out::Out;
use crate::timers::Fired;
use std::borrow::Cow;
use std::cell::RefCell;
use std::marker::PhantomData;

/// A stream module.
pub trait Module: Sized + 'static {
    /// One sentence on what it does.
    const ABOUT: &'static str;

    /// Version of what it keeps in [`crate::state`]; 0 for a module that keeps nothing. Raise it when what was stored can
    /// no longer be read as it was written.
    const STATE_VERSION: u32 = 0;

    /// What a pipeline can set.
    fn parameters() -> Vec<Parameter> {
        Vec::new()
    }

    /// Makes an instance for `config`, and says which outputs it has and which columns it reads.
    ///
    /// # Errors
    /// Words for whoever applies the pipeline.
    fn init(config: &Config) -> Result<(Self, Plan), String>;

    /// Decides over a batch: each record is dropped unless `out` says otherwise.
    ///
    /// # Errors
    /// A [`Fault`]: nothing of the call then takes effect.
    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault>;

    /// Timers that this module set are due: see [`crate::timers`]. What it emits stems from one of them, and has its key and
    /// time unless it says otherwise.
    ///
    /// # Errors
    /// As [`Module::process`]; indexes are those of the timers.
    fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
        let _ = (fired, out);
        Err(Fault::Fatal(
            "a timer is due, and this module has none".to_owned(),
        ))
    }

    /// Takes over what version `earlier` of its state wrote, with [`Map::migrate`](crate::state::Map::migrate), once for each
    /// partition. A module that raises [`Module::STATE_VERSION`] and has no such function is not put in the place of the one before
    /// it until what that remembers is forgotten.
    ///
    /// # Errors
    /// Words for whoever applies the pipeline; nothing has happened then.
    fn migrate(&mut self, earlier: u32) -> Result<(), String> {
        Err(format!("it cannot read version {earlier} of its state"))
    }
}

/// Outputs and columns of a module.
#[derive(Clone, Debug)]
pub struct Plan(wit::Plan);

impl Plan {
    /// Reads values, and has the one output `main`.
    pub fn values() -> Self {
        Self(wit::Plan {
            outputs: vec!["main".to_owned()],
            keys: false,
            values: true,
            headers: false,
        })
    }

    /// Reads keys only.
    pub fn keys() -> Self {
        Self::values().with(true, false, false)
    }

    /// Reads the columns that are set.
    #[must_use]
    pub fn with(mut self, keys: bool, values: bool, headers: bool) -> Self {
        (self.0.keys, self.0.values, self.0.headers) = (keys, values, headers);
        self
    }

    /// Also reads keys.
    #[must_use]
    pub fn and_keys(mut self) -> Self {
        self.0.keys = true;
        self
    }

    /// Adds the output `name` and returns its number.
    pub fn output(&mut self, name: &str) -> u8 {
        if let Some(at) = self.0.outputs.iter().position(|o| o == name) {
            return at as u8 + 1;
        }
        self.0.outputs.push(name.to_owned());
        self.0.outputs.len() as u8
    }
}

/// Why a batch could not be processed.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Try the same batch again, a little later.
    Retry(String),
    /// The record at this index spoils the batch.
    Poison(usize, String),
    /// It will not work: stop the pipeline.
    Fatal(String),
}

/// What becomes of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays in the stream.
    Keep,
    /// It is dropped.
    Drop,
    /// It goes to another output, by number.
    Route(u8),
    /// It becomes a dead letter, for this reason.
    Reject(Cow<'static, str>),
}

impl Verdict {
    /// Makes a dead letter, for a reason.
    pub fn reject(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Reject(reason.into())
    }

    /// Writes it down for record `index`.
    #[inline]
    pub fn apply(self, index: usize, out: &mut Out) {
        match self {
            Self::Keep => out.keep(index),
            Self::Drop => out.route(index, 0),
            Self::Route(output) => out.route(index, output),
            Self::Reject(reason) => out.reject(index, reason),
        }
    }
}

/// Stands between a [`Module`] and the exports of a component.
#[doc(hidden)]
pub struct Adapter<M>(PhantomData<M>);

/// The instance of a component, of whatever type: a component exports one module.
struct Slot(RefCell<Option<Box<dyn std::any::Any>>>);

thread_local! {
    static INSTANCE: Slot = const { Slot(RefCell::new(None)) };
}

impl<M: Module> transform::Guest for Adapter<M> {
    fn describe() -> wit::Descriptor {
        let parameters = M::parameters().iter().map(Parameter::to_wit).collect();
        wit::Descriptor {
            about: M::ABOUT.to_owned(),
            parameters,
            state_version: M::STATE_VERSION,
        }
    }

    fn init(config: wit::Config) -> Result<wit::Plan, String> {
        crate::handover::begin();
        crate::timers::begin();
        let (module, plan) = M::init(&Config::new(config))?;
        INSTANCE.with(|slot| *slot.0.borrow_mut() = Some(Box::new(module)));
        Ok(plan.0)
    }

    fn process(batch: wit::Batch) -> Result<wit::Outcome, wit::Fault> {
        call::<M>(batch.timestamps.len(), |module, out| {
            module.process(&Batch::new(&batch), out)
        })
    }
}

impl<M: Module> timed::Guest for Adapter<M> {
    fn on_timers(fired: wit::Fired) -> Result<wit::Outcome, wit::Fault> {
        call::<M>(0, |module, out| module.on_timers(&Fired::new(&fired), out))
    }
}

impl<M: Module> upgrade::Guest for Adapter<M> {
    fn migrate(earlier: u32) -> Result<(), String> {
        INSTANCE.with(|slot| {
            let mut slot = slot.0.borrow_mut();
            let module = slot.as_mut().and_then(|m| m.downcast_mut::<M>());
            let module = module.ok_or_else(|| "called before init".to_owned())?;
            module.migrate(earlier)?;
            crate::handover::flush();
            Ok(())
        })
    }
}

/// Has the instance work on so many records, and hands over what it changed.
fn call<M: Module>(
    records: usize,
    work: impl FnOnce(&mut M, &mut Out) -> Result<(), Fault>,
) -> Result<wit::Outcome, wit::Fault> {
    INSTANCE.with(|slot| {
        let mut slot = slot.0.borrow_mut();
        let module = slot.as_mut().and_then(|m| m.downcast_mut::<M>());
        let module = module.ok_or_else(|| wit::Fault::Fatal("called before init".to_owned()))?;
        let mut out = Out::new(records);
        match work(module, &mut out) {
            Ok(()) => {
                crate::handover::flush();
                Ok(out.into_wit())
            }
            Err(Fault::Retry(why)) => Err(wit::Fault::Retry(why)),
            Err(Fault::Poison(index, why)) => Err(wit::Fault::Poison((index as u32, why))),
            Err(Fault::Fatal(why)) => Err(wit::Fault::Fatal(why)),
        }
    })
}
