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
    /// Returns the name of the site; `None` before the first entry.
    pub fn site(&self) -> Option<String> {
        let tables = self.0.applied.tables();
        tables.other::<SiteName>(&()).map(|name| name.0)
    }

    /// Names the site, unless it has a name.
    ///
    /// # Errors
    /// When the name is not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the name may or may not be committed.
    pub async fn name_site(&self, name: String) -> Result<(), AdminError> {
        self.change(move |tables, _| {
            let is_named = tables.other::<SiteName>(&()).is_some();
            Ok((!is_named).then(|| SiteName(name).put(&())).into_iter().collect())
        })
        .await
    }

    /// Checks the permission to change the members or the leader of the site.
    ///
    /// # Errors
    /// [`AdminError::Denied`] without permission.
    pub fn may_change_site(&self, who: &Principal) -> Result<(), AdminError> {
        if authorize(who, Operation::Alter, Resource::Cluster) {
            Ok(())
        } else {
            Err(AdminError::Denied)
        }
    }

    /// Makes `token` valid for a single join within `valid`.
    ///
    /// # Errors
    /// When too many tokens are valid, or the token is not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the token may or may not become valid.
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

    /// Uses up a token. Returns a proof that this node knows the token, and the new node's id.
    async fn redeem(
        &self,
        token: &[u8; 32],
        proved: &[u8; 32],
        binding: &[u8; 32],
    ) -> Result<([u8; 32], NodeId), JoinReply> {
        let hash = *token;
        let unknown = || {
            let why = "unknown token: it was used, has expired, or belongs to another site";
            JoinReply::Refused(why.to_owned())
        };
        let row = self.0.applied.tables().other::<TokenRow>(&hash);
        let row = row.ok_or_else(unknown)?;
        if !same(&proof(&row.key, b"join", binding), proved) {
            return Err(unknown());
        }
        if row.expires_ms <= self.now_ms() {
            let why = "the token has expired: create another with `weir cluster invite`";
            return Err(JoinReply::Refused(why.to_owned()));
        }
        let numbered = self.number(move |tables| {
            // Checked again in order: two nodes may present the same token.
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

    /// Assigns a new node id, in an entry with the effects of `with`.
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

    /// Assigns a new id to a member that lost its log, since the member must not vote under the old id.
    /// Returns the new id and the old ids.
    pub(crate) async fn renumber(&self, key: &str) -> Result<(NodeId, Vec<NodeId>), JoinReply> {
        let members = self.group().members().into_iter();
        let old: Vec<NodeId> = members.filter(|(_, m)| m.key == key).map(|(id, _)| id).collect();
        if old.is_empty() {
            let why = "the key belongs to no member any more: join with a token";
            return Err(JoinReply::Refused(why.to_owned()));
        }
        let numbered = self.number(|_| Ok(Vec::new())).await;
        let node = numbered.map_err(|e| JoinReply::NotNow(e.to_string()))?;
        Ok((node, old))
    }

    /// Returns the starts of other nodes that were reported to this node.
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
        // Only the key of the connection is proven.
        request.member.key = key;
        // Members change in sequence, and another change may be in progress.
        let mut tries = 0;
        while let Err(e) = self.group().add_learner(node, request.member.clone()).await {
            tries += 1;
            if tries > JOIN_TRIES {
                return match request.claim {
                    Claim::Token { .. } => {
                        JoinReply::Refused(format!("{e}; the token is used up, create another"))
                    }
                    Claim::Again => JoinReply::NotNow(e.to_string()),
                };
            }
            tokio::time::sleep(HAND_OVER_POLL).await;
        }
        for old in &old {
            // Groups replace the old id.
            if let Err(e) = self.renumber_replicas(*old, node).await {
                return JoinReply::NotNow(e.to_string());
            }
        }
        // Last, since the key must belong to a member at any time: otherwise the node could not retry.
        for old in old {
            if let Err(e) = self.group().remove(old).await {
                return JoinReply::NotNow(format!("node {old} cannot be removed yet: {e}"));
            }
            tracing::warn!(old, node, "a node lost its log: it rejoins under a new id");
        }
        tracing::info!(node, "a node has joined as a learner");
        JoinReply::Welcome {
            site: self.site().unwrap_or_default(),
            node,
            members: self.group().members(),
            proof,
        }
    }

    /// Promotes learners that have caught up to voters, if this node leads. Call a few times per second while
    /// there are learners.
    ///
    /// # Cancel safety
    /// Cancel safe: a promotion in progress may still succeed, and the next call continues.
    pub fn promote_learners(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
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
                        Ok(()) => tracing::info!(node, "a learner has caught up, and is a voter now"),
                        Err(error) => tracing::warn!(node, %error, "cannot promote a learner yet"),
                    }
                }
            }
        })
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
