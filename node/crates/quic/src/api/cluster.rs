//! The nodes of the site: invite, hand over, rebalance, remove.

use crate::answer::Answer;
use crate::error::Refused;
use std::time::Duration;
use weir_admin::Services;
use weir_broker::{Principal, Token};
use weir_peer::protocol::Reply;

/// Longest life of a token: a week, in seconds.
const TOKEN_VALID_S_MAX: u64 = 7 * 24 * 3_600;

/// Makes a token let a node join.
pub(crate) async fn invite(
    node: &Services,
    who: &Principal,
    token: [u8; 16],
    valid_s: u64,
) -> Result<Answer, Refused> {
    node.broker.may_change_site(who)?;
    let valid = Duration::from_secs(valid_s.min(TOKEN_VALID_S_MAX));
    node.broker.invite(&Token::new(token), valid).await?;
    Ok(Reply::Done.into())
}

/// Starts the moves that balance replicas and leaders.
pub(crate) async fn rebalance(node: &Services, who: &Principal) -> Result<Answer, Refused> {
    node.broker.may_change_site(who)?;
    Answer::json(&node.rebalance().await?)
}

/// Removes a node from the site.
pub(crate) async fn remove_node(node: &Services, who: &Principal, number: u64) -> Result<Answer, Refused> {
    node.broker.may_change_site(who)?;
    node.remove_node(number).await?;
    Ok(Reply::Done.into())
}

/// Hands leadership over to node `to`.
pub(crate) async fn transfer(node: &Services, who: &Principal, to: u64) -> Result<Answer, Refused> {
    node.broker.may_change_site(who)?;
    node.broker.hand_over(to).await?;
    Ok(Reply::Done.into())
}
