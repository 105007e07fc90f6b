//! The in-line call, as the broker knows it: a batch goes in, effects come out. `weir-pipeline` implements it.

use crate::Topic;
use crate::error::ProduceError;
use crate::propose::step::{Footing, Output, Step};
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

/// A batch on its way through an in-line pipeline.
pub struct HookJob {
    /// The topic it was produced to.
    pub topic: Arc<Topic>,
    /// The partition of it.
    pub partition: u32,
    /// As the producer sent it; its base offset means nothing yet.
    pub batch: Batch,
}

/// What a pipeline makes of a batch.
pub struct Processed {
    /// What stays on the source's partition: the batch's own frame, sparse where records were dropped.
    pub kept: Batch,
    /// What goes elsewhere.
    pub outputs: Vec<Output>,
    /// Rows that change in the same entry: what its modules remember. `None` removes one.
    pub rows: Vec<(StateKey, Option<Bytes>)>,
    /// What it stands on.
    pub footing: Footing,
}

/// What a pipeline makes of the time alone.
pub struct Stepped {
    /// Records, for partitions of the group in which the step is.
    pub outputs: Vec<Output>,
    /// As in [`Processed::rows`].
    pub rows: Vec<(StateKey, Option<Bytes>)>,
    /// What it is.
    pub step: Step,
}

impl Processed {
    /// A batch that no module has looked at or needs to.
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
    /// The pipeline refuses until somebody looks at it.
    Halted {
        /// Its name.
        pipeline: String,
        /// What happened.
        why: String,
    },
    /// Too much waits for it already.
    Busy {
        /// Its name.
        pipeline: String,
    },
    /// This node does not lead the partition any more.
    NotLeader,
    /// What the pipeline makes of it is more than one entry may have.
    TooMuch {
        /// Its name.
        pipeline: String,
        /// Bytes that it is.
        bytes: usize,
        /// Bytes that it may be.
        limit: usize,
    },
}

/// Called once per job, in the order in which the jobs of a topic were submitted.
pub type HookDone = Box<dyn FnOnce(HookJob, Result<Processed, HookError>) + Send>;

/// In-line pipelines.
pub trait Hook: Send + Sync + 'static {
    /// Whether batches for `topic` pass a pipeline.
    fn intercepts(&self, topic: &TopicName) -> bool;

    /// The pipeline that reads or writes `topic`, if there is one: such a topic is not deleted.
    fn user_of(&self, topic: &str) -> Option<String>;

    /// The pipeline that needs `topic` to be on all nodes, if there is one.
    fn holder_of(&self, topic: &str) -> Option<String>;

    /// Whether the pipelines that read `topic` have room where it has so many partitions; in words why not.
    fn has_room_for(&self, topic: &str, partitions: u32) -> Result<(), String>;

    /// Makes modules ready, which are named by what they are (SHA-256) and may still be on their way here: a revision that needs
    /// them is about to be put in place. Whether they are, within a moment: if not, it goes on, and may be asked again. In words
    /// why it cannot be.
    fn prepare(&self, modules: Vec<[u8; 32]>) -> BoxFuture<'static, Result<bool, String>>;

    /// Takes back revision `revision` of a pipeline, which on another node has left its bounds as `why` says; of the site's leader.
    /// Whether it is done, or need not be: if not, it goes on, and may be asked again. In words why it cannot be.
    fn take_back(
        &self,
        pipeline: String,
        revision: u64,
        why: String,
    ) -> BoxFuture<'static, Result<bool, String>>;

    /// Takes a job; never blocks. Answers through `done`, from a thread of its own or, when it refuses, at once.
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
