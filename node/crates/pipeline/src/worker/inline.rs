//! In-line processing: batches on their way to the log.

use crate::partition::refusal::Refusal;
use crate::partition::states::PartitionStates;
use crate::priority::{self, Priority};
use crate::stages::dated::Dated;
use crate::stages::dead_letter::Provenance;
use crate::stages::effects::{StageInput, TooMuch};
use crate::stages::output::{self, Assembly};
use crate::stages::stage::Stage;
use crate::worker::thread::{Worker, thread};
use crate::worker::timers::FireReason;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use weir_broker::{Footing, HookDone, HookError, HookJob, Processed, Stop as StopAt};
use weir_runtime::Moment;
use weir_types::{Batch, GroupId, Offset, PartitionId, RecordRef};

/// Batches without a failure after which a demoted thread is promoted again.
const GOOD_BATCHES: u32 = 20;

impl Worker {
    /// Processes batches until the handle is dropped.
    pub(crate) fn run(mut self, queue: Receiver<(HookJob, HookDone)>, finish: SyncSender<()>) {
        loop {
            let next = match self.next_wakeup() {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(patience) => queue.recv_timeout(patience),
            };
            match next {
                Ok((job, done)) => self.serve(job, done),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.fire_all();
            if !self.is_demoted || self.good_in_a_row < GOOD_BATCHES {
                continue;
            }
            // Without privileges, only a fresh thread has foreground priority again.
            self.is_demoted = !Priority::Prompt.ask();
            if self.is_demoted {
                let (hand, over) = sync_channel::<(Self, _, _)>(1);
                let go_on = move || {
                    Priority::Prompt.ask();
                    over.into_iter()
                        .for_each(|(worker, queue, finish)| worker.run(queue, finish));
                };
                if priority::start_prompt(thread(&self.spec.name.to_string()), Box::new(go_on)) {
                    self.is_demoted = false;
                    let _ = hand.send((self, queue, finish));
                    return;
                }
            }
        }
        // The next pipeline starts from the state that this thread has written.
        self.parts.end_all();
    }

    fn serve(&mut self, job: HookJob, done: HookDone) {
        let bytes = job.batch.bytes().len();
        StopAt::Read.here();
        let result = match self.process(&job) {
            Ok(processed) => {
                StopAt::Computed.here();
                Ok(processed)
            }
            Err(Refusal::Halt(why)) => Err(self.halt(why)),
            Err(Refusal::NotLeader) => Err(HookError::NotLeader),
            Err(Refusal::Busy) => Err(HookError::Busy {
                pipeline: self.spec.name.to_string(),
            }),
            Err(Refusal::TooMuch(TooMuch { bytes, limit, .. })) => Err(HookError::TooMuch {
                pipeline: self.spec.name.to_string(),
                bytes,
                limit,
            }),
        };
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        done(job, result);
    }

    pub(crate) fn process(&mut self, job: &HookJob) -> Result<Processed, Refusal> {
        let batch = job.batch.clone().at(Offset::ZERO);
        let body = batch.body()?;
        let records = body.records().collect::<Result<Vec<_>, _>>()?;
        if !self.spec.is_stateful() {
            let mut stages = std::mem::take(&mut self.stages);
            let moment = Moment {
                now: self.broker.now_ms(),
                ..Moment::default()
            };
            let processed = self.pass(&mut stages, job, &batch, &records, &Dated::default(), moment);
            self.stages = stages;
            let processed = processed?;
            Self::check_size(Some(&processed.kept), &processed.outputs, &[], records.len())?;
            return Ok(processed);
        }
        let Some(id) = job.topic.partition(job.partition) else {
            return Err(Refusal::NotLeader);
        };
        if self.spec.has_timers() {
            self.fire(&job.topic, job.partition, FireReason::Batch)?;
        }
        let mut parts = std::mem::take(&mut self.parts);
        let processed = self.step(&mut parts, job, &batch, records, id);
        self.parts = parts;
        if std::mem::take(&mut self.is_full) {
            self.parts.drop_instances();
            self.stages.iter_mut().for_each(|stage| stage.instance = None);
        }
        self.report_size();
        processed
    }

    /// Processes a batch as a step on top of those before.
    pub(crate) fn step(
        &mut self,
        parts: &mut PartitionStates,
        job: &HookJob,
        batch: &Batch,
        mut records: Vec<RecordRef<'_>>,
        id: PartitionId,
    ) -> Result<Processed, Refusal> {
        let spec = Arc::clone(&self.spec);
        let part = parts.part(&spec, &self.stages, &self.broker, job.partition, id)?;
        let part = part.ok_or(Refusal::NotLeader)?;
        if !part.chain.is_next(batch) {
            return Ok(Processed {
                footing: Footing::Unseen,
                ..Processed::unchanged(job.batch.clone())
            });
        }
        // A step that is dropped unused restarts the chain from the log.
        let step = part.chain.step();
        let events = spec.event_time.clone().unwrap_or_default();
        part.time.pass(self.broker.now_ms(), &events);
        let dated = if spec.is_timed() {
            part.time.date(&mut records, &events)
        } else {
            Dated::default()
        };
        let moment = part.time.moment();
        let processed = self.pass(&mut part.stages, job, batch, &records, &dated, moment)?;
        part.time.follow(&records, &dated, &events);
        let rows = part.changes(&spec, job.partition);
        Self::check_size(Some(&processed.kept), &processed.outputs, &rows, records.len())?;
        Ok(Processed {
            rows,
            footing: Footing::Step(step),
            ..processed
        })
    }

    /// Runs the records of a batch through `stages`, and assembles the result.
    pub(crate) fn pass(
        &mut self,
        stages: &mut [Stage],
        job: &HookJob,
        batch: &Batch,
        records: &[RecordRef<'_>],
        dated: &Dated,
        moment: Moment,
    ) -> Result<Processed, Refusal> {
        let effects = self.run_through(stages, StageInput::Records { source: 0 }, records, dated, moment)?;
        self.check_breaker(records.len(), &effects)?;
        self.count(records.len(), &effects);
        let (kept, follow) = output::kept(batch, &effects.main, records)?;
        let assembly = Assembly {
            spec: &self.spec,
            broker: &self.broker,
            topic: &job.topic,
            home: job
                .topic
                .partition(job.partition)
                .map_or(GroupId::SITE, PartitionId::group),
            name: job.topic.name.as_str(),
            partition: job.partition,
            records,
            own_times: &dated.own,
            provenance: Provenance::Batch,
        };
        Ok(Processed {
            outputs: assembly.outputs(follow, &effects)?,
            ..Processed::unchanged(kept)
        })
    }
}
