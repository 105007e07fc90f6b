//! Nested settings: a JSON object as a parameter, with a fixed set of words.

use crate::Json;

/// An object of settings. Unknown words are misspellings and are rejected.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a>(Json<'a>);

impl<'a> Settings<'a> {
    /// Reads the settings in `json`, with `known` as the valid words.
    ///
    /// # Errors
    /// If `json` is not an object, or has an unknown word (the error names the nearest known word) or a
    /// duplicate word.
    pub fn read(json: Json<'a>, known: &[&str]) -> Result<Self, String> {
        if json.text().is_none_or(|text| text.first() != Some(&b'{')) {
            return Err(format!("expected an object with {}", listed(known)));
        }
        let mut seen: Vec<&[u8]> = Vec::new();
        for (name, _) in json.fields() {
            let shown = String::from_utf8_lossy(name);
            if !known.iter().any(|word| word.as_bytes() == name) {
                let nearest = known.iter().min_by_key(|word| strsim::levenshtein(word, &shown));
                let nearest = nearest.map_or(String::new(), |word| format!("; the nearest is `{word}`"));
                return Err(format!("unknown word `{shown}`{nearest}"));
            }
            if seen.contains(&name) {
                return Err(format!("duplicate word `{shown}`"));
            }
            seen.push(name);
        }
        Ok(Self(json))
    }

    /// Returns the text `name`, if set.
    ///
    /// # Errors
    /// If the value is not a text.
    pub fn text(&self, name: &str) -> Result<Option<String>, String> {
        self.found(name, "a text", |json| json.string().map(|text| text.into_owned()))
    }

    /// Returns the number `name`, if set.
    ///
    /// # Errors
    /// If the value is not a number.
    pub fn number(&self, name: &str) -> Result<Option<f64>, String> {
        self.found(name, "a number", Json::number)
    }

    /// Returns the whole number `name`, if set.
    ///
    /// # Errors
    /// If the value is not a whole number from `least` to `most`.
    pub fn whole(&self, name: &str, least: u32, most: u32) -> Result<Option<u32>, String> {
        let within = f64::from(least)..=f64::from(most);
        let want = format!("a whole number from {least} to {most}");
        self.found(name, &want, |json| {
            let number = json.number().filter(|n| n.fract() == 0.0 && within.contains(n));
            number.map(|n| n as u32)
        })
    }

    /// Returns the boolean `name`, if set.
    ///
    /// # Errors
    /// If the value is neither true nor false.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        self.found(name, "true or false", Json::boolean)
    }

    fn found<T>(
        &self,
        name: &str,
        want: &str,
        read: impl FnOnce(Json<'a>) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let json = self.0.fields().find(|(field, _)| *field == name.as_bytes());
        let Some((_, json)) = json else { return Ok(None) };
        let read = read(json).ok_or_else(|| {
            let given = String::from_utf8_lossy(json.text().unwrap_or_default()).into_owned();
            format!("`{name}` must be {want}, not {given}")
        });
        read.map(Some)
    }
}

fn listed(known: &[&str]) -> String {
    known
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings<'_>, String> {
        Settings::read(Json::new(text.as_bytes()), &["at", "as", "scale", "swap"])
    }

    #[test]
    fn a_word_that_is_not_known_is_told_with_the_nearest() {
        for (text, want) in [
            (
                r#"{"at":1,"sclae":0.1}"#,
                "unknown word `sclae`; the nearest is `scale`",
            ),
            (r#"{"at":1,"at":2}"#, "duplicate word `at`"),
            ("[1]", "an object with `at`, `as`"),
            ("3", "expected an object"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(want), "{refused}");
        }
    }

    #[test]
    fn a_setting_is_what_it_should_be_or_told() {
        let settings = read(r#"{"at":1,"as":"u16","scale":-0.5,"swap":true}"#).unwrap();
        assert_eq!(settings.whole("at", 0, 9), Ok(Some(1)));
        assert_eq!(settings.text("as"), Ok(Some("u16".to_owned())));
        assert_eq!(settings.number("scale"), Ok(Some(-0.5)));
        assert_eq!(settings.flag("swap"), Ok(Some(true)));
        assert_eq!(read("{}").unwrap().flag("swap"), Ok(None));
        assert_eq!(
            settings.whole("at", 2, 9).unwrap_err(),
            "`at` must be a whole number from 2 to 9, not 1"
        );
        assert!(
            settings.whole("scale", 0, 9).is_err()
                && settings.text("at").is_err()
                && settings.flag("as").is_err()
        );
    }
}
