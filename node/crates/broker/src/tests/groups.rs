//! Replica groups beside the site's.

use super::*;

/// The broker that serves `partition` of `topic`.
async fn at(brokers: &[Broker], topic: &str, partition: u32) -> Broker {
    let serves = |b: &&Broker| {
        let id = b.topic(topic).and_then(|t| t.partition(partition));
        id.is_some_and(|id| b.serves(id))
    };
    until(|| brokers.iter().any(|b| serves(&b))).await;
    brokers.iter().find(serves).unwrap().clone()
}

async fn put(broker: &Broker, topic: &str, partition: u32, batch: Batch) -> Result<u64, ProduceError> {
    let sent = broker
        .produce(&who(), topic, partition, batch, Framing::Merge)
        .await?;
    Ok(sent.await?.base.get())
}

/// Partitions of `broker`'s log that other groups than the site's carry.
fn carried(broker: &Broker) -> Vec<PartitionId> {
    let ends = broker.log().ends().into_iter().map(|(p, _)| p);
    ends.filter(|p| p.group() != GroupId::SITE).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_goes_on_elsewhere_with_its_records_and_producers() {
    let dir = tempfile::tempdir().unwrap();
    let (_hub, brokers) = three(dir.path(), Timing::EDGE).await;
    topic(&brokers[0], "everywhere", &[]).await;
    send(&brokers[0], "everywhere", batch(&["e"], None))
        .await
        .unwrap();
    let who = &who();
    let spread = brokers[0].create_topic_on(who, "spread", 3, Some(2), &[]);
    let made = spread.await.unwrap();
    let groups: std::collections::BTreeSet<_> = made.partitions.iter().map(|p| p.group()).collect();
    assert_eq!(groups.len(), 3, "each node leads one: {made:?}");
    // The first leader yields to the preferred leader.
    until(|| {
        let groups = brokers[0].replica_groups();
        groups
            .iter()
            .all(|g| g.leader.is_some() && g.leader == g.replicas.first().copied())
    })
    .await;
    let mut leaders = Vec::new();
    for partition in 0..3 {
        let leader = at(&brokers, "spread", partition).await;
        for n in 0..5 {
            let batch = numbered(n, &[&format!("{partition}-{n}")]);
            assert_eq!(put(&leader, "spread", partition, batch).await.unwrap(), n as u64);
        }
        // Any node names the leader, with or without a replica of the group.
        for other in brokers
            .iter()
            .filter(|b| b.group().node() != leader.group().node())
        {
            let id = made.partitions[partition as usize];
            until(|| {
                other
                    .leader_of(id.group())
                    .is_some_and(|(n, ..)| n == leader.group().node())
            })
            .await;
            let refused = put(other, "spread", partition, batch(&["x"], None)).await;
            let node = leader.group().node();
            assert!(
                matches!(&refused, Err(ProduceError::Propose(ProposeError::NotLeader { leader: Some(n) })) if *n == node),
                "{refused:?}"
            );
            let there = other.produce_anywhere(who, "spread", partition, batch(&["x"], None), Framing::Merge);
            assert!(there.await.is_ok());
        }
        leaders.push(leader.group().node());
    }
    leaders.sort_unstable();
    assert_eq!(leaders, [1, 2, 3]);
    // A short log makes the copy a snapshot.
    for broker in &brokers {
        for group in broker.groups().into_iter().filter(|g| g.is_serving()) {
            let applied = group.status().applied;
            group.purge(applied).await;
        }
    }
    assert!(!carried(&brokers[2]).is_empty());
    brokers[0].vacate(3).await.unwrap();
    until(|| carried(&brokers[2]).is_empty() && brokers[2].groups().len() == 1).await;
    for partition in 0..3 {
        let leader = at(&brokers, "spread", partition).await;
        // A duplicate is detected: the windows of producers were copied.
        let again = put(&leader, "spread", partition, numbered(4, &["again"])).await;
        assert_eq!(again.unwrap(), 4);
        let next = put(&leader, "spread", partition, numbered(5, &["next"])).await;
        assert_eq!(next.unwrap(), 7, "five of its own and two of others before it");
    }
    // The site's own topic is unchanged on all nodes.
    assert_eq!(read(&brokers[0], "everywhere").await, [(0, "e".to_owned())]);
    brokers[0].delete_topic(who, "spread").await.unwrap();
    until(|| brokers.iter().all(|b| carried(b).is_empty())).await;
    let again = brokers[0]
        .create_topic_on(who, "spread", 1, Some(2), &[])
        .await
        .unwrap();
    assert!(
        !made.partitions.contains(&again.partitions[0]),
        "a number is never used twice"
    );
    let leader = at(&brokers, "spread", 0).await;
    assert_eq!(put(&leader, "spread", 0, batch(&["new"], None)).await.unwrap(), 0);
    brokers.iter().for_each(Broker::close);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_was_begun_is_found_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path()).await;
    broker
        .create_topic_on(&who(), "t", 2, Some(1), &[])
        .await
        .unwrap();
    let refused = broker.create_topic_on(&who(), "u", 1, Some(2), &[]).await;
    assert!(
        matches!(refused, Err(AdminError::Replicas { asked: 2, nodes: 1 })),
        "{refused:?}"
    );
    for partition in 0..2 {
        let leader = at(std::slice::from_ref(&broker), "t", partition).await;
        put(&leader, "t", partition, numbered(0, &["a"])).await.unwrap();
    }
    broker.close();
    drop(broker);
    let broker = open(dir.path()).await;
    for partition in 0..2 {
        let leader = at(std::slice::from_ref(&broker), "t", partition).await;
        assert_eq!(
            put(&leader, "t", partition, numbered(0, &["a"])).await.unwrap(),
            0
        );
        assert_eq!(
            put(&leader, "t", partition, numbered(1, &["b"])).await.unwrap(),
            1
        );
    }
    broker.close();
}

/// Sends a batch to the leader until it is accepted.
async fn insist(brokers: &[Broker], topic: &str, batch: Batch) -> u64 {
    let begun = tokio::time::Instant::now();
    loop {
        for broker in brokers {
            match put(broker, topic, 0, batch.clone()).await {
                Ok(base) => return base,
                Err(e) if e.kind() == ErrorKind::Invalid => panic!("{e}"),
                Err(_) => {}
            }
        }
        assert!(begun.elapsed() < DEADLINE, "it is not taken");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_moves_with_all_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let (_hub, brokers) = three(dir.path(), Timing::EDGE).await;
    let who = &who();
    topic(&brokers[0], "t", &[("retention.ms", "-1")]).await;
    let of = |n: i32| numbered(n, &[&format!("v{n}")]);
    let mut sent = 50;
    for n in 0..sent {
        assert_eq!(send(&brokers[0], "t", of(n)).await.unwrap(), n as u64);
    }
    let expired = GapReason::Expired;
    brokers[0]
        .trim(who, "t", 0, Offset::new(20), expired)
        .await
        .unwrap();
    let commit = Commit {
        topic: "t".to_owned(),
        partition: 0,
        offset: 33,
        leader_epoch: -1,
        metadata: String::new(),
    };
    brokers[0].commit_offsets(who, "g", &[commit]).await.unwrap();
    let mut epoch = -1;
    // To other groups, to fewer nodes, and back to all.
    for replicas in [Some(2), Some(1), None] {
        let before = brokers[0].topic("t").unwrap().partitions[0];
        let leader = at(&brokers, "t", 0).await;
        let base = leader.epoch_base(before) + leader.group_of(before.group()).unwrap().term() as i32;
        assert!(base > epoch, "epochs ascend");
        epoch = base;
        brokers[0].move_topic(who, "t", replicas).await.unwrap();
        for n in sent..sent + 150 {
            assert_eq!(insist(&brokers, "t", of(n)).await, n as u64);
        }
        sent += 150;
        until(|| brokers.iter().all(|b| b.moves().is_empty())).await;
        let there = |b: &Broker| b.topic("t").unwrap().partitions[0];
        until(|| brokers.iter().all(|b| there(b) != before)).await;
        assert_eq!(there(&brokers[0]).group() == GroupId::SITE, replicas.is_none());
        // The old partitions are gone on all nodes.
        until(|| {
            brokers
                .iter()
                .all(|b| b.log().ends().iter().all(|(p, _)| *p != before))
        })
        .await;
        let leader = at(&brokers, "t", 0).await;
        let again = put(&leader, "t", 0, numbered(sent - 1, &["again"])).await;
        assert_eq!(again.unwrap(), sent as u64 - 1, "its producers came with it");
        let want: Vec<(u64, String)> = (20..sent as u64).map(|n| (n, format!("v{n}"))).collect();
        assert_eq!(
            read(&leader, "t")
                .await
                .into_iter()
                .filter(|(at, _)| *at >= 20)
                .collect::<Vec<_>>(),
            want
        );
        assert_eq!(leader.marks("t", 0).unwrap().log_start(), Offset::new(20));
        let committed = brokers[0].committed_offset("g", "t", 0).unwrap();
        assert_eq!(committed.number(), 33);
    }
    brokers[0].delete_topic(who, "t").await.unwrap();
    until(|| brokers.iter().all(|b| b.log().ends().is_empty())).await;
    assert!(brokers[0].committed_offset("g", "t", 0).is_none());
    brokers.iter().for_each(Broker::close);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_to_go_and_starts_again_has_its_part_until_others_do() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, mut brokers) = three(dir.path(), Timing::EDGE).await;
    brokers[0]
        .create_topic_on(&who(), "t", 1, Some(2), &[])
        .await
        .unwrap();
    insist(&brokers, "t", numbered(0, &["a"])).await;
    let replicas = brokers[0].replica_groups()[0].replicas.clone();
    let away = (1..=3).find(|n| !replicas.contains(n)).unwrap();
    // The replacement is unreachable.
    replicas.iter().for_each(|n| hub.cut(*n, away));
    let leader = leader_but(&brokers, away).await;
    let goes = *replicas.iter().find(|n| **n != leader.group().node()).unwrap();
    let vacating = tokio::spawn(async move { leader.vacate(goes).await });
    let index = goes as usize - 1;
    until(|| {
        let groups = brokers[index].replica_groups();
        groups[0].replicas.contains(&away) && !groups[0].replicas.contains(&goes)
    })
    .await;
    vacating.abort();
    let stopped = brokers.remove(index);
    // Closes connections to the node, and with them the last users of its log.
    (1..=3).for_each(|n| hub.cut(n, goes));
    stopped.close();
    hub.remove(goes);
    let log = Arc::downgrade(&stopped.0);
    drop(stopped);
    until(|| log.strong_count() == 0).await;
    hub.heal();
    replicas.iter().for_each(|n| hub.cut(*n, away));
    let (place, clock) = (dir.path().join(goes.to_string()), Arc::new(TestClock::default()));
    brokers.push(open_node(&place, &hub, goes, Timing::EDGE, clock, Options::default()).await);
    // Neither of both can do without the other.
    insist(&brokers, "t", numbered(1, &["b"])).await;
    hub.heal();
    let again = brokers.last().unwrap().clone();
    until(|| carried(&again).is_empty() && again.groups().len() == 1).await;
    insist(&brokers, "t", numbered(2, &["c"])).await;
    brokers.iter().for_each(Broker::close);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_out_of_a_group_when_its_leader_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (_hub, brokers) = three(dir.path(), Timing::EDGE).await;
    let made = brokers[0]
        .create_topic_on(&who(), "t", 3, Some(3), &[])
        .await
        .unwrap();
    // The leader and its members are not reported yet.
    brokers[0].vacate(3).await.unwrap();
    for partition in &made.partitions {
        let leads = |b: &&Broker| b.group_of(partition.group()).is_some_and(|g| g.is_serving());
        until(|| brokers.iter().any(|b| leads(&b))).await;
        let leader = brokers.iter().find(leads).unwrap();
        let voters = leader.group_of(partition.group()).unwrap().voters();
        assert!(!voters.contains(&3), "{voters:?}");
    }
    brokers.iter().for_each(Broker::close);
}

/// Copies records of `from` to the first partition of `to`.
struct Copies(std::sync::mpsc::SyncSender<(HookJob, HookDone)>);

impl Copies {
    fn set(broker: &Broker) {
        let (jobs, queue) = std::sync::mpsc::sync_channel::<(HookJob, HookDone)>(64);
        let this = Arc::downgrade(&broker.0);
        // Ends when the broker is gone, which holds the other end.
        let copying = move || {
            for (job, done) in queue {
                let Some(broker) = this.upgrade().map(Broker) else {
                    return;
                };
                let copied = copy(&broker, &job);
                done(job, copied);
            }
        };
        let thread = std::thread::Builder::new().name("copies".to_owned());
        thread.spawn(copying).unwrap();
        broker.set_hook(Arc::new(Self(jobs)));
    }
}

fn copy(broker: &Broker, job: &HookJob) -> Result<Processed, HookError> {
    let busy = || HookError::Busy {
        pipeline: "copies".to_owned(),
    };
    let to = broker.topic("to").and_then(|t| t.partition(0)).ok_or_else(busy)?;
    broker.make_way(GroupId::SITE, to).map_err(|_| busy())?;
    let mut copied = BatchBuilder::new(Codec::None);
    copied.push_batch(&job.batch.clone().at(Offset::ZERO)).unwrap();
    let output = Output {
        partition: to,
        batch: copied.build(Offset::ZERO, None).unwrap(),
        offset_slots: Vec::new(),
    };
    Ok(Processed {
        outputs: vec![output],
        ..Processed::unchanged(job.batch.clone())
    })
}

impl Hook for Copies {
    fn intercepts(&self, topic: &TopicName) -> bool {
        topic.as_str() == "from"
    }

    fn user_of(&self, _topic: &str) -> Option<String> {
        None
    }

    fn holder_of(&self, _topic: &str) -> Option<String> {
        None
    }

    fn has_room_for(&self, _: &str, _: u32) -> Result<(), String> {
        Ok(())
    }

    fn take_back(
        &self,
        _: String,
        _: u64,
        _: String,
    ) -> futures_util::future::BoxFuture<'static, Result<bool, String>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn prepare(
        &self,
        _modules: Vec<[u8; 32]>,
    ) -> futures_util::future::BoxFuture<'static, Result<bool, String>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    fn submit(&self, job: HookJob, done: HookDone) {
        self.0.send((job, done)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_another_group_arrives_once_and_in_order_wherever_that_moves() {
    let dir = tempfile::tempdir().unwrap();
    let (_hub, brokers) = three(dir.path(), Timing::EDGE).await;
    let who = &who();
    brokers.iter().for_each(Copies::set);
    topic(&brokers[0], "from", &[("retention.ms", "-1")]).await;
    let settings = [("retention.ms".to_owned(), "-1".to_owned())];
    let made = brokers[0].create_topic_on(who, "to", 1, Some(2), &settings);
    made.await.unwrap();
    let drained = async || {
        until(|| {
            let leader = brokers.iter().find(|b| b.is_serving());
            leader.is_some_and(|b| b.outbox().iter().all(|w| w.records == 0))
        })
        .await
    };
    let mut sent = 0;
    let mut send = async |count: i32| {
        for n in sent..sent + count {
            let base = insist(&brokers, "from", numbered(n, &[&format!("v{n}")])).await;
            assert_eq!(base, n as u64);
        }
        sent += count;
    };
    let leader = async || leader_but(&brokers, 0).await;
    send(40).await;
    // To the group in which they wait, and away again, while more come.
    for replicas in [None, Some(1), Some(3)] {
        leader().await.move_topic(who, "to", replicas).await.unwrap();
        send(60).await;
        until(|| brokers.iter().all(|b| b.moves().is_empty())).await;
    }
    let (first, next) = (
        leader().await,
        if leader().await.group().node() == 1 { 2 } else { 1 },
    );
    first.hand_over(next).await.unwrap();
    send(40).await;
    // The destination forgets the sender: nothing is in flight, so nothing is duplicated.
    drained().await;
    let there = at(&brokers, "to", 0).await;
    let id = there.topic("to").unwrap().partitions[0];
    let gone: Vec<_> = there.0.applied.tables().forget_producers(id).collect();
    assert_eq!(gone.len(), 1);
    there.put_in(id.group(), gone).await.unwrap();
    send(20).await;
    drained().await;
    let want: Vec<(u64, String)> = (0..280).map(|n| (n, format!("v{n}"))).collect();
    assert_eq!(read(&at(&brokers, "to", 0).await, "to").await, want);
    // The backlog of a deleted topic is deleted.
    leader().await.delete_topic(who, "to").await.unwrap();
    let from = brokers[0].topic("from").unwrap().partitions[0];
    until(|| {
        let is_tidy = |b: &Broker| {
            let ends = b.log().ends();
            b.0.applied.tables().channels.is_empty() && ends.iter().all(|(p, _)| *p == from)
        };
        brokers.iter().all(is_tidy)
    })
    .await;
    brokers.iter().for_each(Broker::close);
}

/// Flips a byte of the copy of `text` that was written as the `n`th, in the files in which large batches lie.
fn damage(dir: &Path, text: &str, n: usize) {
    let files = std::fs::read_dir(dir.join("values")).unwrap();
    let mut files: Vec<_> = files.map(|f| f.unwrap().path()).collect();
    files.sort();
    let mut copies = Vec::new();
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        let windows = bytes.windows(text.len()).enumerate();
        let found = windows.filter(|(_, window)| *window == text.as_bytes());
        copies.extend(found.map(|(at, _)| (file.clone(), at)));
    }
    let (file, at) = &copies[n];
    let mut bytes = std::fs::read(file).unwrap();
    bytes[*at] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_not_sent_again_over_a_piece_that_is_lost() {
    let who = &who();
    let large = |n: i32| format!("v{n}:{}", "x".repeat(140_000));
    // An attempt before the trim, which happens once per second.
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let broker = open(dir.path()).await;
        Copies::set(&broker);
        topic(&broker, "from", &[("retention.ms", "-1")]).await;
        let settings = [("retention.ms".to_owned(), "-1".to_owned())];
        let made = broker.create_topic_on(who, "to", 1, Some(1), &settings);
        made.await.unwrap();
        for n in 0..3 {
            insist(std::slice::from_ref(&broker), "from", numbered(n, &[&large(n)])).await;
        }
        let id = broker.topic("to").unwrap().partitions[0];
        let stored = |broker: &Broker| broker.log().marks_or_new(id).committed_end().get();
        until(|| stored(&broker) == 3).await;
        let waiting: u64 = broker.outbox().iter().map(|w| w.records).sum();
        broker.close();
        drop(broker);
        // The original, the copy in the channel, and the delivered copy.
        damage(dir.path(), "v0:", 1);
        let broker = open(dir.path()).await;
        Copies::set(&broker);
        for n in 3..5 {
            insist(std::slice::from_ref(&broker), "from", numbered(n, &[&large(n)])).await;
        }
        until(|| stored(&broker) >= 5).await;
        until(|| broker.outbox().iter().all(|w| w.records == 0)).await;
        let read = read(&broker, "to").await;
        let firsts: Vec<_> = read.iter().map(|(at, v)| (*at, v[..2].to_owned())).collect();
        let want: Vec<(u64, String)> = (0..5).map(|n| (n, format!("v{n}"))).collect();
        assert_eq!(firsts, want);
        broker.close();
        if waiting == 3 {
            return;
        }
    }
    panic!("it was always too late");
}
