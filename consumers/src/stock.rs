//! `order-consumer stock`: puts SKUs on the shelf, for demos, tests and load runs.

use anyhow::Context;
use clap::Args;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use crate::store::stock;

/// What to put on the shelf.
#[derive(Args, Clone, Debug)]
pub struct StockArgs {
    /// How many ordinary SKUs, named SKU-00000 onwards.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub skus: u32,

    /// How many pieces of each.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(0..))]
    pub quantity: i64,

    /// How many scarce SKUs, named SKU-SCARCE-00 onwards.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub scarce: u32,

    /// How many pieces of each scarce SKU.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    pub scarce_quantity: i64,
}

/// Sets how many pieces there are; answers the number of SKUs.
pub async fn run(args: &StockArgs, database: &PgConnectOptions) -> anyhow::Result<u64> {
    let ordinary = (0..args.skus).map(|number| (format!("SKU-{number:05}"), args.quantity));
    let scarce =
        (0..args.scarce).map(|number| (format!("SKU-SCARCE-{number:02}"), args.scarce_quantity));
    let (skus, quantities): (Vec<String>, Vec<i64>) = ordinary.chain(scarce).unzip();
    let mut db = PgConnection::connect_with(database).await.context("connecting to Postgres")?;
    let done = stock::set_on_hand(&mut db, &skus, &quantities)
        .await
        .context("setting the stock; fewer pieces than are reserved are not possible")?;
    db.close().await.context("closing the connection")?;
    Ok(done)
}
