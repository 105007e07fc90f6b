//! The trait that modules implement, and its adapter to the contract.

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
    /// Description of the module in a sentence.
    const ABOUT: &'static str;

    /// Version of the module's [`crate::state`]; 0 for a module without state. Raise the version when this
    /// module cannot read state written before.
    const STATE_VERSION: u32 = 0;

    /// Returns the parameters that a pipeline can set.
    fn parameters() -> Vec<Parameter> {
        Vec::new()
    }

    /// Creates an instance for `config`, and declares its outputs and the columns it reads.
    ///
    /// # Errors
    /// A reason for the author of the pipeline file.
    fn init(config: &Config) -> Result<(Self, Interface), String>;

    /// Processes a batch. Records that `out` does not mention are dropped.
    ///
    /// # Errors
    /// A [`Fault`]: the call then has no effect.
    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault>;

    /// Handles due timers of this module: see [`crate::timers`]. Each emitted record names a timer as its
    /// origin, and takes key and time from the timer unless it sets its own.
    ///
    /// # Errors
    /// A [`Fault`]; indexes refer to the timers. The call then has no effect.
    fn on_timers(&mut self, fired: &Fired<'_>, out: &mut Out) -> Result<(), Fault> {
        let _ = (fired, out);
        Err(Fault::Fatal("the module does not handle timers".to_owned()))
    }

    /// Converts state written by version `earlier` with [`Map::migrate`](crate::state::Map::migrate), once
    /// per partition. Without this function, a module with a new [`Module::STATE_VERSION`] cannot replace its
    /// predecessor until the predecessor's state is reset.
    ///
    /// # Errors
    /// A reason for the operator; no state has changed then.
    fn migrate(&mut self, earlier: u32) -> Result<(), String> {
        Err(format!("cannot migrate state of version {earlier}"))
    }
}

/// Outputs and columns of a module.
#[derive(Clone, Debug)]
pub struct Interface(wit::Plan);

impl Interface {
    /// Declares that the module reads values and has the single output `main`.
    pub fn values() -> Self {
        Self(wit::Plan {
            outputs: vec!["main".to_owned()],
            keys: false,
            values: true,
            headers: false,
        })
    }

    /// Declares that the module reads only keys and has the single output `main`.
    pub fn keys() -> Self {
        Self::values().with(true, false, false)
    }

    /// Sets the columns that the module reads.
    #[must_use]
    pub fn with(mut self, keys: bool, values: bool, headers: bool) -> Self {
        (self.0.keys, self.0.values, self.0.headers) = (keys, values, headers);
        self
    }

    /// Adds keys to the columns that the module reads.
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

/// A failure to process a batch.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Temporary: the same batch is retried a little later.
    Retry(String),
    /// The record with this index cannot be processed.
    Poison(usize, String),
    /// Permanent: the pipeline stops.
    Fatal(String),
}

/// The decision on a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The record stays in the stream.
    Keep,
    /// The record is dropped.
    Drop,
    /// The record goes to another output, by number.
    Route(u8),
    /// The record becomes a dead letter, with this reason.
    Reject(Cow<'static, str>),
}

impl Verdict {
    /// Makes a verdict that rejects a record with a reason.
    pub fn reject(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Reject(reason.into())
    }

    /// Parses `keep`, `drop` or `reject`, the last with `reason`. Returns `None` for other texts, such as the
    /// name of an output.
    pub fn parse(text: &str, reason: impl Into<Cow<'static, str>>) -> Option<Self> {
        match text {
            "keep" => Some(Self::Keep),
            "drop" => Some(Self::Drop),
            "reject" => Some(Self::reject(reason)),
            _ => None,
        }
    }

    /// Applies the verdict to record `index`.
    #[inline]
    pub fn apply(&self, index: usize, out: &mut Out) {
        match self {
            Self::Keep => out.keep(index),
            Self::Drop => out.route(index, 0),
            Self::Route(output) => out.route(index, *output),
            Self::Reject(reason) => out.reject(index, &**reason),
        }
    }
}

/// The adapter between a [`Module`] and the exports of a component.
#[doc(hidden)]
pub struct Adapter<M>(PhantomData<M>);

/// The instance of the component, of any type: a component exports one module.
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
        let (module, interface) = M::init(&Config::new(config))?;
        INSTANCE.with(|slot| *slot.0.borrow_mut() = Some(Box::new(module)));
        Ok(interface.0)
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

/// Calls the instance with a number of records, and hands its changes to the host.
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
