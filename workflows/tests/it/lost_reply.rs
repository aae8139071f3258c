//! A signal that arrived and whose answer did not: it is sent again, and counts once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use workflows::{FactKind, Supervisor, SupervisorOptions, Told};

use crate::bench::{Bench, PATIENT, eventually, fact, settings, temporal_address};

/// Between a client and Temporal: everything reaches the server, and answers only while they are let through.
struct Network {
    address: String,
    answers: Arc<AtomicBool>,
    cut: CancellationToken,
}

impl Network {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answers, cut) = (Arc::new(AtomicBool::new(true)), CancellationToken::new());
        let network = Self { address, answers: answers.clone(), cut: cut.clone() };
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&server).await.unwrap();
                // Connections made after the cut are new ones.
                let cut = if cut.is_cancelled() { CancellationToken::new() } else { cut.clone() };
                tokio::spawn(carry(client, server, answers.clone(), cut));
            }
        });
        network
    }

    /// Every connection ends, and new ones work.
    fn heal(&self) {
        self.answers.store(true, Ordering::Relaxed);
        self.cut.cancel();
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    answers: Arc<AtomicBool>,
    cut: CancellationToken,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if answers.load(Ordering::Relaxed)
                && to_client.write_all(&buffer[..read]).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        () = back => {}
        () = cut.cancelled() => {}
    }
}

#[tokio::test]
async fn a_signal_whose_answer_was_lost_is_told_again_and_counts_once() {
    let bench = Bench::new(PATIENT);
    let network = Network::to(temporal_address()).await;
    let mut options = SupervisorOptions::new(PATIENT);
    options.task_queue.clone_from(&bench.queue);
    let supervisor = Supervisor::new(settings(&network.address), options).unwrap();
    let told = supervisor.tell(bench.order, &[fact(FactKind::OrderPlaced)]).await.unwrap();
    assert_eq!(told, Told::Applied);

    network.answers.store(false, Ordering::Relaxed);
    let (order, reserved) = (bench.order, fact(FactKind::StockReserved));
    let telling = tokio::spawn({
        let (supervisor, reserved) = (supervisor.clone(), reserved.clone());
        async move { supervisor.tell(order, &[reserved]).await }
    });
    let signals = async || {
        let history = bench.history().await;
        let events = history["events"].as_array().unwrap().clone();
        let is_signal = |event: &&serde_json::Value| {
            event["attributes"].get("WorkflowExecutionSignaledEventAttributes").is_some()
        };
        events.iter().filter(is_signal).count()
    };
    eventually("the server has the second signal", async || match signals().await {
        2 => Ok(()),
        count => Err(format!("{count} signals")),
    })
    .await;
    assert!(!telling.is_finished(), "its answer is held back");
    network.heal();

    // The client's own repeat, or ours, as an outbox does it.
    let told = match telling.await.unwrap() {
        Ok(told) => told,
        Err(_) => supervisor.tell(order, std::slice::from_ref(&reserved)).await.unwrap(),
    };
    assert_eq!(told, Told::Applied);
    assert_eq!(supervisor.tell(order, &[reserved]).await.unwrap(), Told::Applied);
    assert_eq!(signals().await, 2, "repeats are dropped by the server");
}
