//! Texts from guests, for people and for rows: bounded, and without characters that move a cursor.

use weir_types::limits::MODULE_TEXT_BYTES_MAX;

/// Cuts `text` to the longest kept length, with spaces for control characters other than line ends.
pub(crate) fn tidy(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MODULE_TEXT_BYTES_MAX));
    if text.contains(is_unseen) {
        text.replace(is_unseen, " ")
    } else {
        text
    }
}

/// Returns true for control characters, and for characters that change the direction of text.
fn is_unseen(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() && c != '\n'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_terminal_shows_it_and_does_nothing() {
        assert_eq!(
            tidy("\u{1b}]0;owned\u{7}\nfine ä".to_owned()),
            " ]0;owned \nfine ä"
        );
        assert_eq!(tidy("a\u{202e}b\r".to_owned()), "a b ");
    }

    proptest! {
        #[test]
        fn what_is_left_is_short_and_plain(text in any::<String>(), times in 1usize..200) {
            let tidied = tidy(text.repeat(times));
            prop_assert!(tidied.len() <= MODULE_TEXT_BYTES_MAX);
            prop_assert!(!tidied.contains(is_unseen));
        }
    }
}
