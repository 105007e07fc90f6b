//! Names, types and purposes of topics' settings.

/// A setting without its value.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Name of the setting.
    pub name: &'static str,
    /// Type of the values.
    pub kind: SettingKind,
    /// Purpose of the setting.
    pub about: &'static str,
    /// True if Kafka does not have the setting.
    pub is_own: bool,
}

/// The type of a setting's values, in Kafka's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// `true` or `false`.
    Boolean,
    /// A text.
    String,
    /// A whole number of 32 bits.
    Int,
    /// A whole number of 64 bits.
    Long,
    /// A decimal number.
    Double,
    /// Texts, separated by commas.
    List,
}
