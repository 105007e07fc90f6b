//! Types of the settings. Each takes the text of an environment variable or of an option as well as a value of a TOML file.

use serde::de::{Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use weir_broker::Timing;

/// A value of a setting, as text in and out.
pub(super) trait Value: Sized {
    /// Describes the accepted values, to follow "use".
    fn accepted() -> String;
    /// Returns `None` for a text that is not accepted.
    fn parse(text: &str) -> Option<Self>;
    /// Returns the text that [`Value::parse`] reads back as `self`.
    fn text(&self) -> String;
}

/// A whole number from `MIN` to `MAX`, both accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole<const MIN: u64, const MAX: u64>(pub(crate) u64);

impl<const MIN: u64, const MAX: u64> Value for Whole<MIN, MAX> {
    fn accepted() -> String {
        if MAX == u64::MAX {
            return format!("a number from {MIN}");
        }
        format!("a number, {MIN} to {MAX}")
    }

    fn parse(text: &str) -> Option<Self> {
        let number = text.parse().ok()?;
        (MIN..=MAX).contains(&number).then_some(Self(number))
    }

    fn text(&self) -> String {
        self.0.to_string()
    }
}

/// A number of bytes, or of bytes per second, where 0 stands for the default that the setting's text names.
pub(crate) type Limit = Whole<0, { u64::MAX }>;

impl Limit {
    /// Returns `None` for 0.
    pub(crate) fn given(self) -> Option<u64> {
        (self.0 > 0).then_some(self.0)
    }
}

impl Value for SocketAddr {
    fn accepted() -> String {
        "ADDRESS:PORT, as 127.0.0.1:7400".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// An address to listen on. `None` ("off") serves nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener(pub(crate) Option<SocketAddr>);

impl Value for Listener {
    fn accepted() -> String {
        "ADDRESS:PORT, as 127.0.0.1:9092, or off".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self(None)),
            _ => Some(Self(Some(text.parse().ok()?))),
        }
    }

    fn text(&self) -> String {
        self.0.map_or_else(|| "off".to_owned(), |addr| addr.to_string())
    }
}

/// A directory. `None` (the empty text) is not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory(pub(crate) Option<PathBuf>);

impl Value for Directory {
    fn accepted() -> String {
        "the path of a directory".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self((!text.is_empty()).then(|| text.into())))
    }

    fn text(&self) -> String {
        let path = self.0.as_deref().unwrap_or(std::path::Path::new(""));
        path.to_string_lossy().into_owned()
    }
}

/// Host and port for clients to connect to. `None` (the empty text) stands for the address that a client came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advertised(pub(crate) Option<(String, u16)>);

impl Value for Advertised {
    fn accepted() -> String {
        "HOST:PORT, a name or address and a port that is not 0; for IPv6 [ADDRESS]:PORT".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(None));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        if let Some(host) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let address: Ipv6Addr = host.parse().ok()?;
            return Some(Self(Some((address.to_string(), port))));
        }
        (!host.contains(':') && is_host(host)).then(|| Self(Some((host.to_owned(), port))))
    }

    fn text(&self) -> String {
        match &self.0 {
            None => String::new(),
            Some((host, port)) if host.contains(':') => format!("[{host}]:{port}"),
            Some((host, port)) => format!("{host}:{port}"),
        }
    }
}

/// A host name or an IP address. `None` (the empty text) is not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host(pub(crate) Option<String>);

impl Value for Host {
    fn accepted() -> String {
        "a name or an IP address".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(None));
        }
        is_host(text).then(|| Self(Some(text.to_owned())))
    }

    fn text(&self) -> String {
        self.0.clone().unwrap_or_default()
    }
}

/// Host names, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names(pub(crate) Vec<String>);

impl Value for Names {
    fn accepted() -> String {
        "names or addresses with commas between".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<String> = names.map(str::to_owned).collect();
        Some(Self(names))
    }

    fn text(&self) -> String {
        self.0.join(",")
    }
}

/// A label without a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) String);

impl Value for Label {
    fn accepted() -> String {
        "a text".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// A choice of heartbeat and election timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimingProfile {
    /// For sites whose disks and links stall: [`Timing::EDGE`].
    Edge,
    /// For machines in one data centre: [`Timing::CENTRAL`].
    Central,
}

impl TimingProfile {
    /// Returns the timeouts of the profile.
    pub(crate) const fn timing(self) -> Timing {
        match self {
            Self::Edge => Timing::EDGE,
            Self::Central => Timing::CENTRAL,
        }
    }
}

impl Value for TimingProfile {
    fn accepted() -> String {
        "edge or central".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "edge" => Some(Self::Edge),
            "central" => Some(Self::Central),
            _ => None,
        }
    }

    fn text(&self) -> String {
        let name = match self {
            Self::Edge => "edge",
            Self::Central => "central",
        };
        name.to_owned()
    }
}

/// A filter of log lines: levels, for all parts or for some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter(pub(crate) String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Value for Filter {
    fn accepted() -> String {
        format!(
            "a level ({}), or PART=LEVEL with commas between, as weir_log=debug,info",
            LEVELS.join(", ")
        )
    }

    fn parse(text: &str) -> Option<Self> {
        // A bare word that is no level would pass for the name of a part, and silence all others.
        let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let mut levels = parts.map(|part| part.rsplit_once('=').map_or(part, |(_, level)| level));
        levels.all(is_level).then(|| Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// True or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switch(pub(crate) bool);

impl Value for Switch {
    fn accepted() -> String {
        "true or false".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    fn text(&self) -> String {
        self.0.to_string()
    }
}

/// Tells an IP address or a name (RFC 1123, with the underscores that are in use) from other text.
fn is_host(host: &str) -> bool {
    if host.contains(':') {
        return host.parse::<Ipv6Addr>().is_ok();
    }
    // All digits: an IPv4 address, or nothing.
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    let is_label = |label: &str| {
        let has_good_bytes = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len()) && has_good_bytes && !label.starts_with('-') && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Reads a [`Value`] from a string, a number or a boolean of a file.
pub(super) fn read<'de, T: Value, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Reading<T>(std::marker::PhantomData<T>);

    impl<T: Value> Visitor<'_> for Reading<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&T::accepted())
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            T::parse(text).ok_or_else(|| E::custom(format!("use {}", T::accepted())))
        }

        fn visit_bool<E: Error>(self, given: bool) -> Result<T, E> {
            self.visit_str(&given.to_string())
        }

        fn visit_i64<E: Error>(self, given: i64) -> Result<T, E> {
            self.visit_str(&given.to_string())
        }

        fn visit_u64<E: Error>(self, given: u64) -> Result<T, E> {
            self.visit_str(&given.to_string())
        }
    }

    deserializer.deserialize_any(Reading(std::marker::PhantomData))
}

/// Writes a [`Value`] as a file has it: numbers and booleans bare, all else as a string.
pub(super) fn write<T: Value, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    let text = value.text();
    if let Ok(number) = text.parse::<i64>() {
        return number.serialize(serializer);
    }
    match text.parse::<bool>() {
        Ok(switch) => switch.serialize(serializer),
        Err(_) => text.serialize(serializer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertised_address_is_one_that_clients_can_reach() {
        for (text, host) in [
            ("gw.example:9092", "gw.example"),
            ("10.0.0.9:1", "10.0.0.9"),
            ("[fe80::1]:9092", "fe80::1"),
            ("my_gateway-1.local.:9092", "my_gateway-1.local."),
        ] {
            let advertised = Advertised::parse(text).unwrap();
            assert_eq!(advertised.0.as_ref().map(|(host, _)| host.as_str()), Some(host));
            assert_eq!(advertised.text(), text);
        }
        for text in [
            "kafka://x:1",
            "a,b:1",
            "10.0.0.9:0",
            "gw.example",
            ":9092",
            "a b:1",
            "gw:99999",
            "-x:1",
            "x-:1",
            "a..b:1",
            "fe80::1:9092",
            "[gw]:1",
            "10.0.0.256:1",
            "é:1",
            "user@gw:1",
        ] {
            assert_eq!(Advertised::parse(text), None, "{text}");
        }
        assert_eq!(Advertised::parse(&format!("{}:1", "a".repeat(64))), None);
    }
}
