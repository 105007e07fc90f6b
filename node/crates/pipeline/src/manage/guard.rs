//! Guard: rolls back revisions that violate their bounds.

use crate::error::ApplyError;
use crate::manage::info::PipelineInfo;
use crate::manage::registry::Pipelines;
use crate::spec::guard::Guard;
use crate::spec::row::Row;
use crate::worker::counts::State;
use std::fmt;
use weir_types::ErrorKind;

/// Violation of a guard, as a message.
#[derive(Debug, PartialEq)]
pub(crate) struct GuardViolation(String);

impl fmt::Display for GuardViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the violation of `guard` by a pipeline with these counters, if any.
pub(crate) fn check_guard(info: &PipelineInfo, guard: &Guard) -> Option<GuardViolation> {
    if let State::Halted(why) = &info.state {
        return Some(GuardViolation(format!("it halted: {why}")));
    }
    let records = info.records_in;
    if records < guard.min_records.max(1) {
        return None;
    }
    let share = |n: u64| n as f64 / records as f64;
    let failed = share(info.dead_letters + info.skipped);
    if let Some(most) = guard.failed_max.filter(|most| failed > *most) {
        return Some(GuardViolation(format!(
            "{:.1} % of {records} records failed, and at most {:.1} % may",
            failed * 1e2,
            most * 1e2
        )));
    }
    let each = share(info.wasm_ns);
    if let Some(most) = guard.ns_max.filter(|most| each > *most as f64) {
        return Some(GuardViolation(format!(
            "a record took {each:.0} ns on average over {records} records, and the limit is {most}"
        )));
    }
    let out = share(info.kept + info.emitted + info.routed.values().sum::<u64>());
    let [least, most] = guard.output.unwrap_or([0.0, f64::INFINITY]);
    (out < least || out > most).then(|| {
        GuardViolation(format!(
            "{out:.3} output records per record over {records} records, and the bounds are {least} to {most}"
        ))
    })
}

impl Pipelines {
    /// Rolls back all pipelines of this node that violate their guard. Blocks.
    pub(crate) fn check_guards(&self) {
        let broker = &self.0.broker;
        let guarded: Vec<_> = {
            let active = self.active();
            let rows = active.values().map(|a| (&a.row, a.is_guard_disabled));
            // During a canary, only the candidate is watched: the old version has passed its own watch.
            let guard = |row: &Row| match &row.canary {
                Some(canary) => Some((canary.spec.guard.clone()?, canary.began_ms)),
                None => Some((row.spec.guard.clone()?, row.applied_ms)),
            };
            let guarded = rows
                .filter_map(|(row, is_guard_disabled)| Some((row.clone(), guard(row)?, is_guard_disabled)));
            guarded.collect()
        };
        for (row, (guard, since_ms), is_guard_disabled) in guarded {
            let age = broker.now_ms().saturating_sub(since_ms);
            let is_last_resort = row.is_last_resort && row.canary.is_none();
            let is_over = age > i64::from(guard.watch_s) * 1_000;
            if row.paused || is_over || is_last_resort || is_guard_disabled {
                continue;
            }
            let name = row.spec.name.as_str();
            let info = self.pipeline(name).map(|info| match info.canary {
                Some(tried) => *tried,
                None => info,
            });
            let violation = info.and_then(|info| check_guard(&info, &guard));
            let Some(violation) = violation else { continue };
            tracing::error!(pipeline = %name, revision = row.revision, %violation, "guard violated: rolling back");
            let revision = row.revision;
            let back = async {
                if broker.is_serving() {
                    self.roll_back_to(row.clone(), None, "guard", Some(&violation.to_string()))
                        .await
                        .map(drop)
                } else {
                    // The leader of the site may not see the traffic of this node.
                    let report =
                        broker.report_out_of_bounds(name.to_owned(), revision, violation.to_string());
                    Ok(report.await?)
                }
            };
            match broker.block_on(back) {
                Ok(()) => {}
                // Changed by another caller, or to be retried. The next round checks again.
                Err(ApplyError::Changed(_)) => {}
                Err(error) if error.kind() == ErrorKind::Retry => {}
                Err(error) => {
                    tracing::error!(pipeline = %name, %error, "rollback failed");
                    self.disable_guard(name, revision);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

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
            check_guard(&info(|i| (i.records_in, i.dead_letters) = (49, 49)), &failed),
            None
        );
        assert_eq!(
            check_guard(&info(|i| (i.records_in, i.dead_letters) = (100, 1)), &failed),
            None
        );
        let violation = check_guard(
            &info(|i| (i.records_in, i.dead_letters, i.skipped) = (100, 1, 1)),
            &failed,
        );
        assert_eq!(
            violation,
            Some(GuardViolation(
                "2.0 % of 100 records failed, and at most 1.0 % may".to_owned()
            ))
        );
        let slow = guard("ns_max = 500\nmin_records = 1");
        assert_eq!(
            check_guard(&info(|i| (i.records_in, i.wasm_ns) = (10, 5_000)), &slow),
            None
        );
        assert!(check_guard(&info(|i| (i.records_in, i.wasm_ns) = (10, 5_001)), &slow).is_some());
        let output = guard("output = [0.1, 1.0]\nmin_records = 10");
        assert_eq!(
            check_guard(&info(|i| (i.records_in, i.kept) = (10, 1)), &output),
            None
        );
        assert!(check_guard(&info(|i| i.records_in = 10), &output).is_some());
        let twice = |i: &mut PipelineInfo| {
            (i.records_in, i.kept) = (10, 10);
            i.routed.insert("o".to_owned(), 1);
        };
        assert!(check_guard(&info(twice), &output).is_some());
        let halted = |i: &mut PipelineInfo| i.state = State::Halted("why".to_owned());
        assert_eq!(
            check_guard(&info(halted), &failed),
            Some(GuardViolation("it halted: why".to_owned()))
        );
    }
}
