//! Whatever clients make up – paths, methods, SKUs, customers – makes no series.

use std::time::Duration;

use futures::{StreamExt, stream};
use load::eventually::eventually;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use reqwest::Method;

use crate::page::Page;
use crate::world::{REST_PATIENCE, SETUP, World, mixed_orders, run};

/// Kinds of request that there are below.
const KINDS: usize = 8;

/// Enough that each kind has met every answer it can get.
const BEFORE: usize = 400;
const MANY: usize = 10_000;
const AT_ONCE: usize = 32;

#[tokio::test]
async fn ten_thousand_paths_skus_and_customers_make_no_series() {
    let world = World::new("bounded", SETUP).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let stages = world.stages(&[]).await;
    producer.client.place_all(mixed_orders(200, 19), &run(7), |_| ()).await.unwrap();
    let base = producer.client.url("");
    let accepted = requests(&base, BEFORE, 1).await;
    all_final(&world, 200 + accepted).await;
    let pages = async || {
        let (api, work) =
            tokio::join!(Page::of(producer.process.admin()), Page::of(stages.admin()));
        [api.unwrap(), work.unwrap()]
    };
    let before = pages().await;

    let more = requests(&base, MANY, 2).await;

    all_final(&world, 200 + accepted + more).await;
    let after = pages().await;
    for (before, after) in before.iter().zip(&after) {
        let new = after.series().difference(&before.series()).cloned().collect::<Vec<_>>();
        // Which SKUs are the lowest changes; how many of them are told does not.
        let new: Vec<_> = new.iter().filter(|one| !one.starts_with("inventory_level{")).collect();
        assert_eq!((new, after.samples.len()), (Vec::new(), before.samples.len()));
    }
    let counted = |page: &Page| page.sum("http_requests_total", &[]).unwrap();
    assert_eq!(counted(&after[0]) - counted(&before[0]), MANY as f64, "and each is counted");
    assert!(more > MANY as u64 / 4, "{more} of them were orders");
}

/// Sends `count` requests that nobody would think of, and says how many orders were accepted.
async fn requests(base: &str, count: usize, seed: u64) -> u64 {
    let http =
        reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build().unwrap();
    let mut random = StdRng::seed_from_u64(seed);
    let requests: Vec<_> =
        (0..count).map(|number| request(&http, base, number, &mut random)).collect();
    stream::iter(requests)
        .map(|request| async move { u64::from(request.send().await.unwrap().status() == 202) })
        .buffer_unordered(AT_ONCE)
        .fold(0, async |sum, accepted| sum + accepted)
        .await
}

fn request(
    http: &reqwest::Client,
    base: &str,
    number: usize,
    random: &mut StdRng,
) -> reqwest::RequestBuilder {
    let word = format!("{:x}", random.random::<u64>());
    let id = uuid::Builder::from_random_bytes(random.random()).into_uuid();
    let method = |name: &str| Method::from_bytes(name.as_bytes()).unwrap();
    match number % KINDS {
        0 => http.get(format!("{base}/{word}/{id}?{word}={id}")),
        1 => http.request(method(&format!("M{word}")), format!("{base}/orders/{word}")),
        2 => http.get(format!("{base}/orders/{id}")),
        3 => http.request(method("PUT"), format!("{base}/{word}%2f..%00{word}")),
        4 => http.get(format!("{base}/orders?status={word}&limit={word}")),
        _ => {
            let sku = if number.is_multiple_of(2) {
                "SKU-00001".to_owned()
            } else {
                format!("SKU-{word}")
            };
            let order = serde_json::json!({
                "customer_id": format!("customer {word}"),
                "currency": "EUR",
                "items": [{ "sku": sku, "quantity": 1, "unit_price_cents": 100 }],
            });
            http.post(format!("{base}/orders")).json(&order)
        }
    }
}

async fn all_final(world: &World, orders: u64) {
    let mut tables = world.pipeline.tables().await.unwrap();
    let waited = eventually(REST_PATIENCE, "every order is final", async || {
        let ended = tables.final_orders().await?;
        anyhow::ensure!(ended == orders, "{ended} of {orders}");
        Ok(())
    });
    waited.await.unwrap();
}
