//! Three processes on three hosts, whose network loses, cuts and comes back while they are also killed,
//! frozen and made to lead. Some rounds in CI; by hand `WEIR_NET_ROUNDS=200`. Skipped, with a line that says
//! so, where namespaces are not permitted or nft is missing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use weir_client::{Client, KnownNodes};
use weir_tests::load::{judged, loaded, more_than};
use weir_tests::netns::Network;
use weir_tests::site::Site;
use weir_tests::{block_on, rounds};

/// Durations of a fault: from less than an election to several.
const LASTS_MS: [u64; 4] = [100, 400, 1_200, 3_000];

/// Faults, in turn; victim and duration follow from the round.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Freeze,
    Cut,
    CutInward,
    CutOutward,
    Loss(u32),
    Transfer,
}

const FAULTS: [Fault; 8] = [
    Fault::Cut,
    Fault::Kill,
    Fault::CutInward,
    Fault::Loss(100),
    Fault::Transfer,
    Fault::CutOutward,
    Fault::Freeze,
    Fault::Loss(300),
];

fn strike(
    fault: Fault,
    site: &mut Site,
    network: &Network,
    victim: usize,
    lasts: Duration,
) -> anyhow::Result<()> {
    let others: Vec<usize> = (1..=3).filter(|n| *n != victim).collect();
    match fault {
        Fault::Kill => {
            site.kill(victim)?;
            std::thread::sleep(lasts);
            return site.start(victim);
        }
        Fault::Freeze => {
            site.node(victim)?.freeze()?;
            std::thread::sleep(lasts);
            return site.node(victim)?.thaw();
        }
        Fault::Cut => {
            network.drop_at(victim, &others, 0)?;
            others
                .iter()
                .try_for_each(|at| network.drop_at(*at, &[victim], 0))?;
        }
        Fault::CutInward => network.drop_at(victim, &others, 0)?,
        Fault::CutOutward => others
            .iter()
            .try_for_each(|at| network.drop_at(*at, &[victim], 0))?,
        Fault::Loss(permille) => (1..=3).try_for_each(|at| network.drop_at(at, &[], permille))?,
        Fault::Transfer => {
            // Refused where another fault has not healed yet; that is as good.
            let _ = site.cli(&["cluster", "transfer", &victim.to_string()]);
        }
    }
    std::thread::sleep(lasts);
    network.heal()
}

#[test]
fn network_faults_lose_no_acknowledged_record() {
    // A thread of its own goes to the network, and is not used for other tests.
    std::thread::spawn(faults_in_turn).join().unwrap();
}

fn faults_in_turn() {
    let Some(network) = Network::make(3).unwrap() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::on(dir.path(), network.hosts()).unwrap();
    let mut load = block_on(async { loaded(&site.client().await.unwrap()).await });
    let rounds = rounds("WEIR_NET_ROUNDS", 8) as usize;
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut longest = Duration::ZERO;
    std::thread::scope(|scope| {
        let (stop, count, seeds, load) = (&stop, &count, site.seeds(), &mut load);
        let running = scope.spawn(move || {
            block_on(async {
                while !stop.load(Ordering::Relaxed) {
                    let client = Client::connect_any(&seeds, &KnownNodes::forgetful(), "load").await;
                    // The load gives up on a batch of unknown outcome, and sends the batch again under its
                    // old number.
                    match client {
                        Ok(client) => load.run(&client, stop, count).await,
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            });
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..rounds {
                let fault = FAULTS[round % FAULTS.len()];
                // The leader every other time.
                let victim = match round % 2 {
                    0 => site.leader().unwrap(),
                    _ => 1 + round % 3,
                };
                let lasts = Duration::from_millis(LASTS_MS[(3 + round * 7 + round / 4) % LASTS_MS.len()]);
                strike(fault, &mut site, &network, victim, lasts).unwrap();
                if round == 0 {
                    // The cut lasted long enough for an election.
                    assert_ne!(site.leader().unwrap(), victim, "the rules drop nothing");
                }
                let healed = Instant::now();
                block_on(more_than(count, count.load(Ordering::Relaxed) + 100));
                longest = longest.max(healed.elapsed());
            }
        }));
        stop.store(true, Ordering::Relaxed);
        running.join().unwrap();
        if let Err(panic) = done {
            eprintln!("{}", site.said());
            std::panic::resume_unwind(panic);
        }
    });
    site.until_in_step().unwrap();
    let wrong = judged(&site, &mut load, &[1, 2, 3]);
    assert!(wrong.is_empty(), "{wrong:?}");
    println!(
        "{rounds} faults, {} records acknowledged; 100 more within {longest:?} of each fault's end",
        load.acknowledged
    );
}
