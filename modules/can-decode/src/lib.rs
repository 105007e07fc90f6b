//! Decodes the signals in CAN frames. See README.md.

mod dbc;
mod tokens;

use dbc::{Message, Messages};
use std::collections::BTreeMap;
use weir_sdk::prelude::*;

/// Flags in the identifier of Linux's `struct can_frame`: remote request and error. Frames with either flag
/// have no data.
const FLAGS: u32 = 0x6000_0000;
/// Flag of an identifier of 29 bits.
const EXTENDED: u32 = 0x8000_0000;
/// Bytes of the struct in front of the data.
const HEAD_BYTES: usize = 8;
/// Maximum data bytes of a classic CAN frame. Only classic CAN has remote requests and error frames.
const DATA_BYTES: usize = 8;

/// Maximum data bytes of a CAN FD frame.
const FD_BYTES: usize = 64;

#[derive(Clone, Copy, Debug)]
enum Format {
    SocketCan,
    Json,
}

#[derive(Clone, Copy, Debug)]
enum Unknown {
    Drop,
    Keep,
    Reject,
}

/// The module `can-decode`.
#[derive(Debug)]
pub struct CanDecode {
    messages: Messages,
    /// Identifiers in the file by parameter group; `None` unless frames are looked up by group.
    groups: Option<BTreeMap<u32, u32>>,
    format: Format,
    unknown: Unknown,
    labels: bool,
}

impl Module for CanDecode {
    const ABOUT: &'static str = "Decodes CAN frames to JSON objects by a DBC file.";

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<String>("dbc", "The text of a DBC file."),
            Parameter::preset::<String>(
                "format",
                "socketcan",
                "Format of a value: `socketcan`, Linux's struct, or `json`, an object with `id` and `data` in hexadecimal.",
            ),
            Parameter::preset::<String>(
                "unknown",
                "drop",
                "Handling of frames without a message in the file, and of frames without data: `drop`, `keep` or `reject`.",
            ),
            Parameter::preset::<String>(
                "match",
                "id",
                "Look-up of a frame in the file: by its `id`, or, for J1939, by its `pgn` from any sender.",
            ),
            Parameter::preset::<bool>(
                "labels",
                false,
                "True to write the label of a value, if the file has a label.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let (text, format, unknown): (String, String, String) =
            (config.get("dbc")?, config.get("format")?, config.get("unknown")?);
        let messages = dbc::read(&text).map_err(|why| format!("`dbc`: {why}"))?;
        let by: String = config.get("match")?;
        let groups = match by.as_str() {
            "id" => None,
            "pgn" => Some(groups(&messages)?),
            other => return Err(format!("`match` cannot be `{other}`: use id or pgn")),
        };
        let module = Self {
            groups,
            messages,
            labels: config.get("labels")?,
            format: match format.as_str() {
                "socketcan" => Format::SocketCan,
                "json" => Format::Json,
                other => return Err(format!("`format` cannot be `{other}`: use socketcan or json")),
            },
            unknown: match unknown.as_str() {
                "drop" => Unknown::Drop,
                "keep" => Unknown::Keep,
                "reject" => Unknown::Reject,
                other => return Err(format!("`unknown` cannot be `{other}`: use drop, keep or reject")),
            },
        };
        Ok((module, Interface::values()))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let (index, value) = (record.index(), record.value().unwrap_or_default());
            let frame = match self.format {
                Format::SocketCan => socketcan(value),
                Format::Json => json(value),
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(why) => {
                    out.reject(index, why);
                    continue;
                }
            };
            let message = frame
                .data
                .as_ref()
                .and_then(|data| Some((self.find(frame.id)?, data)));
            match (message, self.unknown) {
                (Some((message, data)), _) => {
                    let written = out.emit_value(index, 1, |to| self.write(message, data, to));
                    if let Err(why) = written {
                        out.reject(index, why);
                    }
                }
                (None, Unknown::Drop) => {}
                (None, Unknown::Keep) => out.keep(index),
                (None, Unknown::Reject) if frame.data.is_none() => {
                    out.reject(index, "a remote request or an error frame: it has no data");
                }
                (None, Unknown::Reject) => out.reject(index, format!("the file has no message {}", frame.id)),
            }
        }
        Ok(())
    }
}

/// Builds the map from parameter group to identifier.
fn groups(messages: &Messages) -> Result<BTreeMap<u32, u32>, String> {
    let mut groups = BTreeMap::new();
    for (id, message) in messages.iter().filter(|(id, _)| **id & EXTENDED != 0) {
        if let Some(other) = groups.insert(dbc::pgn(*id), *id) {
            let other = messages.get(&other).map_or("", |other| &other.name);
            return Err(format!(
                "`{other}` and `{}` have the same parameter group: use `match = \"id\"`",
                message.name
            ));
        }
    }
    Ok(groups)
}

/// A frame from the bus.
struct Frame {
    /// The identifier; bit 31 marks extended identifiers.
    id: u32,
    /// The data; `None` for a remote request or an error frame.
    data: Option<Vec<u8>>,
}

/// Parses Linux's `struct can_frame` or `canfd_frame` (linux/can.h) of a little-endian machine.
fn socketcan(value: &[u8]) -> Result<Frame, String> {
    let frame = || {
        let id = u32::from_le_bytes(*value.first_chunk()?);
        let len = usize::from(*value.get(4)?);
        if id & FLAGS != 0 {
            // The length of a remote request is the requested length, and an error frame describes an error:
            // neither is a reading.
            let is_frame = len <= DATA_BYTES && (HEAD_BYTES..=HEAD_BYTES + DATA_BYTES).contains(&value.len());
            return is_frame.then_some(Frame {
                id: id & !FLAGS,
                data: None,
            });
        }
        let data = value.get(HEAD_BYTES..HEAD_BYTES + len)?;
        Some(Frame {
            id,
            data: Some(data.to_vec()),
        })
    };
    frame().ok_or_else(|| "value is not a frame of Linux's struct".to_owned())
}

fn json(value: &[u8]) -> Result<Frame, String> {
    weir_sdk::check(value)?;
    let value = Json::new(value);
    let is_id = |id: &f64| id.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(id);
    let id = value.get("id").number().filter(is_id);
    let id = id.ok_or("`id` of the frame is not a whole number")? as u32;
    if id & FLAGS != 0 {
        return Ok(Frame {
            id: id & !FLAGS,
            data: None,
        });
    }
    let text = value.get("data").string().ok_or("`data` is not a text")?;
    let wrong = || "`data` is not hexadecimal".to_owned();
    if !text.len().is_multiple_of(2) || !text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if text.len() > 2 * FD_BYTES {
        return Err(format!("`data` has more than {FD_BYTES} bytes"));
    }
    let data: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    Ok(Frame {
        id,
        data: Some(data.ok_or_else(wrong)?),
    })
}

impl CanDecode {
    /// Returns the message layout for a frame's identifier.
    fn find(&self, id: u32) -> Option<&Message> {
        let id = match &self.groups {
            Some(groups) if id & EXTENDED != 0 => groups.get(&dbc::pgn(id))?,
            _ => &id,
        };
        self.messages.get(id)
    }

    fn write(&self, message: &Message, data: &[u8], to: &mut Vec<u8>) -> Result<(), String> {
        to.extend_from_slice(b"{\"message\":");
        weir_sdk::escape_into(to, &message.name);
        for (at, signal) in message.signals.iter().enumerate() {
            if !message.has(at, data) {
                continue;
            }
            let raw = signal.raw(data);
            let raw = raw.ok_or_else(|| {
                format!(
                    "`{}` is beyond the {} bytes of the frame",
                    signal.name,
                    data.len()
                )
            })?;
            to.push(b',');
            weir_sdk::escape_into(to, &signal.name);
            to.push(b':');
            match signal.label(raw).filter(|_| self.labels) {
                Some(label) => weir_sdk::escape_into(to, label),
                None if self.groups.is_some() && signal.is_not_available(raw) => {
                    to.extend_from_slice(b"null")
                }
                None => signal.write(raw, to),
            }
        }
        to.push(b'}');
        Ok(())
    }
}

weir_sdk::export!(CanDecode);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::CanDecode>(env!("CARGO_MANIFEST_DIR"));
    }
}
