//! The form in which rows are stored, and messages about them sent: postcard, with its version where that is
//! not the first.
//!
//! The first form has no version in front. A later one begins with [`MARK`] and its version: two bytes that
//! postcard never begins with, since they are the number 0 written longer than it has to be, and every row
//! and message of the first form begins with a number or a length. So a reader can always tell, and says so
//! when it does not know the version.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_types::planted::{Bug, planted};

/// The first bytes of every form later than the first; the version follows.
const MARK: [u8; 2] = [0x80, 0x00];

/// Stored or received bytes that cannot be read, although they are there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The version, or a value inside, belongs to a later release.
    #[error("{what} is of version {version}: a later release than {} wrote it, and one like that has to read it", env!("CARGO_PKG_VERSION"))]
    Newer {
        /// Name of the row or message.
        what: &'static str,
        /// Version of the row or message.
        version: u8,
    },
    /// The bytes fit no form of their version: an unmarked later release, or damage.
    #[error("{what} is in no form that release {} knows: {why}", env!("CARGO_PKG_VERSION"))]
    Unknown {
        /// Name of the row or message.
        what: &'static str,
        /// Reason of the failure.
        why: String,
    },
}

/// Encodes `value` in postcard, in the first form.
///
/// # Panics
/// Panics when `value` has no such form: a list whose type does not know its length, which no row or message
/// has. An empty row would be a silent loss instead.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let encoded = postcard::to_allocvec(value);
    let encoded = encoded.expect("rows are numbers, texts, options and lists of known length");
    if planted(Bug::EmptyRow) && encoded.len().is_multiple_of(8) {
        return Bytes::new();
    }
    encoded.into()
}

/// Encodes `value` in postcard, marked with `version`.
///
/// # Panics
/// Panics when `value` has no such form, as [`encode`] does.
pub fn encode_as<T: Serialize + ?Sized>(version: u8, value: &T) -> Bytes {
    let encoded = postcard::to_extend(value, vec![MARK[0], MARK[1], version]);
    encoded
        .expect("rows are numbers, texts, options and lists of known length")
        .into()
}

/// Splits `bytes` into their version and the body.
pub fn version_of(bytes: &[u8]) -> (u8, &[u8]) {
    match bytes.strip_prefix(&MARK).and_then(<[u8]>::split_first) {
        Some((version, rest)) => (*version, rest),
        None => (1, bytes),
    }
}

/// Decodes `what`, a row or message of which only the first form exists.
///
/// # Errors
/// Fails when the bytes are in another form.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, FormatError> {
    match version_of(bytes) {
        (1, body) => decode_body(what, body),
        (version, _) => Err(FormatError::Newer { what, version }),
    }
}

/// Decodes the body of `what`, after its version.
///
/// # Errors
/// Fails when the body is not in the form of `T`.
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

    /// A list that does not know its length.
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
