//! Pipelines as the broker's hook.

use crate::manage::registry::Pipelines;
use crate::spec::Spec;
use crate::spec::row::{Row, RowFingerprint};
use crate::worker::handle::PipelineHandle;
use futures_util::future::BoxFuture;
use std::time::Duration;
use weir_broker::{Hook, HookDone, HookError, HookJob, Processed};
use weir_runtime::Digest;
use weir_types::TopicName;

/// Limit on answering another node, whose connection would time out.
const READY_TELL: Duration = Duration::from_secs(2);

impl Hook for Pipelines {
    fn intercepts(&self, topic: &TopicName) -> bool {
        let desired = self.0.desired.read();
        desired.inline.contains_key(topic)
    }

    fn user_of(&self, topic: &str) -> Option<String> {
        self.pipelines()
            .into_iter()
            .find(|p| p.uses(topic))
            .map(|p| p.name)
    }

    fn holder_of(&self, topic: &str) -> Option<String> {
        let active = self.active();
        let is_held = |spec: &Spec| {
            let source = spec.inline_source().filter(|_| spec.is_stateful());
            source.is_some_and(|source| source.as_str() == topic)
        };
        let tries = |row: &Row| row.canary.as_ref().is_some_and(|canary| is_held(&canary.spec));
        let holder = active.values().find(|a| is_held(&a.row.spec) || tries(&a.row));
        holder.map(|a| a.handle.name.clone())
    }

    fn has_room_for(&self, topic: &str, partitions: u32) -> Result<(), String> {
        let room = Self::has_room_for(self, topic, partitions as usize);
        room.map_err(|e| e.to_string())
    }

    fn prepare(&self, modules: Vec<[u8; 32]>) -> BoxFuture<'static, Result<bool, String>> {
        let this = self.clone();
        Box::pin(async move {
            let digests: Vec<_> = modules.into_iter().map(Digest::from).collect();
            let mut preparing = this.0.preparing.lock().await;
            let under_way = match preparing.take() {
                Some((of, task)) if of == digests => task,
                // An earlier request runs on by itself.
                _ => {
                    let (this, digests) = (this.clone(), digests.clone());
                    tokio::spawn(async move { this.make_ready(digests).await })
                }
            };
            let mut under_way = under_way;
            match tokio::time::timeout(READY_TELL, &mut under_way).await {
                Ok(done) => done.unwrap_or_else(|e| Err(e.to_string())).map(|()| true),
                Err(_) => {
                    *preparing = Some((digests, under_way));
                    Ok(false)
                }
            }
        })
    }

    fn take_back(
        &self,
        pipeline: String,
        revision: u64,
        why: String,
    ) -> BoxFuture<'static, Result<bool, String>> {
        let this = self.clone();
        Box::pin(async move { Pipelines::roll_back_reported(&this, pipeline, revision, why).await })
    }

    fn submit(&self, job: HookJob, done: HookDone) {
        let handle = self.0.by_source.read().get(&job.topic.name).cloned();
        let desired = {
            let desired = self.0.desired.read();
            desired.inline.get(&job.topic.name).cloned()
        };
        let is_current = |handle: &PipelineHandle, (name, fingerprint): &(String, RowFingerprint)| {
            handle.name == *name && handle.fingerprint == *fingerprint
        };
        let is_replaced = |handle: &PipelineHandle, (name, fingerprint): &(String, RowFingerprint)| {
            let replacing = self.0.replacing.read();
            let replacing = replacing.as_ref().filter(|t| t.pipeline == *name);
            replacing
                .is_some_and(|t| handle.name == *name && handle.fingerprint == t.from && *fingerprint == t.to)
        };
        match (handle, desired) {
            (Some(handle), Some(desired))
                if is_current(&handle, &desired) || is_replaced(&handle, &desired) =>
            {
                handle.submit(job, done)
            }
            // A change or a new lead has been applied here, and modules are still compiled.
            (_, Some((pipeline, _))) => done(job, Err(HookError::Busy { pipeline })),
            // Removed meanwhile.
            (_, None) => {
                let kept = job.batch.clone();
                done(job, Ok(Processed::unchanged(kept)));
            }
        }
    }
}
