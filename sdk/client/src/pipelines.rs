//! Pipelines.

use crate::error::ClientError;
use crate::{Client, parsed, read_reply};
use std::time::Duration;
use weir_api::{Pipeline, Plan, Revision, Shadow, StatePage};
use weir_peer::protocol::{Reply, Request};
use weir_peer::write_frame;

impl Client {
    /// Applies a pipeline in TOML: creates it, or changes it between two batches.
    ///
    /// # Errors
    /// When the text is no pipeline, or it cannot be put in place.
    ///
    /// # Cancel safety
    /// Not safe: the pipeline may be applied or not.
    pub async fn apply_pipeline(&self, toml: &str) -> Result<Pipeline, ClientError> {
        let toml = toml.to_owned();
        self.answer(Request::ApplyPipeline { toml }).await
    }

    /// Returns the changes that applying a pipeline in TOML would make.
    ///
    /// # Errors
    /// As [`Client::apply_pipeline`].
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn plan_pipeline(&self, toml: &str) -> Result<Plan, ClientError> {
        let toml = toml.to_owned();
        self.answer(Request::PlanPipeline { toml }).await
    }

    /// Returns all pipelines.
    ///
    /// # Errors
    /// When the connection is lost.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn pipelines(&self) -> Result<Vec<Pipeline>, ClientError> {
        self.answer(Request::Pipelines).await
    }

    /// Pauses a pipeline, or resumes a paused or halted one.
    ///
    /// # Errors
    /// When there is no such pipeline; the node's own.
    ///
    /// # Cancel safety
    /// Not safe: the change may be made or not.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<Pipeline, ClientError> {
        let name = name.to_owned();
        self.answer(Request::SetPaused { name, paused }).await
    }

    /// Clears the state of a pipeline, and pauses it.
    ///
    /// # Errors
    /// When there is no such pipeline; the node's own.
    ///
    /// # Cancel safety
    /// Not safe: the state may be cleared or not.
    pub async fn reset_pipeline(&self, name: &str) -> Result<Pipeline, ClientError> {
        let name = name.to_owned();
        self.answer(Request::ResetPipeline { name }).await
    }

    /// Clears the state of a pipeline behind the log, and begins anew at `to`: `start`, `end`, an offset, or
    /// a time in RFC 3339.
    ///
    /// # Errors
    /// When there is no such pipeline, or it is in-line; the node's own.
    ///
    /// # Cancel safety
    /// Not safe: the pipeline may begin anew or not.
    pub async fn rewind_pipeline(&self, name: &str, to: &str) -> Result<Pipeline, ClientError> {
        let (name, to) = (name.to_owned(), to.to_owned());
        self.answer(Request::RewindPipeline { name, to }).await
    }

    /// Returns the revisions of a pipeline that are kept, the newest first.
    ///
    /// # Errors
    /// When there is no such pipeline; the node's own.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn pipeline_history(&self, name: &str) -> Result<Vec<Revision>, ClientError> {
        let name = name.to_owned();
        self.answer(Request::PipelineHistory { name }).await
    }

    /// Rolls a pipeline back to revision `to`, or to the last different one.
    ///
    /// # Errors
    /// When there is no such pipeline or revision; the node's own.
    ///
    /// # Cancel safety
    /// Not safe: the pipeline may be rolled back or not.
    pub async fn roll_back_pipeline(&self, name: &str, to: Option<u64>) -> Result<Pipeline, ClientError> {
        let name = name.to_owned();
        self.answer(Request::RollBackPipeline { name, to }).await
    }

    /// Runs a pipeline in TOML on `partitions`, as a canary beside the live one.
    ///
    /// # Errors
    /// As [`Client::apply_pipeline`]; also when there is no live pipeline of its name.
    ///
    /// # Cancel safety
    /// Not safe: the canary may run or not.
    pub async fn try_pipeline(&self, toml: &str, partitions: &[u32]) -> Result<Pipeline, ClientError> {
        let (toml, partitions) = (toml.to_owned(), partitions.to_vec());
        self.answer(Request::TryPipeline { toml, partitions }).await
    }

    /// Applies the canary of a pipeline to all partitions.
    ///
    /// # Errors
    /// When there is no such pipeline, or it has no canary.
    ///
    /// # Cancel safety
    /// Not safe: the canary may be promoted or not.
    pub async fn promote_pipeline(&self, name: &str) -> Result<Pipeline, ClientError> {
        let name = name.to_owned();
        self.answer(Request::PromotePipeline { name }).await
    }

    /// Returns a page of the committed state of a pipeline's modules, from the cursor `first` on: `next` of
    /// the page before.
    ///
    /// # Errors
    /// When there is no such pipeline; the node's own.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn pipeline_state(&self, name: &str, first: Option<String>) -> Result<StatePage, ClientError> {
        let name = name.to_owned();
        self.answer(Request::PipelineState { name, first }).await
    }

    /// Removes a pipeline with its state; its topics stay.
    ///
    /// # Errors
    /// When there is no such pipeline; the node's own.
    ///
    /// # Cancel safety
    /// Not safe: the pipeline may be removed or not.
    pub async fn remove_pipeline(&self, name: &str) -> Result<(), ClientError> {
        let name = name.to_owned();
        self.done(Request::RemovePipeline { name }).await
    }

    /// Runs a pipeline in TOML over the records of its sources from `from` on (as in
    /// [`Client::rewind_pipeline`]) and over those that come within `wait`, beside the live one. Nothing is
    /// written. `progress` is called with the number of records read.
    ///
    /// # Errors
    /// As [`Client::apply_pipeline`]; also when another shadow run is under way.
    ///
    /// # Cancel safety
    /// Safe: nothing is written, and the node ends the run.
    pub async fn shadow_pipeline(
        &self,
        toml: &str,
        from: &str,
        wait: Duration,
        mut progress: impl FnMut(u64),
    ) -> Result<Shadow, ClientError> {
        // The node that leads the site does it.
        self.ask(Request::Leader { group: 0 }).await?;
        let mut stream = self.sessions().stream().await?;
        let request = Request::ShadowPipeline {
            toml: toml.to_owned(),
            from: from.to_owned(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        };
        write_frame(&mut stream.tx, &request, &[]).await?;
        loop {
            let frame = read_reply(&mut stream).await?;
            match frame.head {
                Reply::Progress(done, _) => progress(done),
                _ => return parsed(&frame.payload),
            }
        }
    }
}
