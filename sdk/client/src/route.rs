//! Routes to the leader of each replica group, and the groups of partitions.

use crate::error::ClientError;
use crate::session::{Search, Sessions, Shared};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};
use weir_peer::protocol::{Reply, Request, TopicInfo};
use weir_peer::{Frame, KnownNodes, PeerError, PeerStream};
use weir_types::sync::Mutex;

/// The group of all nodes: its leader answers every request that concerns no partition.
const SITE: u16 = 0;

/// The route to a group's leader.
pub(crate) struct Route {
    pub(crate) sessions: Shared,
    control: tokio::sync::Mutex<Option<PeerStream>>,
}

/// The routes to the leaders of all groups.
pub(crate) struct Routes {
    seeds: Vec<SocketAddr>,
    known: KnownNodes,
    name: String,
    site: Arc<Route>,
    /// Routes by group, bounded by the groups of a site.
    groups: Mutex<BTreeMap<u16, Arc<Route>>>,
    /// Group of each partition of the topics in use.
    layout: Mutex<BTreeMap<String, Vec<u16>>>,
}

impl Routes {
    pub(crate) fn new(seeds: Vec<SocketAddr>, known: &KnownNodes, name: &str) -> Self {
        let site = Arc::new(Route::new(&seeds, known, name, SITE));
        Self {
            seeds,
            known: known.clone(),
            name: name.to_owned(),
            groups: Mutex::new(BTreeMap::from([(SITE, Arc::clone(&site))])),
            site,
            layout: Mutex::default(),
        }
    }

    pub(crate) fn site(&self) -> &Arc<Route> {
        &self.site
    }

    pub(crate) fn all(&self) -> Vec<Arc<Route>> {
        self.groups().values().cloned().collect()
    }

    pub(crate) fn to(&self, group: u16) -> Arc<Route> {
        let mut groups = self.groups();
        let new = || Arc::new(Route::new(&self.seeds, &self.known, &self.name, group));
        Arc::clone(groups.entry(group).or_insert_with(new))
    }

    /// Returns the group of a partition; the group of all nodes for an unknown partition, whose leader
    /// refuses it.
    pub(crate) async fn group_of(&self, topic: &str, partition: u32) -> Result<u16, ClientError> {
        let known = |layout: &BTreeMap<String, Vec<u16>>| {
            layout
                .get(topic)
                .and_then(|groups| groups.get(partition as usize))
                .copied()
        };
        if let Some(group) = known(&self.layout()) {
            return Ok(group);
        }
        let topics = self.site.topics().await?;
        self.note(&topics);
        Ok(known(&self.layout()).unwrap_or(SITE))
    }

    /// Notes the groups of the partitions of `topics`, which are all topics.
    pub(crate) fn note(&self, topics: &[TopicInfo]) {
        let groups = |t: &TopicInfo| t.partitions.iter().map(|p| p.group).collect();
        *self.layout() = topics.iter().map(|t| (t.name.clone(), groups(t))).collect();
    }

    /// Drops the groups of a topic's partitions: another topic may have the name by now.
    pub(crate) fn forget(&self, topic: &str) {
        self.layout().remove(topic);
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<Route>>> {
        self.groups.lock()
    }

    fn layout(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u16>>> {
        self.layout.lock()
    }
}

impl Route {
    fn new(seeds: &[SocketAddr], known: &KnownNodes, name: &str, group: u16) -> Self {
        Self {
            sessions: Arc::new(Sessions::new(seeds.to_vec(), known, name, group)),
            control: tokio::sync::Mutex::default(),
        }
    }

    /// Returns all topics, as the node at the end of the route sees them.
    pub(crate) async fn topics(&self) -> Result<Vec<TopicInfo>, ClientError> {
        match self.ask(Request::Topics).await?.head {
            Reply::Topics(topics) => Ok(topics),
            other => Err(crate::unexpected(&other)),
        }
    }

    /// Sends a request to the leader, or to any node that can answer.
    pub(crate) async fn ask(&self, request: Request) -> Result<Frame<Reply>, ClientError> {
        let mut control = self.control.lock().await;
        let search = Search::begin();
        loop {
            let mut stream = match control.take() {
                Some(stream) => stream,
                None => match self.sessions.stream().await {
                    Ok(stream) => stream,
                    Err(e) if !self.sessions.has_others() => return Err(e),
                    // Nothing was sent yet.
                    Err(_) => {
                        search.again().await?;
                        continue;
                    }
                },
            };
            let exchanged = tokio::select! {
                exchanged = crate::exchange(&mut stream, &request, &[]) => exchanged,
                leader = self.sessions.moved() => {
                    self.sessions.elsewhere(leader).await;
                    Err(PeerError::Timeout.into())
                }
            };
            match exchanged {
                Ok(frame) => {
                    *control = Some(stream);
                    return Ok(frame);
                }
                Err(ClientError::Elsewhere(leader)) => self.sessions.elsewhere(leader).await,
                Err(ClientError::Peer(e)) if !(self.sessions.has_others() && reads(&request)) => {
                    return Err(e.into());
                }
                Err(ClientError::Peer(_)) => {}
                Err(e) => {
                    *control = Some(stream);
                    return Err(e);
                }
            }
            search.again().await?;
        }
    }
}

/// Tells whether a request can be repeated without harm.
fn reads(request: &Request) -> bool {
    matches!(
        request,
        Request::OffsetAt { .. }
            | Request::Topics
            | Request::Leader { .. }
            | Request::CommittedOffset { .. }
            // The same token may be sent twice.
            | Request::Invite { .. }
            // The same offset may be committed twice.
            | Request::CommitOffsets { .. }
            // An id that no client gets is no loss.
            | Request::InitProducer
            | Request::Modules
            | Request::Pipelines
            | Request::Status
            | Request::Cluster
    )
}
