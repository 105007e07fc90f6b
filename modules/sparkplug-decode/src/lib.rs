//! Makes JSON of Sparkplug B payloads. See README.md.

mod payload;

use payload::{Metric, Payload, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weir_sdk::JsonNumber;
use weir_sdk::prelude::*;
use weir_sdk::state::Map;

/// Aliases that are remembered of one key.
const ALIASES_MAX: usize = 4_096;

/// What a birth certificate says that an alias stands for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Meaning {
    name: String,
    datatype: u32,
}

/// The module.
#[derive(Debug)]
pub struct SparkplugDecode {
    /// By key.
    aliases: Map<BTreeMap<u64, Meaning>>,
}

impl Module for SparkplugDecode {
    const ABOUT: &'static str = "Makes JSON of Sparkplug B payloads, with the names that aliases stand for.";
    const STATE_VERSION: u32 = 1;

    fn init(_: &Config) -> Result<(Self, Plan), String> {
        let aliases = Map::new("aliases");
        Ok((Self { aliases }, Plan::values().and_keys()))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let Some(key) = record.state_key_or_reject(out) else {
                continue;
            };
            let payload = match Payload::read(record.value().unwrap_or_default()) {
                Ok(payload) => payload,
                Err(why) => {
                    out.reject(record.index(), format!("no Sparkplug B payload: {why}"));
                    continue;
                }
            };
            self.learn(key, &payload);
            let json = self.aliases.see(key, |aliases| json(&payload, aliases));
            let mut new = NewRecord::value(json.as_bytes());
            new.timestamp = payload.timestamp.map(|t| t as i64);
            out.emit(record.index(), 1, &new);
        }
        Ok(())
    }
}

impl SparkplugDecode {
    /// Remembers names that come with an alias.
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
        if self.aliases.see(key, known) {
            return;
        }
        self.aliases.update(key, |aliases| {
            let aliases = aliases.get_or_insert_default();
            for (alias, name, datatype) in &named {
                if aliases.len() < ALIASES_MAX || aliases.contains_key(alias) {
                    let meaning = Meaning {
                        name: (*name).to_owned(),
                        datatype: datatype.unwrap_or(0),
                    };
                    aliases.insert(*alias, meaning);
                }
            }
        });
    }
}

fn json(payload: &Payload<'_>, aliases: Option<&BTreeMap<u64, Meaning>>) -> String {
    let mut to = b"{".to_vec();
    if let Some(timestamp) = payload.timestamp {
        to.extend_from_slice(format!("\"timestamp\":{timestamp},").as_bytes());
    }
    if let Some(seq) = payload.seq {
        to.extend_from_slice(format!("\"seq\":{seq},").as_bytes());
    }
    to.extend_from_slice(b"\"metrics\":{");
    for (n, metric) in payload.metrics.iter().enumerate() {
        if n > 0 {
            to.push(b',');
        }
        let meaning = metric.alias.and_then(|alias| aliases?.get(&alias));
        match (metric.name, meaning, metric.alias) {
            (Some(name), ..) => weir_sdk::escape_into(&mut to, name),
            (None, Some(meaning), _) => weir_sdk::escape_into(&mut to, &meaning.name),
            (None, None, alias) => {
                weir_sdk::escape_into(&mut to, &format!("alias {}", alias.unwrap_or_default()));
            }
        }
        to.push(b':');
        write(metric, meaning.map_or(0, |m| m.datatype), &mut to);
    }
    to.extend_from_slice(b"}}");
    String::from_utf8(to).unwrap_or_default()
}

/// Writes the value of `metric`, of the type that it says or, if it does not, of the one that was said before.
fn write(metric: &Metric<'_>, datatype: u32, to: &mut Vec<u8>) {
    let text = match metric.value {
        Value::None => "null".to_owned(),
        // Int8 to Int32 are two's complement in an unsigned field (Sparkplug 3.0.0, 6.4.16).
        Value::Int(n) => match metric.datatype.unwrap_or(datatype) {
            1..=3 => (n as i32).to_string(),
            _ => n.to_string(),
        },
        Value::Long(n) => match metric.datatype.unwrap_or(datatype) {
            4 => (n as i64).to_string(),
            _ => n.to_string(),
        },
        Value::Float(n) => JsonNumber(f64::from(n)).to_string(),
        Value::Double(n) => JsonNumber(n).to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Text(text) => return weir_sdk::escape_into(to, text),
        Value::Other => "\"(not decoded)\"".to_owned(),
    };
    to.extend_from_slice(text.as_bytes());
}

weir_sdk::export!(SparkplugDecode);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::SparkplugDecode>(env!("CARGO_MANIFEST_DIR"));
    }
}
