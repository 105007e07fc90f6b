//! Names the signals in CAN frames. See README.md.

mod dbc;

use dbc::{Message, Messages, When};
use weir_sdk::JsonNumber;
use weir_sdk::prelude::*;

/// Flags of an identifier in Linux's `struct can_frame` that are none of it: remote request and error.
const FLAGS: u32 = 0x6000_0000;
/// Bytes of that struct in front of the data.
const HEAD_BYTES: usize = 8;

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

/// The module.
#[derive(Debug)]
pub struct CanDecode {
    messages: Messages,
    format: Format,
    unknown: Unknown,
}

impl Module for CanDecode {
    const ABOUT: &'static str = "Makes JSON objects of CAN frames, by what a DBC file says of their signals.";

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<String>("dbc", "The text of a DBC file."),
            Parameter::preset::<String>(
                "format",
                "socketcan",
                "What a value is: `socketcan`, Linux's struct, or `json`, an object with `id` and `data` in hexadecimal.",
            ),
            Parameter::preset::<String>(
                "unknown",
                "drop",
                "For frames that the file does not have: `drop`, `keep` or `reject`.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Plan), String> {
        let (text, format, unknown): (String, String, String) =
            (config.get("dbc")?, config.get("format")?, config.get("unknown")?);
        let module = Self {
            messages: dbc::read(&text).map_err(|why| format!("`dbc`: {why}"))?,
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
        Ok((module, Plan::values()))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let (index, value) = (record.index(), record.value().unwrap_or_default());
            let frame = match self.format {
                Format::SocketCan => socketcan(value),
                Format::Json => json(value),
            };
            let (id, data) = match frame {
                Ok(frame) => frame,
                Err(why) => {
                    out.reject(index, why);
                    continue;
                }
            };
            match (self.messages.get(&id), self.unknown) {
                (Some(message), _) => {
                    let written = out.emit_value(index, 1, |to| write(message, &data, to));
                    if let Err(why) = written {
                        out.reject(index, why);
                    }
                }
                (None, Unknown::Drop) => {}
                (None, Unknown::Keep) => out.keep(index),
                (None, Unknown::Reject) => out.reject(index, format!("the file has no message {id}")),
            }
        }
        Ok(())
    }
}

type Frame = (u32, Vec<u8>);

/// Linux's `struct can_frame` or `canfd_frame` (linux/can.h), of a machine that is little-endian.
fn socketcan(value: &[u8]) -> Result<Frame, String> {
    let frame = || {
        let id = u32::from_le_bytes(*value.first_chunk()?);
        let len = usize::from(*value.get(4)?);
        let data = value.get(HEAD_BYTES..HEAD_BYTES + len)?;
        Some((id & !FLAGS, data.to_vec()))
    };
    frame().ok_or_else(|| "its value is no frame of Linux's struct".to_owned())
}

fn json(value: &[u8]) -> Result<Frame, String> {
    let value = Json::new(value);
    let id = value
        .get("id")
        .number()
        .filter(|id| (0.0..=f64::from(u32::MAX)).contains(id));
    let id = id.ok_or("there is no number `id` of a frame")? as u32;
    let text = value.get("data").string().ok_or("there is no text `data`")?;
    let wrong = || "`data` is no bytes in hexadecimal".to_owned();
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(wrong());
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let data: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    Ok((id, data.ok_or_else(wrong)?))
}

fn write(message: &Message, data: &[u8], to: &mut Vec<u8>) -> Result<(), String> {
    to.extend_from_slice(b"{\"message\":");
    weir_sdk::escape_into(to, &message.name);
    let switch = message.signals.iter().find(|s| s.when == When::Switch);
    let switch = switch.and_then(|s| s.raw(data));
    for signal in &message.signals {
        let is_there = match signal.when {
            When::Always | When::Switch => true,
            When::Switched(value) => switch == Some(value),
        };
        if !is_there {
            continue;
        }
        let raw = signal.raw(data);
        let raw = raw.ok_or_else(|| format!("`{}` lies behind its {} bytes", signal.name, data.len()))?;
        to.push(b',');
        weir_sdk::escape_into(to, &signal.name);
        to.extend_from_slice(format!(":{}", JsonNumber(signal.number(raw))).as_bytes());
    }
    to.push(b'}');
    Ok(())
}

weir_sdk::export!(CanDecode);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::CanDecode>(env!("CARGO_MANIFEST_DIR"));
    }
}
