use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use schemas::Event;

use crate::harness::{GOOD, Kafka};

fn program(kafka: &Kafka) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_order-producer"));
    command
        .env_clear()
        .env("KAFKA_BROKERS", kafka.cluster.bootstrap_servers())
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn publish(kafka: &Kafka, file: &Path, more: &[&str]) -> (i32, String, String) {
    run(program(kafka).arg("publish").arg(file).args(more))
}

/// Ids of the orders on the topic, and of its events, each once.
fn distinct(kafka: &Kafka) -> usize {
    let events = kafka.events();
    let ids: std::collections::HashSet<_> = events.iter().map(|event| event.envelope.id).collect();
    ids.len()
}

#[test]
fn a_file_is_published_once_however_often_it_is_sent() {
    let kafka = Kafka::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.ndjson");
    let (keyed, errors) =
        (GOOD.replacen('{', r#"{"idempotency_key":"k","#, 1), folder.path().join("errors"));
    fs::write(&file, format!("{GOOD}\nnope\n\n{keyed}\n{GOOD}\n{{}}\n{GOOD}")).unwrap();

    let (status, out, error) = publish(&kafka, &file, &["--errors", errors.to_str().unwrap()]);
    assert_eq!(status, 1, "{out}{error}");
    assert!(out.starts_with("published=4 rejected=2 seconds="), "{out}");
    let errors = fs::read_to_string(errors).unwrap();
    let codes: Vec<&str> = errors.lines().map(|line| line.split('"').nth(5).unwrap()).collect();
    assert_eq!(codes, ["malformed_json", "invalid_order"], "{errors}");
    assert!(errors.starts_with(r#"{"line":2,"#), "{errors}");
    assert_eq!((kafka.records(), distinct(&kafka)), (4, 4));

    let (_, out, error) = publish(&kafka, &file, &[]);
    assert!(out.starts_with("published=4 "), "{out}");
    assert!(error.contains("line 2: malformed_json: "), "{error}");
    assert!(error.contains("line 6: invalid_order: /customer_id is required; "), "{error}");
    assert_eq!((kafka.records(), distinct(&kafka)), (8, 4));

    // What follows in the file is all that a resumed run publishes; another run is other orders.
    let longer = format!("{}\n{GOOD}\n", fs::read_to_string(&file).unwrap());
    fs::write(&file, longer).unwrap();
    let (status, out, _) = publish(&kafka, &file, &["--resume", "--json"]);
    let summary: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((status, &summary["published"], &summary["complete"]), (0, &1.into(), &true.into()));
    assert_eq!((kafka.records(), distinct(&kafka)), (9, 5));
    publish(&kafka, &file, &["--run-id", "second"]);
    // The keyed line is the same order in every run.
    assert_eq!(distinct(&kafka), 9);
}

#[test]
fn generated_orders_go_through_a_pipe() {
    let kafka = Kafka::start();
    let folder = tempfile::tempdir().unwrap();
    let orders = folder.path().join("orders");
    let generate = ["generate", "--count", "3000", "--seed", "7"];
    let (status, first, _) = run(program(&kafka).args(generate));
    let (_, second, _) = run(program(&kafka).args(generate));
    assert_eq!((status, first.lines().count()), (0, 3_000));
    assert_eq!(first, second);
    fs::write(&orders, &first).unwrap();

    for _ in 0..2 {
        let input = Stdio::from(fs::File::open(&orders).unwrap());
        let (status, out, error) =
            run(program(&kafka).args(["publish", "-", "--run-id", "r"]).stdin(input));
        assert_eq!(status, 0, "{error}");
        assert!(out.starts_with("published=3000 rejected=0 "), "{out}");
    }

    assert_eq!((kafka.records(), distinct(&kafka)), (6_000, 3_000));
    assert!(kafka.events().iter().all(|event| matches!(event.event, Event::OrderPlaced(_))));
}

#[test]
fn an_interrupted_run_says_how_to_go_on_and_loses_nothing() {
    let kafka = Kafka::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.ndjson");
    fs::write(&file, format!("{GOOD}\n").repeat(400)).unwrap();
    let child = program(&kafka)
        .arg("publish")
        .arg(&file)
        .args(["--rate", "100/s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    let deadline = Instant::now() + Duration::from_secs(20);
    while kafka.records() < 50 {
        assert!(Instant::now() < deadline);
    }
    signal(child.id(), "INT");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let published = kafka.records();

    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--resume"), "{said}");
    assert!((50..400).contains(&published), "{published}");
    let (status, out, _) = publish(&kafka, &file, &["--resume"]);
    assert_eq!(status, 0, "{out}");
    assert!(out.starts_with(&format!("published={} ", 400 - published)), "{out}");
    assert_eq!((kafka.records(), distinct(&kafka)), (400, 400));
}

#[test]
fn every_mistake_in_the_settings_is_told_at_once_and_nothing_starts() {
    let kafka = Kafka::start();
    let folder = tempfile::tempdir().unwrap();
    let mut serve = program(&kafka);
    serve
        .args(["serve", "--listen", "127.0.0.1:1", "--admin-listen", "127.0.0.1:1"])
        .args(["--request-timeout", "5s", "--max-connections", "0"])
        .env("KAFKA_BROKERS", "nowhere")
        .env("DATABASE_URL_FILE", folder.path().join("absent"));

    let (status, _, error) = run(&mut serve);

    assert_eq!(status, 2, "{error}");
    for name in [
        "--admin-listen",
        "--delivery-timeout",
        "--max-connections",
        "--kafka-brokers",
        "DATABASE_URL",
    ] {
        assert!(error.contains(name), "{name}: {error}");
    }
    let (status, _, error) = run(program(&kafka).args(["serve", "--request-timeout", "5 minutes"]));
    assert_eq!(status, 2, "{error}");
}

#[test]
fn a_secret_in_the_settings_is_never_shown() {
    let kafka = Kafka::start();
    let mut serve = program(&kafka);
    serve.arg("serve").env("DATABASE_URL", "hunter2-is-no-url");

    let (status, out, error) = run(&mut serve);

    assert_eq!(status, 2, "{error}");
    assert!(error.contains("DATABASE_URL"), "{error}");
    assert!(!format!("{out}{error}").contains("hunter2"), "{error}");
}

#[test]
fn a_missing_topic_is_said_at_once() {
    let kafka = Kafka::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.ndjson");
    fs::write(&file, GOOD).unwrap();
    // Mock brokers make topics up; real ones do not. An address nobody listens at is missing either way.
    let (status, _, error) =
        run(program(&kafka).arg("publish").arg(&file).env("KAFKA_BROKERS", "127.0.0.1:1"));

    assert_eq!(status, 1, "{error}");
    assert!(error.contains("--kafka-brokers"), "{error}");
}

#[test]
fn the_server_ends_in_order_on_a_signal() {
    let kafka = Kafka::start();
    let mut child = program(&kafka)
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"serving\"") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0, "it ended early");
    }

    signal(child.id(), "TERM");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut log, &mut rest).unwrap();

    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains("drained"), "{rest}");
}

/// Sends a signal to a process that this test started.
fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(sent.unwrap().success());
}
