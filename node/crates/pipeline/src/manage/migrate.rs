//! Migration of state to a new version of a module.
//!
//! The rows of a stage belong to a generation. The new version writes migrated rows as the next generation,
//! partition by partition, while the pipeline is quiesced. The pipeline's row names the current generation,
//! so all migrated rows take effect at once. A migration that fails leaves the old version with its state.

use crate::error::ApplyError;
use crate::manage::registry::Pipelines;
use crate::manage::tasks::run_blocking;
use crate::partition::rows::{self, GENERATIONS};
use crate::spec::Spec;
use crate::spec::row::{Row, RowFingerprint, StateOf, Written};
use crate::stages::stage::{Stage, Stages};
use crate::worker::counts::State;
use weir_broker::{AdminError, Broker, FetchError, PartitionId, ProposeError, ReadError};
use weir_runtime::{CallError, InitError};
use weir_types::Term;

/// Target size of an entry of migrated rows, in bytes.
const ENTRY_BYTES: usize = 256 << 10;

/// A stage whose state is migrated.
struct Migration {
    /// Index of the stage.
    stage: usize,
    earlier: u32,
    from: u8,
    to: u8,
}

impl Pipelines {
    /// Migrates the state of earlier module versions, and updates the generations in `states`. Returns `None`
    /// if no stage needs a migration.
    ///
    /// The pipeline is quiesced until the caller installs a new row. That row must be written in the returned
    /// term. If another node leads by then, its pipeline has continued with the old state.
    ///
    /// # Errors
    /// [`ApplyError::Migrate`] with the module's message, and errors of the log. The pipeline then continues
    /// as before.
    pub(crate) async fn migrate(
        &self,
        before: &Row,
        spec: &Spec,
        stages: &[Stage],
        states: &mut [Option<StateOf>],
    ) -> Result<Option<Term>, ApplyError> {
        let mut migrations = Vec::new();
        for (stage, (was, is)) in before.states.iter().zip(states.iter_mut()).enumerate() {
            if let (Some(was), Some(is)) = (was, is)
                && was.version != is.version
            {
                is.generation = (was.generation + 1) % GENERATIONS;
                migrations.push(Migration {
                    stage,
                    earlier: was.version,
                    from: was.generation,
                    to: is.generation,
                });
            }
        }
        if migrations.is_empty() {
            return Ok(None);
        }
        self.quiesce(before).await?;
        // All batches are stored now, so reads in this term see the complete state.
        let term = self.0.broker.led_term(PartitionId::HOME);
        let done = match term {
            Some(_) => self.migrate_state(spec, stages, migrations).await,
            None => Err(AdminError::from(ProposeError::NotLeader { leader: None }).into()),
        };
        if done.is_err() {
            // If the old pipeline does not start, it reports its own error.
            self.replace_row(before, before.clone(), Vec::new()).await?;
        }
        done.map(|()| term)
    }

    /// Ends the threads of a pipeline once all its batches are stored. Producers wait for the next.
    async fn quiesce(&self, row: &Row) -> Result<(), ApplyError> {
        // The fingerprint matches no row: if nothing is installed afterwards, the following thread restores
        // the stored row.
        let still = Row {
            canary: None,
            ..row.clone()
        };
        self.install_as(RowFingerprint::NONE, still, Stages::none(), State::Paused)
            .map_err(crate::error::PushError::from)?;
        let begun = {
            let active = self.active();
            let handle = active.get(row.spec.name.as_str()).map(|a| &a.handle);
            handle.and_then(|handle| handle.begun.lock().take())
        };
        self.detach_source(row.spec.name.as_str());
        if let Some(begun) = begun {
            let _ = begun.await;
        }
        Ok(())
    }

    async fn migrate_state(
        &self,
        spec: &Spec,
        stages: &[Stage],
        migrations: Vec<Migration>,
    ) -> Result<(), ApplyError> {
        let (name, broker) = (spec.name.as_str(), &self.0.broker);
        let topic = broker.topic(spec.source.first());
        let partitions = topic.map_or(0, |topic| topic.partitions.len() as u32);
        for migration in migrations {
            let Some(stage) = stages.get(migration.stage) else {
                continue;
            };
            // Left by an attempt that was cut short.
            for rows in rows::of_generation(name, migration.stage, migration.to) {
                broker.remove_rows(rows).await?;
            }
            for partition in 0..partitions {
                let stage = stage.of_partition(partition);
                let (reader, spec) = (broker.clone(), spec.clone());
                let (n, earlier, generations) =
                    (migration.stage, migration.earlier, (migration.from, migration.to));
                let made = run_blocking("weir-upgrade", move || {
                    of_partition(&reader, &spec, n, stage, partition, earlier, generations)
                });
                let rows = made.await.ok_or(AdminError::Closed)??;
                let mut entry: Vec<Written> = Vec::new();
                let mut bytes = 0;
                for row in rows {
                    bytes += row.0.as_bytes().len() + row.1.as_ref().map_or(0, bytes::Bytes::len);
                    entry.push(row);
                    if bytes >= ENTRY_BYTES {
                        bytes = 0;
                        broker.put_rows(std::mem::take(&mut entry)).await?;
                    }
                }
                if !entry.is_empty() {
                    broker.put_rows(entry).await?;
                }
            }
        }
        Ok(())
    }

    /// Deletes the rows of outdated generations.
    pub(crate) async fn delete_outdated_generations(&self, before: &Row, now: &Row) {
        for (stage, (was, is)) in before.states.iter().zip(&now.states).enumerate() {
            let (Some(was), Some(is)) = (was, is) else {
                continue;
            };
            if was.generation == is.generation {
                continue;
            }
            for rows in rows::of_generation(now.spec.name.as_str(), stage, was.generation) {
                if let Err(error) = self.0.broker.remove_rows(rows).await {
                    // Unused, and deleted before the generation is used again.
                    tracing::warn!(pipeline = %now.spec.name, %error, "outdated state is kept for now");
                }
            }
        }
    }
}

/// Returns the migrated rows of a partition. Blocks.
fn of_partition(
    broker: &Broker,
    spec: &Spec,
    n: usize,
    mut stage: Stage,
    partition: u32,
    earlier: u32,
    (from, to): (u8, u8),
) -> Result<Vec<Written>, ApplyError> {
    let unread = |e: ReadError| ApplyError::from(FetchError::from(e));
    stage.generation = from;
    let mut table = rows::table(spec, broker, n, &stage, partition).map_err(unread)?;
    table.touch_all();
    if table.is_empty() && table.timers() == 0 {
        return Ok(Vec::new());
    }
    stage.table = Some(table);
    let module = spec.stages.get(n).map_or("", |s| s.module.as_str()).to_owned();
    let mut instance = stage.fresh().map_err(|error: InitError| ApplyError::Init {
        stage: n + 1,
        module: module.clone(),
        error,
    })?;
    instance
        .migrate(earlier, &mut stage.table)
        .map_err(|error| ApplyError::Migrate {
            stage: n + 1,
            module,
            earlier,
            partition,
            why: match error {
                CallError::Fatal(why) => why,
                other => other.to_string(),
            },
        })?;
    stage.generation = to;
    let mut rows = Vec::new();
    rows::changes_of(spec.name.as_str(), n, &mut stage, partition, &mut rows);
    // The new generation is empty: nothing has to be removed.
    rows.retain(|(_, value)| value.is_some());
    Ok(rows)
}
