//! The form in which rows are stored, and messages about them sent: postcard, with its version where that is not the first.
//!
//! The first form has no version in front. A later one begins with [`MARK`] and its version: two bytes that postcard never begins
//! with, since they are the number 0 written longer than it has to be, and every row and message of the first form begins with a
//! number or a length. So a reader can always tell, and says so when it does not know the version.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_types::planted::{Bug, planted};

/// What a form later than the first begins with, and its version behind.
const MARK: [u8; 2] = [0x80, 0x00];

/// Why what is stored or was sent cannot be read. It is there, and says something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Its version, or what it says, is of a later release.
    #[error("{what} is of version {version}: a later release than {} wrote it, and one like that has to read it", env!("CARGO_PKG_VERSION"))]
    Newer {
        /// What it is.
        what: &'static str,
        /// Its version.
        version: u8,
    },
    /// It is in no form of its version: of a later release that did not say so, or damaged.
    #[error("{what} is in no form that release {} knows: {why}", env!("CARGO_PKG_VERSION"))]
    Unknown {
        /// What it is.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// `value` in postcard, in the first form.
///
/// # Panics
/// When `value` has no such form: a list whose length its type does not know, which no row or message has. An empty row
/// instead would be one that is gone, in silence.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let encoded = postcard::to_allocvec(value);
    let encoded = encoded.expect("rows are numbers, texts, options and lists of known length");
    if planted(Bug::EmptyRow) && encoded.len().is_multiple_of(8) {
        return Bytes::new();
    }
    encoded.into()
}

/// `value` in postcard, as `version`.
///
/// # Panics
/// As [`encode`].
pub fn encode_as<T: Serialize + ?Sized>(version: u8, value: &T) -> Bytes {
    let encoded = postcard::to_extend(value, vec![MARK[0], MARK[1], version]);
    encoded
        .expect("rows are numbers, texts, options and lists of known length")
        .into()
}

/// The version of `bytes` and what follows it.
pub fn version_of(bytes: &[u8]) -> (u8, &[u8]) {
    match bytes.strip_prefix(&MARK).and_then(<[u8]>::split_first) {
        Some((version, rest)) => (*version, rest),
        None => (1, bytes),
    }
}

/// Reads `what`, of which only the first form is known.
///
/// # Errors
/// When it is in another.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, FormatError> {
    match version_of(bytes) {
        (1, body) => decode_body(what, body),
        (version, _) => Err(FormatError::Newer { what, version }),
    }
}

/// Reads `what` behind its version.
///
/// # Errors
/// When it is not in the form of `T`.
pub fn decode_body<T: DeserializeOwned>(what: &'static str, body: &[u8]) -> Result<T, FormatError> {
    postcard::from_bytes(body).map_err(|e| FormatError::Unknown {
        what,
        why: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn golden_bytes() {
        assert_eq!(&encode(&(5u64, "a"))[..], [5, 1, b'a']);
        assert_eq!(&encode_as(2, &(5u64, "a"))[..], [0x80, 0x00, 2, 5, 1, b'a']);
    }

    proptest! {
        #[test]
        fn a_version_is_never_mistaken(number in any::<u64>(), text in any::<String>(), version in 2u8..) {
            let first = encode(&(number, &text));
            prop_assert_eq!(version_of(&first), (1, &first[..]));
            prop_assert_eq!(version_of(&encode(&(&text, number))).0, 1);
            let later = encode_as(version, &(number, &text));
            prop_assert_eq!(version_of(&later), (version, &first[..]));
            let refused = decode::<(u64, String)>("it", &later);
            prop_assert_eq!(refused, Err(FormatError::Newer { what: "it", version }));
            prop_assert_eq!(decode("it", &first), Ok((number, text)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode::<(u64, String)>("it", &bytes);
        }
    }
}
