//! Shadow runs: a candidate beside the live pipeline, over stored records, without writing anything.
//!
//! Both sides start with empty state and process the same records. Their outputs per record and their costs
//! are compared. An in-line pipeline runs over its stored source, which lacks the records that it dropped.

pub(crate) mod compare;
pub(crate) mod report;
pub(crate) mod side;

use crate::error::{ApplyError, PushError};
use crate::manage::registry::Pipelines;
use crate::manage::shadow::compare::Shadow;
use crate::manage::shadow::report::Shadowed;
use crate::manage::shadow::side::Run;
use crate::manage::tasks::run_blocking;
use crate::priority::Priority;
use crate::spec::Spec;
use crate::spec::source::Origin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use weir_broker::AdminError;
use weir_types::limits::STATEFUL_PARTITIONS_MAX;

/// Pause of a side that has processed all records.
const PAUSE: Duration = Duration::from_millis(20);

impl Pipelines {
    /// Runs a pipeline in TOML over the stored records of its sources from `origin` on, beside the live
    /// pipeline of the same name. Follows new records for `wait`. Writes nothing. `progress` gets the number
    /// of processed records, and returns false to stop.
    ///
    /// # Errors
    /// The errors of [`Pipelines::apply`], and [`ApplyError::Shadowing`] during another shadow run.
    ///
    /// # Cancel safety
    /// Changes nothing. After a drop the thread runs on until it is done or `progress` returns false.
    pub async fn shadow(
        &self,
        text: &str,
        origin: Origin,
        wait: Duration,
        progress: impl FnMut(u64) -> bool + Send + 'static,
    ) -> Result<Shadowed, ApplyError> {
        // Each run holds instances and state of all partitions.
        let one = Arc::clone(&self.0.shadowing).try_lock_owned();
        let one = one.map_err(|_| ApplyError::Shadowing)?;
        let (candidate, live) = {
            let _checking = self.0.changing.lock().await;
            let checked = self.check(text).await?;
            (checked, self.row(Spec::parse(text)?.name.as_str()).ok())
        };
        let (this, broker) = (self.clone(), self.0.broker.clone());
        let ran = run_blocking("weir-shadow", move || {
            let _one = one;
            Priority::Behind.ask();
            let live = live.map(|row| {
                let stages = this.load_stages(&row.spec, &row.digests)?;
                Ok::<_, ApplyError>(Run::new(&broker, row.spec, stages, Some(row.revision)))
            });
            let name = candidate.spec.name.to_string();
            let run_of = Run::new(&broker, candidate.spec, candidate.stages, None);
            let mut candidate = run_of.ok_or_else(|| ApplyError::NotFound(name.clone()))?;
            let mut live = live.transpose()?.flatten();
            if let Some(live) = &mut live {
                let theirs = live.worker.spec.source.clone();
                let ours = candidate.worker.spec.source.iter();
                candidate.common = ours
                    .filter(|topic| theirs.contains(topic.as_str()))
                    .cloned()
                    .collect();
                live.common = candidate.common.clone();
            }
            let shadow = Shadow {
                candidate,
                live,
                differences: 0,
                examples: Vec::new(),
            };
            run(shadow, &name, origin, wait, progress)
        });
        ran.await.ok_or(PushError::Admin(AdminError::Closed))?
    }
}

fn run(
    mut shadow: Shadow,
    name: &str,
    origin: Origin,
    wait: Duration,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Shadowed, ApplyError> {
    let begun = Instant::now();
    let partitions = shadow.candidate.topic.partitions.len() as u32;
    if !wait.is_zero() && partitions as usize > STATEFUL_PARTITIONS_MAX {
        return Err(ApplyError::Wide(partitions as usize));
    }
    let mut goes_on = true;
    let looked = |shadow: &Shadow| {
        let counts = &shadow.candidate.worker.shared.counts;
        counts.records_in.load(Ordering::Relaxed)
    };
    for partition in 0..partitions {
        shadow.begin(partition, origin)?;
        while goes_on && shadow.step(partition) {
            goes_on = progress(looked(&shadow));
        }
        if wait.is_zero() {
            shadow.end(partition);
        }
    }
    while goes_on && !shadow.is_halted() && begun.elapsed() < wait {
        let mut did = false;
        (0..partitions).for_each(|partition| did |= shadow.step(partition));
        if !did {
            let broker = shadow.candidate.worker.broker.clone();
            broker.block_on(async { tokio::time::sleep(PAUSE).await });
        }
        goes_on = progress(looked(&shadow));
    }
    let Shadow {
        candidate,
        live,
        differences,
        examples,
    } = shadow;
    Ok(Shadowed {
        name: name.to_owned(),
        seconds: begun.elapsed().as_secs_f64(),
        timers_differ: live
            .as_ref()
            .is_some_and(|live| live.of_timers != candidate.of_timers),
        candidate: candidate.side(),
        live: live.map(Run::side),
        differences,
        examples,
    })
}
