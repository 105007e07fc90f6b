//! Values in registers.

use weir_sdk::{Json, Raw, Scaling, Settings};

/// Registers of a device (Modbus Application Protocol 1.1b3, 4.3): register numbers have 16 bits.
const REGISTERS: u32 = 1 << 16;
/// Maximum registers of a text: an answer has at most 125 registers, and a value may combine several answers.
const TEXT_REGISTERS_MAX: u32 = 1_000;

/// The words of a register's settings.
const SETTINGS: [&str; 8] = ["at", "as", "scale", "offset", "order", "swap", "bit", "registers"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Unsigned,
    Signed,
    Float,
    /// A decimal digit per four bits.
    Bcd,
    /// A single bit, counted from the lowest.
    Bit(u32),
    Text,
}

/// The byte order of a number; A is the highest of four bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Order {
    Abcd,
    /// Low word first.
    Cdab,
    /// Low byte of each word first.
    Badc,
    Dcba,
}

impl Order {
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        match name {
            "ABCD" => Ok(Self::Abcd),
            "CDAB" => Ok(Self::Cdab),
            "BADC" => Ok(Self::Badc),
            "DCBA" => Ok(Self::Dcba),
            other => Err(format!(
                "`order` cannot be `{other}`: use ABCD, CDAB, BADC or DCBA"
            )),
        }
    }

    /// Returns the order given by `order` and `swap`; `None` if neither is set.
    ///
    /// # Errors
    /// If the two contradict each other.
    pub(crate) fn of(order: Option<&str>, swap: Option<bool>) -> Result<Option<Self>, String> {
        let swapped = swap.map(|swap| if swap { Self::Cdab } else { Self::Abcd });
        match (order.map(Self::named).transpose()?, swapped) {
            (Some(_), Some(_)) => Err("`order` and `swap` set the same: use only one".to_owned()),
            (order, swapped) => Ok(order.or(swapped)),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub(crate) name: String,
    /// The name in the form of the JSON output, in front of the value.
    pub(crate) label: Vec<u8>,
    at: usize,
    /// Number of registers.
    words: usize,
    kind: Kind,
    scaling: Scaling,
    order: Order,
}

impl Register {
    pub(crate) fn read(name: &str, json: Json<'_>, preset: Order) -> Result<Self, String> {
        let settings = Settings::read(json, &SETTINGS)?;
        let is_set = |word: &str| json.get(word).exists();
        let kind = settings.text("as")?.ok_or("it has no `as`, such as `u16`")?;
        let (kind, words) = match kind.as_str() {
            "u16" => (Kind::Unsigned, 1),
            "i16" => (Kind::Signed, 1),
            "f16" => (Kind::Float, 1),
            "bcd16" => (Kind::Bcd, 1),
            "u32" => (Kind::Unsigned, 2),
            "i32" => (Kind::Signed, 2),
            "f32" => (Kind::Float, 2),
            "bcd32" => (Kind::Bcd, 2),
            "u64" => (Kind::Unsigned, 4),
            "i64" => (Kind::Signed, 4),
            "f64" => (Kind::Float, 4),
            "bool" => {
                let bit = settings.whole("bit", 0, 15)?;
                (Kind::Bit(bit.ok_or("a `bool` needs its `bit`, 0 to 15")?), 1)
            }
            "text" => {
                let registers = settings.whole("registers", 1, TEXT_REGISTERS_MAX)?;
                (
                    Kind::Text,
                    registers.ok_or("a `text` needs its number of `registers`")?,
                )
            }
            other => {
                return Err(format!(
                    "`as` cannot be `{other}`: use u16, i16, f16, bcd16, u32, i32, f32, bcd32, u64, i64, f64, bool or text"
                ));
            }
        };
        let is_number = !matches!(kind, Kind::Bit(_) | Kind::Text);
        for (word, fits) in [
            ("bit", matches!(kind, Kind::Bit(_))),
            ("registers", kind == Kind::Text),
            ("scale", is_number),
            ("offset", is_number),
        ] {
            if is_set(word) && !fits {
                return Err(format!(
                    "`{word}` has no meaning for a register that is not {}",
                    if is_number { "such" } else { "number" }
                ));
            }
        }
        let at = settings.whole("at", 0, REGISTERS - words)?;
        let at = at.ok_or_else(|| format!("it has no `at` from 0 to {}", REGISTERS - words))?;
        let (scale, offset) = (settings.number("scale")?, settings.number("offset")?);
        let mut label = Vec::new();
        weir_sdk::escape_into(&mut label, name);
        label.push(b':');
        Ok(Self {
            name: name.to_owned(),
            label,
            at: at as usize,
            words: words as usize,
            kind,
            scaling: Scaling::new(scale.unwrap_or(1.0), offset.unwrap_or(0.0))?,
            order: Order::of(settings.text("order")?.as_deref(), settings.flag("swap")?)?.unwrap_or(preset),
        })
    }

    /// Writes the value in `bytes` as JSON.
    pub(crate) fn write(&self, bytes: &[u8], to: &mut Vec<u8>) -> Result<(), String> {
        let there = bytes.get(2 * self.at..2 * (self.at + self.words));
        let there = there.ok_or_else(|| {
            let (last, all) = (self.at + self.words - 1, bytes.len() / 2);
            format!(
                "`{}` is at registers {} to {last}, and there are {all}",
                self.name, self.at
            )
        })?;
        let (words, _) = there.as_chunks::<2>();
        let word = |word: &[u8; 2]| match self.order {
            Order::Abcd | Order::Cdab => u16::from_be_bytes(*word),
            Order::Badc | Order::Dcba => u16::from_le_bytes(*word),
        };
        if self.kind == Kind::Text {
            return self.text(words.iter().map(word), to);
        }
        let join = |all: u64, one: &[u8; 2]| all << 16 | u64::from(word(one));
        let bits = match self.order {
            Order::Abcd | Order::Badc => words.iter().fold(0, join),
            Order::Cdab | Order::Dcba => words.iter().rev().fold(0, join),
        };
        let unused = 64 - 16 * self.words as u32;
        let raw = match (self.kind, self.words) {
            (Kind::Unsigned, _) => Raw::Unsigned(bits),
            (Kind::Signed, _) => Raw::Signed((bits << unused) as i64 >> unused),
            (Kind::Float, 1) => Raw::Half(bits as u16),
            (Kind::Float, 2) => Raw::Single(f32::from_bits(bits as u32)),
            (Kind::Float, _) => Raw::Double(f64::from_bits(bits)),
            (Kind::Bcd, _) => Raw::Unsigned(self.digits(bits)?),
            (Kind::Bit(bit), _) => {
                to.extend_from_slice(if bits >> bit & 1 == 1 { b"true" } else { b"false" });
                return Ok(());
            }
            (Kind::Text, _) => return Ok(()),
        };
        self.scaling.write(raw, to);
        Ok(())
    }

    /// Decodes a number with a decimal digit per four bits.
    fn digits(&self, bits: u64) -> Result<u64, String> {
        (0..4 * self.words)
            .rev()
            .try_fold(0, |number, digit| match bits >> (4 * digit) & 0xf {
                digit @ 0..=9 => Ok(number * 10 + digit),
                _ => Err(format!("`{}` is not a binary-coded decimal: {bits:x}", self.name)),
            })
    }

    /// Decodes a text with a character per byte, up to a zero byte or trailing blanks. Bytes beyond ASCII
    /// have no defined meaning.
    fn text(&self, words: impl Iterator<Item = u16>, to: &mut Vec<u8>) -> Result<(), String> {
        let mut bytes: Vec<u8> = words.flat_map(u16::to_be_bytes).collect();
        let end = bytes.iter().position(|byte| *byte == 0);
        bytes.truncate(end.unwrap_or(bytes.len()));
        let text = std::str::from_utf8(&bytes).ok().filter(|text| text.is_ascii());
        let text = text.ok_or_else(|| format!("`{}` is not an ASCII text", self.name))?;
        weir_sdk::escape_into(to, text.trim_end());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Register, String> {
        Register::read("r", Json::new(text.as_bytes()), Order::Abcd)
    }

    #[test]
    fn what_is_no_register_is_refused() {
        for (text, why) in [
            ("{}", "no `as`"),
            (r#"{"as":"u8","at":0}"#, "cannot be `u8`"),
            (r#"{"as":"u16"}"#, "0 to 65535"),
            (r#"{"as":"f64","at":65533}"#, "0 to 65532"),
            (r#"{"as":"u16","at":4294967295}"#, "0 to 65535"),
            (r#"{"as":"u16","at":1.5}"#, "0 to 65535"),
            (r#"{"as":"u16","at":1,"scale":"x"}"#, "`scale` must be a number"),
            (r#"{"as":"u16","at":1,"sclae":0.1}"#, "the nearest is `scale`"),
            (r#"{"as":"u32","at":1,"order":"CADB"}"#, "use ABCD"),
            (
                r#"{"as":"u32","at":1,"order":"CDAB","swap":true}"#,
                "use only one",
            ),
            (r#"{"as":"bool","at":1}"#, "needs its `bit`"),
            (r#"{"as":"text","at":1}"#, "number of `registers`"),
            (r#"{"as":"text","at":1,"registers":2,"scale":2}"#, "no meaning"),
            (r#"{"as":"u16","at":1,"bit":2}"#, "no meaning"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn each_type_and_order_is_what_devices_send() {
        let written = |text: &str, bytes: &[u8]| {
            let mut to = Vec::new();
            let written = read(text).unwrap().write(bytes, &mut to);
            written.map(|()| String::from_utf8(to).unwrap())
        };
        let f32 = |order: &str, bytes: [u8; 4]| {
            written(&format!(r#"{{"at":0,"as":"f32","order":"{order}"}}"#), &bytes).unwrap()
        };
        // 21.3 is 41 aa 66 66.
        assert_eq!(f32("ABCD", [0x41, 0xaa, 0x66, 0x66]), "21.3");
        assert_eq!(f32("CDAB", [0x66, 0x66, 0x41, 0xaa]), "21.3");
        assert_eq!(f32("BADC", [0xaa, 0x41, 0x66, 0x66]), "21.3");
        assert_eq!(f32("DCBA", [0x66, 0x66, 0xaa, 0x41]), "21.3");
        let u16 = |more: &str, word: u16| written(&format!(r#"{{"at":0{more}}}"#), &word.to_be_bytes());
        assert_eq!(u16(r#","as":"u16","scale":0.1"#, 573).unwrap(), "57.3");
        assert_eq!(u16(r#","as":"u16","order":"DCBA""#, 0x0102).unwrap(), "513");
        assert_eq!(u16(r#","as":"bcd16""#, 0x1234).unwrap(), "1234");
        assert!(
            u16(r#","as":"bcd16""#, 0x12a4)
                .unwrap_err()
                .contains("binary-coded")
        );
        assert_eq!(u16(r#","as":"f16""#, 0x4d53).unwrap(), "21.3");
        assert_eq!(u16(r#","as":"bool","bit":3"#, 8).unwrap(), "true");
        assert_eq!(u16(r#","as":"bool","bit":2"#, 8).unwrap(), "false");
        let text = r#"{"at":0,"as":"text","registers":3}"#;
        assert_eq!(written(text, b"AB\"  \0").unwrap(), r#""AB\"""#);
        assert!(written(text, b"\xff     ").unwrap_err().contains("ASCII"));
        let max = written(r#"{"at":0,"as":"u64"}"#, &[0xff; 8]).unwrap();
        assert_eq!(max, "18446744073709551615");
    }
}
