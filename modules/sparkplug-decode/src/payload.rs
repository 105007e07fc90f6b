//! The supported part of Sparkplug's `Payload` message, in the wire format of Protocol Buffers
//! (<https://protobuf.dev/programming-guides/encoding>).

/// A payload of an edge node.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Payload<'a> {
    pub(crate) timestamp: Option<u64>,
    pub(crate) seq: Option<u64>,
    /// Type of the body, if there is one.
    pub(crate) uuid: Option<&'a str>,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) metrics: Vec<Metric<'a>>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Metric<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) alias: Option<u64>,
    /// The timestamp, in milliseconds since 1970, if given.
    pub(crate) timestamp: Option<u64>,
    /// True if the metric was stored while there was no connection.
    pub(crate) is_historical: bool,
    pub(crate) datatype: Option<u32>,
    pub(crate) value: Value<'a>,
    pub(crate) properties: Vec<Property<'a>>,
}

/// A property of a metric, such as quality or unit.
#[derive(Debug, PartialEq)]
pub(crate) struct Property<'a> {
    pub(crate) name: &'a str,
    pub(crate) datatype: u32,
    pub(crate) value: Value<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    None,
    Int(u32),
    Long(u64),
    Float(f32),
    Double(f64),
    Boolean(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// A value that is not supported.
    Other(&'static str),
}

/// The content of a field.
#[derive(Clone, Copy)]
enum Content<'a> {
    Number(u64),
    Eight([u8; 8]),
    Bytes(&'a [u8]),
    Four([u8; 4]),
}

const CUT: &str = "it is truncated within a field";

impl<'a> Payload<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let mut payload = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            match field(&mut rest)? {
                (1, Content::Number(n)) => payload.timestamp = Some(n),
                (2, Content::Bytes(metric)) => payload.metrics.push(Metric::read(metric)?),
                (3, Content::Number(n)) => payload.seq = Some(n),
                (4, Content::Bytes(uuid)) => payload.uuid = Some(text(uuid)?),
                (5, Content::Bytes(body)) => payload.body = Some(body),
                _ => {}
            }
        }
        Ok(payload)
    }
}

impl<'a> Metric<'a> {
    fn read(mut rest: &'a [u8]) -> Result<Self, &'static str> {
        let mut metric = Self {
            name: None,
            alias: None,
            timestamp: None,
            is_historical: false,
            datatype: None,
            value: Value::None,
            properties: Vec::new(),
        };
        let mut is_null = false;
        while !rest.is_empty() {
            let value = match field(&mut rest)? {
                (1, Content::Bytes(name)) => {
                    metric.name = Some(text(name)?);
                    continue;
                }
                (2, Content::Number(n)) => {
                    metric.alias = Some(n);
                    continue;
                }
                (3, Content::Number(n)) => {
                    metric.timestamp = Some(n);
                    continue;
                }
                (5, Content::Number(n)) => {
                    metric.is_historical = n != 0;
                    continue;
                }
                (4, Content::Number(n)) => {
                    metric.datatype = Some(n as u32);
                    continue;
                }
                (7, Content::Number(n)) => {
                    is_null = n != 0;
                    continue;
                }
                (9, Content::Bytes(set)) => {
                    metric.properties = properties(set)?;
                    continue;
                }
                (10, Content::Number(n)) => int(n)?,
                (11, Content::Number(n)) => Value::Long(n),
                (12, Content::Four(bytes)) => Value::Float(f32::from_le_bytes(bytes)),
                (13, Content::Eight(bytes)) => Value::Double(f64::from_le_bytes(bytes)),
                (14, Content::Number(n)) => Value::Boolean(n != 0),
                (15, Content::Bytes(bytes)) => Value::Text(text(bytes)?),
                (16, Content::Bytes(bytes)) => Value::Bytes(bytes),
                (17, _) => Value::Other("a dataset"),
                (18, _) => Value::Other("a template"),
                (19, _) => Value::Other("an extension"),
                _ => continue,
            };
            metric.value = value;
        }
        if is_null {
            metric.value = Value::None;
        }
        Ok(metric)
    }
}

/// Parses a set of properties; names and values are separate lists.
fn properties(mut rest: &[u8]) -> Result<Vec<Property<'_>>, &'static str> {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Content::Bytes(name)) => names.push(text(name)?),
            (2, Content::Bytes(value)) => values.push(property(value)?),
            _ => {}
        }
    }
    if names.len() != values.len() {
        return Err("a set of properties has different numbers of names and values");
    }
    let both = names.into_iter().zip(values);
    Ok(both
        .map(|(name, (datatype, value))| Property {
            name,
            datatype,
            value,
        })
        .collect())
}

fn property(mut rest: &[u8]) -> Result<(u32, Value<'_>), &'static str> {
    let (mut datatype, mut is_null, mut found) = (0, false, Value::None);
    while !rest.is_empty() {
        found = match field(&mut rest)? {
            (1, Content::Number(n)) => {
                datatype = n as u32;
                continue;
            }
            (2, Content::Number(n)) => {
                is_null = n != 0;
                continue;
            }
            (3, Content::Number(n)) => int(n)?,
            (4, Content::Number(n)) => Value::Long(n),
            (5, Content::Four(bytes)) => Value::Float(f32::from_le_bytes(bytes)),
            (6, Content::Eight(bytes)) => Value::Double(f64::from_le_bytes(bytes)),
            (7, Content::Number(n)) => Value::Boolean(n != 0),
            (8, Content::Bytes(bytes)) => Value::Text(text(bytes)?),
            (9 | 10, _) => Value::Other("a set of properties"),
            (11, _) => Value::Other("an extension"),
            _ => continue,
        };
    }
    Ok((datatype, if is_null { Value::None } else { found }))
}

/// Interprets a number of 32 bits; negative numbers may be encoded with 64 bits.
fn int(n: u64) -> Result<Value<'static>, &'static str> {
    match n >> 32 {
        0 | 0xffff_ffff => Ok(Value::Int(n as u32)),
        _ => Err("it has an int_value of more than 32 bits"),
    }
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| "a text in it is not UTF-8")
}

/// Reads the next field's number and content.
fn field<'a>(rest: &mut &'a [u8]) -> Result<(u64, Content<'a>), &'static str> {
    let tag = varint(rest)?;
    let content = match tag & 7 {
        0 => Content::Number(varint(rest)?),
        1 => Content::Eight(*take::<8>(rest)?),
        2 => {
            let len = usize::try_from(varint(rest)?).map_err(|_| CUT)?;
            let (bytes, after) = rest.split_at_checked(len).ok_or(CUT)?;
            *rest = after;
            Content::Bytes(bytes)
        }
        5 => Content::Four(*take::<4>(rest)?),
        _ => return Err("it has a field of an unknown type"),
    };
    Ok((tag >> 3, content))
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], &'static str> {
    let (bytes, after) = rest.split_first_chunk::<N>().ok_or(CUT)?;
    *rest = after;
    Ok(bytes)
}

fn varint(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(CUT)?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("it has a number of more than 64 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_read_or_refused() {
        let mut seed = 7u64;
        for _ in 0..200_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let bytes = seed.to_le_bytes();
            let len = (seed >> 60) as usize % 9;
            let _ = Payload::read(&bytes[..len.min(8)]);
            // As the first metric.
            let metric = [&[0x12, len.min(8) as u8][..], &bytes[..len.min(8)]].concat();
            let _ = Payload::read(&metric);
        }
        assert_eq!(Payload::read(&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]), Err(CUT));
    }
}
