//! `prometheus/families.txt` against the living programs: what stands there is exported as it stands there, and nothing is
//! exported that does not stand there. And Prometheus' own linter has nothing to say about any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use load::eventually::eventually;
use load::pipeline::free_addresses;
use load::process::Process;
use load::records::{Record, Records};
use rdkafka::Offset;
use schemas::{OrderId, Topic};
use stack::StackOptions;

use crate::events::placed;
use crate::page::{Family, Page};
use crate::world::{SETUP, World, mixed_orders, ready, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// What promtool says about names that stay as they are, and why they do.
const KEPT_NAMES: [(&str, &str); 3] = [
    // Dashboards for other exporters of lag read these; a gauge may be a sum.
    ("kafka_consumergroup_lag_sum", r#"should not have "_sum" suffix"#),
    ("kafka_consumergroup_lag_seconds_sum", r#"should not have "_sum" suffix"#),
    ("kafka_consumergroup_current_offset_sum", r#"should not have "_sum" suffix"#),
];

/// A line of the contract.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) family: String,
    pub(crate) kind: String,
    pub(crate) labels: BTreeSet<String>,
    pub(crate) programs: Vec<String>,
    why: String,
}

/// The contract.
pub(crate) fn contract() -> Vec<Line> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../prometheus/families.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let columns: Vec<&str> = line.split('|').map(str::trim).collect();
            let [family, kind, labels, programs, why] = columns[..] else { panic!("{line}") };
            let list = |text: &str| -> Vec<String> {
                text.split(',')
                    .map(|one| one.trim().to_owned())
                    .filter(|one| !one.is_empty())
                    .collect()
            };
            Line {
                family: family.to_owned(),
                kind: kind.to_owned(),
                labels: list(labels).into_iter().collect(),
                programs: list(programs),
                why: why.to_owned(),
            }
        })
        .collect()
}

#[tokio::test]
async fn every_program_exports_what_the_contract_says_and_no_more() {
    let world = World::supervised("families", SETUP, &[]).await;
    let (_processes, endpoints) = everything_after_a_run(&world).await;
    let contract = contract();

    let mut wrong = Vec::new();
    for (program, address) in endpoints {
        let lines = contract.iter().filter(|line| line.programs.iter().any(|one| one == program));
        let lines: BTreeMap<&str, &Line> = lines.map(|line| (line.family.as_str(), line)).collect();
        // Some come with the second look, or with the first order that ends in a certain way.
        let compared = eventually(PATIENCE, program, async || {
            let page = Page::of(address).await?;
            let found = compare(program, &page, &lines);
            anyhow::ensure!(found.is_empty(), "{}", found.join("\n"));
            Ok(page)
        });
        match compared.await {
            // The SDK's names are its own.
            Ok(_) if program == "temporal-sdk" => {}
            Ok(page) => {
                wrong.extend(lint(&page).into_iter().map(|said| format!("{program}: {said}")))
            }
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    wrong
        .extend(contract.iter().filter(|line| line.why.is_empty()).map(|line| line.family.clone()));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every process of the pipeline, after a run in which everything happened that makes a series, with the ports where it
/// says so.
async fn everything_after_a_run(world: &World) -> (Vec<Process>, Vec<(&'static str, SocketAddr)>) {
    let pipeline = &world.pipeline;
    let producer = pipeline.start_producer(|spec| spec).await.unwrap();
    let stages = world.stages(&[]).await;
    let [admin, sdk, lag] = free_addresses().unwrap();
    let mut worker = Process::start(pipeline.worker("worker", admin, sdk)).unwrap();
    let watching = pipeline.lag_exporter("lag-exporter", lag);
    let watching = watching.with("LAG_INTERVAL_MS", "500").with("LAG_STUCK_MS", "1000");
    let mut watching = Process::start(watching).unwrap();
    ready(&mut worker).await;
    ready(&mut watching).await;
    let records = Records::of(pipeline).unwrap();
    let poison = Record { value: None, ..placed(OrderId::fresh()) };
    records.write(Topic::Orders, &[poison]).await.unwrap();
    producer.client.place_all(mixed_orders(60, 90), &run(5), |_| ()).await.unwrap();
    world.expect_reconciled(60).await;
    // Somebody who never reads on.
    let stranger = format!("{}stranger", pipeline.prefix());
    records.move_group(&stranger, Topic::Orders, Offset::Beginning).await.unwrap();
    let endpoints = vec![
        ("order-producer", producer.process.admin()),
        ("order-consumer", stages.admin()),
        ("worker", admin),
        ("temporal-sdk", sdk),
        ("lag-exporter", lag),
    ];
    (vec![producer.process, stages, worker, watching], endpoints)
}

/// What is not as it should be.
fn compare(program: &str, page: &Page, lines: &BTreeMap<&str, &Line>) -> Vec<String> {
    // The SDK has dozens of families of its own, and most appear with their first event.
    let is_ours = program != "temporal-sdk";
    let mut wrong = Vec::new();
    for (name, family) in &page.families {
        match lines.get(name.as_str()) {
            Some(line) => wrong.extend(differs(name, family, line)),
            None if is_ours => wrong.push(format!("{program} exports {name}: no line says so")),
            None => {}
        }
        if is_ours && family.help.is_empty() {
            wrong.push(format!("{program}: {name} has no HELP"));
        }
    }
    for name in lines.keys().filter(|_| is_ours) {
        if !page.families.get(*name).is_some_and(|family| family.is_alive) {
            wrong.push(format!("{program} does not export {name}, although a line says so"));
        }
    }
    wrong
}

fn differs(name: &str, family: &Family, line: &Line) -> Option<String> {
    let as_written = family.kind == line.kind && (!family.is_alive || family.labels == line.labels);
    (!as_written).then(|| {
        let Family { kind, labels, .. } = family;
        format!(
            "{name} is a {kind} with {labels:?}; the line says {} with {:?}",
            line.kind, line.labels
        )
    })
}

/// What Prometheus' own linter says about the page, but for names that are kept.
fn lint(page: &Page) -> Vec<String> {
    let installed =
        StackOptions { only: vec!["prometheus".to_owned()], ..StackOptions::new("unused") };
    stack::install(&installed).unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut promtool = promtool.stderr(Stdio::piped()).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(page.text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
    let kept = |line: &&str| {
        KEPT_NAMES
            .iter()
            .any(|(name, why)| line.starts_with(&format!("{name} ")) && line.contains(why))
    };
    let complaints: Vec<String> =
        said.lines().filter(|line| !kept(line)).map(str::to_owned).collect();
    assert!(output.status.success() || !said.is_empty(), "promtool ended with {}", output.status);
    complaints
}
