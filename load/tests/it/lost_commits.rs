//! Commits that go through and whose answers do not: the batch is done, and everything about it is told and counted as of
//! any other.

use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use consumers::stages::CATALOGUE;
use load::eventually::eventually;
use load::records::Records;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::page::Page;
use crate::truth::Truth;
use crate::world::{SETUP, World, hasty, mixed_orders, run};

/// Of every so many commits the answer to one is lost.
const LOST_EVERY: u64 = 3;

/// Small beside the run, so that every stage has many.
const BATCH: [&str; 2] = ["--batch-records", "16"];

/// Of counters to follow the commit that they count.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between stages and Postgres: what is asked arrives, and with the answer to some commits the connection is cut.
#[derive(Default)]
struct Network {
    commits: AtomicU64,
    lost: AtomicU64,
}

impl Network {
    /// Serves on a port that it returns.
    async fn to(self: Arc<Self>, server: (String, u16)) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect((server.0.as_str(), server.1)).await.unwrap();
                let network = self.clone();
                tokio::spawn(async move { network.carry(client, server).await });
            }
        });
        port
    }

    async fn carry(&self, client: TcpStream, server: TcpStream) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let losing = AtomicBool::new(false);
        let forth = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                // The text of a simple query ends with a zero, and nothing is sent after it before its answer.
                if buffer[..read].ends_with(b"commit\0") {
                    let commit = self.commits.fetch_add(1, Ordering::Relaxed);
                    losing.store(commit.is_multiple_of(LOST_EVERY), Ordering::Relaxed);
                }
                if to_server.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        };
        let back = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                if losing.load(Ordering::Relaxed) {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = forth => {}
            () = back => {}
        }
    }
}

#[tokio::test]
async fn a_batch_whose_commit_nobody_heard_of_counts_as_any_other() {
    let world = World::new("lostcommits", SETUP).await;
    let pipeline = &world.pipeline;
    let network = Arc::new(Network::default());
    let database = pipeline.database();
    let server = (database.get_host().to_owned(), database.get_port());
    let url_file = behind(&world, network.clone().to(server).await);
    let through = |spec| hasty(spec).arguments(BATCH).with("DATABASE_URL_FILE", url_file.clone());
    let stages = pipeline.start_stages("all", &[], through).await.unwrap();
    let producer = pipeline.start_producer(|spec| spec).await.unwrap();

    producer.client.place_all(mixed_orders(300, 11), &run(10), |_| ()).await.unwrap();
    world.expect_reconciled(300).await;

    let records = Records::of(pipeline).unwrap();
    let truth = Truth::of(&records, pipeline.tables().await.unwrap()).await;
    eventually(PATIENCE, "everything is counted once", async || {
        let wrong = differences(&Page::of(stages.admin()).await?, &truth);
        anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
    .await
    .unwrap();
    let lost = network.lost.load(Ordering::Relaxed);
    assert!(lost > 30, "a run worth looking at: {lost} answers were lost");
    let page = Page::of(stages.admin()).await.unwrap();
    assert_eq!(page.sum("stage_fenced_total", &[]), Some(0.0), "nobody else wanted its partitions");
}

/// The URL of the database, by way of `port`, in a file.
fn behind(world: &World, port: u16) -> String {
    let directory = world.pipeline.directory();
    let url = std::fs::read_to_string(directory.join("database-url")).unwrap();
    let mut url: reqwest::Url = url.parse().unwrap();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(port)).unwrap();
    let file = directory.join("database-url-behind");
    let mut options = std::fs::OpenOptions::new();
    let opened = options.create_new(true).write(true).mode(0o600).open(&file).unwrap();
    std::io::Write::write_all(&mut &opened, url.as_str().as_bytes()).unwrap();
    file.display().to_string()
}

/// Where `page` counts something else than what happened.
fn differences(page: &Page, truth: &Truth) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |family: &str, labels: &[(&str, &str)], expected: f64| {
        let counted = page.sum(family, labels).unwrap_or(0.0);
        if counted != expected {
            wrong.push(format!("{family}{labels:?} is {counted}, and the truth is {expected}"));
        }
    };
    for (status, event) in
        [("success", "payments.payment-captured.v1"), ("failure", "payments.payment-declined.v1")]
    {
        expect("payments_processed_total", &[("status", status)], truth.events(event));
    }
    for (operation, event) in [
        ("reserve", "inventory.stock-reserved.v1"),
        ("reject", "inventory.stock-rejected.v1"),
        ("release", "inventory.stock-released.v1"),
    ] {
        expect("inventory_updates_total", &[("operation", operation)], truth.events(event));
    }
    let arranged = truth.events("shipments.shipment-arranged.v1");
    expect("shipping_arrangement_seconds_count", &[], arranged);
    for (status, orders) in &truth.statuses {
        let of_status = [("status", status.as_str())];
        expect("order_processing_duration_seconds_count", &of_status, *orders);
    }
    expect("order_processing_seconds_count", &[], truth.statuses.values().sum());
    for stage in CATALOGUE.iter().filter(|stage| stage.name != "workflow") {
        let read = truth.read.get(stage.name).copied().unwrap_or(0.0);
        let done = ["applied", "duplicate", "rejected", "parked"].map(|outcome| {
            let labels = [("stage", stage.name), ("outcome", outcome)];
            page.sum("stage_events_total", &labels).unwrap_or(0.0)
        });
        if done.iter().sum::<f64>() != read {
            wrong.push(format!("{} did {done:?}, and read {read}", stage.name));
        }
    }
    wrong
}
