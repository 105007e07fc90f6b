//! Settings of a node: defaults, a file in TOML, the environment, the command line; later ones win.

use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weir_broker::Timing;
use weir_types::limits::PARTITIONS_MAX;

/// All settings.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data: Option<PathBuf>,
    pub(crate) quic: SocketAddr,
    pub(crate) http: SocketAddr,
    /// Names by which it is asked.
    pub(crate) http_names: Vec<String>,
    /// `None`: not served.
    pub(crate) kafka: Option<SocketAddr>,
    pub(crate) advertise: Option<(String, u16)>,
    /// Name or address by which others reach this node.
    pub(crate) host: Option<String>,
    pub(crate) rack: String,
    pub(crate) timing: Timing,
    /// A node of the site to join, and a token.
    pub(crate) join: Option<(String, String)>,
    /// It joins to vote alone, and keeps no records.
    pub(crate) witness: bool,
    pub(crate) auto_create_topics: bool,
    pub(crate) default_partitions: u32,
    pub(crate) group_initial_delay: Duration,
    pub(crate) offsets_retention: Duration,
    pub(crate) linger: Duration,
    pub(crate) disk_budget_bytes: Option<u64>,
    pub(crate) disk_reserve_bytes: Option<u64>,
    pub(crate) cache_bytes: u64,
    pub(crate) modules_memory_bytes: Option<u64>,
    pub(crate) memtable_bytes: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) value_log_from_bytes: usize,
    pub(crate) value_file_bytes: u64,
    pub(crate) produce_bytes_per_s: Option<u64>,
    pub(crate) fetch_bytes_per_s: Option<u64>,
    pub(crate) log: String,
}

/// More memory than any machine gives to one part of a node.
const MEMORY_BYTES_MAX: u64 = 1 << 40;
const DISK_BYTES_MAX: u64 = 1 << 50;
/// A repair reads no larger file.
const VALUE_FILE_BYTES_MAX: u64 = 1 << 30;
/// Variables that are no settings of a node: of the command line, and of tests.
const OTHER_VARIABLES: [&str; 5] = [
    "WEIR_NODE",
    "WEIR_NODE_KEY",
    "WEIR_TOKEN",
    "WEIR_KNOWN_NODES",
    "WEIR_STOP_AT",
];

/// Name, default and meaning of each setting. `weir serve --print-config` shows them.
const SETTINGS: [(&str, &str, &str); 25] = [
    (
        "data",
        "",
        "Directory of the node's data. Has to be given, here or as `--data`.",
    ),
    (
        "quic",
        "\"127.0.0.1:7400\"",
        "Address for the command line, clients and peers.",
    ),
    ("http", "\"127.0.0.1:7480\"", "Address for HTTP."),
    (
        "http_names",
        "\"\"",
        "Names by which HTTP clients ask this node, with commas between, beside its addresses, `localhost` and `host`.",
    ),
    (
        "kafka",
        "\"127.0.0.1:9092\"",
        "Address for Kafka clients; \"off\": none is served.",
    ),
    (
        "advertise",
        "\"\"",
        "HOST:PORT that Kafka clients are told to connect to. Empty: the address that they came to.",
    ),
    (
        "host",
        "\"\"",
        "Name or address by which other nodes and clients reach this one. Empty: the address it listens on.",
    ),
    (
        "rack",
        "\"\"",
        "What fails together with this node: a cabinet, a power supply. Shown beside it.",
    ),
    (
        "timing",
        "\"edge\"",
        "When others are given up: \"edge\" (heartbeat 150 ms, election 400 to 600) or \"central\" (50, 150 to 300).",
    ),
    (
        "auto_create_topics",
        "true",
        "Whether a topic is made when a Kafka client first asks for it: true or false.",
    ),
    (
        "default_partitions",
        "1",
        "Partitions of a topic that a Kafka client makes without a number of them.",
    ),
    (
        "group_initial_rebalance_delay_ms",
        "500",
        "Milliseconds that the first rebalance of an empty consumer group waits for more members.",
    ),
    (
        "offsets_retention_minutes",
        "10080",
        "Minutes that offsets of a consumer group without members are kept.",
    ),
    (
        "log",
        "\"info,openraft=error\"",
        "What is logged: error, warn, info, debug, or a filter as `weir_log=debug,info`.",
    ),
    (
        "linger_ms",
        "1",
        "Milliseconds that a request waits for others to share its sync. 20 spares flash at the edge.",
    ),
    (
        "disk_budget_bytes",
        "0",
        "Bytes of records kept at most; beyond, the least important are evicted. 0: no limit.",
    ),
    (
        "disk_reserve_bytes",
        "0",
        "Bytes of the disk kept free of records. 0: 5 % of it, at least 256 MiB, at most 5 GiB or a quarter.",
    ),
    ("cache_bytes", "8388608", "Bytes of read blocks kept in memory."),
    (
        "memtable_bytes",
        "16777216",
        "Bytes gathered in memory before a table is written.",
    ),
    (
        "journal_bytes",
        "134217728",
        "Bytes of journals on the disk, at least 67108864.",
    ),
    (
        "value_log_from_bytes",
        "131072",
        "Payload bytes in one sync from which they are written once, at the price of a second sync.",
    ),
    (
        "value_file_bytes",
        "33554432",
        "Bytes of a file that they are written to, at least 65536: space comes back by the file.",
    ),
    (
        "modules_memory_bytes",
        "0",
        "Bytes of memory that modules of all pipelines may use together. 0: half of what the machine has.",
    ),
    (
        "produce_bytes_per_s",
        "0",
        "Quota of each client address, at each port, for producing. 0: none.",
    ),
    (
        "fetch_bytes_per_s",
        "0",
        "Quota of each client address, at each port, for reading. 0: none.",
    ),
];

impl Default for Config {
    fn default() -> Self {
        let log = weir_log::Options::default();
        Self {
            data: None,
            quic: SocketAddr::from(([127, 0, 0, 1], 7400)),
            http: SocketAddr::from(([127, 0, 0, 1], 7480)),
            http_names: Vec::new(),
            kafka: Some(SocketAddr::from(([127, 0, 0, 1], 9092))),
            advertise: None,
            host: None,
            rack: String::new(),
            timing: Timing::EDGE,
            join: None,
            witness: false,
            auto_create_topics: true,
            default_partitions: 1,
            group_initial_delay: Duration::from_millis(500),
            offsets_retention: Duration::from_secs(7 * 24 * 3_600),
            linger: Duration::from_millis(1),
            disk_budget_bytes: None,
            disk_reserve_bytes: None,
            cache_bytes: log.cache_bytes,
            modules_memory_bytes: None,
            memtable_bytes: log.memtable_bytes,
            journal_bytes: log.journal_bytes,
            value_log_from_bytes: log.value_log_from_bytes,
            value_file_bytes: log.value_file_bytes,
            produce_bytes_per_s: None,
            fetch_bytes_per_s: None,
            log: "info,openraft=error".to_owned(),
        }
    }
}

impl Config {
    /// Defaults, then the file, then `environment`.
    pub(crate) fn load(file: Option<&Path>, environment: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut config = Self::default();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
            config
                .read(&text)
                .with_context(|| format!("in `{}`", path.display()))?;
        }
        for (name, ..) in SETTINGS {
            let variable = variable_of(name);
            if let Some(value) = environment(&variable) {
                config
                    .set(name, &value)
                    .with_context(|| format!("in the environment, {variable}"))?;
            }
        }
        Ok(config)
    }

    fn read(&mut self, text: &str) -> Result<()> {
        let table: toml::Table =
            toml::from_str(text).map_err(|e| anyhow::anyhow!("{}", e.to_string().trim_end()))?;
        for (name, value) in table {
            if !SETTINGS.iter().any(|(known, ..)| *known == name) {
                bail!(
                    "there is no setting `{name}`; the nearest is `{}`",
                    nearest(&name)
                );
            }
            let text = match value {
                toml::Value::Boolean(b) => b.to_string(),
                toml::Value::String(text) => text,
                toml::Value::Integer(n) => n.to_string(),
                other => bail!("`{name}` cannot be `{other}`"),
            };
            self.set(&name, &text)?;
        }
        Ok(())
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let number = || {
            value
                .parse::<u64>()
                .with_context(|| format!("`{name}` cannot be `{value}`: use a number"))
        };
        let address = || {
            let parsed = value.parse::<SocketAddr>();
            parsed
                .with_context(|| format!("`{name}` cannot be `{value}`: use ADDRESS:PORT, as 127.0.0.1:7400"))
        };
        let some = |n: u64| (n > 0).then_some(n);
        // Another number than was asked for would be a surprise.
        let within = |range: RangeInclusive<u64>| {
            let number = number()?;
            if !range.contains(&number) {
                bail!(
                    "`{name}` cannot be `{value}`: use {} to {}",
                    range.start(),
                    range.end()
                );
            }
            Ok(number)
        };
        match name {
            "data" => self.data = Some(value.into()),
            "quic" => self.quic = address()?,
            "http" => self.http = address()?,
            "http_names" => {
                let names = value.split(',').map(|name| name.trim().to_owned());
                self.http_names = names.filter(|name| !name.is_empty()).collect();
            }
            "kafka" if value == "off" => self.kafka = None,
            "kafka" => self.kafka = Some(address()?),
            "advertise" if value.is_empty() => self.advertise = None,
            "advertise" => {
                let wanted = "HOST:PORT, a name or address and a port that is not 0; for IPv6 [ADDRESS]:PORT";
                let parts = reachable(value);
                self.advertise =
                    Some(parts.with_context(|| format!("`advertise` cannot be `{value}`: use {wanted}"))?);
            }
            "auto_create_topics" => {
                self.auto_create_topics = value
                    .parse()
                    .ok()
                    .with_context(|| format!("`{name}` cannot be `{value}`: use true or false"))?;
            }
            "default_partitions" => {
                self.default_partitions = within(1..=PARTITIONS_MAX.into())? as u32;
            }
            "group_initial_rebalance_delay_ms" => {
                self.group_initial_delay = Duration::from_millis(within(0..=600_000)?);
            }
            "offsets_retention_minutes" => {
                self.offsets_retention = Duration::from_secs(within(1..=5_256_000)? * 60);
            }
            "log" => {
                check_filter(value)?;
                value.clone_into(&mut self.log);
            }
            "host" if value.is_empty() => self.host = None,
            "host" => {
                anyhow::ensure!(
                    is_host(value),
                    "`host` cannot be `{value}`: use a name or an IP address"
                );
                self.host = Some(value.to_owned());
            }
            "rack" => value.clone_into(&mut self.rack),
            "timing" => {
                self.timing = match value {
                    "edge" => Timing::EDGE,
                    "central" => Timing::CENTRAL,
                    _ => bail!("`timing` cannot be `{value}`: use edge or central"),
                }
            }
            "linger_ms" => self.linger = Duration::from_millis(within(0..=1_000)?),
            "disk_budget_bytes" => self.disk_budget_bytes = some(number()?),
            "disk_reserve_bytes" => self.disk_reserve_bytes = some(number()?),
            "cache_bytes" => self.cache_bytes = within(1 << 20..=MEMORY_BYTES_MAX)?,
            "memtable_bytes" => self.memtable_bytes = within(1 << 20..=MEMORY_BYTES_MAX)?,
            // The storage engine takes no less.
            "journal_bytes" => self.journal_bytes = within(64 << 20..=DISK_BYTES_MAX)?,
            "value_log_from_bytes" => self.value_log_from_bytes = number()? as usize,
            "value_file_bytes" => self.value_file_bytes = within(64 << 10..=VALUE_FILE_BYTES_MAX)?,
            "modules_memory_bytes" => self.modules_memory_bytes = some(number()?),
            "produce_bytes_per_s" => self.produce_bytes_per_s = some(number()?),
            "fetch_bytes_per_s" => self.fetch_bytes_per_s = some(number()?),
            _ => bail!("there is no setting `{name}`"),
        }
        Ok(())
    }
}

/// A bare word that is no level would pass for the name of a part that is to be heard, and silence all others.
fn check_filter(filter: &str) -> Result<()> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    for part in filter.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !is_level(level) {
            bail!(
                "`log` cannot be `{filter}`: `{part}` is neither a level ({}) nor PART=LEVEL, as weir_log=debug",
                LEVELS.join(", ")
            );
        }
    }
    Ok(())
}

/// What may be meant for a node and is no setting, and the setting that is nearest to it.
pub(crate) fn unknown(variables: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let is_known = |variable: &str| {
        OTHER_VARIABLES.contains(&variable) || SETTINGS.iter().any(|(name, ..)| variable_of(name) == variable)
    };
    let ours = variables.filter(|variable| variable.starts_with("WEIR_") && !is_known(variable));
    ours.map(|variable| {
        let nearest = nearest(&variable.trim_start_matches("WEIR_").to_lowercase());
        (variable, variable_of(nearest))
    })
    .collect()
}

fn variable_of(name: &str) -> String {
    format!("WEIR_{}", name.to_uppercase())
}

fn nearest(name: &str) -> &'static str {
    let near = |known: &str| (strsim::jaro_winkler(known, name) * 1_000.0) as u32;
    let nearest = SETTINGS.iter().max_by_key(|(known, ..)| near(known));
    nearest.map_or("", |(known, ..)| known)
}

/// A file with every setting at its default, explained.
pub(crate) fn documented() -> String {
    let mut out = String::new();
    for (name, default, about) in SETTINGS {
        let comment = if default.is_empty() { "# " } else { "" };
        let default = if default.is_empty() {
            "\"/var/lib/weir\""
        } else {
            default
        };
        out.push_str(&format!(
            "# {about} ({})\n{comment}{name} = {default}\n\n",
            variable_of(name)
        ));
    }
    out
}

/// Host and port of an address that others are told.
fn reachable(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    if let Some(host) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return host.parse::<Ipv6Addr>().ok().map(|_| (host.to_owned(), port));
    }
    (!host.contains(':') && is_host(host)).then(|| (host.to_owned(), port))
}

/// Whether it is an IP address, or a name (RFC 1123, with the underscores that are in use).
fn is_host(host: &str) -> bool {
    if host.contains(':') {
        return host.parse::<Ipv6Addr>().is_ok();
    }
    // All digits: no name, and an address only if it is one.
    if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    let is_label = |label: &str| {
        let is_of = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len()) && is_of && !label.starts_with('-') && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_sources_win_and_unknown_keys_name_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.toml");
        std::fs::write(&path, "linger_ms = 20\nhttp = \"127.0.0.1:1\"\n").unwrap();
        let environment = |name: &str| (name == "WEIR_HTTP").then(|| "127.0.0.1:2".to_owned());
        let config = Config::load(Some(&path), environment).unwrap();
        assert_eq!(
            (config.linger.as_millis(), config.http.port(), config.quic.port()),
            (20, 2, 7400)
        );
        std::fs::write(&path, "lingr_ms = 20\n").unwrap();
        let error = format!("{:#}", Config::load(Some(&path), |_| None).unwrap_err());
        assert!(
            error.contains("`lingr_ms`") && error.contains("`linger_ms`"),
            "{error}"
        );
    }

    #[test]
    fn an_address_for_clients_is_one_that_they_can_reach() {
        for (value, host) in [
            ("gw.example:9092", "gw.example"),
            ("10.0.0.9:1", "10.0.0.9"),
            ("[fe80::1]:9092", "fe80::1"),
            ("my_gateway-1.local.:9092", "my_gateway-1.local."),
        ] {
            assert_eq!(
                reachable(value).map(|(host, _)| host),
                Some(host.to_owned()),
                "{value}"
            );
        }
        for value in [
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
            assert_eq!(reachable(value), None, "{value}");
        }
        assert_eq!(reachable(&format!("{}:1", "a".repeat(64))), None);
    }

    #[test]
    fn a_value_that_is_not_taken_is_told_with_those_that_are() {
        let mut config = Config::default();
        for (name, value, want) in [
            ("journal_bytes", "1", "67108864 to"),
            ("value_file_bytes", "1", "65536 to 1073741824"),
            ("linger_ms", "1001", "0 to 1000"),
            ("cache_bytes", "x", "use a number"),
            ("default_partitions", "0", "1 to"),
            ("log", "verbose", "neither a level"),
            ("host", "a b", "a name or an IP address"),
            ("host", "gw:7400", "a name or an IP address"),
            ("log", "info,weir_log=loud", "`weir_log=loud`"),
        ] {
            let error = config.set(name, value).unwrap_err().to_string();
            assert!(error.contains(want), "{name}: {error}");
        }
        config.set("log", "info,openraft=error,weir_log=Debug").unwrap();
        assert_eq!(config.journal_bytes, Config::default().journal_bytes);
    }

    #[test]
    fn a_variable_that_is_no_setting_is_found() {
        let variables = ["WEIR_JOURNAL_BYTE", "WEIR_NODE", "WEIR_QUIC", "PATH"].map(str::to_owned);
        let found = unknown(variables.into_iter());
        assert_eq!(
            found,
            [("WEIR_JOURNAL_BYTE".to_owned(), "WEIR_JOURNAL_BYTES".to_owned())]
        );
    }

    #[test]
    fn the_documented_file_is_the_default() {
        let mut config = Config::default();
        config.read(&documented()).unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }
}
