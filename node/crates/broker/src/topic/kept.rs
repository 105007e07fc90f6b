//! Settings of Kafka that are accepted and stored, but have no effect: tools set and compare them, and fail
//! where they are refused. Names, defaults and bounds: Apache Kafka 4.4, `TopicConfig` and `LogConfig`.

use super::setting::{Setting, SettingKind};

/// The values that a setting takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Takes {
    Whole(i64, i64),
    Ratio,
    Boolean,
    /// False only: the feature is missing, and would change guarantees.
    No,
    OneOf(&'static [&'static str]),
    List,
}

/// A setting without effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) setting: Setting,
    pub(super) preset: &'static str,
    pub(super) takes: Takes,
}

const INT: i64 = i32::MAX as i64;
const NEVER: &str = "9223372036854775807";

const fn whole(
    name: &'static str,
    preset: &'static str,
    kind: SettingKind,
    least: i64,
    about: &'static str,
) -> Kept {
    let most = match kind {
        SettingKind::Int => INT,
        _ => i64::MAX,
    };
    of(name, preset, kind, Takes::Whole(least, most), about)
}

const fn of(
    name: &'static str,
    preset: &'static str,
    kind: SettingKind,
    takes: Takes,
    about: &'static str,
) -> Kept {
    let setting = Setting {
        name,
        kind,
        about,
        is_own: false,
    };
    Kept {
        setting,
        preset,
        takes,
    }
}

const SEGMENTS: &str = "Changes nothing here: the store has no segments.";
const SYNCS: &str = "Changes nothing here: `durability` says when records are synced.";
const COMPACTION: &str = "Changes nothing yet: no topic is compacted.";
const TIERS: &str = "Changes nothing here: all records are on the node.";
const STORED_AS_SENT: &str = "Changes nothing here: batches are stored as producers compressed them.";
const THROTTLES: &str = "Changes nothing here: replicas are not throttled by topic.";

/// All of them.
pub(super) const KEPT: [Kept; 29] = [
    whole("segment.bytes", "1073741824", SettingKind::Int, 14, SEGMENTS),
    whole("segment.ms", "604800000", SettingKind::Long, 1, SEGMENTS),
    whole("segment.jitter.ms", "0", SettingKind::Long, 0, SEGMENTS),
    whole("segment.index.bytes", "10485760", SettingKind::Int, 4, SEGMENTS),
    whole("index.interval.bytes", "4096", SettingKind::Int, 0, SEGMENTS),
    whole("file.delete.delay.ms", "60000", SettingKind::Long, 0, SEGMENTS),
    of(
        "preallocate",
        "false",
        SettingKind::Boolean,
        Takes::Boolean,
        SEGMENTS,
    ),
    whole("flush.messages", NEVER, SettingKind::Long, 1, SYNCS),
    whole("flush.ms", NEVER, SettingKind::Long, 0, SYNCS),
    whole(
        "delete.retention.ms",
        "86400000",
        SettingKind::Long,
        0,
        COMPACTION,
    ),
    whole("min.compaction.lag.ms", "0", SettingKind::Long, 0, COMPACTION),
    whole("max.compaction.lag.ms", NEVER, SettingKind::Long, 1, COMPACTION),
    of(
        "min.cleanable.dirty.ratio",
        "0.5",
        SettingKind::Double,
        Takes::Ratio,
        COMPACTION,
    ),
    of(
        "compression.type",
        "producer",
        SettingKind::String,
        Takes::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        STORED_AS_SENT,
    ),
    of(
        "compression.gzip.level",
        "-1",
        SettingKind::Int,
        Takes::Whole(-1, 9),
        STORED_AS_SENT,
    ),
    of(
        "compression.lz4.level",
        "9",
        SettingKind::Int,
        Takes::Whole(1, 17),
        STORED_AS_SENT,
    ),
    of(
        "compression.zstd.level",
        "3",
        SettingKind::Int,
        Takes::Whole(-131_072, 22),
        STORED_AS_SENT,
    ),
    of(
        "unclean.leader.election.enable",
        "false",
        SettingKind::Boolean,
        Takes::Boolean,
        "Changes nothing here: a node that lacks acknowledged records never leads.",
    ),
    of(
        "remote.storage.enable",
        "false",
        SettingKind::Boolean,
        Takes::No,
        TIERS,
    ),
    of(
        "remote.log.copy.disable",
        "false",
        SettingKind::Boolean,
        Takes::Boolean,
        TIERS,
    ),
    of(
        "remote.log.delete.on.disable",
        "false",
        SettingKind::Boolean,
        Takes::Boolean,
        TIERS,
    ),
    whole("remote.copy.lag.ms", "0", SettingKind::Long, -2, TIERS),
    whole("remote.copy.lag.bytes", "-1", SettingKind::Long, -2, TIERS),
    whole(
        "max.decompressed.message.bytes",
        "2147483639",
        SettingKind::Int,
        0,
        "Changes nothing here: the records of a batch have up to 16 MiB.",
    ),
    of(
        "errors.deadletterqueue.group.enable",
        "false",
        SettingKind::Boolean,
        Takes::Boolean,
        "Changes nothing here: share groups are not served.",
    ),
    whole("local.retention.ms", "-2", SettingKind::Long, -2, TIERS),
    whole("local.retention.bytes", "-2", SettingKind::Long, -2, TIERS),
    of(
        "leader.replication.throttled.replicas",
        "",
        SettingKind::List,
        Takes::List,
        THROTTLES,
    ),
    of(
        "follower.replication.throttled.replicas",
        "",
        SettingKind::List,
        Takes::List,
        THROTTLES,
    ),
];

/// Returns the setting `name`, if it is among these.
pub(super) fn named(name: &str) -> Option<&'static Kept> {
    KEPT.iter().find(|kept| kept.setting.name == name)
}

impl Takes {
    pub(super) fn takes(self, value: &str) -> bool {
        match self {
            Self::Whole(least, most) => value.parse().is_ok_and(|n: i64| (least..=most).contains(&n)),
            Self::Ratio => value.parse().is_ok_and(|n: f64| (0.0..=1.0).contains(&n)),
            Self::Boolean => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
            Self::No => value.eq_ignore_ascii_case("false"),
            Self::OneOf(all) => all.contains(&value),
            Self::List => true,
        }
    }

    /// Describes the accepted values.
    pub(super) fn want(self) -> String {
        match self {
            Self::Whole(least, i64::MAX) => format!("a whole number from {least} on"),
            Self::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Self::Ratio => "a number from 0 to 1".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::No => "false: all records are on the node".to_owned(),
            Self::OneOf(all) => all.join(", "),
            Self::List => "a list".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_taken() {
        for kept in KEPT {
            assert!(kept.takes.takes(kept.preset), "{}", kept.setting.name);
        }
    }
}
