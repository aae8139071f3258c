use std::str::FromStr;
use std::time::{Duration, Instant};

use producers::api::Reads;
use producers::postgres;
use producers::waiters::Waiters;
use schemas::OrderId;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use stack::{Stack, StackOptions};

use crate::harness::{Answer, App, GOOD, OTHER, Setting};

const CANCELLED: &str = "00000000-0000-7000-8000-000000000001";
const PAID: &str = "00000000-0000-7000-8000-000000000002";
const SHIPPED: &str = "00000000-0000-7000-8000-000000000003";
/// Only a payment is known of it yet.
const EARLY: &str = "00000000-0000-7000-8000-000000000004";
const LATE: &str = "00000000-0000-7000-8000-000000000005";
const NEVER: &str = "00000000-0000-7000-8000-0000000000ff";

/// A Postgres of its own, with the pipeline's tables and a few orders.
struct Database {
    stack: Stack,
    /// For what the pipeline would write.
    pool: PgPool,
    options: PgConnectOptions,
    _folder: tempfile::TempDir,
}

impl Database {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = StackOptions::for_tests(folder.path().join("stack"));
        options.only = vec!["postgres".to_owned()];
        let stack =
            tokio::task::spawn_blocking(move || Stack::up(&options)).await.unwrap().unwrap();
        let url = stack.database_url().unwrap();
        let options = PgConnectOptions::from_str(url.trim()).unwrap();
        let pool = PgPool::connect_lazy_with(options.clone());
        schemas::database::MIGRATIONS.run(&pool).await.unwrap();
        let this = Self { stack, pool, options, _folder: folder };
        let details = r#"'C-1', 'EUR', 3998,
            '[{"sku":"SKU-00042","quantity":2,"unit_price_cents":1999}]', '2026-01-01T00:00:00.123456Z', now()"#;
        let columns = "order_id, customer_id, currency, total_cents, items, placed_at, updated_at";
        for (id, fact) in [(CANCELLED, "released_at"), (PAID, "paid_at"), (SHIPPED, "shipped_at")] {
            this.execute(&format!(
                "insert into orders ({columns}, {fact}) values ('{id}', {details}, now())"
            ))
            .await;
        }
        let early = format!(
            "insert into orders (order_id, updated_at, paid_at) values ('{EARLY}', now(), now())"
        );
        this.execute(&early).await;
        this
    }

    async fn execute(&self, statement: &str) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&self.pool).await.unwrap();
    }

    fn setting(&self) -> Setting {
        let pool = postgres::read_pool(self.options.clone(), 4);
        let waiters = Waiters::start(pool.clone(), 100);
        Setting { reads: Some(Reads { pool, waiters }), ..Setting::default() }
    }
}

/// One database serves all of it: bringing one up is what takes the time.
#[tokio::test(flavor = "multi_thread")]
async fn orders_are_read_waited_for_listed_and_cancelled() {
    let database = Database::start().await;
    let app = App::with(database.setting()).await;

    an_order_shows_what_is_known_of_it(&app).await;
    a_wait_ends_with_the_order(&app, &database).await;
    a_timeline_is_in_the_order_of_its_facts(&app, &database).await;
    pages_follow_each_other_without_gap_or_repeat(&app).await;
    only_orders_that_have_not_ended_are_cancelled(&app, &database).await;
    a_key_is_known_from_the_projection_after_a_restart(&app, &database).await;
    a_database_that_is_gone_stops_reads_and_not_orders(&app, &database).await;
}

async fn an_order_shows_what_is_known_of_it(app: &App) {
    let paid = app.get(&format!("/orders/{PAID}")).await.json();
    assert_eq!(paid["status"], "paid");
    assert_eq!(paid["final"], false);
    assert_eq!(paid["placed_at"], "2026-01-01T00:00:00.123456Z");
    assert_eq!(paid["items"][0]["sku"], "SKU-00042");
    assert!(paid["paid_at"].is_string() && paid.get("shipped_at").is_none(), "{paid}");

    let early = app.get(&format!("/orders/{EARLY}")).await.json();
    assert_eq!(early["status"], "paid");
    assert!(early.get("customer_id").is_none(), "{early}");
    assert_eq!(app.get(&format!("/orders/{SHIPPED}")).await.json()["final"], true);
    app.get(&format!("/orders/{NEVER}")).await.assert_problem(404, "order_not_found");
}

async fn a_wait_ends_with_the_order(app: &App, database: &Database) {
    let begun = Instant::now();
    assert_eq!(app.get(&format!("/orders/{SHIPPED}?wait=20s")).await.json()["status"], "shipped");
    assert!(begun.elapsed() < Duration::from_secs(5));
    // Nothing happens: the answer is what is known.
    assert_eq!(app.get(&format!("/orders/{PAID}?wait=200ms")).await.json()["status"], "paid");
    app.get(&format!("/orders/{NEVER}?wait=200ms")).await.assert_problem(404, "order_not_found");

    let waiting = app.get("/orders/00000000-0000-7000-8000-000000000005?wait=20s");
    let happening = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        database
            .execute(&format!("insert into orders (order_id, updated_at) values ('{LATE}', now())"))
            .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        database
            .execute(&format!("update orders set rejected_at = now() where order_id = '{LATE}'"))
            .await;
    };
    let (answer, ()) = tokio::join!(waiting, happening);
    assert_eq!(answer.json()["status"], "rejected");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

async fn a_timeline_is_in_the_order_of_its_facts(app: &App, database: &Database) {
    let events = format!(
        "insert into order_events values
            ('{PAID}', gen_random_uuid(), 'payments.payment-captured.v1', '2026-01-02', null),
            ('{PAID}', gen_random_uuid(), 'orders.order-placed.v1', '2026-01-01', 'why')"
    );
    database.execute(&events).await;

    let timeline = app.get(&format!("/orders/{PAID}/events")).await.json();

    assert_eq!(timeline["order_id"], PAID);
    assert_eq!(timeline["events"][0]["event_type"], "orders.order-placed.v1");
    assert_eq!(timeline["events"][0]["reason"], "why");
    assert_eq!(timeline["events"][1]["occurred_at"], "2026-01-02T00:00:00.000000Z");
    assert_eq!(
        app.get(&format!("/orders/{EARLY}/events")).await.json()["events"],
        serde_json::json!([])
    );
    app.get(&format!("/orders/{NEVER}/events")).await.assert_problem(404, "order_not_found");
}

async fn pages_follow_each_other_without_gap_or_repeat(app: &App) {
    let mut seen = Vec::new();
    let mut path = "/orders?limit=2".to_owned();
    loop {
        let page = app.get(&path).await.json();
        for order in page["orders"].as_array().unwrap() {
            seen.push(order["order_id"].as_str().unwrap().to_owned());
        }
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/orders?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, [LATE, EARLY, SHIPPED, PAID, CANCELLED]);

    let paid = app.get("/orders?status=paid").await.json();
    let ids: Vec<_> =
        paid["orders"].as_array().unwrap().iter().map(|order| &order["order_id"]).collect();
    assert_eq!(ids, [EARLY, PAID]);
}

async fn only_orders_that_have_not_ended_are_cancelled(app: &App, database: &Database) {
    let cancel =
        async |id: &str| Answer::of(app.http.post(app.url(&format!("/orders/{id}/cancel")))).await;
    cancel(SHIPPED).await.assert_problem(409, "order_final");
    cancel(LATE).await.assert_problem(409, "order_final");
    cancel(NEVER).await.assert_problem(404, "order_not_found");
    cancel("x").await.assert_problem(400, "invalid_order_id");
    assert_eq!(cancel(CANCELLED).await.json()["status"], "cancelled");
    assert_eq!(app.kafka.records(), 0);

    let (first, again) = (cancel(PAID).await, cancel(PAID).await);

    assert_eq!((first.status, again.status), (202, 202), "{first:?}");
    assert_eq!(first.json(), serde_json::json!({ "order_id": PAID, "status": "paid" }));
    assert_eq!(first.header("location"), format!("/orders/{PAID}"));
    let events = app.kafka.events();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].envelope.id, events[1].envelope.id);
    assert_eq!(events[0].envelope.event_type.as_str(), "orders.cancel-requested.v1");

    // The projection may be behind an order that was just placed.
    let fresh = OrderId::fresh();
    let arriving = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let statement =
            format!("insert into orders (order_id, updated_at) values ('{fresh}', now())");
        database.execute(&statement).await;
    };
    let id = fresh.to_string();
    let (answer, ()) = tokio::join!(cancel(&id), arriving);
    assert_eq!(answer.status, 202, "{answer:?}");
}

async fn a_key_is_known_from_the_projection_after_a_restart(app: &App, database: &Database) {
    let before = app.place(GOOD, "restart").await;
    let statement = format!(
        r#"insert into orders (order_id, customer_id, currency, total_cents, items, placed_at, updated_at) values
            ('{}', 'C-1', 'EUR', 3998, '[{{"sku":"SKU-00042","quantity":2,"unit_price_cents":1999}}]', now(), now())"#,
        before.order_id()
    );
    database.execute(&statement).await;
    let restarted = App::with(database.setting()).await;

    let other = restarted.place(OTHER, "restart").await;
    let again = restarted.place(GOOD, "restart").await;

    other.assert_problem(422, "idempotency_key_reused");
    assert_eq!(again.status, 202, "{again:?}");
    assert_eq!(again.order_id(), before.order_id());
    // It is known to be placed, so nothing is written again.
    assert_eq!(restarted.kafka.records(), 0);
}

async fn a_database_that_is_gone_stops_reads_and_not_orders(app: &App, database: &Database) {
    database.stack.kill("postgres").unwrap();
    let begun = Instant::now();

    for n in 0..20 {
        assert_eq!(app.place(GOOD, &format!("gone-{n}")).await.status, 202);
    }

    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    app.get(&format!("/orders/{PAID}")).await.assert_problem(503, "projection_unavailable");
}
