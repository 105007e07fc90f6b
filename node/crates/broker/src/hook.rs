//! The in-line pipeline call as the broker sees it: from a batch to its effects. Implemented by
//! `weir-pipeline`.

use crate::error::ProduceError;
use crate::propose::step::{Footing, Output, Step};
use crate::state::rows::topic::Topic;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use weir_log::StateKey;
use weir_replica::ProposeError;
use weir_types::{Batch, TopicName};

impl From<HookError> for ProduceError {
    fn from(e: HookError) -> Self {
        match e {
            HookError::Halted { pipeline, why } => Self::Halted { pipeline, why },
            HookError::Busy { pipeline } => Self::PipelineBusy { pipeline },
            HookError::NotLeader => ProposeError::NotLeader { leader: None }.into(),
            HookError::TooMuch {
                pipeline,
                bytes,
                limit,
            } => Self::MadeTooLarge {
                pipeline,
                bytes,
                limit,
            },
        }
    }
}

/// A batch that enters an in-line pipeline.
pub struct HookJob {
    /// The topic that the batch was produced to.
    pub topic: Arc<Topic>,
    /// Index of the partition in the topic.
    pub partition: u32,
    /// The batch as the producer sent it, without a valid base offset.
    pub batch: Batch,
}

/// The effects of a pipeline on a batch.
pub struct Processed {
    /// Records that stay on the source partition, in the frame of the original batch; sparse if records were
    /// dropped.
    pub kept: Batch,
    /// Records for other partitions.
    pub outputs: Vec<Output>,
    /// State rows that change in the same entry; `None` removes a row.
    pub rows: Vec<(StateKey, Option<Bytes>)>,
    /// The steps that this result depends on.
    pub footing: Footing,
}

/// The effects of a pipeline step without an input batch, such as a timer.
pub struct Stepped {
    /// Records, for partitions of the group in which the step is.
    pub outputs: Vec<Output>,
    /// State rows that change in the same entry; `None` removes a row.
    pub rows: Vec<(StateKey, Option<Bytes>)>,
    /// The step of the session.
    pub step: Step,
}

impl Processed {
    /// Returns a batch without any effects.
    pub fn unchanged(batch: Batch) -> Self {
        Self {
            kept: batch,
            outputs: Vec::new(),
            rows: Vec::new(),
            footing: Footing::Free,
        }
    }
}

/// Why a batch did not get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookError {
    /// The pipeline is halted until an operator acts.
    Halted {
        /// Name of the pipeline.
        pipeline: String,
        /// Reason of the halt.
        why: String,
    },
    /// The pipeline's queue is full.
    Busy {
        /// Name of the pipeline.
        pipeline: String,
    },
    /// This node does not lead the partition any more.
    NotLeader,
    /// The output of the pipeline exceeds the limit of an entry.
    TooMuch {
        /// Name of the pipeline.
        pipeline: String,
        /// Bytes of the output.
        bytes: usize,
        /// Limit in bytes.
        limit: usize,
    },
}

/// Called once per job, in the order in which the jobs of a topic were submitted.
pub type HookDone = Box<dyn FnOnce(HookJob, Result<Processed, HookError>) + Send>;

/// In-line pipelines.
pub trait Hook: Send + Sync + 'static {
    /// Returns true if batches for `topic` pass a pipeline.
    fn intercepts(&self, topic: &TopicName) -> bool;

    /// Returns the pipeline that reads or writes `topic`, if any. Such a topic cannot be deleted.
    fn user_of(&self, topic: &str) -> Option<String>;

    /// Returns the pipeline that needs `topic` on all nodes, if any.
    fn holder_of(&self, topic: &str) -> Option<String>;

    /// Checks that the pipelines that read `topic` support `partitions` partitions; otherwise returns the
    /// reason.
    fn has_room_for(&self, topic: &str, partitions: u32) -> Result<(), String>;

    /// Loads modules, named by SHA-256, for a revision that is about to be deployed. The modules may not have
    /// been replicated to this node yet. Returns `Ok(true)` once all are loaded, `Ok(false)` if loading
    /// continues in the background (call again), and the reason if a module cannot be loaded.
    fn prepare(&self, modules: Vec<[u8; 32]>) -> BoxFuture<'static, Result<bool, String>>;

    /// Rolls back `revision` of a pipeline that violated its guards on another node, for the reason `why`.
    /// Called on the site's leader. Returns `Ok(true)` when complete or unnecessary, `Ok(false)` while in
    /// progress (call again), and the reason if impossible.
    fn take_back(
        &self,
        pipeline: String,
        revision: u64,
        why: String,
    ) -> BoxFuture<'static, Result<bool, String>>;

    /// Submits a job without blocking. Calls `done` from another thread, or at once for a refusal.
    fn submit(&self, job: HookJob, done: HookDone);
}

/// No pipelines.
impl Hook for () {
    fn intercepts(&self, _topic: &TopicName) -> bool {
        false
    }

    fn user_of(&self, _topic: &str) -> Option<String> {
        None
    }

    fn holder_of(&self, _topic: &str) -> Option<String> {
        None
    }

    fn has_room_for(&self, _: &str, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn prepare(&self, _modules: Vec<[u8; 32]>) -> BoxFuture<'static, Result<bool, String>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn take_back(&self, _: String, _: u64, _: String) -> BoxFuture<'static, Result<bool, String>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn submit(&self, job: HookJob, done: HookDone) {
        let kept = job.batch.clone();
        done(job, Ok(Processed::unchanged(kept)));
    }
}
