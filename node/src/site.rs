//! Which node of which site this is: decided once, by founding a site or by joining one, and kept beside the database,
//! so that a node that lost that does not take itself for a new one.

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

/// What is kept of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The site's name among sites.
    pub(crate) site: String,
    /// This node's number.
    pub(crate) node: NodeId,
    /// Whether it made the site.
    pub(crate) founder: bool,
    /// Who else was there when that last changed, as far as this one knows: whom it lets in until it knows the members
    /// by its log, and whom it asks when it has lost that.
    #[serde(default)]
    pub(crate) others: BTreeMap<NodeId, Member>,
    /// How many nodes the site had then.
    pub(crate) members: usize,
    /// It has had entries of the site's log.
    pub(crate) active: bool,
    /// How often the log had lost something when this was written.
    pub(crate) epoch: u32,
    /// It votes, and keeps no records; as long as there is a site.
    #[serde(default)]
    pub(crate) witness: bool,
    /// It lost what it had acknowledged: it must not take part any more.
    pub(crate) damaged: bool,
    /// How often this directory was started while there were others to tell; none where a release ran it that does not
    /// count.
    #[serde(default)]
    pub(crate) started: Option<u64>,
    /// How often the others were, as far as this node has heard.
    #[serde(default)]
    pub(crate) others_started: BTreeMap<NodeId, LastStart>,
    /// The level of the site, as last seen: a release below it has no part in this directory.
    #[serde(default = "first_level")]
    pub(crate) level: u32,
}

fn first_level() -> u32 {
    FIRST_LEVEL
}

/// Under which name the node's number stands from the second level on: under the old one it says, to a release that knows no
/// levels, why it cannot be read.
const NUMBER: &str = "number";

impl Place {
    /// Of a node that has had no part in anything yet.
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

    /// Notes who the members are; whether that is news.
    pub(crate) fn note(&mut self, mut members: BTreeMap<NodeId, Member>) -> bool {
        members.remove(&self.node);
        let is_news = self.members != members.len() + 1 || self.others != members;
        self.members = members.len() + 1;
        self.others = members;
        is_news
    }
}

/// Redirections followed on the way to the leader.
const HOPS_MAX: usize = 4;
/// Joining is tried so often: there may be an election under way.
const TRIES: usize = 20;
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// The one replica group of a site.
pub(crate) const GROUP: GroupId = GroupId(0);
/// Its file in the node's directory.
const FILE: &str = "site.json";
/// Where a log goes that lost something, beside it.
pub(crate) const ASIDE: &str = "set-aside";

/// The place that was taken earlier.
pub(crate) fn load(data: &Path) -> Result<Option<Place>> {
    let path = data.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read `{}`", path.display())),
    };
    let what = || {
        format!(
            "`{}` does not say which node this is. Put it back from a copy; or remove it: a node that is alone finds out by \
             its log, and one of a site must then join again, with a token and an empty directory",
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

/// Makes a site of this node, or one again of a log of a node that was alone. `members` are those that its log tells of.
///
/// # Errors
/// When it was one of several nodes.
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
            JoinReply::Elsewhere { addr, .. } => bail!("cannot join: sent from node to node, last to {addr}"),
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
                        "the node at {to} does not know the token: somebody stands between, or it is another site's"
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

/// On the disk before anything else happens: a number is not given twice.
pub(crate) fn save(data: &Path, place: &Place) -> Result<()> {
    write(data, place).with_context(|| format!("cannot write `{}`", data.join(FILE).display()))
}

fn write(data: &Path, place: &Place) -> Result<()> {
    let (path, fresh) = (data.join(FILE), data.join("site.json.new"));
    // What an earlier start was stopped at; never through a link.
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

/// The log that `opened` found, if the node may take part with it: what it acknowledged to others must be there. If it
/// is not, that is noted, since the log itself is whole again at the next start, and there is none.
///
/// # Errors
/// When it does not open, and nobody else has what is in it; or the note cannot be written.
pub(crate) fn admit(
    data: &Path,
    place: &mut Place,
    opened: Result<(Log, Recovered), OpenError>,
) -> Result<Option<(Log, Recovered)>> {
    if place.members <= 1 {
        // Nobody else has it: it goes on, and readers are shown the gap.
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
        // On a full disk it must start without.
        if std::mem::replace(&mut place.epoch, log.epoch()) != log.epoch() {
            save(data, place)?;
        }
        return Ok(Some((log, recovered)));
    }
    let what = match &opened {
        Err(e @ OpenError::Damaged { .. }) => Some(e.to_string()),
        Err(_) => None,
        Ok(_) if place.damaged => Some("found at an earlier start".to_owned()),
        Ok((_, recovered)) if place.active && recovered.groups.values().all(|g| g.last.index == 0) => {
            Some("its database is gone".to_owned())
        }
        Ok((_, recovered)) if !recovered.damage.is_none() => Some(recovered.damage.to_string()),
        Ok((log, _)) if log.epoch() != place.epoch => Some("found when it was looked through".to_owned()),
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

/// Notes that the node of `place` must not take part as the one that it was.
///
/// # Errors
/// When that cannot be written.
pub(crate) fn has_lost(data: &Path, place: &mut Place, what: &str) -> Result<()> {
    place.damaged = true;
    save(data, place)?;
    tracing::error!(
        node = place.node,
        what,
        "this node lost what it had acknowledged to the others of its site, and must not vote as if it had not; it asks \
         them to be let in under another number, and gets all records from them"
    );
    Ok(())
}

/// Whether no group has an entry.
fn is_empty(recovered: &Recovered) -> bool {
    recovered.groups.values().all(|group| group.last.index == 0)
}

/// Has the others of the site let this node in as another, for as long as it takes, and sets its log aside.
pub(crate) async fn rejoin(data: &Path, peers: &Peers, place: &Place, own: &Member) -> Result<Place> {
    let mut told = String::new();
    let (node, members) = loop {
        match peers.rejoin(&place.others, own).await {
            Ok(joined) => break joined,
            Err(Turned::Away(why)) => bail!(
                "node {} cannot come back by itself: {why}. Set `{}` aside, and join again with a token",
                place.node,
                data.display()
            ),
            Err(Turned::Back(why)) if why != told => {
                tracing::warn!(why, "not let in yet; this node goes on asking");
                told = why;
            }
            Err(Turned::Back(_)) => {}
        }
        tokio::time::sleep(TRY_AGAIN).await;
    };
    // Before it is the new one: with the old log it must not be.
    weir_log::set_aside(data, ASIDE)?;
    tracing::info!(
        node,
        was = place.node,
        "let in again; what is left of the log is in `{ASIDE}` until all is there"
    );
    let mut fresh = Place::new(place.site.clone(), node, place.witness);
    fresh.note(members);
    save(data, &fresh)?;
    Ok(fresh)
}

/// Notes what was found missing in the log of `data` by a command that opened it: it is whole again from then on, and
/// would not tell.
pub(crate) fn note_damage(data: &Path, recovered: &Recovered) -> Result<()> {
    match load(data)? {
        Some(mut place) if place.members > 1 && !recovered.damage.is_none() => {
            place.damaged = true;
            save(data, &place)
        }
        _ => Ok(()),
    }
}

/// Notes what a repair found in `data`: as [`note_damage`], and of a node that is alone, and of whose log nothing is left, that it begins
/// as it did at first.
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

/// Makes the node of `data`, which does not run, the only one of its site.
pub(crate) async fn make_alone(data: &Path) -> Result<NodeId> {
    let place = load(data)?;
    let mut place = place.with_context(|| format!("`{}` holds no node", data.display()))?;
    if place.witness {
        // Not even opened: its log lacks what any other must have.
        bail!(
            "node {} is a witness: it has no records to go on with",
            place.node
        );
    }
    let (log, recovered) = Log::open(data, &weir_log::Options::default())?;
    let state = recovered.groups.get(&GROUP).copied().unwrap_or_default();
    let mut made = weir_broker::make_alone(&log, GROUP, state, place.node).await;
    // And of each replica group that it has a part in: one that only others had is lost with them.
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

/// Removes what [`rejoin`] set aside, once this node has all that the others have. Whether it is gone. Blocks.
pub(crate) fn forget_aside(data: &Path) -> bool {
    match fs::remove_dir_all(data.join(ASIDE)) {
        Ok(()) => {
            tracing::info!("this node has all again: `{ASIDE}` is removed");
            true
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(%error, "`{ASIDE}` cannot be removed");
            false
        }
    }
}

/// The address by which others reach this machine: the interface towards the rest of the world. Sends nothing.
pub(crate) fn own_address() -> Option<std::net::IpAddr> {
    // An address that is kept for documentation (RFC 5737): choosing a route is all that connecting does here.
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}
