//! Which node of which site this is: decided once, by founding a site or by joining one, and kept beside the log.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::sync::mpsc;
use std::time::Duration;
use weir_broker::{JoinReply, Member, NodeId, Peers, Token};
use weir_log::{Log, StateKey, StateKind};

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
}

/// Redirections followed on the way to the leader.
const HOPS_MAX: usize = 4;
/// Joining is tried so often: there may be an election under way.
const TRIES: usize = 20;
const TRY_AGAIN: Duration = Duration::from_millis(500);

fn key() -> StateKey {
    StateKey::new(StateKind::Node, &[])
}

/// The place that was taken earlier.
pub(crate) fn load(log: &Log) -> Result<Option<Place>> {
    let row = log.state_row(&key())?;
    row.map(|r| serde_json::from_slice(&r).context("cannot read which node this is"))
        .transpose()
}

/// Makes a site of this node.
pub(crate) fn found(log: &Log, site: String) -> Result<Place> {
    let place = Place {
        site,
        node: 1,
        keys: Vec::new(),
        founder: true,
    };
    save(log, &place)?;
    Ok(place)
}

/// Joins the site of the node at `addr`.
pub(crate) async fn join(
    log: &Log,
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
                let others = members.into_iter().filter(|(id, _)| *id != node);
                let mut keys: Vec<String> = others.map(|(_, m)| m.key).collect();
                keys.push(key);
                let place = Place {
                    site,
                    node,
                    keys,
                    founder: false,
                };
                save(log, &place)?;
                return Ok(place);
            }
        }
    }
}

/// On the disk before anything else happens: a number is not given twice.
fn save(log: &Log, place: &Place) -> Result<()> {
    let (done, saved) = mpsc::channel();
    log.put_local(key(), serde_json::to_vec(place)?, move |r| drop(done.send(r)))?;
    tokio::task::block_in_place(|| saved.recv())??;
    Ok(())
}

/// The address by which others reach this machine: the interface towards the rest of the world. Sends nothing.
pub(crate) fn own_address() -> Option<std::net::IpAddr> {
    // An address that is kept for documentation (RFC 5737): choosing a route is all that connecting does here.
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|a| a.ip())
}
