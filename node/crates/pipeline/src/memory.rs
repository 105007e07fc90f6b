//! What the modules of a pipeline remember: a table a stage and partition, from rows of the log and back to them.

use crate::canary::Share;
use crate::firing::Asleep;
use crate::input::Input;
use crate::lane::Refusal;
use crate::spec::Spec;
use crate::spec::event_time::EventTime;
use crate::spec::row::Written;
use crate::stages::effects::Begin;
use crate::stages::stage::Stage;
use crate::time::{Progress, Time};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use weir_broker::{Broker, Chain, PartitionId, ReadError, StateKey, StateKind, decode, encode};
use weir_runtime::{Fired, Moment, Table, Timer, TimerClock, row_bytes};
use weir_types::limits::{
    BATCH_RECORDS_MAX, HOLDING_PARTITIONS_MAX, LOG_PARTITIONS_MAX, OP_HEAD_BYTES_MAX, STAGES_MAX,
    STATEFUL_PARTITIONS_MAX,
};
use weir_types::{GroupId, Headers, Offset, RecordRef, Term, TopicName};

/// What rows of a pipeline say: what its modules remember, their timers, and how far its time has come.
const KINDS: [StateKind; 3] = [StateKind::Table, StateKind::Timer, StateKind::Progress];

/// The keys under which all rows lie of what `pipeline` remembers.
pub(crate) fn of_pipeline(pipeline: &str) -> [StateKey; 3] {
    KINDS.map(|kind| of_kind(kind, pipeline))
}

/// The keys under which its rows of `kind` lie.
pub(crate) fn of_kind(kind: StateKind, pipeline: &str) -> StateKey {
    // No name has a 0 in it: none is the beginning of another.
    StateKey::new(kind, &[pipeline.as_bytes(), &[0]].concat())
}

/// Generations of what a stage remembers, which take turns.
pub(crate) const GENERATIONS: u8 = 16;

const _: () = assert!(STAGES_MAX <= 16, "a stage's place takes half of a byte");

/// A stage's place, and its generation, in a key.
fn stage_byte(stage: usize, generation: u8) -> u8 {
    stage as u8 | generation << 4
}

/// The key under which the rows of one stage and partition lie.
fn of_stage(kind: StateKind, pipeline: &str, stage: (usize, u8), partition: u32) -> StateKey {
    let stage = stage_byte(stage.0, stage.1);
    let rest = [pipeline.as_bytes(), &[0, stage], &partition.to_be_bytes()[..]];
    StateKey::new(kind, &rest.concat())
}

/// The keys under which all rows of one generation of a stage lie.
pub(crate) fn of_generation(pipeline: &str, stage: usize, generation: u8) -> [StateKey; 2] {
    let rest = [pipeline.as_bytes(), &[0, stage_byte(stage, generation)]].concat();
    [StateKind::Table, StateKind::Timer].map(|kind| StateKey::new(kind, &rest))
}

/// The key of the row that says how far time has come on one partition.
fn of_progress(pipeline: &str, partition: u32) -> StateKey {
    let rest = [pipeline.as_bytes(), &[0], &partition.to_be_bytes()[..]];
    StateKey::new(StateKind::Progress, &rest.concat())
}

/// Stage and partition of a row of `kind`, from its key, and what follows.
pub(crate) fn split_key<'a>(kind: StateKind, pipeline: &str, key: &'a [u8]) -> Option<(u8, u32, &'a [u8])> {
    let rest = key.strip_prefix(of_kind(kind, pipeline).as_bytes())?;
    let (stage, rest) = rest.split_first()?;
    let (partition, rest) = rest.split_first_chunk()?;
    Some((*stage & 0x0f, u32::from_be_bytes(*partition), rest))
}

/// A timer, from the end of its row's key and its value.
pub(crate) fn timer<'a>(key: &'a [u8], value: &[u8]) -> Option<(TimerClock, u32, &'a [u8], i64)> {
    let (clock, rest) = key.split_first()?;
    let clock = TimerClock::ALL.into_iter().find(|c| *c as u8 == *clock)?;
    let (tag, key) = rest.split_first_chunk()?;
    let at = value.first_chunk().filter(|_| value.len() == 8)?;
    Some((clock, u32::from_be_bytes(*tag), key, i64::from_be_bytes(*at)))
}

/// Partitions on which `spec` has timers, as applied by now. Blocks.
pub(crate) fn partitions_with_timers(broker: &Broker, spec: &Spec) -> Result<BTreeSet<u32>, ReadError> {
    let mut found = BTreeSet::new();
    let prefix = of_kind(StateKind::Timer, spec.name.as_str());
    broker.applied_rows(&prefix, |key, _| {
        let rest = key.get(prefix.as_bytes().len() + 1..);
        let partition = rest.and_then(|rest| rest.first_chunk());
        found.extend(partition.map(|p| u32::from_be_bytes(*p)));
    })?;
    Ok(found)
}

/// The stages of a pipeline at work on one partition.
pub(crate) struct Part {
    pub(crate) stages: Vec<Stage>,
    pub(crate) chain: Chain,
    pub(crate) time: Time,
    /// Where it reads, if it stands behind the log.
    pub(crate) input: Input,
    last_used: u64,
}

/// Timers of one stage and clock that are due.
pub(crate) struct Due {
    stage: usize,
    clock: TimerClock,
    timers: Vec<Timer>,
}

impl Due {
    /// What new records stem from: the timers as if they were some.
    pub(crate) fn records(&self) -> Vec<RecordRef<'_>> {
        let timers = (0..).zip(&self.timers);
        timers
            .map(|(n, timer)| RecordRef {
                offset: Offset::new(n),
                timestamp: timer.at,
                key: Some(&timer.key),
                value: None,
                headers: Headers::NONE,
            })
            .collect()
    }

    pub(crate) fn begin(&self) -> Begin<'_> {
        let fired = Fired {
            clock: self.clock,
            timers: &self.timers,
        };
        Begin::Timers {
            stage: self.stage,
            fired,
        }
    }
}

/// Those that are at work. What is not, is in the log.
#[derive(Default)]
pub(crate) struct Parts {
    parts: BTreeMap<u32, Part>,
    /// How many records, or timers, are looked at together, where more came to too much for one entry.
    most: BTreeMap<u32, usize>,
    uses: u64,
    /// In which term of each group it was counted what is stored.
    counted: BTreeMap<GroupId, Term>,
    /// Partitions that are its own; none for all.
    share: Option<Share>,
    pub(crate) asleep: Asleep,
}

impl Parts {
    /// Those of a lane that works on these partitions.
    pub(crate) fn of(share: Share) -> Self {
        Self {
            share: Some(share),
            ..Self::default()
        }
    }

    /// The part for `partition`, begun anew where it has to be. None while another node leads it.
    pub(crate) fn part(
        &mut self,
        spec: &Spec,
        stages: &[Stage],
        broker: &Broker,
        partition: u32,
        id: PartitionId,
    ) -> Result<Option<&mut Part>, Refusal> {
        self.uses += 1;
        if self.parts.get(&partition).is_some_and(|p| !p.chain.is_standing()) {
            self.end(partition);
        }
        if !self.parts.contains_key(&partition) {
            let most = match spec.remembers() || !spec.is_behind_the_log() {
                true => STATEFUL_PARTITIONS_MAX,
                false => LOG_PARTITIONS_MAX,
            };
            if self.parts.len() >= most {
                let longest = self.parts.iter().min_by_key(|(_, p)| p.last_used);
                if let Some(partition) = longest.map(|(p, _)| *p) {
                    self.put_aside(partition, spec);
                }
            }
            let Some(chain) = Chain::begin(broker, id) else {
                return Ok(None);
            };
            self.count_stored(spec, stages, broker, id)?;
            if let Some(stage) = stages.first() {
                stage.quota.load(partition);
            }
            let stages = begin(spec, stages, broker, partition)?;
            let time = Time::from(progress(spec, broker, partition)?);
            let input = Input::open(spec, broker, partition)?;
            let last_used = self.uses;
            self.asleep.wake(partition);
            self.parts.insert(
                partition,
                Part {
                    stages,
                    chain,
                    time,
                    input,
                    last_used,
                },
            );
        }
        let mut part = self.parts.get_mut(&partition);
        if let Some(part) = &mut part {
            part.last_used = self.uses;
        }
        Ok(part)
    }

    /// As [`Parts::end`], of one to which nothing came for longest. Timers that are due by themselves are not forgotten.
    fn put_aside(&mut self, partition: u32, spec: &Spec) {
        if let Some(part) = self.parts.remove(&partition) {
            let events = spec.event_time.clone().unwrap_or_default();
            part.chain.drain();
            if let Some(stage) = part.stages.first() {
                stage
                    .quota
                    .put_aside(partition, part.tables().map(Table::bytes).sum());
            }
            if !part.chain.is_standing() {
                // What it has in memory does not say what is due.
                self.asleep.put_at_once(partition);
            } else if let Some(at) = part.wake(&events) {
                self.asleep.put(partition, part.time, at);
            }
        }
    }

    /// Whether what is in memory of the partition can no longer become true.
    pub(crate) fn is_broken(&self, partition: u32) -> bool {
        self.parts.get(&partition).is_some_and(|p| !p.chain.is_standing())
    }

    /// How many records, or timers, of the partition may be looked at together.
    pub(crate) fn most(&self, partition: u32) -> usize {
        self.most.get(&partition).copied().unwrap_or(usize::MAX)
    }

    /// So many together came to too much: fewer are tried, from what is applied.
    pub(crate) fn narrow(&mut self, partition: u32, looked_at: usize) {
        self.most.insert(partition, (looked_at / 2).max(1));
        self.end(partition);
    }

    /// What was looked at had room: more are tried the next time.
    pub(crate) fn widen(&mut self, partition: u32) {
        if let Some(most) = self.most.get_mut(&partition) {
            *most += *most / 8 + 1;
        }
        self.most.retain(|_, most| *most < BATCH_RECORDS_MAX as usize);
    }

    /// Holds what was read of a partition and is not used yet only where few partitions are at work.
    pub(crate) fn spare(&mut self, partition: u32) {
        let is_crowded = self.parts.len() > HOLDING_PARTITIONS_MAX;
        if let Some(part) = self.parts.get_mut(&partition).filter(|_| is_crowded) {
            part.input.give_back();
        }
    }

    /// Up to where the sources of the partition were read, if nothing more was stored there.
    pub(crate) fn place(&self, partition: u32) -> Option<Vec<(TopicName, Offset)>> {
        let part = self.parts.get(&partition)?;
        part.input.is_at_end().then(|| part.input.read_to())
    }

    /// Whether the fate of all steps is known.
    pub(crate) fn are_decided(&self) -> bool {
        self.parts.values().all(|part| part.chain.is_decided())
    }

    /// Waits for what is under way, and forgets the partition.
    pub(crate) fn end(&mut self, partition: u32) {
        if let Some(part) = self.parts.remove(&partition) {
            part.chain.drain();
            // It begins again, or is another node's.
            if let Some(stage) = part.stages.first() {
                stage.quota.forget(partition);
            }
        }
    }

    /// Counts what is stored of the other partitions of a group, once this node has begun to lead it. Blocks.
    fn count_stored(
        &mut self,
        spec: &Spec,
        stages: &[Stage],
        broker: &Broker,
        id: PartitionId,
    ) -> Result<(), ReadError> {
        let term = broker.led_term(id);
        if !spec.remembers() || self.counted.get(&id.group()) == term.as_ref() {
            return Ok(());
        }
        self.counted.extend(term.map(|term| (id.group(), term)));
        let topics: Vec<_> = spec
            .source
            .iter()
            .filter_map(|t| broker.topic(t.as_str()))
            .collect();
        let is_led = |partition: u32| {
            let mut ids = topics.iter().filter_map(|topic| topic.partition(partition));
            ids.any(|id| broker.led_term(id).is_some())
        };
        // What the other version of the pipeline looks after counts there.
        let share = self.share.clone().unwrap_or(Share::All);
        count_stored(spec, broker, stages, |partition| {
            share.has(partition) && is_led(partition)
        })
    }

    /// Lets go of all instances: what they take is wanted elsewhere, and others can be made.
    pub(crate) fn let_instances_go(&mut self) {
        let stages = self.parts.values_mut().flat_map(|part| &mut part.stages);
        stages.for_each(|stage| stage.instance = None);
    }

    /// As [`Parts::end`], of all.
    pub(crate) fn end_all(&mut self) {
        for (_, part) in std::mem::take(&mut self.parts) {
            part.chain.drain();
        }
    }

    /// Rows, timers and bytes in memory.
    pub(crate) fn size(&self) -> (usize, usize, usize) {
        let tables = self.parts.values().flat_map(Part::tables);
        tables.fold((0, 0, 0), |(rows, timers, bytes), t| {
            (rows + t.len(), timers + t.timers(), bytes + t.bytes())
        })
    }

    /// Milliseconds until a timer is due, if it is `wall` now.
    pub(crate) fn next_due_in(&mut self, wall: i64, events: &EventTime) -> Option<u64> {
        let wait = |part: &mut Part| {
            // One whose chain is broken is begun anew at the next look: what broke it may last.
            let is_by_itself = part.chain.is_standing() && part.input.is_at_end();
            let at = part.wake(events).filter(|_| is_by_itself)?;
            Some(part.time.until(at, wall, events))
        };
        let first = self.parts.values_mut().filter_map(wait).min();
        first
            .into_iter()
            .chain(self.asleep.next_due_in(wall, events))
            .min()
    }

    /// Partitions with timers that are due, if it is `wall` now; and those whose chain is broken: what they have in memory does
    /// not say what is due.
    pub(crate) fn due(&mut self, wall: i64, events: &EventTime) -> Vec<u32> {
        let is_due = |part: &mut Part| {
            // Behind the log, time is that of the records until there are no more.
            if part.input.is_at_end() {
                part.time.pass(wall, events);
            }
            part.is_due(events) || !part.chain.is_standing()
        };
        let due = self
            .parts
            .iter_mut()
            .filter_map(|(p, part)| is_due(part).then_some(*p));
        due.collect()
    }
}

/// The stages for `partition`, with the tables that the chain begins on.
fn begin(spec: &Spec, stages: &[Stage], broker: &Broker, partition: u32) -> Result<Vec<Stage>, ReadError> {
    let mut own: Vec<_> = stages.iter().map(|s| s.of_partition(partition)).collect();
    for (n, (stage, with)) in own.iter_mut().zip(&spec.stages).enumerate() {
        if !with.remembers() {
            continue;
        }
        stage.table = Some(table(spec, broker, n, stage, partition)?);
    }
    Ok(own)
}

/// What stage `n` remembers of `partition`, as applied. Blocks.
pub(crate) fn table(
    spec: &Spec,
    broker: &Broker,
    n: usize,
    stage: &Stage,
    partition: u32,
) -> Result<Table, ReadError> {
    let place = (n, stage.generation);
    let mut table = Table::within(&stage.quota);
    let prefix = of_stage(StateKind::Table, spec.name.as_str(), place, partition);
    broker.applied_rows(&prefix, |key, value| {
        table.load(key.get(prefix.as_bytes().len()..).unwrap_or_default(), &value);
    })?;
    let prefix = of_stage(StateKind::Timer, spec.name.as_str(), place, partition);
    broker.applied_rows(&prefix, |key, value| {
        let rest = key.get(prefix.as_bytes().len()..).unwrap_or_default();
        if let Some((clock, tag, key, at)) = timer(rest, &value) {
            table.load_timer(clock, key, tag, at);
        }
    })?;
    Ok(table)
}

/// Counts what is stored of each partition that `is_ours` against what the pipeline may take, before any of it is in memory. Blocks.
fn count_stored(
    spec: &Spec,
    broker: &Broker,
    stages: &[Stage],
    is_ours: impl Fn(u32) -> bool,
) -> Result<(), ReadError> {
    let mut bytes: BTreeMap<u32, usize> = BTreeMap::new();
    for (n, stage) in stages.iter().enumerate() {
        for prefix in of_generation(spec.name.as_str(), n, stage.generation) {
            broker.applied_rows(&prefix, |key, value| {
                let rest = key
                    .get(prefix.as_bytes().len()..)
                    .and_then(<[u8]>::split_first_chunk);
                if let Some((partition, key)) = rest {
                    *bytes.entry(u32::from_be_bytes(*partition)).or_default() += row_bytes(key, &value);
                }
            })?;
        }
    }
    for (partition, bytes) in bytes.into_iter().filter(|(partition, _)| is_ours(*partition)) {
        if let Some(stage) = stages.first() {
            stage.quota.find_stored(partition, bytes);
        }
    }
    Ok(())
}

/// Rows for what changed of stage `n` since the last time.
pub(crate) fn changes_of(name: &str, n: usize, stage: &mut Stage, partition: u32, rows: &mut Vec<Written>) {
    let place = (n, stage.generation);
    let Some(table) = &mut stage.table else { return };
    let prefix = of_stage(StateKind::Table, name, place, partition);
    table.take_changes(|key, value| {
        let key = [prefix.as_bytes(), key].concat();
        rows.push((StateKey::from_bytes(key), value.map(Bytes::copy_from_slice)));
    });
    let prefix = of_stage(StateKind::Timer, name, place, partition);
    table.take_timer_changes(|clock, key, tag, at| {
        let tag = tag.to_be_bytes();
        let key = [prefix.as_bytes(), &[clock as u8], &tag, key].concat();
        let at = at.map(|at| Bytes::copy_from_slice(&at.to_be_bytes()));
        rows.push((StateKey::from_bytes(key), at));
    });
}

fn progress(spec: &Spec, broker: &Broker, partition: u32) -> Result<Progress, ReadError> {
    let (mut found, row) = (
        Ok(Progress::default()),
        of_progress(spec.name.as_str(), partition),
    );
    broker.applied_rows(&row, |_, value| {
        found = decode("how far a pipeline has come", &value)
    })?;
    found.map_err(|why| ReadError::Format {
        row: format!("pipeline `{}`, partition {partition}", spec.name),
        why,
    })
}

impl Part {
    /// One that nothing is stored of: it begins with nothing, and reads what `input` says.
    pub(crate) fn apart(spec: &Spec, stages: &[Stage], chain: Chain, input: Input, partition: u32) -> Self {
        let mut stages: Vec<_> = stages.iter().map(|s| s.of_partition(partition)).collect();
        for (stage, with) in stages.iter_mut().zip(&spec.stages) {
            // What looks on does not take from those that work.
            stage.table = with.remembers().then(|| Table::new(spec.limits.state_bytes));
        }
        Self {
            stages,
            chain,
            time: Time::from(Progress::default()),
            input,
            last_used: 0,
        }
    }

    /// What changed counts as stored.
    pub(crate) fn settle(&mut self) {
        for table in self.stages.iter_mut().filter_map(|s| s.table.as_mut()) {
            table.take_changes(|_, _| {});
            table.take_timer_changes(|_, _, _, _| {});
        }
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.stages.iter().filter_map(|s| s.table.as_ref())
    }

    /// When a timer is due next, in the time of work.
    fn wake(&self, events: &EventTime) -> Option<i64> {
        let processing = self
            .tables()
            .filter_map(|t| t.first_due(TimerClock::Processing))
            .min();
        let event = self.tables().filter_map(|t| t.first_due(TimerClock::Event)).min();
        let event = event.and_then(|at| self.time.reaches(at, events));
        processing.into_iter().chain(event).min()
    }

    /// Whether a timer is due by the time it is.
    pub(crate) fn is_due(&self, events: &EventTime) -> bool {
        self.wake(events).is_some_and(|at| at <= self.time.moment().now)
    }

    /// Bytes that changed of what its modules remember and is in no step yet.
    pub(crate) fn changed_bytes(&self) -> usize {
        let changed = |table: &Table| table.changed_bytes() + table.changed_rows() * OP_HEAD_BYTES_MAX;
        self.tables().map(changed).sum()
    }

    /// Clears and returns what is due first, of one stage and clock.
    pub(crate) fn pop_due(&mut self, moment: Moment, max: usize) -> Option<Due> {
        for clock in TimerClock::ALL {
            let until = match clock {
                TimerClock::Event => moment.watermark,
                TimerClock::Processing => moment.now,
            };
            for (stage, with) in self.stages.iter_mut().enumerate() {
                let Some(table) = &mut with.table else { continue };
                let due = std::iter::from_fn(|| table.pop_due(clock, until)).take(max);
                let timers: Vec<_> = due.collect();
                if !timers.is_empty() {
                    return Some(Due { stage, clock, timers });
                }
            }
        }
        None
    }

    /// Rows for what changed since the last time.
    pub(crate) fn changes(&mut self, spec: &Spec, partition: u32) -> Vec<(StateKey, Option<Bytes>)> {
        let mut rows = Vec::new();
        let name = spec.name.as_str();
        for (n, stage) in self.stages.iter_mut().enumerate() {
            changes_of(name, n, stage, partition, &mut rows);
        }
        if let Some(progress) = self.time.take_change().filter(|_| spec.has_time()) {
            rows.push((of_progress(name, partition), Some(encode(&progress))));
        }
        self.input.changes(&mut rows);
        rows
    }
}
