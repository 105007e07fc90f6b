//! Decodes Sparkplug B payloads to JSON. See README.md.

mod link;
mod payload;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::{GzDecoder, ZlibDecoder};
use link::Link;
use payload::{Metric, Payload, Property, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use weir_sdk::prelude::*;
use weir_sdk::state::Map;
use weir_sdk::{Raw, Scaling};

/// Maximum aliases and typed names remembered per key.
const KNOWN_MAX: usize = 4_096;
/// The first millisecond after the year 9999: a later number is not a time in milliseconds.
const TIMES_END: u64 = 253_402_300_800_000;

/// The meaning of an alias by the birth certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Meaning {
    name: String,
    datatype: u32,
}

/// Name of a payload whose body is a payload compressed by the method in the metric `algorithm` (Eclipse
/// Tahu, `CompressionUtil`).
const COMPRESSED: &str = "SPBV1.0_COMPRESSED";
/// Maximum bytes of a decompressed payload: with its output, it must fit the memory of an instance.
const UNPACKED_BYTES_MAX: u64 = 1 << 20;

/// Parses the payload in `value`, decompressed into `room` if necessary.
fn read<'a>(value: &'a [u8], room: &'a mut Vec<u8>) -> Result<Payload<'a>, String> {
    let payload = Payload::read(value)?;
    if payload.uuid != Some(COMPRESSED) {
        return Ok(payload);
    }
    let algorithm = payload
        .metrics
        .iter()
        .find(|metric| metric.name == Some("algorithm"));
    let body = payload.body.ok_or("it is compressed, and has no body")?;
    let unpacked = match algorithm.map(|metric| metric.value) {
        None | Some(Value::Text("DEFLATE")) => ZlibDecoder::new(body)
            .take(UNPACKED_BYTES_MAX + 1)
            .read_to_end(room),
        Some(Value::Text("GZIP")) => GzDecoder::new(body)
            .take(UNPACKED_BYTES_MAX + 1)
            .read_to_end(room),
        Some(Value::Text(other)) => {
            return Err(format!("it is compressed by `{other}`, which is not supported"));
        }
        Some(_) => return Err("it is compressed, and its `algorithm` is not a text".to_owned()),
    };
    unpacked.map_err(|e| format!("its body cannot be decompressed: {e}"))?;
    if room.len() as u64 > UNPACKED_BYTES_MAX {
        return Err(format!(
            "its decompressed body exceeds {UNPACKED_BYTES_MAX} bytes"
        ));
    }
    Ok(Payload::read(room)?)
}

/// Handling of payloads with a metric that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unread {
    Reject,
    Null,
}

/// The module `sparkplug-decode`.
#[derive(Debug)]
pub struct SparkplugDecode {
    unread: Unread,
    /// Output for requests to an edge node to send its birth certificates.
    rebirth: Option<u8>,
    /// State of the edge node, by key.
    links: Map<Link>,
    aliases: Map<BTreeMap<u64, Meaning>>,
    /// Types of metrics without an alias, by key and name.
    types: Map<BTreeMap<String, u32>>,
}

impl Module for SparkplugDecode {
    const ABOUT: &'static str = "Decodes Sparkplug B payloads to JSON, with names in the place of aliases.";
    const STATE_VERSION: u32 = 1;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::preset::<String>(
                "unread",
                "reject",
                "Handling of datasets and templates, which are not supported: `reject` the payload, or write `null` for the metric.",
            ),
            Parameter::preset::<String>(
                "rebirth",
                "",
                "Output for commands that request missing birth certificates from an edge node; empty: no commands.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let (unread, rebirth): (String, String) = (config.get("unread")?, config.get("rebirth")?);
        let mut interface = Interface::values().and_keys();
        let module = Self {
            unread: match unread.as_str() {
                "reject" => Unread::Reject,
                "null" => Unread::Null,
                other => return Err(format!("`unread` cannot be `{other}`: use reject or null")),
            },
            rebirth: (!rebirth.is_empty()).then(|| interface.output(&rebirth)),
            links: Map::new("links"),
            aliases: Map::new("aliases"),
            types: Map::new("types"),
        };
        Ok((module, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let Some(key) = record.state_key_or_reject(out) else {
                continue;
            };
            let Some(value) = record.value().filter(|value| !value.is_empty()) else {
                out.reject(record.index(), "not a Sparkplug B payload: it has no value");
                continue;
            };
            let mut room = Vec::new();
            let payload = match read(value, &mut room) {
                Ok(payload) => payload,
                Err(why) => {
                    out.reject(record.index(), format!("not a Sparkplug B payload: {why}"));
                    continue;
                }
            };
            let checked = self.check(&payload);
            if checked.is_ok() {
                self.learn(key, &payload);
            }
            // A payload counts as received even if it cannot be decoded.
            let expected = self.follow(key, &payload, &record, out);
            if let Err(why) = checked {
                out.reject(record.index(), format!("not a Sparkplug B payload: {why}"));
                continue;
            }
            let texts = self.types.with(key, |types| {
                self.aliases.with(key, |aliases| {
                    texts(&payload, expected, &Known { aliases, types })
                })
            });
            let texts = match texts {
                Ok(texts) => texts,
                Err(why) => {
                    out.reject(record.index(), why);
                    continue;
                }
            };
            for (timestamp, json) in texts {
                let mut new = NewRecord::value(json.as_bytes());
                new.timestamp = timestamp.map(|at| at as i64);
                out.emit(record.index(), 1, &new);
            }
        }
        Ok(())
    }
}

impl SparkplugDecode {
    /// Checks that the whole payload can be read and its times are valid.
    fn check(&self, payload: &Payload<'_>) -> Result<(), String> {
        let times = payload.metrics.iter().map(|metric| metric.timestamp);
        if let Some(time) = times
            .chain([payload.timestamp])
            .flatten()
            .find(|at| *at >= TIMES_END)
        {
            return Err(format!(
                "{time} is not a time in milliseconds: it is beyond the year 9999"
            ));
        }
        for metric in &payload.metrics {
            if metric.name.is_none() && metric.alias.is_none() {
                return Err("a metric has neither a name nor an alias".to_owned());
            }
            let name = metric.name.unwrap_or("of an alias");
            if let (Value::Other(what), Unread::Reject) = (metric.value, self.unread) {
                return Err(format!("the metric `{name}` is {what}, which is not supported"));
            }
            for property in &metric.properties {
                if let (Value::Other(what), Unread::Reject) = (property.value, self.unread) {
                    let property = property.name;
                    return Err(format!(
                        "the property `{property}` of the metric `{name}` is {what}, which is not supported"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Checks that a payload follows its predecessor, and requests a birth certificate if a payload or a name
    /// is missing. Returns the expected number if another number came.
    fn follow(
        &mut self,
        key: &[u8],
        payload: &Payload<'_>,
        record: &Record<'_>,
        out: &mut Out,
    ) -> Option<u64> {
        payload.seq?;
        let nameless = self.aliases.with(key, |aliases| {
            let is_known = |alias: &u64| aliases.is_some_and(|known| known.contains_key(alias));
            let mut unnamed = payload.metrics.iter().filter(|metric| metric.name.is_none());
            unnamed.any(|metric| !metric.alias.is_some_and(|alias| is_known(&alias)))
        });
        let (at, rebirth) = (record.timestamp(), self.rebirth);
        let (expected, asks) = self.links.update(key, |link| {
            let link = link.get_or_insert_default();
            let expected = link.follow(payload);
            let asks = rebirth.is_some() && link.ask(nameless || expected.is_some(), at);
            (expected, asks)
        });
        if let Some(output) = rebirth.filter(|_| asks) {
            let command = link::rebirth(u64::try_from(at).unwrap_or(0));
            out.emit(record.index(), output, &NewRecord::value(&command));
        }
        expected
    }

    /// Remembers names, aliases and types from a payload.
    fn learn(&mut self, key: &[u8], payload: &Payload<'_>) {
        let named = payload
            .metrics
            .iter()
            .filter_map(|m| Some((m.alias?, m.name?, m.datatype)));
        let named: Vec<_> = named.collect();
        let known = |aliases: Option<&BTreeMap<u64, Meaning>>| {
            let is_known = |(alias, name, datatype): &(u64, &str, Option<u32>)| {
                let meaning = aliases.and_then(|a| a.get(alias));
                meaning.is_some_and(|m| m.name == *name && datatype.is_none_or(|d| d == m.datatype))
            };
            named.iter().all(is_known)
        };
        if !self.aliases.with(key, known) {
            self.aliases.update(key, |aliases| {
                let aliases = aliases.get_or_insert_default();
                for (alias, name, datatype) in &named {
                    if aliases.len() < KNOWN_MAX || aliases.contains_key(alias) {
                        let meaning = Meaning {
                            name: (*name).to_owned(),
                            datatype: datatype.unwrap_or(0),
                        };
                        aliases.insert(*alias, meaning);
                    }
                }
            });
        }
        let without = payload.metrics.iter().filter(|metric| metric.alias.is_none());
        let typed: Vec<_> = without.filter_map(|m| Some((m.name?, m.datatype?))).collect();
        let known = |types: Option<&BTreeMap<String, u32>>| {
            let is_known =
                |(name, datatype): &(&str, u32)| types.and_then(|t| t.get(*name)) == Some(datatype);
            typed.iter().all(is_known)
        };
        if !self.types.with(key, known) {
            self.types.update(key, |types| {
                let types = types.get_or_insert_default();
                for (name, datatype) in &typed {
                    if types.len() < KNOWN_MAX || types.contains_key(*name) {
                        types.insert((*name).to_owned(), *datatype);
                    }
                }
            });
        }
    }
}

/// Content of a key's earlier payloads.
struct Known<'a> {
    aliases: Option<&'a BTreeMap<u64, Meaning>>,
    types: Option<&'a BTreeMap<String, u32>>,
}

impl Known<'_> {
    fn meaning(&self, metric: &Metric<'_>) -> Option<&Meaning> {
        self.aliases?.get(&metric.alias?)
    }

    fn name(&self, metric: &Metric<'_>) -> String {
        let meant = || self.meaning(metric).map(|meaning| meaning.name.clone());
        let unknown = || format!("alias {}", metric.alias.unwrap_or_default());
        metric
            .name
            .map(str::to_owned)
            .or_else(meant)
            .unwrap_or_else(unknown)
    }

    /// Returns the type of a metric: its own, or else the type sent before.
    fn datatype(&self, metric: &Metric<'_>) -> u32 {
        let meant = || self.meaning(metric).map(|meaning| meaning.datatype);
        let named = || self.types?.get(metric.name?).copied();
        metric.datatype.or_else(meant).or_else(named).unwrap_or(0)
    }
}

/// The readings of a single output record: equal times, distinct names.
struct Group<'a> {
    timestamp: Option<u64>,
    is_historical: bool,
    metrics: Vec<(String, &'a Metric<'a>)>,
}

/// Returns the output records of a payload: one for each time, and further records for repeated names.
fn texts(
    payload: &Payload<'_>,
    expected: Option<u64>,
    known: &Known<'_>,
) -> Result<Vec<(Option<u64>, String)>, String> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for metric in &payload.metrics {
        let name = known.name(metric);
        let (timestamp, is_historical) = (metric.timestamp.or(payload.timestamp), metric.is_historical);
        let fits = |group: &&mut Group<'_>| {
            (group.timestamp, group.is_historical) == (timestamp, is_historical)
                && group.metrics.iter().all(|(known, _)| *known != name)
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.metrics.push((name, metric)),
            None => groups.push(Group {
                timestamp,
                is_historical,
                metrics: vec![(name, metric)],
            }),
        }
    }
    if groups.is_empty() {
        groups.push(Group {
            timestamp: payload.timestamp,
            is_historical: false,
            metrics: Vec::new(),
        });
    }
    let text = |group: &Group<'_>| Ok((group.timestamp, json(payload, expected, group, known)?));
    groups.iter().map(text).collect()
}

fn json(
    payload: &Payload<'_>,
    expected: Option<u64>,
    group: &Group<'_>,
    known: &Known<'_>,
) -> Result<String, String> {
    let mut to = b"{".to_vec();
    if let Some(timestamp) = group.timestamp {
        to.extend_from_slice(format!("\"timestamp\":{timestamp},").as_bytes());
    }
    if let Some(seq) = payload.seq {
        to.extend_from_slice(format!("\"seq\":{seq},").as_bytes());
    }
    if let Some(expected) = expected {
        to.extend_from_slice(format!("\"expected\":{expected},").as_bytes());
    }
    if group.is_historical {
        to.extend_from_slice(b"\"historical\":true,");
    }
    to.extend_from_slice(b"\"metrics\":{");
    for (n, (name, metric)) in group.metrics.iter().enumerate() {
        if n > 0 {
            to.push(b',');
        }
        weir_sdk::escape_into(&mut to, name);
        to.push(b':');
        write(metric.value, known.datatype(metric), &mut to)
            .map_err(|why| format!("the metric `{name}`: {why}"))?;
    }
    to.push(b'}');
    let described = group
        .metrics
        .iter()
        .filter(|(_, metric)| !metric.properties.is_empty());
    for (n, (name, metric)) in described.enumerate() {
        to.extend_from_slice(if n == 0 { b",\"properties\":{" } else { b"," });
        weir_sdk::escape_into(&mut to, name);
        to.push(b':');
        write_properties(&metric.properties, &mut to).map_err(|why| format!("the metric `{name}`: {why}"))?;
    }
    if group
        .metrics
        .iter()
        .any(|(_, metric)| !metric.properties.is_empty())
    {
        to.push(b'}');
    }
    to.push(b'}');
    Ok(String::from_utf8(to).unwrap_or_default())
}

fn write_properties(properties: &[Property<'_>], to: &mut Vec<u8>) -> Result<(), String> {
    for (n, property) in properties.iter().enumerate() {
        to.push(if n == 0 { b'{' } else { b',' });
        weir_sdk::escape_into(to, property.name);
        to.push(b':');
        write(property.value, property.datatype, to)
            .map_err(|why| format!("its property `{}`: {why}", property.name))?;
    }
    to.push(b'}');
    Ok(())
}

/// Writes a value of a type (Sparkplug 3.0.0, 6.4.16). Negative numbers are two's complement in an unsigned
/// field. Some encoders use the type's width, others the field's; the type's bits are the same in both.
fn write(value: Value<'_>, datatype: u32, to: &mut Vec<u8>) -> Result<(), String> {
    let signed = |bits: u32, field: u32, n: u64| {
        let own = n < 1 << bits;
        let sign = 1u64 << (bits - 1);
        // Two's complement in the field's width: all higher bits are ones.
        let all = if field == 64 { u64::MAX } else { (1 << field) - 1 };
        let extended = n > all - sign;
        let value = (n << (64 - bits)) as i64 >> (64 - bits);
        (own || extended).then_some(Raw::Signed(value))
    };
    let unsigned = |bits: u32, n: u64| (bits == 64 || n < 1 << bits).then_some(Raw::Unsigned(n));
    let whole = |field: u32, n: u64| match datatype {
        1 => signed(8, field, n),
        2 => signed(16, field, n),
        3 => signed(32, field, n),
        4 if field == 32 => signed(32, field, n),
        4 => Some(Raw::Signed(n as i64)),
        5 => unsigned(8, n),
        6 => unsigned(16, n),
        7 => unsigned(32, n),
        8 | 13 => Some(Raw::Unsigned(n)),
        // The type is unknown: a number with the highest bit may be negative.
        0 => unsigned(field - 1, n),
        _ => None,
    };
    let raw = match value {
        Value::Int(n) => whole(32, n.into()),
        Value::Long(n) => whole(64, n),
        Value::Float(n) => matches!(datatype, 0 | 9 | 10).then_some(Raw::Single(n)),
        Value::Double(n) => matches!(datatype, 0 | 9 | 10).then_some(Raw::Double(n)),
        Value::None | Value::Other(_) => {
            to.extend_from_slice(b"null");
            return Ok(());
        }
        Value::Boolean(is) if matches!(datatype, 0 | 11) => {
            to.extend_from_slice(if is { b"true" } else { b"false" });
            return Ok(());
        }
        Value::Text(text) if matches!(datatype, 0 | 12 | 14 | 15) => {
            weir_sdk::escape_into(to, text);
            return Ok(());
        }
        // Bytes, files and arrays.
        Value::Bytes(bytes) if matches!(datatype, 0 | 17 | 18 | 22..=34) => {
            weir_sdk::escape_into(to, &STANDARD.encode(bytes));
            return Ok(());
        }
        Value::Boolean(_) | Value::Text(_) | Value::Bytes(_) => None,
    };
    let raw = raw.ok_or_else(|| match datatype {
        0 => "its type is unknown, and it may be negative".to_owned(),
        datatype => format!("it is not a value of its type, {datatype}"),
    })?;
    Scaling::NONE.write(raw, to);
    Ok(())
}

weir_sdk::export!(SparkplugDecode);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::SparkplugDecode>(env!("CARGO_MANIFEST_DIR"));
    }
}
