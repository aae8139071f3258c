//! The verdict on real servers: a sound run passes, and one in which orders are dropped or stay open fails for that
//! reason. Needs the servers that `make test` brings up.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use stack::Stack;
use tempfile::TempDir;

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
    async fn run(&self, drain_patience_seconds: u32) -> (Measured, Verdict) {
        let requests =
            Requests { skus: SETUP.skus, cancels: 0.05, reads: 0.1, ..Requests::default() };
        // What is slow on a busy machine is no matter here.
        let budget = Budget {
            rejected_ratio: 0.0,
            client_p99_seconds: 30.0,
            final_p99_seconds: 30.0,
            late_after_seconds: 60.0,
            late_ratio: 1.0,
            drain_seconds: 60.0,
            drain_patience_seconds,
            lag_seconds: None,
            memory_mib: None,
        };
        let plan = Plan {
            run: uuid::Uuid::new_v4().simple().to_string(),
            steps: vec![Step { rate: 30, seconds: 3 }, Step { rate: 60, seconds: 2 }],
            traffic: requests.traffic(1),
            budget,
            folder: self.folder.path().to_owned(),
        };
        let vegeta = Vegeta::installed(|_| ()).unwrap();
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

    let (measured, verdict) = world.run(60).await;

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
    // One customer in ten has no row, and nobody complains.
    world
        .execute(
            "create function drop_some() returns trigger language plpgsql as $$
             begin
                 if new.customer_id like '%7' then return null; end if;
                 return new;
             end $$;
             create trigger drop_some before insert on orders for each row execute function drop_some()",
        )
        .await;

    let (measured, verdict) = world.run(3).await;

    let seen = &measured.observed;
    assert!(!verdict.pass && seen.missing > 0 && seen.lost() >= seen.missing, "{seen:#?}");
    let lost = format!("lost: {} accepted orders are in no table", seen.missing);
    assert!(verdict.reasons.iter().any(|reason| reason.starts_with(&lost)), "{verdict:#?}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_never_ends_fails_and_loses_nothing() {
    let world = World::new("load-stuck", &["inventory", "shipping", "order"]).await;

    let (measured, verdict) = world.run(3).await;

    let seen = &measured.observed;
    assert!(!verdict.pass && seen.open > 0, "{seen:#?}");
    assert_eq!((seen.lost(), seen.duplicated(), seen.drain.ended), (0, 0, false), "{seen:#?}");
    let reason = "the drain did not end";
    assert!(verdict.reasons.iter().any(|found| found.starts_with(reason)), "{verdict:#?}");
    world.stop().await;
}
