//! Reports when something enters or leaves an area. See README.md.

mod polygon;

use polygon::Polygon;
use weir_sdk::prelude::*;
use weir_sdk::state::Map;

/// The module `geofence`.
#[derive(Debug)]
pub struct Geofence {
    latitude: Path,
    longitude: Path,
    /// Fences, by name.
    fences: Vec<(String, Polygon)>,
    events: u8,
    /// True if 0, 0 counts as a position.
    keep_origin: bool,
    /// Names of the fences that each key was in last.
    inside: Map<Vec<String>>,
    /// By key: time of the last position evaluated, and the number of consecutive older positions.
    judged: Map<(i64, u8)>,
}

/// After this many older positions, the last position counts as dated ahead, or the clock as set back.
const EARLY_MAX: u8 = 8;

impl Module for Geofence {
    const ABOUT: &'static str = "Reports when the position of a key enters or leaves an area.";
    const STATE_VERSION: u32 = 1;

    fn parameters() -> Vec<Parameter> {
        vec![
            Parameter::required::<weir_sdk::JsonText>(
                "fences",
                "Object from name to a list of corners, each a list of latitude and longitude in degrees.",
            ),
            Parameter::preset::<String>("lat", "lat", "Field of the JSON value; dots lead into objects."),
            Parameter::preset::<String>("lon", "lon", "Field of the JSON value; dots lead into objects."),
            Parameter::preset::<String>(
                "origin",
                "reject",
                "Handling of the position 0, 0, which receivers without a position send: `reject` or `keep`.",
            ),
            Parameter::preset::<String>("to", "fences", "Output for the reports."),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let weir_sdk::JsonText(text) = config.get("fences")?;
        let mut fences = Vec::new();
        for (name, corners) in Json::new(text.as_bytes()).fields() {
            let name = weir_sdk::name_of(name);
            let polygon = Polygon::read(corners).map_err(|why| format!("fence `{name}` {why}"))?;
            fences.push((name, polygon));
        }
        if fences.is_empty() {
            return Err("`fences` is empty".to_owned());
        }
        let (latitude, longitude, to): (String, String, String) =
            (config.get("lat")?, config.get("lon")?, config.get("to")?);
        let origin: String = config.get("origin")?;
        let keep_origin = match origin.as_str() {
            "reject" => false,
            "keep" => true,
            other => return Err(format!("`origin` cannot be `{other}`: use reject or keep")),
        };
        let mut interface = Interface::values().and_keys();
        let events = interface.output(&to);
        let module = Self {
            keep_origin,
            judged: Map::new("judged"),
            latitude: Path::read(&latitude)?,
            longitude: Path::read(&longitude)?,
            fences,
            events,
            inside: Map::new("inside"),
        };
        Ok((module, interface))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let index = record.index();
            let (lat, lon) = match (
                record.whole_field(&self.latitude),
                record.whole_field(&self.longitude),
            ) {
                (Ok(lat), Ok(lon)) => (lat, lon),
                (Err(why), _) | (_, Err(why)) => {
                    out.reject(index, why);
                    continue;
                }
            };
            let within = |field: Json<'_>, most: f64| field.number().filter(|v| v.abs() <= most);
            let (Some(lat), Some(lon)) = (within(lat, 90.0), within(lon, 180.0)) else {
                out.reject(
                    index,
                    "no position: latitude must be -90 to 90, and longitude -180 to 180",
                );
                continue;
            };
            if (lat, lon) == (0.0, 0.0) && !self.keep_origin {
                out.reject(
                    index,
                    "the position is 0, 0, as from a receiver without a position (`origin` is `reject`)",
                );
                continue;
            }
            let Some(key) = record.state_key_or_reject(out) else {
                continue;
            };
            out.keep(index);
            // A late record tells a past position, not the current position. A time in the future counts as
            // now; otherwise all following records would be late.
            let (at, now) = (record.timestamp(), batch.now());
            if let Some((last, early)) = self.judged.get(key)
                && at < last
                && early + 1 < EARLY_MAX
            {
                self.judged.insert(key, (last, early + 1));
                continue;
            }
            let at = if now > 0 { at.min(now) } else { at };
            self.judged.insert(key, (at, 0));
            let before = self.inside.get(key).unwrap_or_default();
            let mut changed = false;
            let mut say = |fence: &str, event: &str, out: &mut Out| {
                let mut value = b"{\"fence\":".to_vec();
                weir_sdk::escape_into(&mut value, fence);
                value
                    .extend_from_slice(format!(r#","event":"{event}","lat":{lat},"lon":{lon}}}"#).as_bytes());
                out.emit(index, self.events, &NewRecord::value(&value));
                changed = true;
            };
            let mut now = Vec::new();
            for (name, polygon) in &self.fences {
                let (is_in, was_in) = (polygon.contains(lat, lon), before.iter().any(|b| b == name));
                match (was_in, is_in) {
                    (false, true) => say(name, "enter", out),
                    (true, false) => say(name, "leave", out),
                    _ => {}
                }
                if is_in {
                    now.push(name.clone());
                }
            }
            if changed {
                self.inside.insert(key, now);
            }
        }
        Ok(())
    }
}

weir_sdk::export!(Geofence);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Geofence>(env!("CARGO_MANIFEST_DIR"));
    }
}
