//! The fields of an object that stay, and their new names.

/// Settings by field name.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub(crate) rename: Vec<(String, String)>,
    pub(crate) keep: Vec<String>,
    pub(crate) drop: Vec<String>,
}

impl Fields {
    pub(crate) fn is_empty(&self) -> bool {
        self.rename.is_empty() && self.keep.is_empty() && self.drop.is_empty()
    }

    /// Returns the new name of a field.
    pub(crate) fn renamed<'n>(&'n self, name: &'n str) -> &'n str {
        let found = self.rename.iter().find(|(from, _)| from == name);
        found.map_or(name, |(_, to)| to)
    }

    /// Returns true if the field stays, given its name in the record.
    pub(crate) fn stays(&self, name: &str) -> bool {
        let name = self.renamed(name);
        (self.keep.is_empty() || self.keep.iter().any(|kept| kept == name))
            && !self.drop.iter().any(|dropped| dropped == name)
    }

    /// Checks that no two remaining fields of an object get the same name.
    pub(crate) fn check<'n>(&'n self, names: impl Iterator<Item = &'n str>) -> Result<(), String> {
        if self.rename.is_empty() {
            return Ok(());
        }
        let mut new: Vec<&str> = names
            .filter(|name| self.stays(name))
            .map(|name| self.renamed(name))
            .collect();
        new.sort_unstable();
        match new.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("the result would have the field `{}` twice", pair[0])),
            None => Ok(()),
        }
    }
}
