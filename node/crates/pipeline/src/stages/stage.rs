//! The modules of a pipeline, ready to be called.

use std::sync::Arc;
use weir_runtime::{
    CallError, CallFailure, CallLimits, InitError, Instance, InstanceConfig, Instruments, LogSink, Mark,
    Module, Quota, Table,
};

/// A stage: a module with its configuration and state.
pub(crate) struct Stage {
    pub(crate) module: Module,
    /// Name and version of the module, for messages.
    pub(crate) label: Arc<str>,
    pub(crate) config: InstanceConfig,
    pub(crate) limits: CallLimits,
    pub(crate) sink: Arc<dyn LogSink>,
    pub(crate) instruments: Arc<Instruments>,
    /// The instance in use. Dropped after any error.
    pub(crate) instance: Option<Instance>,
    /// The module's state, if granted.
    pub(crate) table: Option<Table>,
    /// Memory quota for that state, shared by all stages of the pipeline.
    pub(crate) quota: Quota,
    /// Generation of the state's rows.
    pub(crate) generation: u8,
}

impl Stage {
    /// Returns a copy of the stage for `partition`, without instance and state.
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

    /// Rolls state back to `mark`, and drops the instance, which may have seen later state.
    pub(crate) fn roll_back(&mut self, mark: Mark) {
        if let Some(table) = &mut self.table {
            table.roll_back(mark);
            self.instance = None;
        }
    }

    /// Creates another instance.
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

/// The loaded stages of a pipeline.
pub(crate) struct Stages {
    pub(crate) main: Vec<Stage>,
    /// Stages of the canary, or the reason why they cannot run.
    pub(crate) canary: Result<Vec<Stage>, String>,
}

impl Stages {
    /// Returns the stages of a pipeline that does not run.
    pub(crate) fn none() -> Self {
        Self::of(Vec::new())
    }

    pub(crate) fn of(main: Vec<Stage>) -> Self {
        let canary = Ok(Vec::new());
        Self { main, canary }
    }
}
