//! Who may do what: the one function that every listener's calls pass.

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// Name, as `User:alice`; `User:ANONYMOUS` until a listener can tell.
    pub name: String,
    /// Name that the client gives itself: for quotas and the log, never for rights.
    pub client: String,
}

impl Principal {
    /// Somebody who did not say.
    pub fn anonymous(client: impl Into<String>) -> Self {
        Self {
            name: "User:ANONYMOUS".to_owned(),
            client: client.into(),
        }
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "Kafka's names")]
pub enum Operation {
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
}

/// Of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource<'a> {
    /// A topic by name.
    Topic(&'a str),
    /// A consumer group by name.
    Group(&'a str),
    /// The node itself.
    Cluster,
}

/// Whether `principal` may do `operation` on `resource`. Allows everything until there are ACLs: the listeners are on
/// loopback by default.
pub(crate) fn authorize(_principal: &Principal, _operation: Operation, _resource: Resource<'_>) -> bool {
    true
}
