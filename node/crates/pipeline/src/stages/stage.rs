//! The modules of a pipeline, ready to be called.

use std::sync::Arc;
use weir_runtime::{
    CallError, CallFailure, CallLimits, InitError, Instance, InstanceConfig, Instruments, LogSink, Mark,
    Module, Quota, Table,
};

/// A module in its place.
pub(crate) struct Stage {
    pub(crate) module: Module,
    /// Name and version of the module, for people.
    pub(crate) label: Arc<str>,
    pub(crate) config: InstanceConfig,
    pub(crate) limits: CallLimits,
    pub(crate) sink: Arc<dyn LogSink>,
    pub(crate) instruments: Arc<Instruments>,
    /// The instance in use; dropped after any error.
    pub(crate) instance: Option<Instance>,
    /// What the module remembers, if it may.
    pub(crate) table: Option<Table>,
    /// What it may take for that, with the others of its pipeline.
    pub(crate) quota: Quota,
    /// Under which rows that is.
    pub(crate) generation: u8,
}

impl Stage {
    /// Its like for a partition of its own.
    pub(crate) fn of_partition(&self, partition: u32) -> Self {
        Self {
            module: self.module.clone(),
            label: Arc::clone(&self.label),
            config: InstanceConfig {
                partition,
                ..self.config.clone()
            },
            limits: self.limits,
            sink: Arc::clone(&self.sink),
            instruments: Arc::clone(&self.instruments),
            instance: None,
            table: None,
            quota: self.quota.clone(),
            generation: self.generation,
        }
    }

    /// Takes back what its state has become since `mark`. The instance may have seen it: it goes, too.
    pub(crate) fn take_back(&mut self, mark: Mark) {
        if let Some(table) = &mut self.table {
            table.roll_back(mark);
            self.instance = None;
        }
    }

    /// Another instance.
    pub(crate) fn fresh(&self) -> Result<Instance, InitError> {
        let (sink, instruments) = (Arc::clone(&self.sink), Arc::clone(&self.instruments));
        self.module
            .instantiate(&self.config, self.limits, sink, instruments)
    }

    pub(crate) fn instance(&mut self) -> Result<&mut Instance, CallError> {
        if self.instance.is_none() {
            let failed = |e| match e {
                InitError::Failed(CallFailure::Full(max)) => CallError::Failed(CallFailure::Full(max)),
                e => CallError::Failed(CallFailure::Host(format!("no fresh instance: {e}"))),
            };
            self.instance = Some(self.fresh().map_err(failed)?);
        }
        self.instance
            .as_mut()
            .ok_or_else(|| CallError::Failed(CallFailure::Host("no instance".to_owned())))
    }
}

/// A pipeline's modules, ready.
pub(crate) struct Stages {
    pub(crate) main: Vec<Stage>,
    /// Of what is tried on some partitions; or why that cannot work.
    pub(crate) canary: Result<Vec<Stage>, String>,
}

impl Stages {
    /// Of what does not work.
    pub(crate) fn none() -> Self {
        Self::of(Vec::new())
    }

    pub(crate) fn of(main: Vec<Stage>) -> Self {
        let canary = Ok(Vec::new());
        Self { main, canary }
    }
}
