//! A node's identity within its site. Decided once, by founding or joining a site, and stored beside the
//! database: a node that lost its database does not mistake itself for a new node.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use weir_broker::{ClusterError, JoinReply, LastStart, Member, NodeId, Peers, Token, Turned};
use weir_log::{Log, OpenError, Recovered};
use weir_types::GroupId;
use weir_types::level::{FIRST_LEVEL, LEVEL, release_of};

/// The stored identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Unique name of the site.
    pub(crate) site: String,
    /// This node's id.
    pub(crate) node: NodeId,
    /// True if this node founded the site.
    pub(crate) founder: bool,
    /// The other members at the last known change. This node admits them until its log tells the members, and
    /// asks them if it has lost its log.
    #[serde(default)]
    pub(crate) others: BTreeMap<NodeId, Member>,
    /// Number of members at the last known change.
    pub(crate) members: usize,
    /// True once the node has received entries of the site's log.
    pub(crate) active: bool,
    /// Number of losses of the log at the time of writing.
    pub(crate) epoch: u32,
    /// True for a witness, which votes but stores no records. Fixed for the life of the site.
    #[serde(default)]
    pub(crate) witness: bool,
    /// True if the node lost acknowledged data: it must not participate any more.
    pub(crate) damaged: bool,
    /// Number of starts of this directory while the site had other members; `None` after a run of a release
    /// that does not count starts.
    #[serde(default)]
    pub(crate) started: Option<u64>,
    /// Numbers of starts of the other members, as far as this node knows.
    #[serde(default)]
    pub(crate) others_started: BTreeMap<NodeId, LastStart>,
    /// Feature level of the site, as last seen: a release below this level must not use the directory.
    #[serde(default = "first_level")]
    pub(crate) level: u32,
}

fn first_level() -> u32 {
    FIRST_LEVEL
}

/// Key of the node's id from level 2 on. A release that knows no levels finds a message under the old key
/// that says why it cannot read the file.
const NUMBER: &str = "number";

impl Place {
    /// Makes the identity of a node without any history.
    fn new(site: String, node: NodeId, witness: bool) -> Self {
        Self {
            site,
            node,
            founder: false,
            others: BTreeMap::new(),
            members: 1,
            active: false,
            epoch: 0,
            witness,
            damaged: false,
            started: Some(0),
            others_started: BTreeMap::new(),
            level: FIRST_LEVEL,
        }
    }

    /// Records the members; returns true if they have changed.
    pub(crate) fn note(&mut self, mut members: BTreeMap<NodeId, Member>) -> bool {
        members.remove(&self.node);
        let is_news = self.members != members.len() + 1 || self.others != members;
        self.members = members.len() + 1;
        self.others = members;
        is_news
    }
}

/// Maximum redirections on the way to the leader.
const HOPS_MAX: usize = 4;
/// Attempts to join: an election may be under way.
const TRIES: usize = 20;
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// The replica group of the site itself.
pub(crate) const GROUP: GroupId = GroupId(0);
/// File in the node's directory.
const FILE: &str = "site.json";
/// Subdirectory for a quarantined log that has lost data.
pub(crate) const ASIDE: &str = "set-aside";

/// Loads the identity, if there is one.
pub(crate) fn load(data: &Path) -> Result<Option<Place>> {
    let path = data.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read `{}`", path.display())),
    };
    let what = || {
        format!(
            "`{}` does not identify the node. Restore the file from a copy, or remove it: a lone node recovers its id from \
             its log; a node of a larger site must join again, with a token and an empty directory",
            path.display()
        )
    };
    let mut stored: Map<String, Value> = serde_json::from_slice(&text).with_context(what)?;
    let level = stored
        .get("level")
        .and_then(Value::as_u64)
        .unwrap_or(FIRST_LEVEL.into());
    if level > u64::from(LEVEL) {
        let needs = stored
            .get("node")
            .and_then(Value::as_str)
            .unwrap_or("a later release");
        bail!(
            "`{}` is at level {level}, and this is {} of level {LEVEL}: {needs}",
            data.display(),
            env!("CARGO_PKG_VERSION")
        );
    }
    if let Some(number) = stored.remove(NUMBER) {
        stored.insert("node".to_owned(), number);
    }
    serde_json::from_value(Value::Object(stored))
        .map(Some)
        .with_context(what)
}

/// Founds a site with this node, or restores the identity from the log of a lone node. `members` come from
/// that log.
///
/// # Errors
/// If the log belonged to a site of several nodes.
pub(crate) fn found(
    data: &Path,
    site: String,
    own_key: &str,
    members: &BTreeMap<NodeId, Member>,
) -> Result<Place> {
    let number = match members.iter().next() {
        None => 1,
        Some((number, only)) if members.len() == 1 && only.key == own_key => *number,
        Some(_) if members.len() == 1 => bail!(
            "`{}` is not there, and the log beside it is of a node with another identity: put `identity.crt` and `identity.key` back \
             from a copy, or that file",
            data.join(FILE).display()
        ),
        Some(_) => bail!(
            "`{}` is not there, and the log beside it is of a node of a site of {}: put the file back from a copy, or set \
             `{}` aside and join again, with a token and an empty directory",
            data.join(FILE).display(),
            members.len(),
            data.display()
        ),
    };
    let place = Place {
        founder: true,
        ..Place::new(site, number, false)
    };
    save(data, &place)?;
    Ok(place)
}

/// Joins the site of the node at `addr`.
pub(crate) async fn join(
    data: &Path,
    peers: &Peers,
    addr: &str,
    token: &str,
    member: &Member,
) -> Result<Place> {
    let token = Token::parse(token).context("that is no token: `weir cluster invite` makes one")?;
    let mut to = addr.to_owned();
    let (mut hops, mut tries) = (0, 0);
    loop {
        let asked = peers
            .join(&to, None, |binding| token.request(member.clone(), binding))
            .await;
        let (reply, binding, _) = asked.with_context(|| format!("cannot join at {to}"))?;
        match reply {
            JoinReply::Elsewhere { addr, .. } if hops < HOPS_MAX => {
                hops += 1;
                to = addr;
            }
            JoinReply::Elsewhere { addr, .. } => {
                bail!("cannot join: redirected from node to node, last to {addr}")
            }
            JoinReply::NotNow(_) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(TRY_AGAIN).await;
            }
            JoinReply::Refused(why) | JoinReply::NotNow(why) => bail!("cannot join at {to}: {why}"),
            JoinReply::Welcome {
                site,
                node,
                members,
                proof,
            } => {
                if !token.is_proved_by(&proof, &binding) {
                    bail!(
                        "the node at {to} does not know the token: the token is from another site, or the connection is intercepted"
                    );
                }
                let mut place = Place::new(site, node, member.witness);
                place.note(members);
                save(data, &place)?;
                return Ok(place);
            }
        }
    }
}

/// Saves the identity durably, before anything else happens: an id is never assigned twice.
pub(crate) fn save(data: &Path, place: &Place) -> Result<()> {
    write(data, place).with_context(|| format!("cannot write `{}`", data.join(FILE).display()))
}

fn write(data: &Path, place: &Place) -> Result<()> {
    let (path, fresh) = (data.join(FILE), data.join("site.json.new"));
    // A leftover of an interrupted start; never followed as a link.
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let mut file = File::create_new(&fresh)?;
    let mut stored = serde_json::to_value(place)?;
    if let (Some(stored), true) = (stored.as_object_mut(), place.level > FIRST_LEVEL) {
        let needs = format!("this directory needs {}", release_of(place.level));
        let number = stored.insert("node".to_owned(), needs.into());
        stored.insert(NUMBER.to_owned(), number.unwrap_or_default());
    }
    file.write_all(&serde_json::to_vec_pretty(&stored)?)?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    Ok(File::open(data)?.sync_all()?)
}

/// Returns the opened log if the node may participate with it: all entries acknowledged to others must be
/// present. Otherwise records the loss, since the log looks complete again at the next start, and returns
/// `None`.
///
/// # Errors
/// If the log does not open and no other node has its content, or the loss cannot be recorded.
pub(crate) fn admit(
    data: &Path,
    place: &mut Place,
    opened: Result<(Log, Recovered), OpenError>,
) -> Result<Option<(Log, Recovered)>> {
    if place.members <= 1 {
        // No other node has the content: continue, and show readers the gap.
        let (log, recovered) = opened?;
        if is_empty(&recovered) && place.active {
            log.close();
            bail!(
                "node {} had a log in `{}`, and there is none: it was removed, or is on a file system that is not mounted. \
                 Put it back; to begin anew without it, remove `{}`",
                place.node,
                data.display(),
                data.join(FILE).display()
            );
        }
        // A start on a full disk must succeed without the write.
        if std::mem::replace(&mut place.epoch, log.epoch()) != log.epoch() {
            save(data, place)?;
        }
        return Ok(Some((log, recovered)));
    }
    let what = match &opened {
        Err(e @ OpenError::Damaged { .. }) => Some(e.to_string()),
        Err(_) => None,
        Ok(_) if place.damaged => Some("detected at an earlier start".to_owned()),
        Ok((_, recovered)) if place.active && recovered.groups.values().all(|g| g.last.index == 0) => {
            Some("its database is gone".to_owned())
        }
        Ok((_, recovered)) if !recovered.damage.is_none() => Some(recovered.damage.to_string()),
        Ok((log, _)) if log.epoch() != place.epoch => Some("detected by a scrub".to_owned()),
        Ok(_) => None,
    };
    let Some(what) = what else {
        return Ok(Some(opened?));
    };
    has_lost(data, place, &what)?;
    if let Ok((log, _)) = opened {
        log.close();
    }
    Ok(None)
}

/// Records that the node must not participate under its present id.
///
/// # Errors
/// If the record cannot be written.
pub(crate) fn has_lost(data: &Path, place: &mut Place, what: &str) -> Result<()> {
    place.damaged = true;
    save(data, place)?;
    tracing::error!(
        node = place.node,
        what,
        "this node lost data that it had acknowledged to its site, and must not vote as if it had not; it asks \
         the other nodes for admission under another id, and copies all records from them"
    );
    Ok(())
}

/// Returns true if no group has an entry.
fn is_empty(recovered: &Recovered) -> bool {
    recovered.groups.values().all(|group| group.last.index == 0)
}

/// Asks the other members to admit this node under a new id, for as long as it takes, and quarantines the old
/// log.
pub(crate) async fn rejoin(data: &Path, peers: &Peers, place: &Place, own: &Member) -> Result<Place> {
    let mut told = String::new();
    let (node, members) = loop {
        match peers.rejoin(&place.others, own).await {
            Ok(joined) => break joined,
            Err(Turned::Away(why)) => bail!(
                "node {} cannot rejoin by itself: {why}. Move `{}` away, and join again with a token",
                place.node,
                data.display()
            ),
            Err(Turned::Back(why)) if why != told => {
                tracing::warn!(why, "not admitted yet; this node goes on asking");
                told = why;
            }
            Err(Turned::Back(_)) => {}
        }
        tokio::time::sleep(TRY_AGAIN).await;
    };
    // Done before the new id is saved: the new id must never use the old log.
    weir_log::set_aside(data, ASIDE)?;
    tracing::info!(
        node,
        was = place.node,
        "admitted again; the old log is in `{ASIDE}` until this node has caught up"
    );
    let mut fresh = Place::new(place.site.clone(), node, place.witness);
    fresh.note(members);
    save(data, &fresh)?;
    Ok(fresh)
}

/// Records losses found in the log of `data` by a command that opened it: afterwards the log looks complete
/// and would not tell.
pub(crate) fn note_damage(data: &Path, recovered: &Recovered) -> Result<()> {
    match load(data)? {
        Some(mut place) if place.members > 1 && !recovered.damage.is_none() => {
            place.damaged = true;
            save(data, &place)
        }
        _ => Ok(()),
    }
}

/// Records losses found by a repair, like [`note_damage`]. A lone node without any remaining log starts over
/// as a new node.
pub(crate) fn note_repair(data: &Path, recovered: &Recovered) -> Result<()> {
    note_damage(data, recovered)?;
    match load(data)? {
        Some(mut place) if place.members <= 1 && is_empty(recovered) => {
            (place.active, place.founder) = (false, true);
            save(data, &place)
        }
        _ => Ok(()),
    }
}

/// Makes the node in `data`, which must not be running, the only member of its site.
pub(crate) async fn make_alone(data: &Path) -> Result<NodeId> {
    let place = load(data)?;
    let mut place = place.with_context(|| format!("`{}` holds no node", data.display()))?;
    if place.witness {
        // Refused without opening the log: it lacks entries that every other node must have.
        bail!("node {} is a witness: it stores no records", place.node);
    }
    let (log, recovered) = Log::open(data, &weir_log::Options::default())?;
    let state = recovered.groups.get(&GROUP).copied().unwrap_or_default();
    let mut made = weir_broker::make_alone(&log, GROUP, state, place.node).await;
    // Applies to each replica group of this node; groups held only by other nodes are lost with them.
    for (group, state) in recovered.groups.iter().filter(|(id, _)| **id != GROUP) {
        if made.is_err() {
            break;
        }
        match weir_broker::make_alone(&log, *group, *state, place.node).await {
            Err(ClusterError::Refused(why)) => hint!("replica group {group}: {why}"),
            done => made = done,
        }
    }
    log.close();
    made?;
    (place.members, place.others, place.damaged) = (1, BTreeMap::new(), false);
    place.epoch = log.epoch();
    save(data, &place)?;
    Ok(place.node)
}

/// Removes the log quarantined by [`rejoin`] once this node has caught up. Returns true if the log is gone.
/// Blocks.
pub(crate) fn forget_aside(data: &Path) -> bool {
    match fs::remove_dir_all(data.join(ASIDE)) {
        Ok(()) => {
            tracing::info!("this node has caught up: `{ASIDE}` is removed");
            true
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(%error, "`{ASIDE}` cannot be removed");
            false
        }
    }
}

/// Returns the address by which others reach this machine: the address of the interface towards the internet.
/// Sends nothing.
pub(crate) fn own_address() -> Option<std::net::IpAddr> {
    // A documentation address (RFC 5737): connecting a UDP socket only selects a route.
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}
