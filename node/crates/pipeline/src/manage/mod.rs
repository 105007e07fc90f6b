//! Changes and views of a node's pipelines and modules.

pub(crate) mod apply;
pub(crate) mod canary;
pub(crate) mod capacity;
pub(crate) mod check;
pub(crate) mod guard;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod lifecycle;
pub(crate) mod load;
pub(crate) mod migrate;
pub(crate) mod plan;
pub(crate) mod push;
pub(crate) mod registry;
pub(crate) mod revisions;
pub(crate) mod rollback;
pub(crate) mod shadow;
pub(crate) mod tasks;
