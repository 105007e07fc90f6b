//! Names and decodes the numbers in Modbus registers. See README.md.

mod register;

use register::{Order, Register};
use weir_sdk::prelude::*;

/// The module `modbus-decode`.
#[derive(Debug)]
pub struct ModbusDecode {
    registers: Vec<Register>,
}

impl Module for ModbusDecode {
    const ABOUT: &'static str = "Decodes Modbus registers to a JSON object by a register map.";

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<weir_sdk::JsonText>(
                "registers",
                "Object from name to `at`, a register counted from the first in the value, and `as`, its type.",
            ),
            Parameter::preset::<String>(
                "order",
                "",
                "Default byte order of numbers: ABCD, CDAB, BADC or DCBA; empty: by `swap`.",
            ),
            Parameter::preset::<bool>(
                "swap",
                false,
                "True if numbers of several registers have the low word first.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let weir_sdk::JsonText(text) = config.get("registers")?;
        let (order, swap): (String, bool) = (config.get("order")?, config.get("swap")?);
        let order = Order::of(
            Some(&*order).filter(|order| !order.is_empty()),
            swap.then_some(true),
        )?;
        let mut registers: Vec<Register> = Vec::new();
        for (name, register) in Json::new(text.as_bytes()).fields() {
            let name = weir_sdk::name_of(name);
            if registers.iter().any(|known| known.name == name) {
                return Err(format!("duplicate register `{name}`"));
            }
            let register = Register::read(&name, register, order.unwrap_or(Order::Abcd));
            registers.push(register.map_err(|why| format!("register `{name}`: {why}"))?);
        }
        if registers.is_empty() {
            return Err("`registers` is empty".to_owned());
        }
        Ok((Self { registers }, Interface::values()))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let bytes = record.value().unwrap_or_default();
            if !bytes.len().is_multiple_of(2) {
                let why = format!("value has {} bytes, and each register has two", bytes.len());
                out.reject(record.index(), why);
                continue;
            }
            let written = out.emit_value(record.index(), 1, |to| {
                to.push(b'{');
                for (n, register) in self.registers.iter().enumerate() {
                    if n > 0 {
                        to.push(b',');
                    }
                    to.extend_from_slice(&register.label);
                    register.write(bytes, to)?;
                }
                to.push(b'}');
                Ok::<(), String>(())
            });
            if let Err(why) = written {
                out.reject(record.index(), why);
            }
        }
        Ok(())
    }
}

weir_sdk::export!(ModbusDecode);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::ModbusDecode>(env!("CARGO_MANIFEST_DIR"));
    }
}
