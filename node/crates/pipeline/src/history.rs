//! What a pipeline was, and the way back.
//!
//! Each revision is a row, written in the entry that puts it in place, with who did it and why. Going back is another revision: one that
//! is as that one was, the very modules included. A pipeline may say when it goes back by itself ([`crate::Guard`]).

use crate::error::ApplyError;
use crate::info::PipelineInfo;
use crate::partition::rows::of_kind;
use crate::pipelines::{Pipelines, apart};
use crate::spec::Spec;
use crate::spec::guard::Guard;
use crate::spec::row::{Row, Written};
use crate::worker::counts::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use weir_broker::{AdminError, FetchError, ReadError, StateKey, StateKind};
use weir_runtime::Digest;
use weir_types::ErrorKind;
use weir_types::limits::{REVISIONS_BYTES_MAX, REVISIONS_MAX};

/// What another node says of how a pipeline left its bounds is kept up to so many bytes.
const LEFT_BYTES_MAX: usize = 1 << 10;

/// Within this time a node is told whether what it asked for is done: an answer that takes longer breaks the connection.
const BACK_TELL: Duration = Duration::from_secs(2);

/// A revision of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// When it was put in place, in milliseconds since 1970.
    pub applied_ms: i64,
    /// Who did.
    pub by: String,
    /// Why, if it was not just applied.
    pub why: Option<String>,
    /// What it says.
    pub spec: Spec,
    /// The modules of its stages: a name may mean another one by now.
    pub digests: Vec<Digest>,
    /// It was tried on these partitions only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<BTreeSet<u32>>,
}

/// Who puts a revision in place, and why.
#[derive(Clone, Debug)]
pub(crate) struct Cause {
    pub(crate) by: String,
    pub(crate) why: Option<String>,
    /// It was so before.
    pub(crate) is_back: bool,
}

fn key(pipeline: &str, revision: u64) -> StateKey {
    let of = of_kind(StateKind::Revision, pipeline);
    StateKey::from_bytes([of.as_bytes(), &revision.to_be_bytes()].concat())
}

/// Rows that remember what `row` is, and forget what was long ago.
pub(crate) fn remember(row: &Row, cause: Cause, now_ms: i64) -> Vec<Written> {
    let name = row.spec.name.as_str();
    let revision = Revision {
        revision: row.revision,
        applied_ms: now_ms,
        by: cause.by,
        why: cause.why,
        spec: row.spec.clone(),
        digests: row.digests.clone(),
        tried: row.canary.as_ref().map(|canary| canary.partitions.clone()),
    };
    let value = crate::spec::row::json(&revision);
    // The larger they are, the fewer are kept.
    let fitting = (REVISIONS_BYTES_MAX / value.len().max(1)) as u64;
    let kept = fitting.clamp(1, REVISIONS_MAX);
    let last = row.revision.saturating_sub(kept);
    let first = row.revision.saturating_sub(REVISIONS_MAX).max(1);
    let forgotten = (first..=last).map(|n| (key(name, n), None));
    let remembered = (key(name, row.revision), Some(value.into()));
    [remembered].into_iter().chain(forgotten).collect()
}

/// Bounds that a revision has left, in words.
#[derive(Debug, PartialEq)]
pub(crate) struct Left(String);

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a pipeline that has done what `info` says is outside of what `guard` allows.
pub(crate) fn leaves(info: &PipelineInfo, guard: &Guard) -> Option<Left> {
    if let State::Halted(why) = &info.state {
        return Some(Left(format!("it halted: {why}")));
    }
    let records = info.records_in;
    if records < guard.min_records.max(1) {
        return None;
    }
    let share = |n: u64| n as f64 / records as f64;
    let failed = share(info.dead_letters + info.skipped);
    if let Some(most) = guard.failed_max.filter(|most| failed > *most) {
        return Some(Left(format!(
            "{:.1} % of {records} records failed, and at most {:.1} % may",
            failed * 1e2,
            most * 1e2
        )));
    }
    let each = share(info.wasm_ns);
    if let Some(most) = guard.ns_max.filter(|most| each > *most as f64) {
        return Some(Left(format!(
            "a record took {each:.0} ns of {records}, and at most {most} may be"
        )));
    }
    let out = share(info.kept + info.emitted + info.routed.values().sum::<u64>());
    let [least, most] = guard.output.unwrap_or([0.0, f64::INFINITY]);
    (out < least || out > most).then(|| {
        Left(format!(
            "of {records} records {out:.3} came out for each, and {least} to {most} should"
        ))
    })
}

impl Pipelines {
    /// All revisions of a pipeline that are kept, the newest first.
    ///
    /// # Errors
    /// When there is no such pipeline, or its rows cannot be read.
    pub async fn history(&self, name: &str) -> Result<Vec<Revision>, ApplyError> {
        self.row(name)?;
        let (broker, prefix) = (self.0.broker.clone(), of_kind(StateKind::Revision, name));
        let of = format!("a revision of pipeline `{name}`");
        let read = apart("weir-history", move || {
            let (mut revisions, mut unreadable) = (Vec::new(), None);
            broker.applied_rows(&prefix, |_, value| {
                match crate::spec::row::read::<Revision>("a revision", &value) {
                    Ok(revision) => revisions.push(revision),
                    Err(why) => unreadable = Some(why),
                }
            })?;
            match unreadable {
                Some(why) => Err(ReadError::Format { row: of, why }),
                None => Ok(revisions),
            }
        });
        let read = read.await.ok_or(AdminError::Closed)?;
        let mut revisions = read.map_err(FetchError::from)?;
        revisions.reverse();
        Ok(revisions)
    }

    /// Makes a pipeline what it was as revision `to`, or as the one before the present, with the same modules; `by` is who wants it.
    ///
    /// # Errors
    /// When there is no such revision, or it cannot be applied any more.
    pub async fn roll_back(&self, name: &str, to: Option<u64>, by: &str) -> Result<PipelineInfo, ApplyError> {
        let now = self.row(name)?;
        self.go_back(now, to, by, None).await
    }

    /// As [`Pipelines::roll_back`], of what is `now`.
    async fn go_back(
        &self,
        now: Row,
        to: Option<u64>,
        by: &str,
        because: Option<&Left>,
    ) -> Result<PipelineInfo, ApplyError> {
        let name = now.spec.name.as_str();
        if let (Some(_), None) = (&now.canary, to) {
            let why = match because {
                None => format!("revision {}, which was tried, is taken back", now.revision),
                Some(left) => format!(
                    "revision {}, which was tried, is taken back: {left}",
                    now.revision
                ),
            };
            let cause = Cause {
                by: by.to_owned(),
                why: Some(why),
                is_back: true,
            };
            return self
                .apply_spec(now.spec, Some(now.digests), cause, Some(now.revision))
                .await;
        }
        let revisions = self.history(name).await?;
        let is_it = |revision: &&Revision| match to {
            Some(to) => revision.revision == to,
            // What it is already is not worth going to.
            None => {
                let is_same = (&revision.spec, &revision.digests) == (&now.spec, &now.digests);
                // Nor what was tried on some partitions, and not kept.
                revision.revision < now.revision && !is_same && revision.tried.is_none()
            }
        };
        let found = revisions.iter().find(is_it).cloned();
        let found = found.ok_or_else(|| ApplyError::NoRevision {
            name: name.to_owned(),
            revision: to,
        })?;
        let why = match because {
            None => format!("rolled back to revision {}", found.revision),
            Some(left) => format!("rolled back to revision {}: {left}", found.revision),
        };
        let cause = Cause {
            by: by.to_owned(),
            why: Some(why),
            is_back: true,
        };
        self.apply_spec(found.spec, Some(found.digests), cause, Some(now.revision))
            .await
    }

    /// As another node asks for it, on which revision `revision` has left its bounds: whether that is done, or need not be.
    pub(crate) async fn take_back(&self, name: String, revision: u64, why: String) -> Result<bool, String> {
        let Some(row) = self.row(&name).ok().filter(|row| row.revision == revision) else {
            return Ok(true);
        };
        let end = why.floor_char_boundary(LEFT_BYTES_MAX);
        let left = Left(why.get(..end).unwrap_or_default().to_owned());
        let this = self.clone();
        // It is done even if nobody waits for it.
        let back = tokio::spawn(async move { this.go_back(row, None, "guard", Some(&left)).await });
        match tokio::time::timeout(BACK_TELL, back).await {
            Ok(Ok(Ok(_))) | Ok(Ok(Err(ApplyError::Changed(_)))) => Ok(true),
            Ok(Ok(Err(error))) if error.kind() == ErrorKind::Retry => Ok(false),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }

    /// Has pipelines go back that have left their bounds on this node. Blocks.
    pub(crate) fn guard(&self) {
        let broker = &self.0.broker;
        let guarded: Vec<_> = {
            let active = self.active();
            let rows = active.values().map(|a| (&a.row, a.gave_up_guarding));
            // Of what is tried, if anything is: the rest was judged when it was new.
            let guard = |row: &Row| match &row.canary {
                Some(canary) => Some((canary.spec.guard.clone()?, canary.began_ms)),
                None => Some((row.spec.guard.clone()?, row.applied_ms)),
            };
            let guarded =
                rows.filter_map(|(row, has_given_up)| Some((row.clone(), guard(row)?, has_given_up)));
            guarded.collect()
        };
        for (row, (guard, since_ms), has_given_up) in guarded {
            let age = broker.now_ms().saturating_sub(since_ms);
            let is_last_resort = row.is_last_resort && row.canary.is_none();
            let is_over = age > i64::from(guard.watch_s) * 1_000;
            if row.paused || is_over || is_last_resort || has_given_up {
                continue;
            }
            let name = row.spec.name.as_str();
            let info = self.pipeline(name).map(|info| match info.canary {
                Some(tried) => *tried,
                None => info,
            });
            let left = info.and_then(|info| leaves(&info, &guard));
            let Some(left) = left else { continue };
            tracing::error!(pipeline = %name, revision = row.revision, %left, "out of bounds: it is rolled back");
            let revision = row.revision;
            let back = async {
                match broker.is_serving() {
                    true => self
                        .go_back(row.clone(), None, "guard", Some(&left))
                        .await
                        .map(drop),
                    // Who leads the site need not see what comes to this node.
                    false => {
                        let said = broker.report_out_of_bounds(name.to_owned(), revision, left.to_string());
                        Ok(said.await?)
                    }
                }
            };
            match broker.block_on(back) {
                Ok(()) => {}
                // Somebody was quicker, or it can be done in a moment: whatever it is then is looked at anew.
                Err(ApplyError::Changed(_)) => {}
                Err(error) if error.kind() == ErrorKind::Retry => {}
                Err(error) => {
                    tracing::error!(pipeline = %name, %error, "it is not rolled back");
                    self.give_up_guarding(name, revision);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(text: &str) -> Guard {
        toml::from_str(text).unwrap()
    }

    fn info(change: impl FnOnce(&mut PipelineInfo)) -> PipelineInfo {
        let spec = Spec::parse("name = 'p'\nsource = 't'\nstages = [{ module = 'm' }]").unwrap();
        let mut info = PipelineInfo::idle(&spec);
        change(&mut info);
        info
    }

    #[test]
    fn bounds_are_left_when_enough_has_been_seen() {
        let failed = guard("failed_max = 0.01\nmin_records = 50");
        assert_eq!(
            leaves(&info(|i| (i.records_in, i.dead_letters) = (49, 49)), &failed),
            None
        );
        assert_eq!(
            leaves(&info(|i| (i.records_in, i.dead_letters) = (100, 1)), &failed),
            None
        );
        let left = leaves(
            &info(|i| (i.records_in, i.dead_letters, i.skipped) = (100, 1, 1)),
            &failed,
        );
        assert_eq!(
            left,
            Some(Left(
                "2.0 % of 100 records failed, and at most 1.0 % may".to_owned()
            ))
        );
        let slow = guard("ns_max = 500\nmin_records = 1");
        assert_eq!(
            leaves(&info(|i| (i.records_in, i.wasm_ns) = (10, 5_000)), &slow),
            None
        );
        assert!(leaves(&info(|i| (i.records_in, i.wasm_ns) = (10, 5_001)), &slow).is_some());
        let output = guard("output = [0.1, 1.0]\nmin_records = 10");
        assert_eq!(leaves(&info(|i| (i.records_in, i.kept) = (10, 1)), &output), None);
        assert!(leaves(&info(|i| i.records_in = 10), &output).is_some());
        let twice = |i: &mut PipelineInfo| {
            (i.records_in, i.kept) = (10, 10);
            i.routed.insert("o".to_owned(), 1);
        };
        assert!(leaves(&info(twice), &output).is_some());
        let halted = |i: &mut PipelineInfo| i.state = State::Halted("why".to_owned());
        assert_eq!(
            leaves(&info(halted), &failed),
            Some(Left("it halted: why".to_owned()))
        );
    }
}
