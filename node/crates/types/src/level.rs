//! What releases can read: a number that rises when a release can read, and so may write, what the one before it cannot.
//!
//! A site has a level, too: that of the oldest of its nodes when it was last raised. Nothing above it is stored or sent, so that
//! nodes can be replaced one by one, and the old ones go on understanding the new ones until the last is replaced.

/// The level of this release.
pub const LEVEL: u32 = 2;

/// The level of nodes and data that do not say one: of the first release.
pub const FIRST_LEVEL: u32 = 1;

/// From which level on a site has records of when batches were stored, and settings of topics beyond the first ones.
pub const LEVEL_OF_AGES: u32 = 2;

/// When this release was made, in milliseconds since 1970 (2026-11-30): a clock that is before it is not set.
pub const RELEASED_MS: i64 = 1_795_996_800_000;

/// The first release of each level, from 1 on.
const RELEASES: [&str; LEVEL as usize] = ["0.1.0", "0.2.0"];

/// The release that `level` needs, in words.
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
