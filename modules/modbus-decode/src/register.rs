//! A number in registers.

use weir_sdk::Json;

/// Registers that one answer has, at most (Modbus Application Protocol 1.1b3, 6.3).
const REGISTERS_MAX: usize = 125;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Unsigned,
    Signed,
    Float,
}

#[derive(Clone, Debug)]
pub(crate) struct Register {
    /// As it stands in JSON, without its quotes.
    pub(crate) name: String,
    at: usize,
    /// Registers that it takes.
    words: usize,
    kind: Kind,
    scale: f64,
    offset: f64,
    swap: bool,
}

impl Register {
    pub(crate) fn read(name: &str, text: Json<'_>, swap: bool) -> Result<Self, String> {
        let (kind, words) = match text.get("as").string().as_deref() {
            Some("u16") => (Kind::Unsigned, 1),
            Some("i16") => (Kind::Signed, 1),
            Some("u32") => (Kind::Unsigned, 2),
            Some("i32") => (Kind::Signed, 2),
            Some("f32") => (Kind::Float, 2),
            Some("u64") => (Kind::Unsigned, 4),
            Some("i64") => (Kind::Signed, 4),
            Some("f64") => (Kind::Float, 4),
            Some(other) => return Err(format!("`as` cannot be `{other}`")),
            None => return Err("it has no `as`, as `u16`".to_owned()),
        };
        let at = text
            .get("at")
            .number()
            .filter(|at| at.fract() == 0.0 && *at >= 0.0);
        let at = at.filter(|at| *at as usize + words <= REGISTERS_MAX);
        let at = at.ok_or(format!("`at` has to be 0 to {}", REGISTERS_MAX - words))?;
        let number = |field: &str, preset: f64| match text.get(field).exists() {
            true => text.get(field).number().ok_or(format!("`{field}` is no number")),
            false => Ok(preset),
        };
        Ok(Self {
            name: name.to_owned(),
            at: at as usize,
            words,
            kind,
            scale: number("scale", 1.0)?,
            offset: number("offset", 0.0)?,
            swap,
        })
    }

    /// The number that `bytes` have there.
    pub(crate) fn number(&self, bytes: &[u8]) -> Result<f64, String> {
        let there = bytes
            .get(2 * self.at..2 * (self.at + self.words))
            .ok_or_else(|| {
                let (last, all) = (self.at + self.words - 1, bytes.len() / 2);
                format!(
                    "`{}` is at registers {} to {last}, and there are {all}",
                    self.name, self.at
                )
            })?;
        let (words, _) = there.as_chunks::<2>();
        let join = |all: u64, word: &[u8; 2]| all << 16 | u64::from(u16::from_be_bytes(*word));
        let bits = match self.swap {
            true => words.iter().rev().fold(0, join),
            false => words.iter().fold(0, join),
        };
        let unused = 64 - 16 * self.words as u32;
        let number = match (self.kind, self.words) {
            (Kind::Unsigned, _) => bits as f64,
            (Kind::Signed, _) => ((bits << unused) as i64 >> unused) as f64,
            (Kind::Float, 2) => f64::from(f32::from_bits(bits as u32)),
            (Kind::Float, _) => f64::from_bits(bits),
        };
        Ok(number * self.scale + self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_register_is_refused() {
        for (text, why) in [
            ("{}", "no `as`"),
            (r#"{"as":"u8","at":0}"#, "cannot be `u8`"),
            (r#"{"as":"u16"}"#, "0 to 124"),
            (r#"{"as":"f64","at":122}"#, "0 to 121"),
            (r#"{"as":"u16","at":1.5}"#, "0 to 124"),
            (r#"{"as":"u16","at":1,"scale":"x"}"#, "`scale` is no number"),
        ] {
            let refused = Register::read("r", Json::new(text.as_bytes()), false).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
