//! Records that no honest client would write: one that is no event at all, and one whose order waits behind it.

use anyhow::Context;
use producers::generate::{Generator, Mix};
use schemas::{OrderId, Timestamp, Topic};

use crate::records::{Record, Records};
use crate::scene::{SKUS, Scene};

/// Puts them where orders come in.
pub(super) async fn put(scene: &Scene) -> anyhow::Result<()> {
    let order = OrderId::fresh();
    let sound = placed(order)?;
    let spoilt = Record { value: Some(b"{\"order_id\": 42}".to_vec()), ..sound.clone() };
    let junk = Record {
        key: Some(b"42".to_vec()),
        value: Some(b"<order/>".to_vec()),
        ..Record::default()
    };
    let records = Records::of(&scene.pipeline)?;
    records.write(Topic::Orders, &[junk, spoilt]).await?;
    // Behind the spoilt one of the same key.
    records.write(Topic::Orders, &[sound]).await.map(drop)
}

fn placed(order_id: OrderId) -> anyhow::Result<Record> {
    let mix =
        Mix { seed: 99, skus: SKUS, decline_ratio: 0.0, out_of_stock_ratio: 0.0, ..Mix::default() };
    let order = Generator::new(mix).order(0);
    let now = Timestamp::now();
    let event = order.placed(order_id, now).context("an order is sound")?;
    Ok(Record::of(&event, "/boards", now))
}
