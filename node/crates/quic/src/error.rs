//! Refusals: the only place where errors of the broker become errors of the wire.

use std::error::Error;
use weir_admin::{RemoveNodeError, Services};
use weir_broker::{AdminError, ClusterError, FetchError, GroupError, ProduceError};
use weir_peer::protocol::{Reply, WireError};
use weir_pipeline::{ApplyError, PushError, SpecError};
use weir_types::{BatchError, ErrorKind, GroupId};

/// A request that is refused, with the error that its client is told.
pub(crate) struct Refused(pub(crate) WireError);

impl Refused {
    /// Returns a refusal with a message of its own.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(WireError {
            kind: kind.into(),
            message: message.into(),
        })
    }

    /// Returns the refusal of a request about the consumer group `name`.
    pub(crate) fn of_group(name: &str, error: &GroupError) -> Self {
        let kind = match error {
            GroupError::Unavailable | GroupError::NotCoordinator => ErrorKind::Retry,
            _ => ErrorKind::Invalid,
        };
        let message = match error {
            GroupError::NotFound => format!("there is no group `{name}`"),
            GroupError::NotEmpty => format!("group `{name}` has members: stop them first"),
            error => format!("group `{name}`: {error}"),
        };
        Self::new(kind, message)
    }
}

/// Errors that know their kind.
macro_rules! refused_by_kind {
    ($($error:ty),+) => {$(
        impl From<$error> for Refused {
            fn from(error: $error) -> Self {
                Self(wire(error.kind(), &error))
            }
        }
    )+};
}

refused_by_kind!(
    AdminError,
    ApplyError,
    FetchError,
    ProduceError,
    PushError,
    RemoveNodeError,
    ClusterError
);

impl From<BatchError> for Refused {
    fn from(error: BatchError) -> Self {
        ProduceError::from(error).into()
    }
}

impl From<SpecError> for Refused {
    fn from(error: SpecError) -> Self {
        Self(wire(ErrorKind::Invalid, &error))
    }
}

impl From<serde_json::Error> for Refused {
    fn from(error: serde_json::Error) -> Self {
        Self(wire(ErrorKind::Internal, &error))
    }
}

/// Returns an error with all its causes, in words.
pub(crate) fn wire(kind: ErrorKind, error: &dyn Error) -> WireError {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let text = e.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = e.source();
    }
    WireError {
        kind: kind.into(),
        message,
    }
}

/// Returns an error, or the address of the leader when the only trouble is that this node does not lead.
pub(crate) fn refusal(node: &Services, group: GroupId, error: WireError) -> Reply {
    if ErrorKind::from(error.kind) != ErrorKind::Retry || leads(node, group) {
        return Reply::Error(error);
    }
    elsewhere(node, group)
}

/// Returns the address of a group's leader; no address while a partition moves from here to another group.
pub(crate) fn elsewhere(node: &Services, group: GroupId) -> Reply {
    let me = node.broker.group().node();
    let leader = node.broker.leader_of(group).filter(|(id, ..)| *id != me);
    Reply::Elsewhere(leader.map(|(.., member)| member.quic))
}

/// Tells whether this node leads a group.
pub(crate) fn leads(node: &Services, group: GroupId) -> bool {
    node.broker
        .group_of(group)
        .is_some_and(|group| group.is_serving())
}
