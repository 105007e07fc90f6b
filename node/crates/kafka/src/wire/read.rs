//! Reads primitive types from untrusted bytes.

use super::{BUDGET_FREE_BYTES, BUDGET_PER_BYTE, ITEMS_MAX, WireError};
use bytes::Bytes;

/// The bytes of a request, read from the front.
pub(crate) struct Reader {
    rest: Bytes,
    budget: usize,
    items: usize,
    flexible: bool,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self {
            budget: BUDGET_FREE_BYTES + BUDGET_PER_BYTE * bytes.len(),
            rest: bytes,
            items: ITEMS_MAX,
            flexible: false,
        }
    }

    /// Switches to flexible form: lengths are compact, and structures end in tagged fields.
    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Charges an allocation to the budget.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), WireError> {
        self.budget = self.budget.checked_sub(bytes).ok_or(WireError::Budget)?;
        Ok(())
    }

    /// Counts an item of an array.
    pub(crate) fn item(&mut self) -> Result<(), WireError> {
        self.items = self.items.checked_sub(1).ok_or(WireError::Items)?;
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<Bytes, WireError> {
        if len > self.rest.len() {
            return Err(WireError::Short);
        }
        Ok(self.rest.split_to(len))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let array = *self.rest.first_chunk::<N>().ok_or(WireError::Short)?;
        let _ = self.rest.split_to(N);
        Ok(array)
    }

    fn unsigned_varint(&mut self) -> Result<u32, WireError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array::<1>()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| WireError::Count(value as i64));
            }
        }
        Err(WireError::Count(value as i64))
    }

    /// Reads a length and checks it against the remaining bytes; returns `None` for null.
    fn length(
        &mut self,
        classic: impl FnOnce(&mut Self) -> Result<i64, WireError>,
    ) -> Result<Option<usize>, WireError> {
        let length = if self.flexible {
            i64::from(self.unsigned_varint()?) - 1
        } else {
            classic(self)?
        };
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            _ => Err(WireError::Count(length)),
        }
    }

    /// Reads the number of items of an array; each item takes at least a byte.
    pub(crate) fn count(&mut self) -> Result<Option<usize>, WireError> {
        self.length(|r| r.array().map(|b| i64::from(i32::from_be_bytes(b))))
    }

    pub(crate) fn string(&mut self) -> Result<Option<String>, WireError> {
        let length = self.length(|r| r.array().map(|b| i64::from(i16::from_be_bytes(b))))?;
        let Some(length) = length else { return Ok(None) };
        self.charge(length)?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| WireError::Utf8)?;
        Ok(Some(text.to_owned()))
    }

    /// Reads a slice of the request without a copy.
    pub(crate) fn bytes(&mut self) -> Result<Option<Bytes>, WireError> {
        let length = self.length(|r| r.array().map(|b| i64::from(i32::from_be_bytes(b))))?;
        length.map(|length| self.take(length)).transpose()
    }

    /// Reads the end of a structure. Passes each tagged field to `known`, which ignores the tags of newer
    /// versions.
    pub(crate) fn end_struct(
        &mut self,
        mut known: impl FnMut(u32, &mut Self) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            if size > self.rest.len() {
                return Err(WireError::Short);
            }
            let rest = self.rest.split_off(size);
            known(tag, self)?;
            self.rest = rest;
        }
        Ok(())
    }

    pub(crate) fn into_rest(self) -> Bytes {
        self.rest
    }
}
