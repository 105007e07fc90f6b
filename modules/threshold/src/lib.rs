//! Keeps, drops or routes records by comparing a field with a limit. See README.md.

use weir_sdk::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Different,
}

/// Limit beyond which not every whole number is a double: 2 to the power of 53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The module `threshold`.
#[derive(Debug)]
pub struct Threshold {
    path: Path,
    comparison: Comparison,
    limit: f64,
    matching: Verdict,
    otherwise: Verdict,
    missing: Verdict,
}

impl Module for Threshold {
    const ABOUT: &'static str = "Keeps, drops or routes records by comparing a field with a limit.";

    fn parameters() -> Vec<Parameter> {
        let action = "`keep`, `drop`, `reject` or the name of an output.";
        let text = |name, preset: &str, about| Parameter::preset::<String>(name, preset, about);
        vec![
            Parameter::required::<String>("field", "Field of the JSON value; dots lead into objects."),
            text("is", ">", "Comparison: `>`, `>=`, `<`, `<=`, `=` or `!=`."),
            Parameter::required::<f64>("limit", "The limit."),
            text("then", "keep", action),
            text("else", "drop", action),
            text(
                "missing",
                "reject",
                "Action for records without such a number, like `then`.",
            ),
        ]
    }

    fn init(config: &Config) -> Result<(Self, Interface), String> {
        let mut interface = Interface::values();
        let (field, limit): (String, f64) = (config.get("field")?, config.get("limit")?);
        let mut verdict = |name: &str| -> Result<Verdict, String> {
            let text: String = config.get(name)?;
            let verdict = Verdict::parse(&text, format!("no number at `{field}`"));
            Ok(verdict.unwrap_or_else(|| Verdict::Route(interface.output(&text))))
        };
        let (matching, otherwise, missing) = (verdict("then")?, verdict("else")?, verdict("missing")?);
        let is: String = config.get("is")?;
        let comparison = match is.as_str() {
            ">" => Comparison::Above,
            ">=" => Comparison::AtLeast,
            "<" => Comparison::Below,
            "<=" => Comparison::AtMost,
            "=" => Comparison::Equal,
            "!=" => Comparison::Different,
            other => return Err(format!("`is` cannot be `{other}`: use >, >=, <, <=, = or !=")),
        };
        let is_exact = matches!(comparison, Comparison::Equal | Comparison::Different);
        if is_exact && limit.abs() >= EXACT_MAX {
            return Err(format!(
                "`limit` {limit} exceeds 9007199254740991, beyond which whole numbers are not exact: use `route` or `schema-check`"
            ));
        }
        let path = Path::read(&field)?;
        Ok((
            Self {
                path,
                comparison,
                limit,
                matching,
                otherwise,
                missing,
            },
            interface,
        ))
    }

    fn process(&mut self, batch: &Batch<'_>, out: &mut Out) -> Result<(), Fault> {
        for record in batch.records() {
            let field = match record.whole_field(&self.path) {
                Ok(field) => field,
                Err(why) => {
                    out.reject(record.index(), why);
                    continue;
                }
            };
            let verdict = match field.number() {
                Some(value) if self.holds(value) => &self.matching,
                Some(_) => &self.otherwise,
                None => &self.missing,
            };
            verdict.apply(record.index(), out);
        }
        Ok(())
    }
}

impl Threshold {
    #[inline]
    fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Above => value > self.limit,
            Comparison::AtLeast => value >= self.limit,
            Comparison::Below => value < self.limit,
            Comparison::AtMost => value <= self.limit,
            Comparison::Equal => value == self.limit,
            Comparison::Different => value != self.limit,
        }
    }
}

weir_sdk::export!(Threshold);

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        weir_sdk::testing::cases::run::<super::Threshold>(env!("CARGO_MANIFEST_DIR"));
    }
}
