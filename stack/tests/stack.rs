//! The whole promise against real servers: they come up, survive a crash with their data, and leave
//! nothing behind. Needs Java and PostgreSQL, or root to install them.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use stack::{Condition, Down, Interrupt, Signal, Stack, StackOptions};

#[test]
fn data_survives_a_crash_and_down_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let state_dir = parent.path().join("stack");
    let options = StackOptions::for_tests(&state_dir);
    let stack = Stack::up(&options).unwrap();
    sql(&stack, "create table survivors (id int); insert into survivors values (7)");
    let before = fs::read(state_dir.join("kafka/log/meta.properties")).unwrap();

    stack.kill("kafka").unwrap();
    stack.kill("postgres").unwrap();
    let conditions: Vec<_> = stack.status().unwrap().iter().map(|s| s.condition).collect();
    assert_eq!(conditions, [Condition::Dead, Condition::Dead, Condition::Running]);
    stack.restart("postgres").unwrap();
    let again = Stack::up(&options).unwrap();

    assert!(!again.found_running(), "a dead kafka was to be started");
    assert_eq!(sql(&stack, "select id from survivors"), "7");
    assert_eq!(fs::read(state_dir.join("kafka/log/meta.properties")).unwrap(), before);
    assert_eq!(again.kafka_brokers().unwrap(), stack.kafka_brokers().unwrap());

    stack.signal("postgres", Signal::Stop).unwrap();
    assert_eq!(stack.status().unwrap()[1].condition, Condition::Frozen);
    assert!(Stack::up(&options).unwrap().found_running(), "nothing was dead");
    assert_eq!(sql(&stack, "select 1"), "1");

    let status = stack.status().unwrap();
    stack.down(Down::RemoveEverything).unwrap();
    assert!(!state_dir.exists());
    for server in status {
        assert!(!server.data_dir.exists(), "{}", server.data_dir.display());
        assert!(!is_alive(server.pid.unwrap()), "{} is still there", server.name);
    }
}

#[test]
fn workflows_survive_a_crash_and_an_orderly_stop() {
    let parent = tempfile::tempdir().unwrap();
    let mut options = StackOptions::for_tests(parent.path().join("stack"));
    options.only = vec!["temporal".to_owned()];
    let stack = Stack::up(&options).unwrap();
    let address = temporal_address(&stack);
    let program = fs::read_link(format!("/proc/{}/exe", stack.status().unwrap()[0].pid.unwrap()));
    let program = program.unwrap();
    let workflow = |verb: &str, more: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["--disable-config-file", "--disable-config-env", "workflow", verb]);
        let output = command
            .args(["--address", &address, "--workflow-id", "survivor", "--output", "json"])
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let events = || workflow("show", &[]).matches("\"eventId\"").count();
    workflow("start", &["--type", "Nobody", "--task-queue", "nobody"]);
    workflow("signal", &["--name", "before_the_crash"]);
    let before = events();

    stack.kill("temporal").unwrap();
    assert_eq!(stack.status().unwrap()[0].condition, Condition::Dead);
    stack.restart("temporal").unwrap();

    assert_eq!((before, events()), (3, 3), "started, task scheduled, signalled");
    workflow("signal", &["--name", "after_the_crash"]);

    stack.down(Down::KeepData).unwrap();
    let again = Stack::up(&options).unwrap();

    assert_eq!(temporal_address(&again), address);
    assert_eq!(events(), 4);
    again.down(Down::RemoveEverything).unwrap();
}

fn temporal_address(stack: &Stack) -> String {
    let env = stack.env().unwrap();
    env.into_iter().find(|(name, _)| *name == "TEMPORAL_ADDRESS").unwrap().1
}

#[test]
fn dropping_a_stack_takes_it_down() {
    let parent = tempfile::tempdir().unwrap();
    let state_dir = parent.path().join("stack");
    let mut options = StackOptions::for_tests(&state_dir);
    options.only = vec!["postgres".to_owned()];
    let stack = Stack::up(&options).unwrap();
    let pid = stack.status().unwrap()[0].pid.unwrap();

    drop(stack);

    assert!(!is_alive(pid));
    assert!(!state_dir.exists());
}

#[test]
fn an_interrupted_first_start_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let state_dir = parent.path().join("stack");
    let options = StackOptions::for_tests(&state_dir);
    let interrupt: Interrupt = options.interrupt.clone();
    let (seen, pids) = std::sync::mpsc::channel();
    let watched = state_dir.clone();
    std::thread::spawn(move || {
        let started = || -> Option<Vec<i32>> {
            let servers = Stack::attach(&watched).ok()?.status().ok()?;
            Some(servers.iter().filter_map(|s| s.pid).collect())
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(pids) = started().filter(|pids| !pids.is_empty()) {
                seen.send(pids).unwrap();
                break;
            }
            std::thread::yield_now();
        }
        interrupt.trip();
    });

    let error = Stack::up(&options).unwrap_err();

    let pids = pids.recv().expect("a server was started before the interrupt");
    assert!(pids.into_iter().all(|pid| !is_alive(pid)));
    assert!(format!("{error:#}").contains("interrupted"), "{error:#}");
    assert!(!state_dir.exists());
}

#[test]
fn a_directory_with_other_files_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("thesis.tex");
    fs::write(&precious, "long work").unwrap();

    let error = Stack::up(&StackOptions::for_tests(dir.path())).unwrap_err();

    assert!(error.to_string().contains("holds other files"), "{error:#}");
    assert!(precious.exists() && Stack::attach(dir.path()).is_err());
}

fn sql(stack: &Stack, statement: &str) -> String {
    let servers = stack.status().unwrap();
    let postgres = servers.iter().find(|server| server.name == "postgres").unwrap();
    let (host, port) = postgres.endpoint.split_once(':').unwrap();
    let output = Command::new("psql")
        .args(["-XqAt", "-h", host, "-p", port, "-U", "orders", "-c", statement, "orders"])
        .envs(stack.env().unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The exit status of a child is collected a moment after its end.
fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}
