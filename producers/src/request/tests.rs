use super::*;

const GOOD: &str = r#"{"customer_id":"C-1","currency":"EUR","items":[{"sku":"A","quantity":2,"unit_price_cents":1999}]}"#;

fn pointers(body: &str) -> Vec<String> {
    match parse_order(body.as_bytes()) {
        Err(RequestError::Invalid(violations)) => {
            violations.into_iter().map(|violation| violation.pointer).collect()
        }
        other => panic!("{body}: {other:?}"),
    }
}

fn with_item(item: &str) -> String {
    format!(r#"{{"customer_id":"C-1","currency":"EUR","items":[{item}]}}"#)
}

#[test]
fn a_good_order_is_read_with_its_total() {
    let order = parse_order(GOOD.as_bytes()).unwrap();

    assert_eq!(order.total_cents(), 3998);
    assert_eq!(order.items().len(), 1);
}

#[test]
fn members_nobody_knows_are_ignored() {
    let body = GOOD.replacen('{', r#"{"note":{"a":[1,{"b":null}]},"x":1.5,"#, 1);

    assert!(parse_order(body.as_bytes()).is_ok());
}

#[test]
fn every_mistake_is_reported_at_once_and_in_a_fixed_order() {
    let body = r#"{"total_cents":-1,"items":[{"sku":"","quantity":0,"unit_price_cents":1.5},7],"currency":"eur"}"#;

    assert_eq!(
        pointers(body),
        [
            "/customer_id",
            "/currency",
            "/items/0/sku",
            "/items/0/quantity",
            "/items/0/unit_price_cents",
            "/items/1",
            "/total_cents",
        ]
    );
}

#[test]
fn a_total_that_is_not_the_sum_is_refused() {
    let right = GOOD.replacen('{', r#"{"total_cents":3998,"#, 1);
    let wrong = GOOD.replacen('{', r#"{"total_cents":3999,"#, 1);

    assert!(parse_order(right.as_bytes()).is_ok());
    assert_eq!(pointers(&wrong), ["/total_cents"]);
}

#[test]
fn a_member_that_appears_twice_is_refused() {
    assert_eq!(pointers(&GOOD.replacen('{', r#"{"currency":"USD","#, 1)), ["/currency"]);
    assert_eq!(pointers(&GOOD.replacen('{', r#"{"items":[],"#, 1)), ["/items"]);
    // Escapes do not hide it.
    assert_eq!(pointers(&GOOD.replacen('{', r#"{"currenc\u0079":"USD","#, 1)), ["/currency"]);
}

#[test]
fn numbers_that_are_no_integer_in_range_are_refused() {
    for quantity in ["0", "-1", "1.0", "1e2", "10001", "\"1\"", "null", "true", "[1]", "{}", "-0"] {
        let item = format!(r#"{{"sku":"A","quantity":{quantity},"unit_price_cents":1}}"#);
        assert_eq!(pointers(&with_item(&item)), ["/items/0/quantity"], "{quantity}");
    }
    for price in ["-1", "19.99", "100000001", "9223372036854775808", "18446744073709551616", "1e30"]
    {
        let item = format!(r#"{{"sku":"A","quantity":1,"unit_price_cents":{price}}}"#);
        assert_eq!(pointers(&with_item(&item)), ["/items/0/unit_price_cents"], "{price}");
    }
}

#[test]
fn the_count_of_items_is_bounded_also_when_there_are_very_many() {
    let item = r#"{"sku":"A","quantity":1,"unit_price_cents":1}"#;

    assert!(parse_order(with_item(&[item; 100].join(",")).as_bytes()).is_ok());
    for items in [String::new(), [item; 101].join(","), vec!["1"; 100_000].join(",")] {
        assert_eq!(pointers(&with_item(&items)), ["/items"]);
    }
    assert_eq!(pointers(r#"{"customer_id":"C","currency":"EUR","items":{"a":1}}"#), ["/items"]);
}

#[test]
fn control_characters_never_reach_the_database() {
    for customer in [r"a\u0000b", r"\n", r"\u009f", ""] {
        let body = GOOD.replace("C-1", customer);
        assert_eq!(pointers(&body), ["/customer_id"], "{customer}");
    }
    // Right-to-left marks and quotes are just characters.
    assert!(parse_order(GOOD.replace("C-1", "\u{202e}'; drop table orders--").as_bytes()).is_ok());
}

#[test]
fn text_that_is_no_json_is_malformed() {
    let deep = GOOD.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(200), "]".repeat(200)), 1);
    let bodies: [&[u8]; 12] = [
        b"",
        b" ",
        b"{",
        b"not json",
        &GOOD.as_bytes()[..GOOD.len() - 1],
        b"{}{}",
        b"\xef\xbb\xbf{}",
        br#"{"customer_id":NaN}"#,
        br#"{"total_cents":1e999}"#,
        b"{\"x\":\"\xff\xfe\"}",
        br#"{"x":"\ud800"}"#,
        deep.as_bytes(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(body);
        assert!(matches!(parse_order(body), Err(RequestError::Malformed(_))), "{shown}");
    }
}

#[test]
fn json_that_is_no_object_is_one_violation_of_the_whole() {
    for body in ["[]", "7", "\"text\"", "null", "true"] {
        assert_eq!(pointers(body), [""], "{body}");
    }
}

#[test]
fn a_line_may_carry_its_key() {
    let with_key = |key: &str| GOOD.replacen('{', &format!(r#"{{"idempotency_key":{key},"#), 1);

    assert!(parse_line(GOOD.as_bytes()).unwrap().key.is_none());
    assert!(parse_line(with_key("null").as_bytes()).unwrap().key.is_none());
    let key = parse_line(with_key("\"k-1\"").as_bytes()).unwrap().key.unwrap().unwrap();
    assert_eq!(key.as_str(), "k-1");
    for bad in ["\"\"", "7", "\"a\\nb\""] {
        assert!(parse_line(with_key(bad).as_bytes()).unwrap().key.unwrap().is_err(), "{bad}");
    }
}
