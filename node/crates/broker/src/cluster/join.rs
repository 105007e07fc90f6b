//! Admitting nodes to the site.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::cluster::leadership::HAND_OVER_POLL;
use crate::cluster::reconcile::CAUGHT_UP;
use crate::cluster::token::{Token, proof, same};
use crate::core::Broker;
use crate::error::AdminError;
use crate::state::rows::Row;
use crate::state::rows::site::{LastNode, SiteName, TokenRow};
use crate::state::tables::Tables;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::time::Duration;
use weir_log::Op;
use weir_replica::{Claim, Group, Host, JoinReply, JoinRequest, NodeId, Seen, Started, Starts};
use weir_types::GroupId;
use weir_types::limits::VOTERS_MAX;

/// A change of members takes a few round trips: some seconds of them are waited for.
const JOIN_TRIES: u32 = 100;

/// Tokens that are out at once.
const TOKENS_MAX: usize = 100;

impl Broker {
    /// The site's name among sites, which every node of it answers with; `None` before the first entry.
    pub fn site(&self) -> Option<String> {
        let tables = self.0.applied.tables();
        tables.other::<SiteName>(&()).map(|name| name.0)
    }

    /// Names the site, if it has no name yet.
    ///
    /// # Errors
    /// When it is not committed.
    pub async fn name_site(&self, name: String) -> Result<(), AdminError> {
        self.change(move |tables, _| {
            let is_named = tables.other::<SiteName>(&()).is_some();
            Ok((!is_named).then(|| SiteName(name).put(&())).into_iter().collect())
        })
        .await
    }

    /// Whether `who` may let nodes in, take them out, and hand over.
    ///
    /// # Errors
    /// When not.
    pub fn may_change_site(&self, who: &Principal) -> Result<(), AdminError> {
        match authorize(who, Operation::Alter, Resource::Cluster) {
            true => Ok(()),
            false => Err(AdminError::Denied),
        }
    }

    /// Makes `token` let one node in within `valid`.
    ///
    /// # Errors
    /// When it is not committed.
    pub async fn invite(&self, token: &Token, valid: Duration) -> Result<(), AdminError> {
        let (key, now) = (token.key(), self.now_ms());
        let row = TokenRow {
            key,
            expires_ms: now.saturating_add_unsigned(valid.as_millis() as u64),
        };
        let hash = Sha256::digest(key).into();
        self.change(move |tables, _| {
            let mut ops = Vec::new();
            let mut out = 0;
            for (hash, value) in tables.others_of::<TokenRow>() {
                match TokenRow::decode(value) {
                    Ok(row) if row.expires_ms > now => out += 1,
                    _ => ops.push(TokenRow::remove(&hash)),
                }
            }
            if out >= TOKENS_MAX {
                return Err(AdminError::Limit {
                    what: "tokens that are out",
                    limit: TOKENS_MAX as u64,
                });
            }
            ops.push(row.put(&hash));
            Ok(ops)
        })
        .await
    }

    /// Uses up a token and gives a number for it, with the proof that it is known here.
    async fn redeem(
        &self,
        token: &[u8; 32],
        proved: &[u8; 32],
        binding: &[u8; 32],
    ) -> Result<([u8; 32], NodeId), JoinReply> {
        let hash = *token;
        let unknown = || {
            let why = "the token is not known here: it was used, has expired, or is another site's";
            JoinReply::Refused(why.to_owned())
        };
        let row = self.0.applied.tables().other::<TokenRow>(&hash);
        let row = row.ok_or_else(unknown)?;
        if !same(&proof(&row.key, b"join", binding), proved) {
            return Err(unknown());
        }
        if row.expires_ms <= self.now_ms() {
            let why = "the token has expired: `weir cluster invite` makes another";
            return Err(JoinReply::Refused(why.to_owned()));
        }
        let numbered = self.number(move |tables| {
            // Asked again inside: two may come with one token.
            if tables.other::<TokenRow>(&hash).is_none() {
                return Err(AdminError::Denied);
            }
            Ok(vec![TokenRow::remove(&hash)])
        });
        match numbered.await {
            Ok(node) => Ok((proof(&row.key, b"welcome", binding), node)),
            Err(AdminError::Denied) => Err(unknown()),
            Err(e) => Err(JoinReply::NotNow(e.to_string())),
        }
    }

    /// Gives a number that no node had before, in one entry with `with`.
    pub(crate) async fn number(
        &self,
        with: impl FnOnce(&Tables) -> Result<Vec<Op>, AdminError> + Send + 'static,
    ) -> Result<NodeId, AdminError> {
        let first = self.group().members().keys().max().copied().unwrap_or(1);
        let (sent, number) = tokio::sync::oneshot::channel();
        let changed = self.change(move |tables, _| {
            let mut ops = with(tables)?;
            let last = tables.other::<LastNode>(&()).map_or(first, |last| last.0);
            let node = last.max(first) + 1;
            let _ = sent.send(node);
            ops.push(LastNode(node).put(&()));
            Ok(ops)
        });
        changed.await?;
        number.await.map_err(|_| AdminError::Closed)
    }

    /// Gives a member with `key` another number: it lost what it had, and must not speak as the one that it was.
    /// Returns the numbers that it had, too.
    pub(crate) async fn renumber(&self, key: &str) -> Result<(NodeId, Vec<NodeId>), JoinReply> {
        let members = self.group().members().into_iter();
        let old: Vec<NodeId> = members.filter(|(_, m)| m.key == key).map(|(id, _)| id).collect();
        if old.is_empty() {
            let why = "its key is no member's any more: it can only join with a token";
            return Err(JoinReply::Refused(why.to_owned()));
        }
        let numbered = self.number(|_| Ok(Vec::new())).await;
        let node = numbered.map_err(|e| JoinReply::NotNow(e.to_string()))?;
        Ok((node, old))
    }

    /// The starts of other nodes that this one has heard of.
    pub fn starts(&self) -> &Starts {
        &self.0.starts
    }

    async fn welcome(&self, mut request: JoinRequest, key: String, binding: [u8; 32]) -> JoinReply {
        if !self.is_serving() {
            let me = self.group().node();
            return match self.leader() {
                Some((id, member)) if id != me => JoinReply::Elsewhere {
                    addr: member.quic,
                    key: member.key,
                },
                _ => JoinReply::NotNow("nobody leads at the moment".to_owned()),
            };
        }
        let _one = self.0.joining.lock().await;
        let numbered = match &request.claim {
            Claim::Token { token, proof } => {
                let redeemed = self.redeem(token, proof, &binding).await;
                redeemed.map(|(proof, node)| (proof, node, Vec::new()))
            }
            Claim::Again => {
                let renumbered = self.renumber(&key).await;
                renumbered.map(|(node, old)| ([0; 32], node, old))
            }
        };
        let (proof, node, old) = match numbered {
            Ok(numbered) => numbered,
            Err(reply) => return reply,
        };
        // The key that the connection proved, whatever the request says.
        request.member.key = key;
        // Members change one at a time: another may be on its way in.
        let mut tries = 0;
        while let Err(e) = self.group().add_learner(node, request.member.clone()).await {
            tries += 1;
            if tries > JOIN_TRIES {
                return match request.claim {
                    Claim::Token { .. } => {
                        JoinReply::Refused(format!("{e}; the token is used up, make another"))
                    }
                    Claim::Again => JoinReply::NotNow(e.to_string()),
                };
            }
            tokio::time::sleep(HAND_OVER_POLL).await;
        }
        for old in &old {
            // Groups take it in the other's place.
            if let Err(e) = self.renumber_replicas(*old, node).await {
                return JoinReply::NotNow(e.to_string());
            }
        }
        // Only now: its key must be a member's at any time, or it could not ask again.
        for old in old {
            if let Err(e) = self.group().remove(old).await {
                return JoinReply::NotNow(format!("node {old} cannot be taken out yet: {e}"));
            }
            tracing::warn!(
                old,
                node,
                "a node lost what it had: it begins again under another number"
            );
        }
        tracing::info!(node, "a node has joined as a learner");
        JoinReply::Welcome {
            site: self.site().unwrap_or_default(),
            node,
            members: self.group().members(),
            proof,
        }
    }

    /// Makes voters of learners that have caught up, if this node leads. Call it a few times a second while there are
    /// learners.
    pub async fn promote_learners(&self) {
        if !self.is_serving() {
            return;
        }
        let voters = self.group().voters();
        let members = self.group().members();
        let full = voters
            .iter()
            .filter(|id| members.get(id).is_some_and(|m| !m.witness));
        if full.count() >= VOTERS_MAX {
            return;
        }
        let learners = self.group().members().into_keys().filter(|n| !voters.contains(n));
        for node in learners.filter(|n| self.group().may_vote(*n)) {
            if self.group().lag(node).is_some_and(|lag| lag <= CAUGHT_UP) {
                match self.group().promote(node).await {
                    Ok(()) => tracing::info!(node, "a learner has caught up: it votes from now on"),
                    Err(error) => tracing::warn!(node, %error, "a learner cannot be made a voter yet"),
                }
            }
        }
    }
}

impl Host for Broker {
    fn site(&self) -> Group {
        self.group().clone()
    }

    fn group(&self, id: GroupId) -> Option<Group> {
        self.group_of(id)
    }

    fn too_low(&self, level: u32) -> Option<String> {
        Broker::too_low(self, level)
    }

    fn admit(
        &self,
        request: JoinRequest,
        key: String,
        binding: [u8; 32],
        level: u32,
    ) -> BoxFuture<'static, JoinReply> {
        let broker = self.clone();
        Box::pin(async move {
            match broker.too_low(level) {
                Some(why) => JoinReply::Refused(why),
                None => broker.welcome(request, key, binding).await,
            }
        })
    }

    fn started(&self, started: &Started, key: &str, from: IpAddr) -> Seen {
        let groups = self.groups();
        self.group().judge(started, key, from, self.starts(), &groups)
    }
}
