//! A DBC file: which messages there are on a bus, and where their signals lie.
//!
//! Of the format ("DBC File Format Documentation", Vector Informatik, 1.0.5) it reads messages (`BO_`), signals (`SG_`) with
//! multiplexing, and the types of floating point signals (`SIG_VALTYPE_`); all else is for people and other programs.

use std::collections::BTreeMap;

/// Messages by their identifiers; of an extended one bit 31 is set.
pub(crate) type Messages = BTreeMap<u32, Message>;

/// What a frame with an identifier is.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) signals: Vec<Signal>,
}

/// A number in a frame.
#[derive(Debug, PartialEq)]
pub(crate) struct Signal {
    pub(crate) name: String,
    /// When it is there.
    pub(crate) when: When,
    start: usize,
    len: usize,
    is_little_endian: bool,
    is_signed: bool,
    kind: Kind,
    factor: f64,
    offset: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum When {
    Always,
    /// Always, and its raw value says which others are.
    Switch,
    /// When the switch has this value.
    Switched(u64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Integer,
    F32,
    F64,
}

impl Signal {
    /// Its bits as they are; nothing when the frame is too short to have them.
    pub(crate) fn raw(&self, data: &[u8]) -> Option<u64> {
        let bit = |at: usize| Some(u64::from(data.get(at / 8)? >> (at % 8) & 1));
        let (mut raw, mut at) = (0, self.start);
        for n in 0..self.len {
            if self.is_little_endian {
                raw |= bit(self.start + n)? << n;
            } else {
                // From the highest bit down, and on in the next byte's highest.
                raw = raw << 1 | bit(at)?;
                at = if at.is_multiple_of(8) { at + 15 } else { at - 1 };
            }
        }
        Some(raw)
    }

    /// What its bits stand for.
    pub(crate) fn number(&self, raw: u64) -> f64 {
        let unused = 64 - self.len;
        let number = match self.kind {
            Kind::F32 => f64::from(f32::from_bits(raw as u32)),
            Kind::F64 => f64::from_bits(raw),
            Kind::Integer if self.is_signed => ((raw << unused) as i64 >> unused) as f64,
            Kind::Integer => raw as f64,
        };
        number * self.factor + self.offset
    }
}

/// Reads a file.
pub(crate) fn read(text: &str) -> Result<Messages, String> {
    let (mut messages, mut last) = (Messages::new(), None);
    for (n, line) in text.lines().enumerate() {
        let wrong = |why: &str| format!("line {}: {why}", n + 1);
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("BO_ ") {
            let (id, name) =
                message(rest).ok_or_else(|| wrong("`BO_` needs a number, a name and a length"))?;
            let signals = Vec::new();
            messages.insert(id, Message { name, signals });
            last = Some(id);
        } else if let Some(rest) = line.strip_prefix("SG_ ") {
            let signal = signal(rest).map_err(|why| wrong(&why))?;
            let message = last.and_then(|id| messages.get_mut(&id));
            message
                .ok_or_else(|| wrong("a signal before any message"))?
                .signals
                .push(signal);
        } else if let Some(rest) = line.strip_prefix("SIG_VALTYPE_ ") {
            retype(&mut messages, rest).map_err(|why| wrong(&why))?;
        }
    }
    match messages.is_empty() {
        true => Err("it has no messages (`BO_`)".to_owned()),
        false => Ok(messages),
    }
}

fn message(rest: &str) -> Option<(u32, String)> {
    let (head, _) = rest.split_once(':')?;
    let mut words = head.split_whitespace();
    let id = words.next()?.parse().ok()?;
    Some((id, words.next()?.to_owned()))
}

fn signal(rest: &str) -> Result<Signal, String> {
    let want = "a signal is `NAME : START|LENGTH@ORDER SIGN (FACTOR,OFFSET) …`";
    let (head, rest) = rest.split_once(':').ok_or(want)?;
    let mut words = head.split_whitespace();
    let name = words.next().ok_or(want)?.to_owned();
    let when = match words.next() {
        None => When::Always,
        Some("M") => When::Switch,
        Some(word) => {
            let value = word.strip_prefix('m').and_then(|v| v.parse().ok());
            let why = "of multiplexing it knows `M` and `m` with a number";
            When::Switched(value.ok_or_else(|| format!("`{name}`: {why}"))?)
        }
    };
    let rest = rest.trim_start();
    let (start, rest) = rest.split_once('|').ok_or(want)?;
    let (len, rest) = rest.split_once('@').ok_or(want)?;
    let mut kinds = rest.chars();
    let (order, sign) = (kinds.next(), kinds.next());
    let (_, rest) = rest.split_once('(').ok_or(want)?;
    let (scale, _) = rest.split_once(')').ok_or(want)?;
    let (factor, offset) = scale.split_once(',').ok_or(want)?;
    let number = |text: &str| text.trim().parse::<f64>().map_err(|_| want.to_owned());
    let place = |text: &str| text.trim().parse::<usize>().map_err(|_| want.to_owned());
    let (start, len) = (place(start)?, place(len)?);
    if !(1..=64).contains(&len) || start >= 512 {
        return Err(format!(
            "`{name}` has {len} bits from bit {start} on: 1 to 64 can be, of 64 bytes"
        ));
    }
    Ok(Signal {
        name,
        when,
        start,
        len,
        is_little_endian: match order {
            Some('1') => true,
            Some('0') => false,
            _ => return Err(want.to_owned()),
        },
        is_signed: match sign {
            Some('-') => true,
            Some('+') => false,
            _ => return Err(want.to_owned()),
        },
        kind: Kind::Integer,
        factor: number(factor)?,
        offset: number(offset)?,
    })
}

/// `ID NAME : TYPE;`
fn retype(messages: &mut Messages, rest: &str) -> Result<(), String> {
    let want = "`SIG_VALTYPE_` needs a message, a signal and a type";
    let (head, kind) = rest.split_once(':').ok_or(want)?;
    let mut words = head.split_whitespace();
    let id: u32 = words.next().and_then(|id| id.parse().ok()).ok_or(want)?;
    let name = words.next().ok_or(want)?;
    let message = messages.get_mut(&id);
    let mut signals = message.into_iter().flat_map(|m| &mut m.signals);
    let signal = signals.find(|s| s.name == name);
    let signal = signal.ok_or_else(|| format!("there is no signal `{name}` in message {id}"))?;
    signal.kind = match (kind.trim().trim_end_matches(';').trim(), signal.len) {
        ("0", _) => Kind::Integer,
        ("1", 32) => Kind::F32,
        ("2", 64) => Kind::F64,
        (kind, len) => return Err(format!("`{name}` of {len} bits cannot have the type {kind}")),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Signal {
        signal(line).unwrap()
    }

    #[test]
    fn bits_are_where_the_byte_order_says() {
        let data = [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0];
        let raw = |line: &str| one(line).raw(&data);
        assert_eq!(raw("s : 0|16@1+ (1,0)"), Some(0x3412));
        assert_eq!(raw("s : 4|8@1+ (1,0)"), Some(0x41));
        assert_eq!(raw("s : 7|16@0+ (1,0)"), Some(0x1234));
        assert_eq!(raw("s : 3|12@0+ (1,0)"), Some(0x234));
        assert_eq!(raw("s : 0|64@1+ (1,0)"), Some(0xf0de_bc9a_7856_3412));
        assert_eq!(raw("s : 60|8@1+ (1,0)"), None, "behind the end");
        assert_eq!(one("s : 0|8@1+ (1,0)").raw(&[]), None);
    }

    #[test]
    fn signs_factors_and_floats() {
        assert_eq!(one("s : 0|8@1- (0.5,-40)").number(0xff), -40.5);
        assert_eq!(one("s : 0|8@1+ (0.5,-40)").number(0xff), 87.5);
        assert_eq!(one("s : 0|64@1- (1,0)").number(u64::MAX), -1.0);
        let text = "BO_ 1 A: 8 X\n SG_ f : 0|32@1- (1,0) [0|0] \"\" X\n\nSIG_VALTYPE_ 1 f : 1;";
        let messages = read(text).unwrap();
        assert_eq!(
            messages[&1].signals[0].number(u64::from(12.5_f32.to_bits())),
            12.5
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let wrong = |text: &str| read(text).unwrap_err();
        assert!(wrong("VERSION \"\"").contains("no messages"));
        assert!(wrong("BO_ x A: 8 X").contains("line 1: `BO_` needs"));
        assert!(wrong("SG_ s : 0|8@1+ (1,0)").contains("line 1: a signal before any message"));
        assert!(wrong("BO_ 1 A: 8 X\nSG_ s : 0|65@1+ (1,0)").contains("line 2: `s` has 65 bits"));
        assert!(wrong("BO_ 1 A: 8 X\nSG_ s m1M : 0|6@1+ (1,0)").contains("multiplexing"));
        assert!(wrong("BO_ 1 A: 8 X\nSG_ s : 0|6 (1,0)").contains("a signal is"));
        assert!(wrong("BO_ 1 A: 8 X\nSIG_VALTYPE_ 1 s : 1;").contains("no signal `s`"));
    }
}
