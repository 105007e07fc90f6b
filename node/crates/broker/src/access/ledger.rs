//! Shares of a node's memory, connections and files. No use can take the share of another.
//!
//! | share | of | held by |
//! | --- | --- | --- |
//! | `store` | files | the log, modules and peers, independent of clients |
//! | `nodes` | connections | other nodes of the site |
//! | `strangers` | connections | nodes that may join the site |
//! | `arrivals` | connections | peers at a known node address that are not yet authenticated |
//! | `newcomers` | connections | QUIC clients before the handshake; HTTP and Kafka clients must be quick |
//! | `quic`, `http`, `kafka` | connections | clients, by listener |
//! | `requests` | memory | requests that are being received |
//! | `waiting` | memory | requests that are queued |
//! | `records` | memory | records that are accepted and not yet committed |
//! | `answers` | memory | responses that are being read and sent |
//! | `unpacked` | memory | compressed records with a high ratio, during validation |
//! | `inflated` | memory | records that are decompressed for HTTP |
//! | `uploads` | memory | modules that are being received |
//! | `modules` | memory | linear memories of modules |
//! | `state` | memory | state of modules |
//!
//! Requests to a share that is used up wait for a limited time, or are refused with the name of the share.
//! Both are counted. Clients compete for some shares: there, an address can take half at most, so that others
//! get the rest.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use weir_types::ErrorKind;
use weir_types::limits::{
    ANSWERS_BYTES_MAX, CONNECTIONS_MAX, CONNECTIONS_NEW_MAX, CONNECTIONS_OF_NODES_MAX,
    CONNECTIONS_OF_STRANGERS_MAX, FILES_RESERVE, HTTP_CONNECTIONS_MAX, INFLATED_BYTES_MAX,
    KAFKA_CONNECTIONS_MAX, MODULE_BYTES_MAX, PRODUCE_INFLIGHT_BYTES_MAX, REQUESTS_BYTES_MAX, STATE_BYTES_MAX,
    UNPACKED_BYTES_MAX, UPLOADS_MAX, WAITING_BYTES_MAX,
};
use weir_types::pool::Pool;
use weir_types::sync::Mutex;

/// Resources that a node can share out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Means {
    /// Files that the process may have open.
    pub files: usize,
    /// Bytes of memory for the memories of modules.
    pub modules_bytes: u64,
}

impl Default for Means {
    fn default() -> Self {
        Self {
            files: usize::MAX,
            modules_bytes: 1 << 30,
        }
    }
}

/// The resource that a share is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Bytes.
    Memory,
    /// Connections.
    Connections,
    /// Files that are open.
    Files,
}

impl Resource {
    /// Returns the name of the resource, for metrics and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Connections => "connections",
            Self::Files => "files",
        }
    }
}

/// A share is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node's share `{share}` of {} is used up: {max} in total{}; retry, or see `weir status`",
    resource.name(), if *one_address { ", less for one address" } else { "" }
)]
pub struct UsedUp {
    share: &'static str,
    resource: Resource,
    max: u64,
    one_address: bool,
}

impl UsedUp {
    /// Returns the kind of the error: always [`ErrorKind::Retry`].
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Retry
    }
}

/// Use of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Name of the share.
    pub share: &'static str,
    /// Resource of the share.
    pub resource: Resource,
    /// Amount in use.
    pub used: u64,
    /// Amount in total.
    pub max: u64,
    /// Number of refused requests.
    pub refused: u64,
}

/// A share of a resource.
#[derive(Debug)]
pub struct Account {
    share: &'static str,
    resource: Resource,
    max: usize,
    free: Arc<Semaphore>,
    /// Amounts left for each client address, for shares that clients compete for.
    addresses: Option<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
    /// Divisor of the share: an address can take `max / part`.
    part: usize,
    refused: AtomicU64,
    /// Peak use since the last query.
    most: AtomicU64,
}

/// A part of a share, released on drop.
#[derive(Debug)]
pub struct Taken {
    of_all: OwnedSemaphorePermit,
    of_address: Option<OwnedSemaphorePermit>,
}

impl Taken {
    /// Gives back all but `amount`.
    pub fn keep(&mut self, amount: usize) {
        for permit in [Some(&mut self.of_all), self.of_address.as_mut()]
            .into_iter()
            .flatten()
        {
            let more = permit.num_permits().saturating_sub(amount);
            drop(permit.split(more));
        }
    }

    /// Adds another part of the same share.
    pub fn merge(&mut self, other: Self) {
        self.of_all.merge(other.of_all);
        match (&mut self.of_address, other.of_address) {
            (Some(mine), Some(other)) => mine.merge(other),
            (mine, other) => *mine = mine.take().or(other),
        }
    }

    /// Returns the amount.
    pub fn amount(&self) -> usize {
        self.of_all.num_permits()
    }
}

/// Returns the network that counts as an address: for IPv6, the first 64 bits, since a machine may have a
/// whole network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
    }
}

/// Number of addresses from which on idle addresses are forgotten.
const ADDRESSES_KEPT: usize = 1_024;

impl Account {
    pub(crate) fn new(share: &'static str, resource: Resource, max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self {
            share,
            resource,
            max,
            free: Arc::new(Semaphore::new(max)),
            addresses: None,
            part: 1,
            refused: AtomicU64::new(0),
            most: AtomicU64::new(0),
        }
    }

    /// Limits an address to half of the share.
    fn among_addresses(self) -> Self {
        self.in_parts(2)
    }

    /// Limits an address to a `part`th of the share.
    fn in_parts(self, part: usize) -> Self {
        Self {
            addresses: Some(Mutex::default()),
            part,
            ..self
        }
    }

    /// Returns true if more than half of the share is in use.
    pub fn is_scarce(&self) -> bool {
        self.free.available_permits() < self.max / 2
    }

    /// Returns the amount that an address can take.
    fn per_address(&self) -> usize {
        (self.max / self.part).max(1)
    }

    fn of_address(&self, from: Option<IpAddr>) -> Option<Arc<Semaphore>> {
        let (addresses, from) = self.addresses.as_ref().zip(from.map(network))?;
        let mut addresses = addresses.lock();
        let all = self.per_address();
        if addresses.len() >= ADDRESSES_KEPT {
            addresses.retain(|_, left| Arc::strong_count(left) > 1 || left.available_permits() < all);
        }
        let left = addresses
            .entry(from)
            .or_insert_with(|| Arc::new(Semaphore::new(all)));
        Some(Arc::clone(left))
    }

    /// Takes `amount` for a client at `from` without waiting.
    ///
    /// # Errors
    /// When less than `amount` is free.
    pub fn try_take(&self, amount: usize, from: Option<IpAddr>) -> Result<Taken, UsedUp> {
        let permits = u32::try_from(amount).unwrap_or(u32::MAX);
        let of_address = match self.of_address(from) {
            Some(left) => match left.try_acquire_many_owned(permits) {
                Ok(taken) => Some(taken),
                Err(_) => return Err(self.refuse(true)),
            },
            None => None,
        };
        match Arc::clone(&self.free).try_acquire_many_owned(permits) {
            Ok(of_all) => Ok(self.taken(of_all, of_address)),
            Err(_) => Err(self.refuse(false)),
        }
    }

    /// Takes `amount` for a client at `from`, waiting up to `within`: first behind requests of the same
    /// address, then behind all.
    ///
    /// # Errors
    /// When the amount did not become free in time, or exceeds the share.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped call takes nothing.
    pub async fn take(&self, amount: usize, from: Option<IpAddr>, within: Duration) -> Result<Taken, UsedUp> {
        let permits = u32::try_from(amount).unwrap_or(u32::MAX);
        let left = self.of_address(from);
        let is_full = left
            .as_ref()
            .is_some_and(|left| left.available_permits() < amount);
        let waiting = async {
            let of_address = match left {
                Some(left) => Some(left.acquire_many_owned(permits).await?),
                None => None,
            };
            let of_all = Arc::clone(&self.free).acquire_many_owned(permits).await?;
            Ok::<_, AcquireError>(self.taken(of_all, of_address))
        };
        // A request above the maximum would wait for ever.
        let can_be = amount <= self.max && (from.is_none() || amount <= self.per_address());
        if can_be {
            match tokio::time::timeout(within, waiting).await {
                Ok(Ok(taken)) => Ok(taken),
                _ => Err(self.refuse(is_full)),
            }
        } else {
            Err(self.refuse(false))
        }
    }

    pub(crate) fn taken(
        &self,
        of_all: OwnedSemaphorePermit,
        of_address: Option<OwnedSemaphorePermit>,
    ) -> Taken {
        self.most.fetch_max(self.used() as u64, Ordering::Relaxed);
        Taken { of_all, of_address }
    }

    pub(crate) fn used(&self) -> usize {
        self.max.saturating_sub(self.free.available_permits())
    }

    fn refuse(&self, one_address: bool) -> UsedUp {
        self.refused.fetch_add(1, Ordering::Relaxed);
        UsedUp {
            share: self.share,
            resource: self.resource,
            max: self.max as u64,
            one_address,
        }
    }

    /// Fails all waiting requests.
    pub(crate) fn close(&self) {
        self.free.close();
    }

    /// Returns the use of the share.
    pub fn standing(&self) -> Standing {
        Standing {
            share: self.share,
            resource: self.resource,
            used: self.used() as u64,
            max: self.max as u64,
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

/// All shares of a node.
#[derive(Debug)]
pub struct Ledger {
    /// Connections of other nodes.
    pub nodes: Account,
    /// Connections of nodes that may join.
    pub strangers: Account,
    /// Connections from node addresses before authentication.
    pub arrivals: Account,
    /// Connections before the first request.
    pub newcomers: Account,
    /// QUIC connections of clients.
    pub quic: Account,
    /// HTTP connections of clients.
    pub http: Account,
    /// Kafka connections of clients.
    pub kafka: Account,
    /// Bytes of requests that are being received.
    pub requests: Account,
    /// Bytes of queued requests.
    pub waiting: Account,
    /// Bytes of uncommitted records.
    pub records: Account,
    /// Bytes of responses.
    pub answers: Account,
    /// Bytes of records that are decompressed for validation.
    pub unpacked: Account,
    /// Bytes of records that are decompressed for HTTP.
    pub inflated: Account,
    /// Bytes of modules that are being received.
    pub uploads: Account,
    /// Bytes that the memories of modules take.
    pub modules: Arc<Pool>,
    /// Bytes of module state.
    pub state: Arc<Pool>,
    /// Files that are not for clients.
    store_files: u64,
}

impl Ledger {
    /// Shares out `means`.
    pub fn new(means: Means) -> Self {
        use Resource::{Connections, Memory};
        // The log and the peers come first; a quarter of the rest is for HTTP.
        let reserve = FILES_RESERVE.min(means.files / 2);
        let left = means.files - reserve;
        let http = HTTP_CONNECTIONS_MAX.min(left / 4);
        let kafka = KAFKA_CONNECTIONS_MAX.min(left - http);
        Self {
            nodes: Account::new("nodes", Connections, CONNECTIONS_OF_NODES_MAX),
            strangers: Account::new("strangers", Connections, CONNECTIONS_OF_STRANGERS_MAX),
            // Connections stay in these two shares for moments only.
            arrivals: Account::new("arrivals", Connections, CONNECTIONS_OF_NODES_MAX).in_parts(4),
            newcomers: Account::new("newcomers", Connections, CONNECTIONS_NEW_MAX).in_parts(8),
            quic: Account::new("quic", Connections, CONNECTIONS_MAX).among_addresses(),
            http: Account::new("http", Connections, http).among_addresses(),
            kafka: Account::new("kafka", Connections, kafka).among_addresses(),
            requests: Account::new("requests", Memory, REQUESTS_BYTES_MAX).among_addresses(),
            waiting: Account::new("waiting", Memory, WAITING_BYTES_MAX).among_addresses(),
            records: Account::new("records", Memory, PRODUCE_INFLIGHT_BYTES_MAX).in_parts(4),
            answers: Account::new("answers", Memory, ANSWERS_BYTES_MAX).among_addresses(),
            unpacked: Account::new("unpacked", Memory, UNPACKED_BYTES_MAX).among_addresses(),
            inflated: Account::new("inflated", Memory, INFLATED_BYTES_MAX).among_addresses(),
            uploads: Account::new("uploads", Memory, UPLOADS_MAX * MODULE_BYTES_MAX).among_addresses(),
            modules: Arc::new(Pool::new(means.modules_bytes)),
            state: Arc::new(Pool::new(STATE_BYTES_MAX as u64)),
            store_files: reserve as u64,
        }
    }

    fn accounts(&self) -> [&Account; 14] {
        [
            &self.nodes,
            &self.strangers,
            &self.arrivals,
            &self.newcomers,
            &self.quic,
            &self.http,
            &self.kafka,
            &self.requests,
            &self.waiting,
            &self.records,
            &self.answers,
            &self.unpacked,
            &self.inflated,
            &self.uploads,
        ]
    }

    /// Returns the peak memory use, summed over all shares except modules, since the last call.
    pub fn most_memory_used(&self) -> u64 {
        let memory = self
            .accounts()
            .into_iter()
            .filter(|a| a.resource == Resource::Memory);
        memory
            .map(|account| account.most.swap(account.used() as u64, Ordering::Relaxed))
            .sum()
    }

    /// Returns the use of all shares.
    pub fn standings(&self) -> Vec<Standing> {
        let mut all: Vec<Standing> = self.accounts().map(Account::standing).to_vec();
        for (share, pool) in [("modules", &self.modules), ("state", &self.state)] {
            all.push(Standing {
                share,
                resource: Resource::Memory,
                used: pool.used(),
                max: pool.max(),
                refused: pool.refused(),
            });
        }
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
        let clients = self.http.standing().used + self.kafka.standing().used;
        all.push(Standing {
            share: "store",
            resource: Resource::Files,
            used: open.saturating_sub(clients),
            max: self.store_files,
            refused: 0,
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    const THERE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::BROADCAST));

    #[test]
    fn the_store_has_its_files_whatever_the_limit_is() {
        for files in [0, 1, 64, 300, 1_024, 4_096, 65_536, usize::MAX] {
            let ledger = Ledger::new(Means {
                files,
                ..Means::default()
            });
            let clients = ledger.http.max + ledger.kafka.max;
            assert!(clients <= files - FILES_RESERVE.min(files / 2), "{files}");
        }
        let small = Ledger::new(Means {
            files: 300,
            ..Means::default()
        });
        assert_eq!((small.http.max, small.kafka.max), (37, 113));
    }

    #[tokio::test]
    async fn one_address_has_half_and_others_get_in_beside_it() {
        let account = Account::new("requests", Resource::Memory, 100).among_addresses();
        let mut held: Vec<Taken> = (0..5).map(|_| account.try_take(10, HERE).unwrap()).collect();
        let refused = account.try_take(10, HERE).unwrap_err();
        assert!(refused.to_string().contains("`requests` of memory"), "{refused}");
        assert!(refused.to_string().contains("one address"), "{refused}");
        held.push(account.try_take(50, THERE).unwrap());
        let refused = account.take(1, None, Duration::ZERO).await.unwrap_err();
        assert!(!refused.to_string().contains("one address"), "{refused}");
        assert_eq!(account.standing().refused, 2);
        // A waiting request gets the released part.
        let waiting = account.take(30, THERE, Duration::from_secs(5));
        held[5].keep(10);
        assert_eq!(waiting.await.unwrap().amount(), 30);
        drop(held);
        assert_eq!(account.standing().used, 0);
        // A request above the maximum is refused at once.
        let begun = tokio::time::Instant::now();
        assert!(account.take(60, HERE, Duration::from_secs(5)).await.is_err());
        assert!(account.take(101, None, Duration::from_secs(5)).await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn addresses_that_have_nothing_are_forgotten() {
        let account = Account::new("http", Resource::Connections, 100).among_addresses();
        let kept = account.try_take(1, HERE).unwrap();
        for n in 0..5_000u32 {
            drop(account.try_take(1, Some(IpAddr::from(n.to_be_bytes()))).unwrap());
        }
        let addresses = account.addresses.as_ref().unwrap().lock();
        assert!(addresses.len() <= ADDRESSES_KEPT && addresses.contains_key(&HERE.unwrap()));
        drop(kept);
    }
}
