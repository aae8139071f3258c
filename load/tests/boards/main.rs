//! The boards, proven as `make boards` proves them. A program of its own, so that nothing else is tested on this machine
//! meanwhile: what is compared are rates and ages.

use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_answers_and_shows_what_the_run_did() {
    let directory = tempfile::tempdir().unwrap();
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana/dashboards");

    load::boards::expect(&boards, &directory.path().join("stack")).await.unwrap();
}
