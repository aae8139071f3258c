//! The verdict on real servers: a sound run passes, and one in which orders are dropped, doubled, delayed or stay
//! open fails for that reason. Needs the servers that `make test` brings up.

use std::time::Duration;

use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use schemas::Topic;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use stack::Stack;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::judge::{Verdict, judge};
use super::measure::{Measured, Plan, Site};
use super::profile::{Budget, Requests, Step};
use super::start;
use super::vegeta::Vegeta;
use crate::pipeline::{Pipeline, STOP_PATIENCE, Setup};
use crate::process::Process;
use crate::signals::Signals;

const SETUP: Setup = Setup {
    partitions: 4,
    replication: 1,
    skus: 100,
    quantity: 1_000_000,
    scarce: 10,
    scarce_quantity: 0,
};

struct World {
    site: Site,
    programs: [Process; 2],
    folder: TempDir,
}

impl World {
    async fn new(name: &str, stages: &[&str]) -> Self {
        const HOW: &str = "these tests need servers: run `make test`, or bring some up with \
                           `export ORDER_STACK_STATE_DIR=/tmp/test-stack; order-stack up --ports free`";
        let stack =
            Stack::attach(std::env::var_os("ORDER_STACK_STATE_DIR").expect(HOW)).expect(HOW);
        let folder = TempDir::new().unwrap();
        let pipeline = Pipeline::separate(&stack, name, folder.path()).await.unwrap();
        pipeline.set_up(SETUP).await.unwrap();
        let (site, programs) = start(pipeline, Vec::new(), stages).await.unwrap();
        Self { site, programs, folder }
    }

    /// Five seconds of everything that customers do.
    async fn run(&self, change: impl FnOnce(&mut Budget)) -> (Measured, Verdict) {
        let requests =
            Requests { skus: SETUP.skus, cancels: 0.05, reads: 0.1, ..Requests::default() };
        // What is slow on a busy machine is no matter here.
        let mut budget = Budget {
            rejected_ratio: 0.0,
            sent_ratio: 0.9,
            accepted_p99_seconds: None,
            client_p99_seconds: 30.0,
            final_p99_seconds: 30.0,
            late_after_seconds: 60.0,
            late_ratio: 1.0,
            drain_seconds: 60.0,
            drain_patience_seconds: 60,
            lag_seconds: None,
            memory_mib: None,
            alerts: Vec::new(),
        };
        change(&mut budget);
        let plan = Plan {
            run: uuid::Uuid::new_v4().simple().to_string(),
            steps: vec![Step { rate: 30, seconds: 3 }, Step { rate: 60, seconds: 2 }],
            traffic: requests.traffic(1),
            budget,
            folder: self.folder.path().to_owned(),
        };
        let vegeta = Vegeta::installed(stack::Interrupt::default()).unwrap();
        let signals = Signals::listen().unwrap();
        let measured = self.site.measure(&vegeta, &plan, &signals).await.unwrap();
        let verdict = judge(&measured.observed, &plan.budget);
        (measured, verdict)
    }

    async fn execute(&self, statements: &'static str) {
        let url = std::fs::read_to_string(self.folder.path().join("database-url")).unwrap();
        let options: PgConnectOptions = url.parse().unwrap();
        let mut db = PgConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(statements).execute(&mut db).await.unwrap();
    }

    async fn stop(self) {
        for mut program in self.programs {
            program.stop(STOP_PATIENCE).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_run_passes_and_every_witness_agrees() {
    let world = World::new("load-sound", &[]).await;

    let (measured, verdict) = world.run(|_| ()).await;

    let seen = &measured.observed;
    assert!(verdict.pass, "{verdict:#?} {seen:#?}");
    assert!((200..=215).contains(&seen.offered) && seen.sent + 4 >= seen.offered, "{seen:#?}");
    assert!(seen.orders_sent < seen.sent && seen.accepted == seen.orders_sent, "{seen:#?}");
    assert_eq!((seen.completed_orders(), seen.audit.placed), (seen.accepted, seen.accepted));
    assert!(seen.completed.len() > 1 && seen.others.len() > 1, "{seen:#?}");
    assert!(seen.counters.len() == 3 && seen.to_final.is_some() && !seen.lag.is_empty());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_the_pipeline_drops_are_lost() {
    let world = World::new("load-dropped", &[]).await;
    // One order in sixteen has no row, and nobody complains.
    world
        .execute(
            "create function drop_some() returns trigger language plpgsql as $$
             begin
                 if right(new.order_id::text, 1) = '7' then return null; end if;
                 return new;
             end $$;
             create trigger drop_some before insert on orders for each row execute function drop_some()",
        )
        .await;

    let (measured, verdict) = world.run(|budget| budget.drain_patience_seconds = 3).await;

    let seen = &measured.observed;
    assert!(!verdict.pass && seen.missing > 0 && seen.lost() >= seen.missing, "{seen:#?}");
    let lost = format!("lost: {} accepted orders are in no table", seen.missing);
    assert!(verdict.reasons.iter().any(|reason| reason.starts_with(&lost)), "{verdict:#?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_the_pipeline_pays_twice_are_duplicated() {
    let world = World::new("load-doubled", &[]).await;
    let doubled = double_payments(&world.site.pipeline);

    let (measured, verdict) = world.run(|_| ()).await;

    doubled.abort();
    let seen = &measured.observed;
    assert!(!verdict.pass && seen.duplicated() > 0 && seen.lost() == 0, "{seen:#?}");
    let reason = "duplicated: the auditor saw";
    assert!(verdict.reasons.iter().any(|found| found.starts_with(reason)), "{verdict:#?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_the_pipeline_delays_break_the_budget() {
    let world = World::new("load-delayed", &[]).await;
    world
        .execute(
            "create function delay() returns trigger language plpgsql as $$
             begin perform pg_sleep(0.5); return null; end $$;
             create trigger delay before insert on payments for each statement execute function delay()",
        )
        .await;

    let (measured, verdict) = world.run(|budget| budget.final_p99_seconds = 0.4).await;

    let seen = &measured.observed;
    assert_eq!((seen.lost(), seen.duplicated(), seen.open), (0, 0, 0), "{seen:#?}");
    let [reason] = &verdict.reasons[..] else { panic!("{verdict:#?}") };
    assert!(reason.starts_with("accepted to final p99 is"), "{reason}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_never_ends_fails_and_loses_nothing() {
    let world = World::new("load-stuck", &["inventory", "shipping", "order"]).await;

    let (measured, verdict) = world.run(|budget| budget.drain_patience_seconds = 3).await;

    let seen = &measured.observed;
    assert!(!verdict.pass && seen.open > 0, "{seen:#?}");
    assert_eq!((seen.lost(), seen.duplicated(), seen.drain.ended), (0, 0, false), "{seen:#?}");
    let reason = "the drain did not end";
    assert!(verdict.reasons.iter().any(|found| found.starts_with(reason)), "{verdict:#?}");
    world.stop().await;
}

/// Tells every payment a second time, as another event.
fn double_payments(pipeline: &Pipeline) -> JoinHandle<()> {
    const AGAIN: &str = "x-again";
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", pipeline.brokers()).set("group.id", "unused");
    let consumer: StreamConsumer = config.create().unwrap();
    let producer: FutureProducer = config.create().unwrap();
    let topic = pipeline.prefix().topic(Topic::Payments);
    let mut partitions = TopicPartitionList::new();
    for partition in 0..SETUP.partitions {
        partitions
            .add_partition_offset(&topic, i32::try_from(partition).unwrap(), Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&partitions).unwrap();
    tokio::spawn(async move {
        loop {
            let record = consumer.recv().await.unwrap();
            let headers = record.headers().unwrap();
            if headers.iter().any(|header| header.key == AGAIN) {
                continue;
            }
            let id = uuid::Uuid::new_v4().to_string();
            let mut other = OwnedHeaders::new().insert(Header { key: AGAIN, value: Some("yes") });
            for Header { key, value } in headers.iter() {
                let value = if key == "ce_id" { Some(id.as_bytes()) } else { value };
                other = other.insert(Header { key, value });
            }
            let again = FutureRecord::to(&topic)
                .partition(record.partition())
                .key(record.key().unwrap())
                .payload(record.payload().unwrap())
                .headers(other);
            producer.send(again, Duration::from_secs(10)).await.unwrap();
        }
    })
}
