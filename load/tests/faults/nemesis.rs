//! Faults at random, from a seed that is printed: NEMESIS_SEED repeats a run, NEMESIS_SECONDS makes it longer. Every fault
//! is undone; at the end everything is healed, and all that was accepted must come to its end before a deadline.

use std::time::{Duration, Instant};

use load::eventually::eventually;
use load::orders::Run;
use load::process::{Process, Signal};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};

use crate::servers_of_its_own::Servers;
use crate::world::{SETUP, World, hasty, mixed_orders, ready};

const DEFAULT_SECONDS: u64 = 120;
const PATIENCE: Duration = Duration::from_secs(120);

/// Members of every stage.
const MEMBERS: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillMember(usize),
    FreezeMember(usize),
    StopMember(usize),
    KillProducer,
    KillBroker,
    KillDatabase,
    Nothing,
}

#[tokio::test]
async fn whatever_breaks_in_whatever_order_every_accepted_order_comes_to_its_end() {
    let seed = from_environment("NEMESIS_SEED").unwrap_or_else(|| rand::rng().next_u64());
    let length =
        Duration::from_secs(from_environment("NEMESIS_SECONDS").unwrap_or(DEFAULT_SECONDS));
    eprintln!("NEMESIS_SEED={seed}");
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let servers = Servers::up(1).await;
    let world = World::on(servers.stack(), "nemesis", SETUP).await;
    let mut members = Vec::new();
    for number in 0..MEMBERS {
        members.push(
            world.pipeline.start_stages(&format!("member-{number}"), &[], hasty).await.unwrap(),
        );
    }
    let mut producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let client = producer.client.clone();

    let until = Instant::now() + length;
    let placing = async {
        let mut placed = 0_u64;
        while Instant::now() < until {
            let run =
                Run { concurrency: 8, cancel_every: 10, patience: PATIENCE, ..Run::default() };
            placed += client
                .place_all(mixed_orders(250, seed ^ placed), &run, |_| ())
                .await
                .unwrap()
                .len() as u64;
        }
        placed
    };
    let breaking = async {
        while Instant::now() < until {
            let fault = random_fault(&mut random);
            eprintln!(
                "{:>5.1} s left: {fault:?}",
                until.saturating_duration_since(Instant::now()).as_secs_f64()
            );
            match fault {
                Fault::KillMember(number) => {
                    members[number].kill().await.unwrap();
                    members[number].start_again(|_| ()).unwrap();
                }
                Fault::FreezeMember(number) => {
                    freeze(&mut members[number], random.random_range(500..6_000)).await
                }
                Fault::StopMember(number) => {
                    members[number].signal(Signal::TERM).unwrap();
                    members[number].ended(PATIENCE).await.unwrap();
                    members[number].start_again(|_| ()).unwrap();
                }
                Fault::KillProducer => {
                    producer.process.kill().await.unwrap();
                    producer.process.start_again(|_| ()).unwrap();
                }
                Fault::KillBroker => {
                    servers.kill("kafka").await;
                    servers.restart("kafka").await;
                }
                Fault::KillDatabase => {
                    servers.kill("postgres").await;
                    servers.restart("postgres").await;
                }
                Fault::Nothing => {}
            }
            // The fault's own length, drawn from the seed; nothing is expected to have happened by then.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..5_000))).await;
        }
    };
    let (placed, ()) = tokio::join!(placing, breaking);

    for member in &mut members {
        ready(member).await;
    }
    world.expect_reconciled(placed).await;
    let mut tables = world.pipeline.tables().await.unwrap();
    let left = "select count(*) from pg_stat_activity where state like 'idle in transaction%'";
    eventually(PATIENCE, "no transaction is left open", async || {
        let open = tables.number(left).await?;
        anyhow::ensure!(open == 0, "{open} are");
        Ok(())
    })
    .await
    .unwrap();
    eprintln!("{placed} orders");
}

fn random_fault(random: &mut Xoshiro256PlusPlus) -> Fault {
    let member = random.random_range(0..MEMBERS);
    match random.random_range(0..10) {
        0 | 1 => Fault::KillMember(member),
        2 | 3 => Fault::FreezeMember(member),
        4 => Fault::StopMember(member),
        5 => Fault::KillProducer,
        6 => Fault::KillBroker,
        7 => Fault::KillDatabase,
        _ => Fault::Nothing,
    }
}

/// Longer or shorter than its session.
async fn freeze(process: &mut Process, milliseconds: u64) {
    process.signal(Signal::STOP).unwrap();
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    process.signal(Signal::CONT).unwrap();
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}
