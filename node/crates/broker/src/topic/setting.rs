//! Names, types and purposes of topics' settings.

/// A setting, without its value.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// The type of its values.
    pub kind: SettingKind,
    /// Its purpose.
    pub about: &'static str,
    /// Whether Kafka does not have it.
    pub is_own: bool,
}

/// The type of a setting's values, in Kafka's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum SettingKind {
    Boolean,
    String,
    Int,
    Long,
    Double,
    List,
}
