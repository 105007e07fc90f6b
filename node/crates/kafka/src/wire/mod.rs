//! Kafka's binary protocol: primitive types, and messages as tables of fields with their versions.
//!
//! The reader trusts no count and no length: each is checked against the bytes received, and every allocation
//! is charged to a budget of [`BUDGET_PER_BYTE`] times the request plus [`BUDGET_FREE_BYTES`]. (The generated
//! decoders of other crates reserve as many items as a four-byte count claims, and abort the process.)
//! Formats: <https://kafka.apache.org/protocol>, KIP-482 for the compact ("flexible") forms.

mod message;
mod read;
mod write;

pub(crate) use message::messages;
pub(crate) use read::Reader;
pub(crate) use write::{Frame, Writer};

use bytes::Bytes;
use std::borrow::Cow;

/// Bytes that decoding may allocate per byte of the request.
const BUDGET_PER_BYTE: usize = 3;
/// Additional bytes that decoding may allocate: small requests of many small items are legal.
const BUDGET_FREE_BYTES: usize = 512 << 10;

/// Maximum items in all arrays of a request: ten times the partitions of a node. The decoded form of an item
/// is larger than the item.
const ITEMS_MAX: usize = 10 * weir_types::limits::PARTITIONS_MAX as usize;

/// An error in the bytes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The request ends within a field.
    #[error("request ends within a field")]
    Short,
    /// A count or length exceeds the bytes received.
    #[error("a count or length of {0} exceeds the bytes received")]
    Count(i64),
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// Decoding would allocate more than the request's budget.
    #[error("decoding the request would take too much memory")]
    Budget,
    /// The request has more items than the limit.
    #[error("the request has more than {ITEMS_MAX} items")]
    Items,
    /// A field that must have a value is null.
    #[error("unexpected null")]
    Null,
}

/// A value on the wire, in the form that the version of its message defines.
pub(crate) trait Wire: Sized {
    fn read(reader: &mut Reader, version: i16) -> Result<Self, WireError>;
    fn write(&self, writer: &mut Writer, version: i16);
    /// Returns a value with content in every field of `version`.
    #[cfg(test)]
    fn sample(dice: &mut Dice, version: i16) -> Self;
}

/// Reproducible pseudo-random numbers.
#[cfg(test)]
pub(crate) struct Dice(pub(crate) u64);

#[cfg(test)]
impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 20
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.roll() % 200;
        (0..len).map(|_| self.roll() as u8).collect()
    }

    fn text(&mut self) -> String {
        let len = self.roll() % 140;
        (0..len)
            .map(|_| char::from(b'a' + (self.roll() % 26) as u8))
            .collect()
    }
}

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl Wire for $ty {
            fn read(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
                reader.array().map(<$ty>::from_be_bytes)
            }
            fn write(&self, writer: &mut Writer, _: i16) {
                writer.put(&self.to_be_bytes());
            }
            #[cfg(test)]
            fn sample(dice: &mut Dice, _: i16) -> Self {
                dice.roll() as Self
            }
        }
    )*};
}
integers!(i8, i16, i32, i64);

impl Wire for bool {
    fn read(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
        reader.array::<1>().map(|[b]| b != 0)
    }
    fn write(&self, writer: &mut Writer, _: i16) {
        writer.put(&[u8::from(*self)]);
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, _: i16) -> Self {
        dice.roll().is_multiple_of(2)
    }
}

/// A UUID; all zeros stand for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uuid(pub(crate) [u8; 16]);

impl Wire for Uuid {
    fn read(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
        reader.array().map(Self)
    }
    fn write(&self, writer: &mut Writer, _: i16) {
        writer.put(&self.0);
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, _: i16) -> Self {
        Self(std::array::from_fn(|_| dice.roll() as u8))
    }
}

impl Wire for Option<String> {
    fn read(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
        reader.string()
    }
    fn write(&self, writer: &mut Writer, _: i16) {
        writer.string(self.as_deref());
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, _: i16) -> Self {
        Some(dice.text())
    }
}

impl Wire for String {
    fn read(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
        reader.string()?.ok_or(WireError::Null)
    }
    fn write(&self, writer: &mut Writer, _: i16) {
        writer.string(Some(self));
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, _: i16) -> Self {
        dice.text()
    }
}

/// A constant text is not copied into the answer.
impl Wire for Cow<'static, str> {
    fn read(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        String::read(reader, version).map(Self::Owned)
    }
    fn write(&self, writer: &mut Writer, _: i16) {
        writer.string(Some(self));
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, _: i16) -> Self {
        Self::Owned(dice.text())
    }
}

impl Wire for Option<Cow<'static, str>> {
    fn read(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
        Ok(reader.string()?.map(Cow::Owned))
    }
    fn write(&self, writer: &mut Writer, _: i16) {
        writer.string(self.as_deref());
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, _: i16) -> Self {
        Some(Cow::Owned(dice.text()))
    }
}

impl Wire for Option<Bytes> {
    fn read(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
        reader.bytes()
    }
    fn write(&self, writer: &mut Writer, _: i16) {
        writer.bytes(self.as_deref());
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, _: i16) -> Self {
        Some(dice.bytes().into())
    }
}

impl Wire for Bytes {
    fn read(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
        reader.bytes()?.ok_or(WireError::Null)
    }
    fn write(&self, writer: &mut Writer, _: i16) {
        writer.bytes(Some(self));
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, _: i16) -> Self {
        dice.bytes().into()
    }
}

/// Whole record batches, one after another, written without a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records(pub(crate) Vec<Bytes>);

impl Wire for Records {
    fn read(reader: &mut Reader, _: i16) -> Result<Self, WireError> {
        Ok(Self(reader.bytes()?.into_iter().collect()))
    }
    fn write(&self, writer: &mut Writer, _: i16) {
        writer.chunks(&self.0);
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, _: i16) -> Self {
        Self(vec![
            dice.bytes().into(),
            vec![7; 3_000].into(),
            dice.bytes().into(),
        ])
    }
}

impl<T: Wire> Wire for Option<Vec<T>> {
    fn read(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        let Some(count) = reader.count()? else {
            return Ok(None);
        };
        let mut items = Vec::new();
        for _ in 0..count {
            reader.item()?;
            if items.len() == items.capacity() {
                let more = items.len().clamp(1, count - items.len());
                reader.charge(more * size_of::<T>())?;
                items.reserve_exact(more);
            }
            items.push(T::read(reader, version)?);
        }
        Ok(Some(items))
    }
    fn write(&self, writer: &mut Writer, version: i16) {
        writer.count(self.as_ref().map(Vec::len));
        self.iter().flatten().for_each(|item| item.write(writer, version));
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, version: i16) -> Self {
        Some(Vec::sample(dice, version))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn read(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        Option::<Self>::read(reader, version)?.ok_or(WireError::Null)
    }
    fn write(&self, writer: &mut Writer, version: i16) {
        writer.count(Some(self.len()));
        self.iter().for_each(|item| item.write(writer, version));
    }

    #[cfg(test)]
    fn sample(dice: &mut Dice, version: i16) -> Self {
        (0..1 + dice.roll() % 3)
            .map(|_| T::sample(dice, version))
            .collect()
    }
}
