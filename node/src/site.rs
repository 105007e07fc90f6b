//! Which node of which site this is: decided once, by founding a site or by joining one, and kept beside the database,
//! so that a node that lost that does not take itself for a new one.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use weir_broker::{JoinReply, Member, NodeId, Peers, Token};
use weir_log::{Log, Recovered};

/// What is kept of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The site's name among sites.
    pub(crate) site: String,
    /// This node's number.
    pub(crate) node: NodeId,
    /// Keys of those who were there when it joined: let in until it knows the members itself.
    pub(crate) keys: Vec<String>,
    /// Whether it made the site.
    pub(crate) founder: bool,
    /// How many nodes the site had when that last changed, as far as this one knows.
    pub(crate) members: usize,
    /// It has had entries of the site's log.
    pub(crate) active: bool,
    /// How often the log had lost something when this was written.
    pub(crate) epoch: u32,
    /// It lost what it had acknowledged: it must not take part any more.
    pub(crate) damaged: bool,
}

/// Redirections followed on the way to the leader.
const HOPS_MAX: usize = 4;
/// Joining is tried so often: there may be an election under way.
const TRIES: usize = 20;
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Its file in the node's directory.
const FILE: &str = "site.json";

/// The place that was taken earlier.
pub(crate) fn load(data: &Path) -> Result<Option<Place>> {
    let path = data.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot read `{}`", path.display())),
    };
    let place = serde_json::from_slice(&text);
    place
        .map(Some)
        .with_context(|| format!("`{}` does not say which node this is", path.display()))
}

/// Makes a site of this node.
pub(crate) fn found(data: &Path, site: String) -> Result<Place> {
    let place = Place {
        site,
        node: 1,
        keys: Vec::new(),
        founder: true,
        members: 1,
        active: false,
        epoch: 0,
        damaged: false,
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
            .join(&to, |binding| token.request(member.clone(), binding))
            .await;
        let (reply, binding, key) = asked.with_context(|| format!("cannot join at {to}"))?;
        match reply {
            JoinReply::Elsewhere(leader) if hops < HOPS_MAX => {
                hops += 1;
                to = leader;
            }
            JoinReply::Elsewhere(leader) => bail!("cannot join: sent from node to node, last to {leader}"),
            JoinReply::Refused(why) if tries < TRIES && why.contains("try again") => {
                tries += 1;
                tokio::time::sleep(TRY_AGAIN).await;
            }
            JoinReply::Refused(why) => bail!("cannot join at {to}: {why}"),
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
                let count = members.len();
                let others = members.into_iter().filter(|(id, _)| *id != node);
                let mut keys: Vec<String> = others.map(|(_, m)| m.key).collect();
                keys.push(key);
                let place = Place {
                    site,
                    node,
                    keys,
                    founder: false,
                    members: count.max(2),
                    active: false,
                    epoch: 0,
                    damaged: false,
                };
                save(data, &place)?;
                return Ok(place);
            }
        }
    }
}

/// On the disk before anything else happens: a number is not given twice.
pub(crate) fn save(data: &Path, place: &Place) -> Result<()> {
    let (path, fresh) = (data.join(FILE), data.join("site.json.new"));
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec_pretty(place)?)?;
    file.sync_all()?;
    fs::rename(&fresh, &path)?;
    Ok(File::open(data)?.sync_all()?)
}

/// Whether the node may take part, by what its log was found to have: what it acknowledged to others must be there.
/// What is found missing is noted, since the log itself is whole again at the next start.
///
/// # Errors
/// When it must not.
pub(crate) fn admit(data: &Path, place: &mut Place, log: &Log, recovered: &Recovered) -> Result<()> {
    let gone = place.active && recovered.groups.values().all(|g| g.last.index == 0);
    let lost = !recovered.damage.is_none() || log.epoch() != place.epoch;
    if place.members <= 1 {
        // Nobody else has it: it goes on, and readers are shown the gap.
        place.epoch = log.epoch();
        return save(data, place);
    }
    if gone || lost {
        place.damaged = true;
        save(data, place)?;
    }
    if place.damaged {
        let what = match (gone, recovered.damage.is_none()) {
            (true, _) => "its database is gone".to_owned(),
            (false, true) => "found at an earlier start".to_owned(),
            (false, false) => recovered.damage.to_string(),
        };
        bail!(
            "node {node} lost what it had acknowledged to the others of its site ({what}), and must not vote as if it had \
             not. The others have it: take this node out with `weir cluster remove {node}`, set `{dir}` aside, and join \
             again with a token",
            node = place.node,
            dir = data.display()
        );
    }
    Ok(())
}

/// The address by which others reach this machine: the interface towards the rest of the world. Sends nothing.
pub(crate) fn own_address() -> Option<std::net::IpAddr> {
    // An address that is kept for documentation (RFC 5737): choosing a route is all that connecting does here.
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}
