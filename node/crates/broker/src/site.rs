//! The nodes of a site: letting one in by a token, making it a voter, handing over, letting one go.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::core::Broker;
use crate::error::AdminError;
use crate::groups::CAUGHT_UP;
use crate::state::rows::site::{LAST_NODE, SITE, TOKEN, TokenRow, site_key, token_key};
use crate::state::tables::Tables;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::sync::PoisonError;
use std::time::Duration;
use weir_log::{Op, StateKind, encode};
use weir_replica::{
    Claim, Group, Host, JoinReply, JoinRequest, Member, MemberStatus, NodeId, Role, Seen, Started, Starts,
};
use weir_types::GroupId;
use weir_types::limits::VOTERS_MAX;

/// A leader that hands over waits so long for the other to lead: a few elections.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);

/// How often it looks.
const HAND_OVER_POLL: Duration = Duration::from_millis(50);

/// Who was heard of in this time is there: several heartbeats.
const SUCCESSOR_HEARD_MS: u64 = 1_000;

/// A change of members takes a few round trips: some seconds of them are waited for.
const JOIN_TRIES: u32 = 100;

/// Tokens that are out at once.
const TOKENS_MAX: usize = 100;

/// Lets one node in, once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 16]);

impl Token {
    /// One of these random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Reads what [`Token`]'s `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().strip_prefix("weir-")?;
        let mut bytes = [0; 16];
        if digits.len() != 32 || !digits.is_ascii() {
            return None;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    pub(crate) fn key(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// A request to join with it, on a connection with `binding`.
    pub fn request(&self, member: Member, binding: &[u8; 32]) -> JoinRequest {
        let key = self.key();
        let claim = Claim::Token {
            token: Sha256::digest(key).into(),
            proof: proof(&key, b"join", binding),
        };
        JoinRequest { claim, member }
    }

    /// Whether `proof` shows that the other side of the connection knows it too.
    pub fn is_proved_by(&self, given: &[u8; 32], binding: &[u8; 32]) -> bool {
        same(&proof(&self.key(), b"welcome", binding), given)
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("weir-")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

fn proof(key: &[u8; 32], what: &[u8], binding: &[u8; 32]) -> [u8; 32] {
    // A key of any length is taken.
    Hmac::<Sha256>::new_from_slice(key).map_or([0; 32], |mac| {
        mac.chain_update(what)
            .chain_update(binding)
            .finalize()
            .into_bytes()
            .into()
    })
}

/// Looks at all bytes, so that the time it takes tells nothing.
pub(crate) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

impl Broker {
    /// The site's name among sites, which every node of it answers with; `None` before the first entry.
    pub fn site(&self) -> Option<String> {
        let tables = self.0.applied.tables();
        let row = tables.others.get(&(StateKind::Site as u8, SITE.to_vec()))?;
        String::from_utf8(row.clone()).ok()
    }

    /// Names the site, if it has no name yet.
    ///
    /// # Errors
    /// When it is not committed.
    pub async fn name_site(&self, name: String) -> Result<(), AdminError> {
        self.change(move |tables, _| {
            let named = tables
                .others
                .contains_key(&(StateKind::Site as u8, SITE.to_vec()));
            Ok((!named)
                .then(|| Op::Put {
                    key: site_key(SITE),
                    value: name.into(),
                })
                .into_iter()
                .collect())
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
        let place = token_key(&Sha256::digest(key).into());
        self.change(move |tables, _| {
            let mut ops = Vec::new();
            let mut out = 0;
            for ((_, rest), value) in tables.others.range((StateKind::Site as u8, TOKEN.to_vec())..) {
                if !rest.starts_with(TOKEN) {
                    break;
                }
                match postcard::from_bytes::<TokenRow>(value) {
                    Ok(row) if row.expires_ms > now => out += 1,
                    _ => ops.push(Op::Remove { key: site_key(rest) }),
                }
            }
            if out >= TOKENS_MAX {
                return Err(AdminError::Limit {
                    what: "tokens that are out",
                    limit: TOKENS_MAX as u64,
                });
            }
            ops.push(Op::Put {
                key: site_key(&place),
                value: encode(&row),
            });
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
        let place = token_key(token);
        let unknown = || {
            let why = "the token is not known here: it was used, has expired, or is another site's";
            JoinReply::Refused(why.to_owned())
        };
        let row = {
            let tables = self.0.applied.tables();
            tables
                .others
                .get(&(StateKind::Site as u8, place.clone()))
                .cloned()
        };
        let row = row.and_then(|r| postcard::from_bytes::<TokenRow>(&r).ok());
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
            let row = (StateKind::Site as u8, place.clone());
            if !tables.others.contains_key(&row) {
                return Err(AdminError::Denied);
            }
            let key = site_key(&place);
            Ok(vec![Op::Remove { key }])
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
            let last = tables.others.get(&(StateKind::Site as u8, LAST_NODE.to_vec()));
            let last = last
                .and_then(|v| v.first_chunk::<8>())
                .map(|b| u64::from_be_bytes(*b));
            let node = last.unwrap_or(first).max(first) + 1;
            let _ = sent.send(node);
            ops.push(Op::Put {
                key: site_key(LAST_NODE),
                value: Bytes::copy_from_slice(&node.to_be_bytes()),
            });
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

    /// Hands leadership to `to`; returns once it leads.
    ///
    /// # Errors
    /// When this node does not lead, `to` is no voter, or does not take over in time.
    pub async fn hand_over(&self, to: NodeId) -> Result<(), weir_replica::GroupError> {
        if self.group().node() == to && self.is_serving() {
            return Ok(());
        }
        self.group().transfer(to).await?;
        let done = async {
            while self.leader().map(|(id, _)| id) != Some(to) {
                tokio::time::sleep(HAND_OVER_POLL).await;
            }
        };
        tokio::time::timeout(HAND_OVER_WITHIN, done).await.map_err(|_| {
            weir_replica::GroupError::Refused(format!("node {to} did not take over within 10 s"))
        })
    }

    /// Hands over what this node leads while its disk takes no records: another may have room. A node alone keeps it, and refuses.
    /// Whether there was something to hand over.
    pub async fn make_way_if_full(&self) -> bool {
        let Err(full) = self.log().room_for(0, false) else {
            return false;
        };
        let mut has_led = false;
        for group in self.groups().iter().filter(|group| group.is_serving()) {
            let Some(to) = successor_in(group) else { continue };
            has_led = true;
            tracing::warn!(group = group.id().0, to, reason = %full, "another node is to lead");
            if let Err(error) = group.transfer(to).await {
                tracing::warn!(group = group.id().0, to, %error, "it cannot lead");
            }
        }
        has_led
    }

    /// The voter of the site, other than this node, that was heard of lately and lacks least.
    pub fn successor(&self) -> Option<NodeId> {
        successor_in(self.group())
    }

    /// Whether a node of the site is reached at this address, as far as [`Broker::nodes_are_at`] was told.
    pub fn has_node_at(&self, address: SocketAddr) -> bool {
        let addresses = self
            .0
            .node_addresses
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        addresses.contains(&canonical(address))
    }

    /// The addresses at which the nodes of the site say they are reached.
    pub fn nodes_are_at(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let found = addresses.into_iter().map(canonical).collect();
        *self
            .0
            .node_addresses
            .write()
            .unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// The same, whether it was said as IPv4 or as that within IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The voter of a group, other than this node, that was heard of lately, lacks least, and can lead.
fn successor_in(group: &Group) -> Option<NodeId> {
    let (status, members) = (group.status(), group.members());
    let is_witness = |m: &MemberStatus| members.get(&m.id).is_some_and(|member| member.witness);
    let others = status
        .members
        .iter()
        .filter(|m| m.role == Role::Voter && !is_witness(m));
    let silent = |m: &MemberStatus| m.heard_ms_ago.is_none_or(|ms| ms > SUCCESSOR_HEARD_MS);
    let best = others.min_by_key(|m| (silent(m), m.lag.unwrap_or(u64::MAX)));
    best.map(|m| m.id)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written_and_nothing_else_is() {
        let token = Token::new(*b"0123456789abcdef");
        assert!(Token::parse(&token.to_string()).is_some_and(|t| t == token));
        for bad in [
            "",
            "weir-",
            "weir-00",
            "30313233",
            &format!("{token}0"),
            "weir-zz313233343536373839616263646566",
        ] {
            assert!(Token::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_proof_holds_for_one_connection_and_one_direction() {
        let token = Token::new([7; 16]);
        let request = token.request(Member::default(), &[1; 32]);
        let Claim::Token { proof: proved, .. } = request.claim else {
            panic!("it claims by the token")
        };
        assert_eq!(proved, proof(&token.key(), b"join", &[1; 32]));
        assert!(!token.is_proved_by(&proved, &[1; 32]));
        let answer = proof(&token.key(), b"welcome", &[1; 32]);
        assert!(token.is_proved_by(&answer, &[1; 32]) && !token.is_proved_by(&answer, &[2; 32]));
    }
}
