//! Several processes of one stage: each tells of the partitions it owns and of no others, so that their sum is the truth.
//!
//! While partitions move nobody owns them for a moment, and nobody tells of them; never do two. Who looks from outside
//! sees all of them all along, which is why rules take the greater of the two per partition before they add up.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use load::eventually::eventually;
use load::pipeline::STOP_PATIENCE;
use load::process::Process;

use super::watched::{PATIENCE, exporter};
use crate::page::Page;
use crate::world::{SETUP, World, hasty, plain_orders, run};

const ORDERS: f64 = 200.0;

/// The session of a killed member (2 s), and a rebalance on a busy machine.
const LONGEST_GAP: Duration = Duration::from_secs(6);

/// Pages that were not asked for at one moment say nothing together.
const ONE_MOMENT: Duration = Duration::from_millis(200);

/// Records behind, by topic and partition.
type Lag = BTreeMap<(String, String), f64>;

/// What was seen while replicas came and went.
#[derive(Debug, Default)]
struct Seen {
    moments: u32,
    incomplete: u32,
    gap_since: Option<Instant>,
    longest_gap: Duration,
}

/// A stage whose backlog stands still, because the gateway it asks never answers.
struct Standstill {
    world: World,
    exporter: Process,
    group: String,
    arguments: Vec<String>,
    _gateway: TcpListener,
}

impl Standstill {
    async fn new() -> Self {
        let world = World::new("replicas", SETUP).await;
        let gateway = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", gateway.local_addr().unwrap());
        let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
        producer
            .client
            .place_all(plain_orders(ORDERS as usize, 18), &run(0), |_| ())
            .await
            .unwrap();
        let mut inventory = world.stages(&["inventory"]).await;
        eventually(PATIENCE, "stock is reserved", async || {
            let reserved = [("operation", "reserve")];
            let reserved = inventory.metric("inventory_updates_total", &reserved).await?;
            anyhow::ensure!(reserved == Some(ORDERS), "{reserved:?} reserved");
            Ok(())
        })
        .await
        .unwrap();
        inventory.stop(STOP_PATIENCE).await.unwrap();
        Self {
            exporter: exporter(&world, "lag-exporter").await,
            group: world.pipeline.prefix().group("payment"),
            arguments: vec!["--payment-gateway-url".to_owned(), url],
            world,
            _gateway: gateway,
        }
    }

    /// One more, which joins while others are looked at.
    fn replica(&self, name: &str) -> Process {
        let change = |spec| hasty(spec).arguments(self.arguments.iter().map(String::as_str));
        self.world.pipeline.launch_stages(name, &["payment"], change).unwrap()
    }

    async fn told(&self, process: &Process) -> anyhow::Result<Lag> {
        let page = Page::of(process.admin()).await?;
        let of = [("consumergroup", self.group.as_str())];
        let told = page.find("kafka_consumergroup_lag", &of);
        let place = |name: &str, number: &str| (name.to_owned(), number.to_owned());
        Ok(told.iter().map(|s| (place(s.label("topic"), s.label("partition")), s.value)).collect())
    }

    /// Looks at all replicas and the exporter at once, until the replicas together tell everything, `shared` of them a part.
    async fn follow(&self, replicas: &[&Process], shared: usize, seen: &mut Seen) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let begun = Instant::now();
            let asked = futures::future::join_all(replicas.iter().map(|one| self.told(one)));
            let (told, outside) = tokio::join!(asked, self.told(&self.exporter));
            // Who is dead or not there yet tells nothing.
            let told: Vec<Lag> = told.into_iter().flatten().collect();
            let shares = told.iter().filter(|lag| !lag.is_empty()).count();
            if begun.elapsed() < ONE_MOMENT
                && self.look(&told, &outside.unwrap(), seen)
                && shares == shared
            {
                return;
            }
            assert!(Instant::now() < deadline, "seen last: {told:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether the replicas tell everything.
    fn look(&self, told: &[Lag], outside: &Lag, seen: &mut Seen) -> bool {
        let mut together = Lag::new();
        for (place, lag) in told.iter().flatten() {
            let twice = together.insert(place.clone(), *lag);
            assert_eq!(twice, None, "two tell of {place:?}: {told:?}");
        }
        // Whose last look is too old tells nothing, which is no lie.
        if outside.is_empty() {
            return false;
        }
        assert_eq!(outside.values().sum::<f64>(), ORDERS, "from outside: {outside:?}");
        for (place, lag) in &together {
            assert_eq!(
                Some(lag),
                outside.get(place),
                "{place:?}: {told:?}, and outside {outside:?}"
            );
        }
        seen.moments += 1;
        let complete = together.values().sum::<f64>() == ORDERS;
        if complete {
            let gap = seen.gap_since.take().map_or(Duration::ZERO, |since| since.elapsed());
            seen.longest_gap = seen.longest_gap.max(gap);
        } else {
            seen.incomplete += 1;
            seen.gap_since.get_or_insert_with(Instant::now);
        }
        complete
    }
}

#[tokio::test]
async fn replicas_together_tell_the_truth_and_never_twice() {
    let world = Standstill::new().await;
    let first = world.replica("first");
    world.follow(&[&first], 1, &mut Seen::default()).await;
    let mut seen = Seen::default();

    let (mut second, mut third) = (world.replica("second"), world.replica("third"));
    world.follow(&[&first, &second, &third], 3, &mut seen).await;
    second.stop(STOP_PATIENCE).await.unwrap();
    world.follow(&[&first, &third], 2, &mut seen).await;
    third.kill().await.unwrap();
    world.follow(&[&first], 1, &mut seen).await;

    println!("{seen:?}");
    assert!(seen.longest_gap < LONGEST_GAP, "{seen:?}");
}
