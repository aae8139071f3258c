//! Makes happen what the boards are then asked about: orders at a steady rate; a stage that is dead while orders come in; payments
//! that are declined; records that are no events; a job; a load run. Nothing is broken afterwards.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use consumers::stages::CATALOGUE;
use schemas::Topic;

use super::happened::{DEAD, Done, Happened, SHORT_SKU, Still};
use super::till::Till;
use super::{poison, pushed, say};
use crate::eventually::eventually;
use crate::pipeline::{READY_PATIENCE, Tables};
use crate::records::Records;
use crate::scene::gateway::Mood;
use crate::scene::prometheus::now;
use crate::scene::{SKUS, Scene, history, shorter};

/// Longer than the window of most rules, in faster time, with a scrape and an evaluation before it.
const STEADY_SECONDS: u32 = 16;
const DEAD_SECONDS: u32 = 7;
const LIVELY_SECONDS: [u32; 2] = [7, 8];

/// Of the orders that wait for the dead stage, so that they are in time.
const CANCELLED: usize = 3;

const PATIENCE: Duration = Duration::from_secs(60);

/// Makes it happen.
pub(super) async fn happen(scene: &Scene) -> anyhow::Result<Happened> {
    let begun = now();
    let per_second = scene.usual_rate();
    let series = "job:orders_created:rate30m{job=\"order_processing_api\"}";
    history::yesterday(scene, series, f64::from(per_second), shorter(6 * 3600)).await?;
    watched(scene).await?;
    let client = scene.producer.lock().await.client.clone();
    let mut till = Till::new(client, SKUS, per_second);
    let mut tables = scene.pipeline.tables().await?;
    let run = pushed::begin(scene).await?;

    say("some records that are no events, a shelf that is nearly empty, orders at a steady rate");
    poison::put(scene).await?;
    shorten_shelf(scene).await?;
    till.place_for(STEADY_SECONDS).await?;
    let steady = now();
    all_final(&mut tables, &till).await?;
    rest(scene, None).await.context("after a steady rate")?;

    say("payment is dead, orders come in, some are cancelled");
    scene.stage(DEAD).await?.kill().await?;
    let killed = now();
    let waiting = till.place_for(DEAD_SECONDS).await?;
    for order in waiting.iter().take(CANCELLED) {
        till.cancel(*order).await?;
    }
    let still = still(scene, &mut tables, killed).await?;

    say("payment is back and the gateway declines; a job and a load run push what they found");
    scene.gateway.set(Mood::Declining);
    let mut dead = scene.stage(DEAD).await?;
    dead.start_again(|_| ())?;
    dead.ready(READY_PATIENCE).await?;
    drop(dead);
    let revived = now();
    till.place_for(LIVELY_SECONDS[0]).await?;
    let run_accepted = till.placed.len() as u64;
    let fates = tables.fates(0).await?;
    let seconds = till.seconds.clone();
    // In the second half, so that the shortest time range still holds what is pushed once.
    let pushing = async {
        scene.reconcile_now().await?;
        pushed::end(scene, &run, seconds, fates).await
    };
    let (placing, pushing) = tokio::join!(till.place_for(LIVELY_SECONDS[1]), pushing);
    placing.and(pushing)?;
    let lively = now();
    scene.gateway.set(Mood::Good);
    let done = done(scene, &mut tables, &till).await?;
    Ok(Happened {
        begun,
        per_second: f64::from(per_second),
        steady,
        still,
        revived,
        lively,
        run,
        run_accepted,
        done,
        decisions: scene.gateway.decisions(),
    })
}

/// Waits until Prometheus has found every program: what it counts before the first scrape would be missed.
async fn watched(scene: &Scene) -> anyhow::Result<()> {
    // The API, the worker and its SDK, the stage's client of Temporal, the lag exporter.
    let programs = (CATALOGUE.len() + 5) as f64;
    let up = "count(up{job=~\"order_processing_api|consumers|worker|temporal|lag_exporter\"} == 1)";
    eventually(PATIENCE, "every program is scraped", async || {
        let up = scene.prometheus.value(up).await?.context("none is")?;
        ensure!(up == programs, "{up} of {programs} are");
        Ok(())
    })
    .await
}

/// Waits until Prometheus has looked at every target since `moment`, at a picture that the lag exporter took since, and has
/// evaluated every rule on what it saw.
async fn seen(scene: &Scene, moment: f64) -> anyhow::Result<()> {
    // Each of the three may have begun just before, and takes its turn within an interval.
    let late = moment + 3.0 * shorter(15).as_secs_f64();
    eventually(PATIENCE, "Prometheus has seen it", async || {
        let oldest = scene.prometheus.value("min(timestamp(up))").await?;
        let oldest = oldest.context("nothing is scraped")?;
        ensure!(oldest > late, "the oldest scrape is {:.1} s before that", late - oldest);
        Ok(())
    })
    .await
}

/// Waits until nothing waits for any stage but `except`, which has not heard of what came since.
async fn rest(scene: &Scene, except: Option<&str>) -> anyhow::Result<()> {
    let others = except.unwrap_or_default();
    let lag = format!("sum(stage:kafka_consumergroup_lag:sum{{stage!=\"{others}\"}})");
    eventually(PATIENCE, "nothing waits", async || {
        // What it knows may be older than what came last.
        seen(scene, now()).await?;
        let lag = scene.prometheus.value(&lag).await?.context("lag is not known")?;
        ensure!(lag == 0.0, "{lag} records wait");
        Ok(())
    })
    .await
}

async fn all_final(tables: &mut Tables, till: &Till) -> anyhow::Result<()> {
    let accepted = till.placed.len() as u64;
    eventually(PATIENCE, "every order is final", async || {
        let ended = tables.final_orders().await?;
        ensure!(ended == accepted, "{ended} of {accepted} orders are final");
        Ok(())
    })
    .await
}

async fn shorten_shelf(scene: &Scene) -> anyhow::Result<()> {
    let mut db = scene.database().await?;
    let emptied = sqlx::query("update stock set on_hand = reserved + 5 where sku = $1")
        .bind(SHORT_SKU)
        .execute(&mut db)
        .await
        .context("empty a shelf")?;
    ensure!(emptied.rows_affected() == 1, "there is no {SHORT_SKU}");
    Ok(())
}

/// Programs read how the business stands every few seconds: until Prometheus has heard of the last order too.
async fn still(scene: &Scene, tables: &mut Tables, killed: f64) -> anyhow::Result<Still> {
    rest(scene, Some(DEAD)).await.context("while a stage is dead")?;
    let statuses = tables.orders_by_status().await?;
    let shown = eventually(PATIENCE, "Prometheus knows where orders stand", async || {
        for (status, orders) in &statuses {
            let series = format!("status:orders_by_status:max{{status=\"{status}\"}}");
            let shown = scene.prometheus.value(&series).await?;
            ensure!(shown == Some(*orders as f64), "{shown:?} are {status}, not {orders}");
        }
        Ok(())
    });
    shown.await?;
    let at = now();
    let short_left = format!("select on_hand - reserved from stock where sku = '{SHORT_SKU}'");
    Ok(Still {
        at,
        killed,
        dead_letters: tables
            .number("select count(*) from dead_letters where state = 'open'")
            .await?,
        parked: tables.number("select count(*) from parked_orders").await?,
        short_left: tables.number(&short_left).await?,
        short_skus: tables
            .number("select count(*) from stock where on_hand - reserved < 10")
            .await?,
        statuses,
    })
}

async fn done(scene: &Scene, tables: &mut Tables, till: &Till) -> anyhow::Result<Done> {
    all_final(tables, till).await?;
    rest(scene, None).await.context("in the end")?;
    let at = now();
    let day = shorter(86_400).as_millis();
    let yesterday = format!("count(job:orders_created:rate30m offset {day}ms)");
    eventually(PATIENCE, "Prometheus knows yesterday", async || {
        scene.prometheus.value(&yesterday).await?.context("it does not").map(drop)
    })
    .await?;
    let rows = tables
        .rows("select stage, code, count(*)::text from dead_letters where state = 'open' group by 1, 2")
        .await?;
    let mut dead_letters = BTreeMap::new();
    for row in rows {
        let mut columns = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || columns.next().unwrap_or_default();
        let (stage, code, count) = (next(), next(), next());
        dead_letters.insert((stage, code), count.parse().context("count dead letters")?);
    }
    let mut records = BTreeMap::new();
    for topic in Topic::ALL {
        records.insert(topic, Records::of(&scene.pipeline)?.read(topic).await?);
    }
    let database = tables.rows("select current_database()::text").await?;
    let database = database.into_iter().flatten().flatten().next();
    Ok(Done {
        at,
        accepted: till.placed.len() as u64,
        statuses: tables.orders_by_status().await?,
        dead_letters,
        database: database.context("a database has a name")?,
        database_bytes: tables.number("select pg_database_size(current_database())").await?,
        records,
    })
}
