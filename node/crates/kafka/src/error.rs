//! Kafka's error codes, and the only mapping of Weir's errors to them
//! (<https://kafka.apache.org/protocol#protocol_error_codes>).

use crate::wire::{Reader, Wire, WireError, Writer};
use weir_broker::{AdminError, FetchError, GroupError, ProduceError, ProposeError, Refusal};
use weir_types::{BatchError, ErrorKind};

/// An error code on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) i16);

macro_rules! codes {
    ($($name:ident = $code:literal),* $(,)?) => {
        #[expect(non_upper_case_globals, reason = "they read like the variants that they are")]
        #[allow(dead_code, reason = "the table is kept whole where it is used in part")]
        impl Code {
            $(pub(crate) const $name: Self = Self($code);)*

            /// Returns the name of a code of this table.
            pub(crate) fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)*
                    _ => Option::None,
                }
            }
        }
    };
}
codes! {
    None = 0,
    Unknown = -1,
    OffsetOutOfRange = 1,
    CorruptMessage = 2,
    UnknownTopicOrPartition = 3,
    LeaderNotAvailable = 5,
    NotLeaderOrFollower = 6,
    RequestTimedOut = 7,
    MessageTooLarge = 10,
    OffsetMetadataTooLarge = 12,
    CoordinatorNotAvailable = 15,
    InvalidTopic = 17,
    NotCoordinator = 16,
    NotEnoughReplicas = 19,
    InvalidRequiredAcks = 21,
    IllegalGeneration = 22,
    InconsistentGroupProtocol = 23,
    InvalidGroupId = 24,
    UnknownMemberId = 25,
    InvalidSessionTimeout = 26,
    RebalanceInProgress = 27,
    InvalidCommitOffsetSize = 28,
    TopicAuthorizationFailed = 29,
    GroupAuthorizationFailed = 30,
    ClusterAuthorizationFailed = 31,
    InvalidTimestamp = 32,
    IllegalSaslState = 34,
    UnsupportedVersion = 35,
    TopicAlreadyExists = 36,
    InvalidPartitions = 37,
    InvalidReplicationFactor = 38,
    InvalidReplicaAssignment = 39,
    NotController = 41,
    InvalidConfig = 40,
    InvalidRequest = 42,
    UnsupportedForMessageFormat = 43,
    PolicyViolation = 44,
    OutOfOrderSequence = 45,
    InvalidProducerEpoch = 47,
    TransactionalIdAuthorizationFailed = 53,
    SecurityDisabled = 54,
    KafkaStorageError = 56,
    UnknownProducerId = 59,
    NonEmptyGroup = 68,
    GroupIdNotFound = 69,
    FetchSessionIdNotFound = 70,
    FencedLeaderEpoch = 74,
    UnknownLeaderEpoch = 75,
    UnsupportedCompressionType = 76,
    MemberIdRequired = 79,
    GroupMaxSizeReached = 81,
    FencedInstanceId = 82,
    ElectionNotNeeded = 84,
    GroupSubscribedToTopic = 86,
    InvalidRecord = 87,
    UnknownTopicId = 100,
}

impl Wire for Code {
    fn read(reader: &mut Reader, version: i16) -> Result<Self, WireError> {
        i16::read(reader, version).map(Self)
    }
    fn write(&self, writer: &mut Writer, version: i16) {
        self.0.write(writer, version);
    }
    #[cfg(test)]
    fn sample(dice: &mut crate::wire::Dice, version: i16) -> Self {
        Self(i16::sample(dice, version))
    }
}

/// Maps an error without an exact code in Kafka by the reaction it calls for.
fn by_kind(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Retry => Code::RequestTimedOut,
        ErrorKind::Fenced | ErrorKind::Closed => Code::NotLeaderOrFollower,
        ErrorKind::Invalid => Code::InvalidRequest,
        ErrorKind::Corrupt => Code::CorruptMessage,
        // "Timed out" is the only answer that Kafka clients read as "may have been stored".
        ErrorKind::UnknownOutcome => Code::RequestTimedOut,
        ErrorKind::Internal => Code::KafkaStorageError,
    }
}

impl From<&ProduceError> for Code {
    fn from(e: &ProduceError) -> Self {
        match e {
            ProduceError::NoTopic(_) | ProduceError::NoPartition { .. } => Self::UnknownTopicOrPartition,
            ProduceError::Denied(_) => Self::TopicAuthorizationFailed,
            ProduceError::Batch(e) => e.into(),
            ProduceError::TooLarge { .. } | ProduceError::MadeTooLarge { .. } => Self::MessageTooLarge,
            ProduceError::Keyless { .. } => Self::InvalidRecord,
            ProduceError::BeyondFirstRelease => Self::PolicyViolation,
            ProduceError::Dated { .. } => Self::InvalidTimestamp,
            ProduceError::FewCopies { .. } => Self::NotEnoughReplicas,
            ProduceError::OutOfOrder { .. } => Self::OutOfOrderSequence,
            ProduceError::ProducerFenced { .. } => Self::InvalidProducerEpoch,
            ProduceError::UnknownProducer(_) => Self::UnknownProducerId,
            ProduceError::OthersProducer(_) | ProduceError::UsedUp(_) => Self::RequestTimedOut,
            // Nothing was stored, but will be once the pipeline resumes. Every client retries at this code
            // until its delivery timeout.
            ProduceError::Halted { .. } => Self::NotEnoughReplicas,
            ProduceError::PipelineBusy { .. } | ProduceError::Overtaken => Self::RequestTimedOut,
            ProduceError::Propose(ProposeError::NotLeader { .. }) => Self::NotLeaderOrFollower,
            ProduceError::Propose(ProposeError::TooLarge { .. }) => Self::MessageTooLarge,
            ProduceError::Propose(e) => by_kind(e.kind()),
            ProduceError::There(_, kind) => by_kind(*kind),
            ProduceError::Closed => Self::NotLeaderOrFollower,
        }
    }
}

impl From<&BatchError> for Code {
    fn from(e: &BatchError) -> Self {
        match e {
            BatchError::TooLarge { .. } | BatchError::Bomb { .. } => Self::MessageTooLarge,
            BatchError::Magic(_) => Self::UnsupportedForMessageFormat,
            BatchError::Codec(_) => Self::UnsupportedCompressionType,
            BatchError::Short { .. } | BatchError::Checksum { .. } => Self::CorruptMessage,
            _ => Self::InvalidRecord,
        }
    }
}

impl From<&FetchError> for Code {
    fn from(e: &FetchError) -> Self {
        match e {
            FetchError::NoTopic(_) | FetchError::NoPartition { .. } => Self::UnknownTopicOrPartition,
            FetchError::Denied(_) => Self::TopicAuthorizationFailed,
            FetchError::OutOfRange { .. } => Self::OffsetOutOfRange,
            FetchError::NotLeader(_) => Self::NotLeaderOrFollower,
            FetchError::Read(e) => match e.kind() {
                ErrorKind::Corrupt | ErrorKind::Internal => Self::KafkaStorageError,
                // The partition was deleted during the read.
                ErrorKind::Invalid => Self::UnknownTopicOrPartition,
                kind => by_kind(kind),
            },
            FetchError::UsedUp(_) | FetchError::There(_) => by_kind(e.kind()),
        }
    }
}

impl From<&AdminError> for Code {
    fn from(e: &AdminError) -> Self {
        match e {
            AdminError::Name(_) => Self::InvalidTopic,
            AdminError::Exists(_) => Self::TopicAlreadyExists,
            AdminError::InUse { .. } | AdminError::NoRoom { .. } | AdminError::Limit { .. } => {
                Self::PolicyViolation
            }
            AdminError::NoTopic(_) | AdminError::NoPartition { .. } => Self::UnknownTopicOrPartition,
            AdminError::Partitions { .. } => Self::InvalidPartitions,
            AdminError::Replicas { .. } => Self::InvalidReplicationFactor,
            AdminError::Moving { .. } => by_kind(e.kind()),
            AdminError::Config(_) | AdminError::Copies { .. } => Self::InvalidConfig,
            AdminError::GroupName(_) => Self::InvalidGroupId,
            AdminError::OffsetBeyondEnd { .. } => Self::OffsetOutOfRange,
            AdminError::Denied => Self::ClusterAuthorizationFailed,
            AdminError::Refused(_) | AdminError::Changed | AdminError::KeptByKey(_) => Self::PolicyViolation,
            AdminError::There { refusal, .. } => match refusal {
                Refusal::Name => Self::InvalidTopic,
                Refusal::Exists => Self::TopicAlreadyExists,
                Refusal::NoTopic => Self::UnknownTopicOrPartition,
                Refusal::Partitions => Self::InvalidPartitions,
                Refusal::Replicas => Self::InvalidReplicationFactor,
                Refusal::Setting => Self::InvalidConfig,
                Refusal::Denied => Self::ClusterAuthorizationFailed,
                Refusal::Rule => Self::PolicyViolation,
                Refusal::Retry | Refusal::Unknown => by_kind(refusal.kind()),
            },
            // Only the leader changes topics.
            AdminError::Propose(ProposeError::NotLeader { .. }) => Self::NotController,
            AdminError::Propose(ProposeError::TooLarge { .. }) => Self::PolicyViolation,
            AdminError::Propose(e) => by_kind(e.kind()),
            AdminError::Closed => Self::NotLeaderOrFollower,
        }
    }
}

impl From<&GroupError> for Code {
    fn from(e: &GroupError) -> Self {
        match e {
            GroupError::InvalidName => Self::InvalidGroupId,
            GroupError::InvalidSession => Self::InvalidSessionTimeout,
            GroupError::InconsistentProtocol => Self::InconsistentGroupProtocol,
            GroupError::UnknownMember => Self::UnknownMemberId,
            GroupError::MemberIdRequired(_) => Self::MemberIdRequired,
            GroupError::FencedInstance => Self::FencedInstanceId,
            GroupError::IllegalGeneration => Self::IllegalGeneration,
            GroupError::RebalanceInProgress => Self::RebalanceInProgress,
            GroupError::Full => Self::GroupMaxSizeReached,
            GroupError::NotEmpty => Self::NonEmptyGroup,
            GroupError::NotFound => Self::GroupIdNotFound,
            GroupError::Subscribed => Self::GroupSubscribedToTopic,
            GroupError::Denied => Self::GroupAuthorizationFailed,
            GroupError::Unavailable => Self::CoordinatorNotAvailable,
            GroupError::NotCoordinator => Self::NotCoordinator,
        }
    }
}

/// Returns the code of a result; 0 for success.
pub(crate) fn code<'a, T, E>(result: &'a Result<T, E>) -> Code
where
    Code: From<&'a E>,
{
    result.as_ref().err().map_or(Code::None, Code::from)
}
