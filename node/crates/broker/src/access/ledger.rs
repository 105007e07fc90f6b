//! What a node shares out: memory, connections and files. Each use has a share that no other may take.
//!
//! | share | of | whose |
//! | --- | --- | --- |
//! | `store` | files | the log, modules and nodes, whatever clients do |
//! | `nodes` | connections | other nodes of the site |
//! | `strangers` | connections | nodes that may come to belong to it |
//! | `arrivals` | connections | who comes from where a node of the site listens, until he has shown that he is that node |
//! | `newcomers` | connections | who has not said yet who he is, over QUIC; over HTTP and Kafka he asks something soon, or goes |
//! | `quic`, `http`, `kafka` | connections | clients, by listener |
//! | `requests` | memory | what is being received |
//! | `waiting` | memory | what has come and waits for its turn |
//! | `records` | memory | what is taken and not yet committed |
//! | `answers` | memory | what is being read and sent |
//! | `unpacked` | memory | records that come in compressed and become much, while they are looked at |
//! | `inflated` | memory | records that are read over HTTP, while they are not compressed |
//! | `uploads` | memory | modules that are being received |
//! | `modules` | memory | what the memories of modules take |
//! | `state` | memory | what modules remember |
//!
//! A share that is used up means waiting, for as long as its user says, or a refusal that names it; both are counted. Of the
//! shares that clients compete for, one address may have half: somebody else gets in beside whoever takes all he can.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

/// What there is to share out.
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

/// What a share is of.
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
    /// Its name, in metrics and messages.
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
    "the node's share `{share}` of {} is used up: {max} for all{}; try again, or see `weir status`",
    resource.name(), if *one_address { ", and a part of it for one address" } else { "" }
)]
pub struct UsedUp {
    share: &'static str,
    resource: Resource,
    max: u64,
    one_address: bool,
}

impl UsedUp {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Retry
    }
}

/// How a share stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub share: &'static str,
    /// What it is of.
    pub resource: Resource,
    /// How much is taken.
    pub used: u64,
    /// How much there is.
    pub max: u64,
    /// How often somebody was refused.
    pub refused: u64,
}

/// One share.
#[derive(Debug)]
pub struct Account {
    share: &'static str,
    resource: Resource,
    max: usize,
    free: Arc<Semaphore>,
    /// Of a share that clients compete for: what each address may still take, of those that have any.
    addresses: Option<Mutex<HashMap<IpAddr, Arc<Semaphore>>>>,
    /// The part of it that one address may have.
    part: usize,
    refused: AtomicU64,
    /// The most that was taken since somebody looked.
    most: AtomicU64,
}

/// A part of a share, given back when it is dropped.
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

    /// How much it is.
    pub fn amount(&self) -> usize {
        self.of_all.num_permits()
    }
}

/// What counts as one address: of IPv6, a network of 64 bits, which is what one machine may have.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
    }
}

/// Addresses that have nothing are forgotten when there are as many as that.
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

    /// Of which one address may have half.
    fn among_addresses(self) -> Self {
        self.in_parts(2)
    }

    /// Of which one address may have one of `part` parts.
    fn in_parts(self, part: usize) -> Self {
        Self {
            addresses: Some(Mutex::default()),
            part,
            ..self
        }
    }

    /// Whether more than half of it is taken.
    pub fn is_scarce(&self) -> bool {
        self.free.available_permits() < self.max / 2
    }

    /// How much one address may have.
    fn per_address(&self) -> usize {
        (self.max / self.part).max(1)
    }

    fn of_address(&self, from: Option<IpAddr>) -> Option<Arc<Semaphore>> {
        let (addresses, from) = self.addresses.as_ref().zip(from.map(network))?;
        let mut addresses = addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.per_address();
        if addresses.len() >= ADDRESSES_KEPT {
            addresses.retain(|_, left| Arc::strong_count(left) > 1 || left.available_permits() < all);
        }
        let left = addresses
            .entry(from)
            .or_insert_with(|| Arc::new(Semaphore::new(all)));
        Some(Arc::clone(left))
    }

    /// Takes `amount` for somebody at `from`, now.
    ///
    /// # Errors
    /// When there is not so much.
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

    /// Takes `amount` for somebody at `from`, and waits for it as long as `within`: first behind others of that address,
    /// then behind those of all.
    ///
    /// # Errors
    /// When there was not so much in that time.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken then.
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
        // More than there ever is would wait for ever.
        let can_be = amount <= self.max && (from.is_none() || amount <= self.per_address());
        match can_be {
            true => match tokio::time::timeout(within, waiting).await {
                Ok(Ok(taken)) => Ok(taken),
                _ => Err(self.refuse(is_full)),
            },
            false => Err(self.refuse(false)),
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

    /// Nobody who waits gets anything any more.
    pub(crate) fn close(&self) {
        self.free.close();
    }

    /// How it stands.
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
#[expect(missing_docs, reason = "as in the table above")]
pub struct Ledger {
    pub nodes: Account,
    pub strangers: Account,
    pub arrivals: Account,
    pub newcomers: Account,
    pub quic: Account,
    pub http: Account,
    pub kafka: Account,
    pub requests: Account,
    pub waiting: Account,
    pub records: Account,
    pub answers: Account,
    pub unpacked: Account,
    pub inflated: Account,
    pub uploads: Account,
    /// Bytes that the memories of modules take.
    pub modules: Arc<Pool>,
    /// Bytes that what modules remember takes.
    pub state: Arc<Pool>,
    /// Files that are not for clients.
    store_files: u64,
}

impl Ledger {
    /// Shares out `means`.
    pub fn new(means: Means) -> Self {
        use Resource::{Connections, Memory};
        // First what the log and the nodes need; a quarter of the rest is for HTTP.
        let reserve = FILES_RESERVE.min(means.files / 2);
        let left = means.files - reserve;
        let http = HTTP_CONNECTIONS_MAX.min(left / 4);
        let kafka = KAFKA_CONNECTIONS_MAX.min(left - http);
        Self {
            nodes: Account::new("nodes", Connections, CONNECTIONS_OF_NODES_MAX),
            strangers: Account::new("strangers", Connections, CONNECTIONS_OF_STRANGERS_MAX),
            // Each of these two is one for moments.
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

    /// The most bytes that were taken of the shares of memory, but those of modules, since this was asked last: of each share, and summed up.
    pub fn most_memory_used(&self) -> u64 {
        let memory = self
            .accounts()
            .into_iter()
            .filter(|a| a.resource == Resource::Memory);
        memory
            .map(|account| account.most.swap(account.used() as u64, Ordering::Relaxed))
            .sum()
    }

    /// How all shares stand.
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
        // What is given back is there for whoever waits.
        let waiting = account.take(30, THERE, Duration::from_secs(5));
        held[5].keep(10);
        assert_eq!(waiting.await.unwrap().amount(), 30);
        drop(held);
        assert_eq!(account.standing().used, 0);
        // More than there can be is refused at once.
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
        let addresses = account.addresses.as_ref().unwrap().lock().unwrap();
        assert!(addresses.len() <= ADDRESSES_KEPT && addresses.contains_key(&HERE.unwrap()));
        drop(kept);
    }
}
