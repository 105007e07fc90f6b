//! The form in which rows are stored, and messages about them sent: postcard.

use bytes::Bytes;
use serde::Serialize;
use weir_types::planted::{Bug, planted};

/// `value` in postcard.
///
/// # Panics
/// When `value` has no such form: a list whose length its type does not know, which no row or message has. An empty row
/// instead would be one that is gone, in silence.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let encoded = postcard::to_allocvec(value);
    let encoded = encoded.expect("rows are numbers, texts, options and lists of known length");
    if planted(Bug::EmptyRow) && encoded.len() % 8 == 0 {
        return Bytes::new();
    }
    encoded.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list that does not say how long it is.
    struct Endless;

    impl Serialize for Endless {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            serde::ser::SerializeSeq::end(to.serialize_seq(None)?)
        }
    }

    #[test]
    #[should_panic(expected = "known length")]
    fn what_has_no_stored_form_is_no_empty_row() {
        encode(&Endless);
    }
}
