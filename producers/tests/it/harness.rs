//! A running API of its own for every test.

use std::sync::Arc;
use std::time::{Duration, Instant};

use producers::api::{self, Api, Limits, Reads};
use producers::events::OrdersTopic;
use producers::idempotency::Memory;
use producers::intake::Intake;
use producers::kafka::KafkaArgs;
use producers::lookup::Lookup;
use producers::metrics::{HttpMetrics, IntakeMetrics};
use producers::publisher::{Publisher, PublisherSettings};
use producers::server::{self, ConnectionLimits};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Message, TopicPartitionList};
use schemas::codec::RawRecord;
use schemas::{Decoded, Topic, TopicPrefix};
use telemetry::{Metrics, Readiness, Shutdown};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const GOOD: &str = r#"{"customer_id":"C-1","currency":"EUR","items":[{"sku":"SKU-00042","quantity":2,"unit_price_cents":1999}]}"#;
pub(crate) const OTHER: &str = r#"{"customer_id":"C-2","currency":"EUR","items":[{"sku":"SKU-00042","quantity":2,"unit_price_cents":1999}]}"#;

const PARTITIONS: i32 = 4;

/// Mock brokers with the topic `orders`.
pub(crate) struct Kafka {
    pub(crate) cluster: MockCluster<'static, DefaultProducerContext>,
}

/// What a test may choose.
#[derive(Default)]
pub(crate) struct Setting {
    pub(crate) limits: Limits,
    pub(crate) connections: ConnectionLimits,
    pub(crate) publisher: PublisherSettings,
    pub(crate) reads: Option<Reads>,
}

pub(crate) struct App {
    pub(crate) kafka: Kafka,
    pub(crate) address: String,
    pub(crate) http: reqwest::Client,
    pub(crate) shutdown: Shutdown,
    pub(crate) served: JoinHandle<()>,
    pub(crate) readiness: Readiness,
    publisher: Publisher,
    metrics: Arc<Metrics>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Kafka {
    pub(crate) fn start() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", PARTITIONS, 1).unwrap();
        Self { cluster }
    }

    pub(crate) fn args(&self) -> KafkaArgs {
        KafkaArgs {
            kafka_brokers: self.cluster.bootstrap_servers(),
            topic_prefix: TopicPrefix::default(),
            kafka_config: None,
        }
    }

    /// How many records the topic holds.
    pub(crate) fn records(&self) -> i64 {
        let consumer = self.consumer();
        let timeout = Duration::from_secs(10);
        let end = |partition| consumer.fetch_watermarks("orders", partition, timeout).unwrap().1;
        (0..PARTITIONS).map(end).sum()
    }

    /// Every record of the topic, decoded as any consumer would.
    pub(crate) fn events(&self) -> Vec<Decoded> {
        let expected = usize::try_from(self.records()).unwrap();
        let consumer = self.consumer();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions
                .add_partition_offset("orders", partition, rdkafka::Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&partitions).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut events = Vec::new();
        while events.len() < expected {
            assert!(Instant::now() < deadline, "only {} of {expected} records came", events.len());
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.unwrap();
            let headers = message.headers().unwrap();
            let headers = headers.iter().map(|header| (header.key.as_bytes(), header.value));
            let record = RawRecord { key: message.key(), value: message.payload(), headers };
            events.push(schemas::codec::decode(Topic::Orders, record).unwrap());
        }
        events
    }

    fn consumer(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "test")
            .create()
            .unwrap()
    }
}

impl App {
    pub(crate) async fn start() -> Self {
        Self::with(Setting::default()).await
    }

    pub(crate) async fn with(setting: Setting) -> Self {
        let kafka = Kafka::start();
        let mut metrics = Metrics::new("order-producer", "test");
        let http_metrics = Arc::new(HttpMetrics::register(metrics.registry()));
        let publisher = Publisher::connect(&kafka.args(), &setting.publisher, "test").unwrap();
        let intake = Intake::new(
            publisher.clone(),
            OrdersTopic::new(&TopicPrefix::default()),
            Memory::new(1_000, Duration::from_secs(60)),
            setting.reads.as_ref().map(|reads| Lookup::start(reads.pool.clone())),
            IntakeMetrics::register(metrics.registry()),
        );
        let (readiness, shutdown) = (Readiness::default(), Shutdown::new());
        let api =
            Api::new(intake, setting.reads, setting.limits, readiness.clone(), shutdown.clone());
        let routes = api::router(Arc::new(api), http_metrics);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(server::serve(
            listener,
            routes,
            setting.connections,
            Duration::from_secs(10),
            shutdown.clone(),
            || {},
        ));
        let http = reqwest::Client::new();
        let metrics = Arc::new(metrics);
        Self { kafka, address, http, shutdown, served, readiness, publisher, metrics }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.http.get(self.url(path))).await
    }

    pub(crate) fn post(
        &self,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> reqwest::RequestBuilder {
        self.http.post(self.url(path)).header("content-type", content_type).body(body.to_vec())
    }

    pub(crate) fn order(&self, body: &str) -> reqwest::RequestBuilder {
        self.post("/orders", "application/json", body.as_bytes())
    }

    pub(crate) async fn place(&self, body: &str, key: &str) -> Answer {
        Answer::of(self.order(body).header("idempotency-key", key)).await
    }

    /// Waits until `records` are on their way to a broker that has not acknowledged them.
    pub(crate) async fn on_their_way(&self, records: usize) {
        eventually("records are on their way", async || {
            (self.publisher.in_flight() == records).then_some(())
        })
        .await;
    }

    /// The value of a series, 0 when there is none.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.split(' ').next().unwrap().parse().unwrap())
    }
}

impl Answer {
    pub(crate) async fn of(request: reqwest::RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Self { status, headers, body: answer.text().await.unwrap() }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn order_id(&self) -> String {
        self.json()["order_id"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    /// Asserts that this is a whole problem of that status and code.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{self:?}");
        assert_eq!(problem["status"], status, "{self:?}");
        assert_eq!(problem["type"], format!("urn:order-pipeline:problem:{code}"), "{self:?}");
        assert!(!problem["title"].as_str().unwrap().is_empty(), "{self:?}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{self:?}");
        assert_eq!(problem["errors"].is_array(), code == "invalid_order", "{self:?}");
        assert_eq!(self.header("retry-after").is_empty(), status != 503, "{self:?}");
    }
}

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `found` answers something.
pub(crate) async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = found().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
