//! Records that can never be applied: each is set aside once per stage that meets it, byte for byte; the order's later
//! events wait behind it; everybody else goes on.

use std::collections::{BTreeMap, BTreeSet};

use load::eventually::eventually;
use load::records::{Record, Records};
use schemas::{OrderId, Topic};

use crate::events::{cancel_requested, edited, noise, order_id, placed, placed_as};
use crate::world::{REST_PATIENCE, SETUP, World, hasty, plain_orders, run};

/// Stages that read the topic `orders`, and so meet whatever lies in it.
const READERS: [&str; 3] = ["inventory", "order", "shipping"];
/// Of these, the ones that act on orders placed, and so look at their data.
const INTERESTED: [&str; 2] = ["inventory", "order"];

/// A record and the code under which it is set aside.
struct Poison {
    what: &'static str,
    code: &'static str,
    record: Record,
}

impl Poison {
    /// Who sets it aside.
    fn readers(&self) -> &'static [&'static str] {
        if ["bad_data", "key_mismatch"].contains(&self.code) { &INTERESTED } else { &READERS }
    }
}

#[tokio::test]
async fn each_poison_is_set_aside_once_with_its_bytes_and_only_its_order_waits() {
    let world = World::new("poison", SETUP).await;
    let _stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let records = Records::of(&world.pipeline).unwrap();
    let poisons = poisons();

    let bytes: Vec<Record> = poisons.iter().map(|poison| poison.record.clone()).collect();
    let places = records.write(Topic::Orders, &bytes).await.unwrap();
    // The order itself arrives after the poison under its key.
    let late: Vec<Record> = bytes.iter().filter_map(order_id).map(placed).collect();
    records.write(Topic::Orders, &late).await.unwrap();
    producer.client.place_all(plain_orders(100, 11), &run(0), |_| ()).await.unwrap();

    let audit = world.expect_sound().await;
    assert_eq!((audit.final_orders, audit.dead_lettered), (100, late.len() as u64), "{audit:#?}");
    let aside = set_aside(&world).await;
    for (poison, (partition, offset)) in poisons.iter().zip(&places) {
        for stage in poison.readers() {
            let found = aside.get(&((*stage).to_owned(), *partition, *offset));
            assert!(found == Some(&Aside::of(poison)), "{} at {stage}: {found:.300?}", poison.what);
        }
    }
    assert_eq!(aside.len(), poisons.iter().map(|poison| poison.readers().len()).sum::<usize>());
    let mut tables = world.pipeline.tables().await.unwrap();
    let waiting = "select count(*) from dead_letters where state = 'parked' and code = 'parked'";
    assert_eq!(tables.number(waiting).await.unwrap() as usize, late.len() * INTERESTED.len());
    expect_copies(&records, &poisons, &places).await;
}

#[tokio::test]
async fn another_order_under_a_known_id_is_a_conflict_and_the_first_one_stands() {
    let world = World::new("conflict", SETUP).await;
    let _stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let placed = producer.client.place_all(plain_orders(20, 12), &run(0), |_| ()).await.unwrap();
    world.expect_reconciled(20).await;
    let records = Records::of(&world.pipeline).unwrap();

    let other = placed_as(placed[0].order_id, &plain_orders(1, 999).next().unwrap());
    records.write(Topic::Orders, std::slice::from_ref(&other)).await.unwrap();

    let mut tables = world.pipeline.tables().await.unwrap();
    let codes = "select stage, code from dead_letters";
    let rows = eventually(REST_PATIENCE, "the conflict is set aside", async || {
        let rows = tables.rows(codes).await?;
        anyhow::ensure!(!rows.is_empty(), "nothing is set aside");
        Ok(rows)
    });
    let conflict = vec![Some("inventory".to_owned()), Some("idempotency_conflict".to_owned())];
    assert_eq!(rows.await.unwrap(), [conflict]);
    world.expect_reconciled(20).await;
}

#[tokio::test]
async fn cancelling_what_was_never_placed_is_set_aside_and_moves_nothing() {
    let world = World::new("unknown", SETUP).await;
    let _stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let records = Records::of(&world.pipeline).unwrap();

    let unknown = OrderId::fresh();
    records.write(Topic::Orders, &[cancel_requested(unknown)]).await.unwrap();
    producer.client.place_all(plain_orders(50, 13), &run(0), |_| ()).await.unwrap();

    let audit = world.expect_reconciled(50).await;
    assert_eq!(audit.count("shipped"), 50, "{audit:#?}");
    let mut tables = world.pipeline.tables().await.unwrap();
    let rows =
        tables.rows("select stage, code from dead_letters where state = 'open'").await.unwrap();
    assert_eq!(rows, [[Some("order".to_owned()), Some("unknown_order".to_owned())]]);
    let touched =
        format!("select count(*) from payments where order_id = '{unknown}' and state <> 'voided'");
    assert_eq!(tables.number(&touched).await.unwrap(), 0);
}

#[tokio::test]
async fn a_stage_that_would_reject_most_of_what_it_reads_stops_instead() {
    let world = World::new("window", SETUP).await;
    let records = Records::of(&world.pipeline).unwrap();
    let sound = placed(OrderId::fresh());
    let junk: Vec<Record> = (0..300)
        .map(|n| Record { value: Some(format!("junk {n}").into_bytes()), ..sound.clone() })
        .collect();
    records.write(Topic::Orders, &junk).await.unwrap();

    let mut stage = world.pipeline.launch_stages("inventory", &["inventory"], hasty).unwrap();
    let status = stage.ended(REST_PATIENCE).await.unwrap();

    assert!(!status.success(), "{status}");
    assert!(stage.log().contains("more than half of the records"), "{}", stage.log());
    let mut tables = world.pipeline.tables().await.unwrap();
    let aside = tables.number("select count(*) from dead_letters").await.unwrap();
    assert_eq!(aside, 0, "all of them are one batch");

    let patient = |spec| hasty(spec).arguments(["--reject-window", "1000000"]);
    let _stage = world.pipeline.start_stages("inventory", &["inventory"], patient).await.unwrap();
    let _others = world
        .pipeline
        .start_stages("others", &["payment", "shipping", "order"], patient)
        .await
        .unwrap();
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    producer.client.place_all(plain_orders(50, 14), &run(0), |_| ()).await.unwrap();

    world.expect_reconciled(50).await;
    for stage in INTERESTED {
        let count = format!(
            "select count(*) from dead_letters where stage = '{stage}' and code = 'bad_data'"
        );
        assert_eq!(tables.number(&count).await.unwrap(), 300, "{stage}");
    }
}

/// What lies in `dead_letters` for a record.
#[derive(Debug, PartialEq, Eq)]
struct Aside {
    code: String,
    key: Option<String>,
    value: Option<String>,
    headers: String,
}

impl Aside {
    fn of(poison: &Poison) -> Self {
        let Record { key, value, headers, .. } = &poison.record;
        let headers: Vec<String> = headers
            .iter()
            .map(|(name, value)| {
                format!("{name}={}", value.as_deref().map_or("null".to_owned(), hex))
            })
            .collect();
        let (key, value) = (key.as_deref().map(hex), value.as_deref().map(hex));
        Self { code: poison.code.to_owned(), key, value, headers: headers.join(" ") }
    }
}

/// By stage, partition and offset.
async fn set_aside(world: &World) -> BTreeMap<(String, i32, i64), Aside> {
    let query = "select stage, partition::text, record_offset::text, code,
                        encode(record_key, 'hex'), encode(record_value, 'hex'),
                        (select string_agg(name || '=' || coalesce(encode(value, 'hex'), 'null'), ' ' order by number)
                           from unnest(header_names, header_values) with ordinality as header (name, value, number))
                   from dead_letters
                  where state = 'open'";
    let rows = world.pipeline.tables().await.unwrap().rows(query).await.unwrap();
    let aside = rows.into_iter().map(|row| {
        let [stage, partition, offset, code, key, value, headers] =
            <[_; 7]>::try_from(row).unwrap();
        let place =
            (stage.unwrap(), partition.unwrap().parse().unwrap(), offset.unwrap().parse().unwrap());
        (place, Aside { code: code.unwrap(), key, value, headers: headers.unwrap_or_default() })
    });
    aside.collect()
}

/// The topic of dead letters has one copy per stage, with the original headers before those that say where it came from.
async fn expect_copies(records: &Records<'_>, poisons: &[Poison], places: &[(i32, i64)]) {
    let copies = records.read(Topic::DeadLetters).await.unwrap();
    assert_eq!(copies.len(), poisons.iter().map(|poison| poison.readers().len()).sum::<usize>());
    let text = |copy: &Record, header: &str| {
        String::from_utf8(copy.header(header).unwrap().to_vec()).unwrap()
    };
    let origins: BTreeSet<_> = copies
        .iter()
        .map(|copy| {
            (
                text(copy, "dlq-stage"),
                text(copy, "dlq-original-partition"),
                text(copy, "dlq-original-offset"),
            )
        })
        .collect();
    assert_eq!(origins.len(), copies.len(), "a copy appears twice");
    for (poison, (partition, offset)) in poisons.iter().zip(places) {
        let of_it = copies.iter().filter(|copy| {
            text(copy, "dlq-original-partition") == partition.to_string()
                && text(copy, "dlq-original-offset") == offset.to_string()
        });
        for copy in of_it {
            assert_eq!(text(copy, "dlq-code"), poison.code, "{}", poison.what);
            let original = &poison.record;
            assert_eq!(copy.key, original.key, "{}", poison.what);
            assert!(copy.value == original.value, "{}: {:.300?}", poison.what, copy.value);
            assert!(
                copy.headers.starts_with(&original.headers),
                "{}: {:?}",
                poison.what,
                copy.headers
            );
        }
    }
}

/// Every way in which a record can be no event of this topic.
fn poisons() -> Vec<Poison> {
    let sound = || placed(OrderId::fresh());
    let edited = |from, to| edited(sound(), from, to);
    let other = OrderId::fresh().to_string().into_bytes();
    let reserved = sound().with_header("ce_type", "inventory.stock-reserved.v1");
    let poison = |what, code, record| Poison { what, code, record };
    vec![
        poison("a null value", "null_value", Record { value: None, ..sound() }),
        poison("a tombstone", "null_value", Record { value: None, headers: Vec::new(), ..sound() }),
        poison("an empty value", "bad_data", Record { value: Some(Vec::new()), ..sound() }),
        poison("a null key", "null_key", Record { key: None, ..sound() }),
        poison("a key that is no id", "bad_key", Record { key: Some(b"42".to_vec()), ..sound() }),
        poison("another order's key", "key_mismatch", Record { key: Some(other), ..sound() }),
        poison("no JSON", "bad_data", Record { value: Some(b"<order/>".to_vec()), ..sound() }),
        poison("no UTF-8", "bad_data", Record { value: Some(vec![0xff, 0xfe, 0x00]), ..sound() }),
        poison(
            "JSON cut short",
            "bad_data",
            Record { value: Some(b"{\"order_id\":".to_vec()), ..sound() },
        ),
        poison("a megabyte", "too_large", Record { value: Some(vec![b' '; 1_000_000]), ..sound() }),
        poison(
            "a megabyte of noise",
            "too_large",
            Record { value: Some(noise(1_000_000)), ..sound() },
        ),
        poison(
            "U+0000 in a text",
            "bad_data",
            edited("\"customer_id\":\"C", "\"customer_id\":\"\\u0000"),
        ),
        poison(
            "a total that is not the sum",
            "bad_data",
            edited("\"total_cents\":", "\"total_cents\":9"),
        ),
        poison("placed in 1970", "bad_data", edited("\"placed_at\":\"20", "\"placed_at\":\"19")),
        poison(
            "a type of the future",
            "unknown_type",
            sound().with_header("ce_type", "orders.order-placed.v2"),
        ),
        poison(
            "a type of nobody",
            "unknown_type",
            sound().with_header("ce_type", "orders.order-eaten.v1"),
        ),
        poison("a type of another topic", "wrong_topic", reserved),
        poison("no type", "missing_header", sound().without_header("ce_type")),
        poison("no id", "missing_header", sound().without_header("ce_id")),
        poison("an id that is none", "bad_header", sound().with_header("ce_id", "first")),
        poison("CloudEvents 0.3", "bad_header", sound().with_header("ce_specversion", "0.3")),
        poison(
            "told in 1970",
            "bad_header",
            sound().with_header("ce_time", "1970-01-01T00:00:00Z"),
        ),
        poison(
            "told in 2100",
            "bad_header",
            sound().with_header("ce_time", "2100-01-01T00:00:00Z"),
        ),
        poison(
            "a header that is no text",
            "bad_header",
            sound().with_header("ce_source", [0xc3, 0x28]),
        ),
        poison(
            "Avro",
            "unsupported_content_type",
            sound().with_header("content-type", "application/avro"),
        ),
        poison(
            "no headers at all",
            "unsupported_content_type",
            Record { headers: Vec::new(), ..sound() },
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
