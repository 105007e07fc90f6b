//! DBC files: the messages on a bus and the layout of their signals.
//!
//! Of the format ("DBC File Format Documentation", Vector Informatik, 1.0.5), the reader supports messages
//! (`BO_`), signals (`SG_`) with simple and extended multiplexing (`SG_MUL_VAL_`), types of floating point
//! signals (`SIG_VALTYPE_`), value labels (`VAL_`), and long names (`BA_ "SystemSignalLongSymbol"` and its
//! kin). Other statements are ignored: they serve people and other programs.

use crate::tokens::{Token, statements};
use std::collections::BTreeMap;
use weir_sdk::{Raw, Scaling};

/// Messages by identifier; bit 31 marks extended identifiers.
pub(crate) type Messages = BTreeMap<u32, Message>;

/// Layout of the frames with an identifier.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) signals: Vec<Signal>,
}

/// A number in a frame.
#[derive(Debug, PartialEq)]
pub(crate) struct Signal {
    /// Name in records.
    pub(crate) name: String,
    /// Name in the file.
    symbol: String,
    /// True for a multiplexer switch: its raw value selects other signals.
    is_switch: bool,
    /// Condition for the presence of the signal; `None`: always present.
    when: Option<When>,
    start: usize,
    len: usize,
    is_little_endian: bool,
    is_signed: bool,
    kind: Kind,
    scaling: Scaling,
    /// Labels of raw values.
    pub(crate) labels: BTreeMap<i64, String>,
}

/// Condition: a switch has a value from a set of ranges.
#[derive(Clone, Debug, PartialEq)]
struct When {
    /// Index of the switch among the signals; `None` until the whole file is read, or if there is no switch.
    switch: Option<usize>,
    ranges: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Integer,
    F32,
    F64,
}

/// Maximum depth of switches that depend on each other: a deeper file has a cycle.
const SWITCHES_MAX: usize = 16;

impl Message {
    /// Returns true if a frame with this data contains the signal with index `at`.
    pub(crate) fn has(&self, at: usize, data: &[u8]) -> bool {
        let mut at = at;
        for _ in 0..SWITCHES_MAX {
            let Some(when) = self.signals.get(at).and_then(|signal| signal.when.as_ref()) else {
                return true;
            };
            let Some(switch) = when.switch else { return false };
            let raw = self.signals.get(switch).and_then(|signal| signal.raw(data));
            if !raw.is_some_and(|raw| when.ranges.iter().any(|(from, to)| (*from..=*to).contains(&raw))) {
                return false;
            }
            at = switch;
        }
        false
    }

    /// Resolves the switches. A signal that names none depends on the only switch that depends on no other.
    fn connect(&mut self, extended: &BTreeMap<String, Dependency>) -> Result<(), String> {
        let root = self.signals.iter().position(|s| s.is_switch && s.when.is_none());
        let places: BTreeMap<String, usize> = (0..)
            .zip(&self.signals)
            .map(|(at, s)| (s.symbol.clone(), at))
            .collect();
        for signal in &mut self.signals {
            if let Some((switch, ranges)) = extended.get(&signal.symbol) {
                let switch = places
                    .get(switch)
                    .ok_or_else(|| format!("unknown switch `{switch}` in `{}`", self.name))?;
                signal.when = Some(When {
                    switch: Some(*switch),
                    ranges: ranges.clone(),
                });
            } else if let Some(when) = &mut signal.when {
                when.switch = root;
            }
        }
        Ok(())
    }
}

impl Signal {
    /// Extracts the signal's raw bits; `None` if the frame is too short.
    pub(crate) fn raw(&self, data: &[u8]) -> Option<u64> {
        let bit = |at: usize| Some(u64::from(data.get(at / 8)? >> (at % 8) & 1));
        let (mut raw, mut at) = (0, self.start);
        for n in 0..self.len {
            if self.is_little_endian {
                raw |= bit(self.start + n)? << n;
            } else {
                // From the highest bit down, continuing at the highest bit of the next byte.
                raw = raw << 1 | bit(at)?;
                at = if at.is_multiple_of(8) { at + 15 } else { at - 1 };
            }
        }
        Some(raw)
    }

    /// Interprets the raw bits as a number, before scaling.
    pub(crate) fn number(&self, raw: u64) -> Raw {
        match self.kind {
            Kind::F32 => Raw::Single(f32::from_bits(raw as u32)),
            Kind::F64 => Raw::Double(f64::from_bits(raw)),
            Kind::Integer if self.is_signed => Raw::Signed(self.signed(raw)),
            Kind::Integer => Raw::Unsigned(raw),
        }
    }

    /// Writes the scaled value of the raw bits.
    pub(crate) fn write(&self, raw: u64, to: &mut Vec<u8>) {
        self.scaling.write(self.number(raw), to);
    }

    /// Returns the label of the value, if the file has one.
    pub(crate) fn label(&self, raw: u64) -> Option<&str> {
        let value = match self.is_signed {
            true => self.signed(raw),
            false => i64::try_from(raw).ok()?,
        };
        self.labels.get(&value).map(String::as_str)
    }

    /// Returns true if the value means "not available" or "error" (SAE J1939-71, 5.1.4): in the highest byte
    /// all bits are ones, or, for an error, all but the lowest. Signals shorter than a byte have all ones.
    pub(crate) fn is_not_available(&self, raw: u64) -> bool {
        if self.kind != Kind::Integer || self.is_signed || self.len < 2 {
            return false;
        }
        match self.len {
            8 | 16 | 24 | 32 | 64 => raw >> (self.len - 8) >= 0xfe,
            len => raw == (1u64 << len) - 1,
        }
    }

    fn signed(&self, raw: u64) -> i64 {
        let unused = 64 - self.len;
        (raw << unused) as i64 >> unused
    }
}

/// Returns the parameter group number of an extended identifier (SAE J1939-21, 5.2): without priority, source
/// and, if present, destination.
pub(crate) fn pgn(id: u32) -> u32 {
    let group = id >> 8 & 0x3_ffff;
    match group >> 8 & 0xff {
        0..240 => group & 0x3_ff00,
        _ => group,
    }
}

/// Dependencies of one message's signals, by symbol.
type Extended = BTreeMap<u32, BTreeMap<String, Dependency>>;

/// A switch, by its symbol, and the ranges of its values.
type Dependency = (String, Vec<(u64, u64)>);

/// Reads a DBC file.
pub(crate) fn read(text: &str) -> Result<Messages, String> {
    let (mut messages, mut last, mut extended) = (Messages::new(), None, Extended::new());
    for (line, statement) in statements(text)? {
        let wrong = |why: String| format!("line {line}: {why}");
        let Some((Token::Word(keyword), rest)) = statement.split_first() else {
            continue;
        };
        if rest.is_empty() {
            // As in `NS_`, which lists all keywords.
            continue;
        }
        match *keyword {
            "BO_" => {
                let (id, name) = message(rest)
                    .ok_or_else(|| wrong("`BO_` needs a number, a name and a length".to_owned()))?;
                let signals = Vec::new();
                if let Some(other) = messages.get(&id) {
                    return Err(wrong(format!(
                        "`{}` and `{name}` have the same identifier",
                        other.name
                    )));
                }
                messages.insert(id, Message { name, signals });
                last = Some(id);
            }
            "SG_" => {
                let signal = signal(rest).map_err(wrong)?;
                let message = last.and_then(|id| messages.get_mut(&id));
                let message = message.ok_or_else(|| wrong("a signal before any message".to_owned()))?;
                // The name would clash with the message's name in the same object.
                if signal.name == "message" || message.signals.iter().any(|other| other.name == signal.name) {
                    return Err(wrong(format!("duplicate field `{}`", signal.name)));
                }
                message.signals.push(signal);
            }
            "SIG_VALTYPE_" => retype(&mut messages, rest).map_err(wrong)?,
            "SG_MUL_VAL_" => {
                let (id, symbol, dependency) = depends(rest).ok_or_else(|| {
                    wrong("`SG_MUL_VAL_` needs a message, a signal, its switch and ranges".to_owned())
                })?;
                extended.entry(id).or_default().insert(symbol, dependency);
            }
            "VAL_" => label(&mut messages, rest),
            "BA_" => rename(&mut messages, rest),
            _ => {}
        }
    }
    if messages.is_empty() {
        return Err("the file has no messages (`BO_`)".to_owned());
    }
    for (id, message) in &mut messages {
        message.connect(extended.get(id).unwrap_or(&BTreeMap::new()))?;
    }
    Ok(messages)
}

fn word<'a>(token: Option<&Token<'a>>) -> Option<&'a str> {
    match token {
        Some(Token::Word(word)) => Some(word),
        _ => None,
    }
}

fn message(rest: &[Token<'_>]) -> Option<(u32, String)> {
    let (id, name) = (word(rest.first())?.parse().ok()?, word(rest.get(1))?);
    (rest.get(2) == Some(&Token::Mark(':'))).then(|| (id, name.to_owned()))
}

fn signal(rest: &[Token<'_>]) -> Result<Signal, String> {
    const WANT: &str = "a signal is `NAME : START|LENGTH@ORDER SIGN (FACTOR,OFFSET) …`";
    let want = || WANT.to_owned();
    let symbol = word(rest.first()).ok_or_else(want)?.to_owned();
    let (is_switch, when, rest) = match rest.get(1) {
        Some(Token::Mark(':')) => (false, None, rest.get(2..)),
        Some(Token::Word(role)) => {
            let (is_switch, when) = role_of(role).ok_or_else(|| {
                format!("`{symbol}`: multiplexing is `M`, `m` with a number, or both, not `{role}`")
            })?;
            let rest = rest
                .get(2..)
                .and_then(|rest| rest.strip_prefix(&[Token::Mark(':')]));
            (is_switch, when, rest)
        }
        _ => return Err(want()),
    };
    let rest = rest.ok_or_else(want)?;
    let [
        Token::Word(start),
        Token::Mark('|'),
        Token::Word(len),
        Token::Mark('@'),
        rest @ ..,
    ] = rest
    else {
        return Err(want());
    };
    // Byte order and sign, together or apart.
    let open = rest
        .iter()
        .position(|token| *token == Token::Mark('('))
        .ok_or_else(want)?;
    let (kinds, rest) = rest.split_at(open);
    let kinds: String = kinds.iter().filter_map(|token| word(Some(token))).collect();
    let [
        Token::Mark('('),
        Token::Word(factor),
        Token::Mark(','),
        Token::Word(offset),
        Token::Mark(')'),
        ..,
    ] = rest
    else {
        return Err(want());
    };
    let number = |text: &str| text.parse::<f64>().map_err(|_| want());
    let place = |text: &str| text.parse::<usize>().map_err(|_| want());
    let (start, len) = (place(start)?, place(len)?);
    if !(1..=64).contains(&len) || start >= 512 {
        return Err(format!(
            "`{symbol}` has {len} bits from bit {start} on: use 1 to 64 bits within 64 bytes"
        ));
    }
    let (is_little_endian, is_signed) = match kinds.as_str() {
        "1+" => (true, false),
        "1-" => (true, true),
        "0+" => (false, false),
        "0-" => (false, true),
        _ => return Err(want()),
    };
    Ok(Signal {
        name: symbol.clone(),
        symbol,
        is_switch,
        when,
        start,
        len,
        is_little_endian,
        is_signed,
        kind: Kind::Integer,
        scaling: Scaling::new(number(factor)?, number(offset)?)?,
        labels: BTreeMap::new(),
    })
}

/// Parses `M`, `m3` or `m3M`.
fn role_of(role: &str) -> Option<(bool, Option<When>)> {
    if role == "M" {
        return Some((true, None));
    }
    let value = role.strip_prefix('m')?;
    let (value, is_switch) = value
        .strip_suffix('M')
        .map_or((value, false), |value| (value, true));
    let value = value.parse().ok()?;
    let when = When {
        switch: None,
        ranges: vec![(value, value)],
    };
    Some((is_switch, Some(when)))
}

/// Applies `ID NAME : TYPE`; some files omit the colon.
fn retype(messages: &mut Messages, rest: &[Token<'_>]) -> Result<(), String> {
    let want = || "`SIG_VALTYPE_` needs a message, a signal and a type".to_owned();
    let id: u32 = word(rest.first())
        .and_then(|id| id.parse().ok())
        .ok_or_else(want)?;
    let name = word(rest.get(1)).ok_or_else(want)?;
    let kind = match rest.get(2) {
        Some(Token::Mark(':')) => word(rest.get(3)),
        kind => word(kind),
    };
    let kind = kind.ok_or_else(want)?;
    let signal = find(messages, id, name);
    let signal = signal.ok_or_else(|| format!("unknown signal `{name}` in message {id}"))?;
    signal.kind = match (kind, signal.len) {
        ("0", _) => Kind::Integer,
        ("1", 32) => Kind::F32,
        ("2", 64) => Kind::F64,
        (kind, len) => return Err(format!("`{name}` of {len} bits cannot have the type {kind}")),
    };
    Ok(())
}

fn find<'a>(messages: &'a mut Messages, id: u32, symbol: &str) -> Option<&'a mut Signal> {
    messages
        .get_mut(&id)?
        .signals
        .iter_mut()
        .find(|s| s.symbol == symbol)
}

/// Parses `ID NAME SWITCH 0-3, 5-5`.
fn depends(rest: &[Token<'_>]) -> Option<(u32, String, Dependency)> {
    let id = word(rest.first())?.parse().ok()?;
    let (symbol, switch) = (word(rest.get(1))?, word(rest.get(2))?);
    let mut ranges = Vec::new();
    for token in rest.get(3..)? {
        if let Token::Word(range) = token {
            let (from, to) = range.split_once('-')?;
            ranges.push((from.trim().parse().ok()?, to.trim().parse().ok()?));
        }
    }
    Some((id, symbol.to_owned(), (switch.to_owned(), ranges)))
}

/// Applies `ID NAME 0 "off" 1 "on"`; statements about environment variables have no number in front.
fn label(messages: &mut Messages, rest: &[Token<'_>]) {
    let Some(id) = word(rest.first()).and_then(|id| id.parse().ok()) else {
        return;
    };
    let signal = word(rest.get(1)).and_then(|symbol| find(messages, id, symbol));
    let Some(signal) = signal else { return };
    for pair in rest.get(2..).unwrap_or_default().chunks(2) {
        if let [Token::Word(value), Token::Text(label)] = pair
            && let Ok(value) = value.parse()
        {
            signal.labels.insert(value, (*label).to_owned());
        }
    }
}

/// Applies `"SystemSignalLongSymbol" SG_ ID NAME "long name"`, or for a message, `BO_ ID`.
fn rename(messages: &mut Messages, rest: &[Token<'_>]) {
    match rest {
        [
            Token::Text("SystemSignalLongSymbol"),
            Token::Word("SG_"),
            Token::Word(id),
            Token::Word(symbol),
            Token::Text(long),
            ..,
        ] => {
            let signal = id.parse().ok().and_then(|id| find(messages, id, symbol));
            if let Some(signal) = signal {
                signal.name = (*long).to_owned();
            }
        }
        [
            Token::Text("SystemMessageLongSymbol"),
            Token::Word("BO_"),
            Token::Word(id),
            Token::Text(long),
            ..,
        ] => {
            if let Some(message) = id.parse().ok().and_then(|id| messages.get_mut(&id)) {
                message.name = (*long).to_owned();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Signal {
        let text = format!("BO_ 1 A: 8 X\n SG_ {line}");
        read(&text).unwrap().remove(&1).unwrap().signals.remove(0)
    }

    fn text(signal: &Signal, raw: u64) -> String {
        let mut to = Vec::new();
        signal.write(raw, &mut to);
        String::from_utf8(to).unwrap()
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
        assert_eq!(text(&one("s : 0|8@1- (0.5,-40)"), 0xff), "-40.5");
        assert_eq!(text(&one("s : 0|8@1+ (0.5,-40)"), 0xff), "87.5");
        assert_eq!(text(&one("s : 0|16@1+ (0.1,0)"), 573), "57.3");
        assert_eq!(text(&one("s : 0|64@1- (1,0)"), u64::MAX), "-1");
        assert_eq!(text(&one("s : 0|64@1+ (1,0)"), u64::MAX), "18446744073709551615");
        let file = "BO_ 1 A: 8 X\n SG_ f : 0|32@1- (1,0) [0|0] \"\" X\n\nSIG_VALTYPE_ 1 f : 1;";
        let messages = read(file).unwrap();
        assert_eq!(
            text(&messages[&1].signals[0], u64::from(21.3_f32.to_bits())),
            "21.3"
        );
    }

    #[test]
    fn comments_are_comments_whatever_is_in_them() {
        let file = "BO_ 500 Motor: 8 X\n\tSG_ Speed :\t0|16@1+ (1,0) [0|0] \"km/h; SG_\" X\n\n\
            CM_ BO_ 500 \"old:\n SG_ Speed : 8|8@1+ (1,0) [0|0] u X\nBO_ 7 B: 8 X\n\";\nCM_ SG_ 500 Speed \"a \\\"b\\\"\";";
        let messages = read(file).unwrap();
        assert_eq!((messages.len(), messages[&500].signals.len()), (1, 1));
        assert_eq!(messages[&500].signals[0].len, 16);
    }

    #[test]
    fn switches_may_depend_on_switches() {
        let file = "BO_ 1 A: 8 X\n SG_ S0 M : 0|4@1+ (1,0) [0|0] \"\" X\n SG_ S1 m3M : 4|4@1+ (1,0) [0|0] \"\" X\n\
            SG_ a m1 : 8|8@1+ (1,0) [0|0] \"\" X\n SG_ b m2 : 8|8@1+ (1,0) [0|0] \"\" X\n SG_ c : 16|8@1+ (1,0) [0|0] \"\" X\n\
            SG_MUL_VAL_ 1 a S1 1-1, 5-7;\nSG_MUL_VAL_ 1 S1 S0 3-3;\n";
        let messages = read(file).unwrap();
        let there = |data: u8| -> Vec<&str> {
            let message = &messages[&1];
            let all = (0..).zip(&message.signals);
            all.filter(|(at, _)| message.has(*at, &[data, 0, 0]))
                .map(|(_, s)| s.name.as_str())
                .collect()
        };
        assert_eq!(there(0x03), ["S0", "S1", "c"]);
        assert_eq!(there(0x13), ["S0", "S1", "a", "c"]);
        assert_eq!(there(0x63), ["S0", "S1", "a", "c"]);
        assert_eq!(there(0x02), ["S0", "b", "c"]);
        assert_eq!(there(0x12), ["S0", "b", "c"], "its switch is not there");
    }

    #[test]
    fn values_have_labels_and_names_may_be_long() {
        let file = "BO_ 1 A: 8 X\n SG_ s : 0|2@1- (1,0) [0|0] \"\" X\nVAL_ 1 s -1 \"n/a\" 1 \"on\" ;\n\
            BA_ \"SystemSignalLongSymbol\" SG_ 1 s \"a_name_of_more_than_thirty_two_letters\";\n\
            BA_ \"SystemMessageLongSymbol\" BO_ 1 \"Another\";";
        let messages = read(file).unwrap();
        let signal = &messages[&1].signals[0];
        assert_eq!(
            (messages[&1].name.as_str(), signal.name.as_str()),
            ("Another", "a_name_of_more_than_thirty_two_letters")
        );
        assert_eq!(
            (signal.label(3), signal.label(1), signal.label(0)),
            (Some("n/a"), Some("on"), None)
        );
    }

    #[test]
    fn groups_of_j1939_have_no_source_and_no_destination() {
        assert_eq!(pgn(0x8cf0_0400), 0xf004);
        assert_eq!(pgn(0x98ea_21fe), 0xea00);
        let is_not = |line: &str, raw: u64| one(line).is_not_available(raw);
        assert!(
            is_not("s : 0|8@1+ (1,0)", 0xff)
                && is_not("s : 0|8@1+ (1,0)", 0xfe)
                && !is_not("s : 0|8@1+ (1,0)", 0xfd)
        );
        assert!(
            is_not("s : 0|16@1+ (1,0)", 0xff12)
                && is_not("s : 0|2@1+ (1,0)", 3)
                && !is_not("s : 0|2@1+ (1,0)", 2)
        );
        assert!(!is_not("s : 0|1@1+ (1,0)", 1) && !is_not("s : 0|8@1- (1,0)", 0xff));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let wrong = |text: &str| read(text).unwrap_err();
        assert!(wrong("VERSION \"\"").contains("no messages"));
        assert!(wrong("BO_ x A: 8 X").contains("line 1: `BO_` needs"));
        assert!(wrong("SG_ s : 0|8@1+ (1,0)").contains("line 1: a signal before any message"));
        assert!(wrong("BO_ 1 A: 8 X\nSG_ s : 0|65@1+ (1,0)").contains("line 2: `s` has 65 bits"));
        assert!(wrong("BO_ 1 A: 8 X\nSG_ s mx : 0|6@1+ (1,0)").contains("multiplexing"));
        assert!(wrong("BO_ 1 A: 8 X\nSG_ s : 0|6 (1,0)").contains("a signal is"));
        assert!(wrong("BO_ 1 A: 8 X\nSIG_VALTYPE_ 1 s : 1;").contains("unknown signal `s`"));
        assert!(
            wrong("BO_ 1 A: 8 X\nSG_ s m1 : 0|6@1+ (1,0)\nSG_MUL_VAL_ 1 s S 1-1;")
                .contains("unknown switch `S`")
        );
        assert!(wrong("BO_ 1 A: 8 X\nCM_ \"never\nends").contains("line 2: unterminated text"));
    }
}
