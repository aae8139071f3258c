//! The stack's own servers: each is scraped, what is pushed keeps its job, and Watchdog gets all the way out.

use stack::{Down, Stack, StackOptions};

use crate::http::{await_some, query, send};
use crate::sink;

#[test]
fn the_watchers_find_each_other_and_an_alert_gets_out() {
    let parent = tempfile::tempdir().unwrap();
    let state_dir = parent.path().join("stack");
    let receiver = sink::requests();
    let stack = Stack::up(&StackOptions {
        only: vec!["postgres".to_owned()],
        with: vec![stack::MONITORING.to_owned()],
        alert_receiver: Some(receiver.port),
        ..StackOptions::for_tests(&state_dir)
    })
    .unwrap();
    let port = |name: &str| -> u16 {
        let servers = stack.status().unwrap();
        let server = servers.iter().find(|server| server.name == name).unwrap();
        server.endpoint.rsplit(':').next().unwrap().parse().unwrap()
    };
    let prometheus = port("prometheus");
    let push = "batch_job_last_success_timestamp_seconds 1700000000\n";
    let (pushed, _) = send(port("pushgateway"), "PUT", "/metrics/job/reconciler", push).unwrap();
    stack.set_targets("consumers", &[format!("127.0.0.1:{prometheus}")]).unwrap();

    assert_eq!(pushed, 200);
    let jobs = ["alertmanager", "consumers", "postgres", "prometheus", "pushgateway"];
    await_some("every target is up", || {
        let mut up: Vec<_> = query(prometheus, "up == 1")
            .iter()
            .map(|series| series["metric"]["job"].as_str().unwrap().to_owned())
            .collect();
        up.sort_unstable();
        (up == jobs).then_some(())
    });
    assert_eq!(query(prometheus, "pg_up == 1").len(), 1);
    await_some("what was pushed keeps its job", || {
        let pushed = r#"batch_job_last_success_timestamp_seconds{job="reconciler"}"#;
        (query(prometheus, pushed).len() == 1).then_some(())
    });
    let watchdog = await_some("Watchdog reaches the dead man", || {
        receiver.all().into_iter().find(|request| request.path == "/deadman")
    });
    assert_eq!(watchdog.json()["alerts"][0]["labels"]["cluster"], "local");
    assert!(watchdog.json()["alerts"][0]["labels"]["replica"].is_null(), "{}", watchdog.body);
    let token = format!("Authorization: Bearer {}", stack.webhook_token().unwrap());
    assert!(watchdog.head.contains(&token), "{}", watchdog.head);

    let error = stack.set_targets("no_such_job", &[]).unwrap_err();
    assert!(error.to_string().contains("no job"), "{error}");
    stack.down(Down::RemoveEverything).unwrap();
    assert!(!state_dir.exists());
}

#[test]
fn programs_need_no_watchers() {
    assert!(stack::kinds().contains(&"prometheus"));
    let parent = tempfile::tempdir().unwrap();
    let mut options = StackOptions::for_tests(parent.path().join("stack"));
    options.only = vec!["postgres".to_owned()];

    let stack = Stack::up(&options).unwrap();

    let names: Vec<_> = stack.status().unwrap().into_iter().map(|server| server.name).collect();
    assert_eq!(names, ["postgres"]);
}
