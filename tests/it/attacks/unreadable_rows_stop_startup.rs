//! A node does not start with a pipeline row that its release cannot read: no record bypasses the pipeline,
//! and the row is not overwritten.

use std::sync::mpsc;
use weir_log::{Entry, Log, Op, Options, StateKey, StateKind};
use weir_tests::{DEADLINE, Node};
use weir_types::GroupId;

#[test]
fn pipeline_row_of_another_release_stops_startup() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path(), &[]).unwrap();
    assert!(node.cli(&["topic", "create", "t"], "").unwrap().status.success());
    node.stop().unwrap();
    let (log, recovered) = Log::open(&dir.path().join("data"), &Options::default()).unwrap();
    let last = recovered.groups[&GroupId::SITE].last;
    let entry = Entry {
        group: GroupId::SITE,
        index: last.index + 1,
        term: last.term,
        lazy: false,
        ops: vec![Op::Put {
            key: StateKey::new(StateKind::Pipeline, b"later"),
            value: br#"{"spec":{"name":"later","source":"t","stages":{"of":"another form"}}}"#
                .as_slice()
                .into(),
        }],
    };
    let (done, flushed) = mpsc::channel();
    log.append(entry, move |result| drop(done.send(result))).unwrap();
    flushed.recv_timeout(DEADLINE).unwrap().unwrap();
    log.close();
    drop(log);
    let Err(refused) = Node::start(dir.path(), &[]) else {
        panic!("it runs without the pipeline")
    };
    let refused = refused.to_string();
    assert!(
        refused.contains("a pipeline is in no form that release") && refused.contains("later"),
        "{refused}"
    );
}
