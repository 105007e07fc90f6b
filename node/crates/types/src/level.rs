//! The level of a release: a number that rises when a release reads, and so may write, new forms of data.
//!
//! A site has a level, too: its oldest node's when the level was last raised. Nothing above the site's level
//! is stored or sent. So nodes can be replaced in turn, and old nodes understand new ones until the last is
//! replaced.

/// The level of this release.
pub const LEVEL: u32 = 2;

/// The level of nodes and data without a level: the first release's.
pub const FIRST_LEVEL: u32 = 1;

/// Level from which a site records when batches were stored, and has settings of topics beyond the first.
pub const LEVEL_OF_AGES: u32 = 2;

/// Time of this release, in milliseconds since 1970 (2026-11-30): an earlier clock is not set.
pub const RELEASED_MS: i64 = 1_795_996_800_000;

/// The first release of each level, from 1 on.
const RELEASES: [&str; LEVEL as usize] = ["0.1.0", "0.2.0"];

/// Names the release that `level` needs.
pub fn release_of(level: u32) -> String {
    let known = (level as usize).checked_sub(1).and_then(|n| RELEASES.get(n));
    known.map_or_else(
        || {
            format!(
                "a release later than {} (level {level})",
                env!("CARGO_PKG_VERSION")
            )
        },
        |release| format!("Weir {release} or later"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_release_is_named_and_later_ones_are_said_to_be_later() {
        assert_eq!(release_of(FIRST_LEVEL), "Weir 0.1.0 or later");
        assert_eq!(
            release_of(LEVEL),
            format!("Weir {} or later", env!("CARGO_PKG_VERSION"))
        );
        assert!(release_of(LEVEL + 1).contains(&format!("level {}", LEVEL + 1)));
    }
}
