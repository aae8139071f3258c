//! A real Prometheus beside a real run: it scrapes every process, and what it answers afterwards is what happened, to the
//! last order. The truth it is compared with comes from topics and tables, never from a process that exports it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use consumers::stages::CATALOGUE;
use load::eventually::eventually;
use load::pipeline::free_addresses;
use load::process::Process;
use load::records::{Record, Records};
use reqwest::Url;
use schemas::{OrderId, Topic};
use stack::{Stack, StackOptions};
use tokio::task::spawn_blocking;

use crate::events::placed;
use crate::families::contract;
use crate::truth::Truth;
use crate::world::{SETUP, World, mixed_orders, ready, run};

/// Some scrapes, which come every fifteen seconds.
const PATIENCE: Duration = Duration::from_secs(120);

const ORDERS: u64 = 300;

/// The servers that watch, beside a Postgres and a Temporal of their own.
struct Watchers {
    stack: Arc<Stack>,
    prometheus: Url,
    gateway: String,
    http: reqwest::Client,
    // After the stack, which empties it.
    _directory: tempfile::TempDir,
}

/// Labels of a series and its value.
type Answer = Vec<(BTreeMap<String, String>, f64)>;

impl Watchers {
    async fn up() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = StackOptions {
            only: vec!["postgres".to_owned(), "temporal".to_owned()],
            with: vec![stack::MONITORING.to_owned()],
            ..StackOptions::for_tests(directory.path().join("stack"))
        };
        let stack = spawn_blocking(move || Stack::up(&options).unwrap()).await.unwrap();
        let environment: BTreeMap<_, _> = stack.env().unwrap().into_iter().collect();
        Self {
            prometheus: environment["PROMETHEUS_URL"].parse().unwrap(),
            gateway: environment["PUSHGATEWAY_URL"].clone(),
            stack: Arc::new(stack),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _directory: directory,
        }
    }

    /// What Prometheus answers to `query`.
    async fn ask(&self, query: &str) -> anyhow::Result<Answer> {
        let mut url = self.prometheus.join("/api/v1/query")?;
        url.query_pairs_mut().append_pair("query", query);
        let answer: serde_json::Value = self.http.get(url).send().await?.json().await?;
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        anyhow::ensure!(answer["status"] == "success", "{query}: {answer}");
        let one = |series: &serde_json::Value| {
            let labels = serde_json::from_value(series["metric"].clone())?;
            let value = series["value"][1].as_str().unwrap_or_default().parse()?;
            Ok((labels, value))
        };
        series.iter().map(one).collect()
    }

    /// Waits until `query` answers `expected`, by the label `by`.
    async fn expect(&self, query: &str, by: &str, expected: &BTreeMap<String, f64>) {
        eventually(PATIENCE, query, async || {
            let answer = self.ask(query).await?;
            let found: BTreeMap<String, f64> = answer
                .into_iter()
                .map(|(labels, value)| (labels.get(by).cloned().unwrap_or_default(), value))
                .collect();
            anyhow::ensure!(
                &found == expected,
                "it answers {found:?}, and the truth is {expected:?}"
            );
            Ok(())
        })
        .await
        .unwrap();
    }

    /// The same for a query that answers one number.
    async fn expect_number(&self, query: &str, expected: f64) {
        self.expect(query, "", &BTreeMap::from([(String::new(), expected)])).await;
    }
}

#[tokio::test]
async fn what_prometheus_answers_after_a_run_is_what_happened() {
    let mut world = World::new("scraped", SETUP).await;
    let watchers = Watchers::up().await;
    world.pipeline.supervise(&watchers.stack).unwrap();
    let pipeline = &world.pipeline;
    let producer = pipeline.start_producer(|spec| spec).await.unwrap();
    let stages = world.stages(&[]).await;
    let [admin, sdk, lag] = free_addresses().unwrap();
    let mut worker = Process::start(pipeline.worker("worker", admin, sdk)).unwrap();
    let watching = pipeline.lag_exporter("lag-exporter", lag).with("LAG_INTERVAL_MS", "1000");
    let mut exporter = Process::start(watching).unwrap();
    ready(&mut worker).await;
    ready(&mut exporter).await;
    let targets: [(&str, SocketAddr); 5] = [
        ("order_processing_api", producer.process.admin()),
        ("consumers", stages.admin()),
        ("worker", admin),
        ("temporal", sdk),
        ("lag_exporter", lag),
    ];
    for (job, address) in targets {
        watchers.stack.set_targets(job, &[address.to_string()]).unwrap();
    }
    // Before anything happens, so that growth can be told from a start.
    let jobs = targets.map(|(job, _)| (job.to_owned(), 1.0)).into();
    let ours = r#"up{job=~"order_processing_api|consumers|worker|temporal|lag_exporter"}"#;
    watchers.expect(ours, "job", &jobs).await;

    producer.client.place_all(mixed_orders(ORDERS as usize, 91), &run(10), |_| ()).await.unwrap();
    let records = Records::of(pipeline).unwrap();
    let told_twice = records.read(Topic::Orders).await.unwrap().into_iter().take(20);
    records.write(Topic::Orders, &told_twice.collect::<Vec<_>>()).await.unwrap();
    let poison = Record { value: None, ..placed(OrderId::fresh()) };
    records.write(Topic::Orders, &[poison]).await.unwrap();
    world.expect_reconciled(ORDERS).await;
    let audited = pipeline.try_tool(&["reconcile", "--push", &watchers.gateway]).await.unwrap();
    assert!(audited.status.success(), "{audited:?}");

    let truth = Truth::of(&records, pipeline.tables().await.unwrap()).await;
    let grown =
        |series: &str| format!("sum(max_over_time({series}[15m]) - min_over_time({series}[15m]))");
    watchers.expect_number(&grown("orders_created_total"), ORDERS as f64).await;
    let accepted = r#"http_requests_total{method="POST",endpoint="/orders",status="202"}"#;
    watchers.expect_number(&grown(accepted), ORDERS as f64).await;
    expect_stages(&watchers, &truth).await;
    expect_operations(&watchers).await;
    expect_business(&watchers, &truth).await;
    expect_nothing_behind(&watchers, &pipeline.prefix().to_string()).await;
    let completed = "sum(temporal_workflow_completed_total)";
    watchers.expect_number(completed, ORDERS as f64).await;
    let audited = r#"batch_job_processed_total{job="reconcile"}"#;
    watchers.expect_number(&format!("sum({audited})"), truth.records as f64).await;
    expect_others(&watchers).await;
}

/// Every record that a stage acts on was applied, was a repeat, or was set aside, and is counted once.
async fn expect_stages(watchers: &Watchers, truth: &Truth) {
    let done = r#"sum by (stage) (stage_events_total{outcome!="retried"})"#;
    watchers.expect(done, "stage", &truth.read).await;
    assert!(truth.letters.len() >= 3, "a run worth looking at: {:?}", truth.letters);
    for told in [
        "sum by (stage) (dead_letters_total) > 0",
        "sum by (stage) (dead_letters_open) > 0",
        r#"sum by (stage) (stage_events_total{outcome="rejected"}) > 0"#,
        r#"sum by (stage) (order_processing_errors_total{reason="rejected"}) > 0"#,
    ] {
        watchers.expect(told, "stage", &truth.letters).await;
    }
}

/// Statements are timed one by one: each batch has one commit, and nothing that every run does is missing.
async fn expect_operations(watchers: &Watchers) {
    const EVERY_RUN: [&str; 12] = [
        "transaction.begin",
        "progress.claim",
        "progress.advance",
        "outbox.insert",
        "outbox.delete",
        "dead_letters.insert",
        "reservations.insert_reserved",
        "stock.add_reserved",
        "payments.insert",
        "shipments.insert",
        "orders.merge_facts",
        "orders.insert_timeline",
    ];
    let count = "db_operation_duration_seconds_count";
    let commits = format!(r#"sum({count}{{operation="transaction.commit"}})"#);
    watchers.expect_number(&format!("{commits} - sum(stage_batch_events_count)"), 0.0).await;
    let seen = format!(r#"{count}{{operation=~"{}"}}"#, EVERY_RUN.join("|"));
    let kinds = EVERY_RUN.len() as f64;
    watchers.expect_number(&format!("count(sum by (operation) ({seen}) > 0)"), kinds).await;
}

/// Money, stock and orders are what topics and tables say.
async fn expect_business(watchers: &Watchers, truth: &Truth) {
    for status in ["shipped", "declined", "rejected", "cancelled"] {
        assert!(
            truth.statuses.contains_key(status),
            "a run worth looking at: {:?}",
            truth.statuses
        );
    }
    watchers.expect("orders_by_status > 0", "status", &truth.statuses).await;
    let finished = "sum by (status) (order_processing_duration_seconds_count)";
    watchers.expect(finished, "status", &truth.statuses).await;
    watchers.expect_number("sum(order_processing_seconds_count)", ORDERS as f64).await;
    let shipped = "sum(shipping_arrangement_seconds_count)";
    watchers.expect_number(shipped, truth.statuses["shipped"]).await;
    let counted = |pairs: &[(&str, &str)]| -> BTreeMap<String, f64> {
        pairs.iter().map(|(label, event)| ((*label).to_owned(), truth.events(event))).collect()
    };
    let payments = counted(&[
        ("success", "payments.payment-captured.v1"),
        ("failure", "payments.payment-declined.v1"),
    ]);
    watchers.expect("sum by (status) (payments_processed_total)", "status", &payments).await;
    let stock = counted(&[
        ("reserve", "inventory.stock-reserved.v1"),
        ("reject", "inventory.stock-rejected.v1"),
        ("release", "inventory.stock-released.v1"),
    ]);
    watchers.expect("sum by (operation) (inventory_updates_total)", "operation", &stock).await;
}

/// Nobody is behind, as told from inside and from outside.
async fn expect_nothing_behind(watchers: &Watchers, prefix: &str) {
    let group = |name: &str| (format!("{prefix}orders.{name}"), 0.0);
    let stages: BTreeMap<String, f64> = CATALOGUE.iter().map(|stage| group(stage.name)).collect();
    for job in ["consumers", "lag_exporter"] {
        for family in ["kafka_consumergroup_lag", "kafka_consumergroup_lag_seconds"] {
            let series = format!("{family}{{job=\"{job}\",consumergroup=~\"{prefix}orders.*\"}}");
            let query = format!("sum by (consumergroup) ({series})");
            watchers.expect(&query, "consumergroup", &stages).await;
        }
    }
}

/// What other people's programs export is called and labelled as the contract says.
async fn expect_others(watchers: &Watchers) {
    const OTHERS: [&str; 5] =
        ["pushgateway", "postgres-exporter", "prometheus", "alertmanager", "temporal"];
    let theirs = contract();
    let theirs = theirs
        .iter()
        .filter(|line| line.programs.iter().any(|program| OTHERS.contains(&program.as_str())))
        // Only a pair of Alertmanagers has it, and here is one.
        .filter(|line| line.family != "alertmanager_cluster_members");
    let mut wrong = Vec::new();
    for line in theirs {
        let name = &line.family;
        let name = if line.kind == "histogram" { format!("{name}_count") } else { name.clone() };
        let looked = eventually(PATIENCE, &name, async || {
            let answer = watchers.ask(&name).await?;
            let has_all = |(labels, _): &(BTreeMap<String, String>, f64)| {
                line.labels.iter().all(|label| labels.contains_key(label))
            };
            anyhow::ensure!(answer.iter().any(has_all), "it has no {:?}: {answer:?}", line.labels);
            Ok(())
        });
        wrong.extend(looked.await.err().map(|error| format!("{error:#}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
