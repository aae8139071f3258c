//! Some alerts, proven by real faults as `make alerts` proves all of them. A program of its own, so that nothing else is tested
//! on this machine meanwhile: what is slow for another reason would be told as well.

/// Those that are quick.
const SOME: [&str; 3] = ["DeadLetters", "ConsumerGone", "JobGone"];

#[tokio::test(flavor = "multi_thread")]
async fn a_real_fault_reaches_the_other_end_and_so_does_its_end() {
    let directory = tempfile::tempdir().unwrap();

    load::alerts::expect(&SOME, &directory.path().join("stack")).await.unwrap();
}
