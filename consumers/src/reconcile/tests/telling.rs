//! How a report reads, and what the command understands.

use schemas::{EventType, Topic};

use super::scene::{Scene, report};
use super::tale::Tale;
use crate::reconcile::since::Since;
use crate::reconcile::topics::Offsets;

#[test]
fn a_finding_counts_all_and_shows_the_first() {
    let report = report((1..=5).map(Tale::reserved).collect::<Vec<_>>());

    let finding = &report.findings[0];
    assert_eq!((finding.count, finding.ids.len()), (5, 3));
    assert!(report.text().contains("\n  and 2 more\n"), "{}", report.text());
}

#[test]
fn topics_that_lost_their_first_records_are_named() {
    let starts = Offsets::from([((Topic::Orders, 0), 0), ((Topic::Payments, 5), 12)]);

    let report = Scene { starts, ..Scene::of([Tale::shipped(1)]) }.report();

    assert_eq!(report.retention, ["payments/5 starts at offset 12"]);
    assert!(report.text().contains("gone by retention"));
}

#[test]
fn a_duration_has_a_unit_or_is_in_seconds() {
    let parse = |text| crate::reconcile::parse_duration(text).map(|duration| duration.as_secs());

    assert_eq!(parse("90"), Ok(90));
    assert_eq!(parse("90s"), Ok(90));
    assert_eq!(parse("5m"), Ok(300));
    assert_eq!(parse("2h"), Ok(7200));
    assert_eq!(parse("7d"), Ok(604_800));
    for bad in ["", "m", "1.5h", "-1", "5 m", "5w", "99999999999999999999"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    assert!("2026-11-22T10:20:30Z".parse::<Since>().is_ok() && "30m".parse::<Since>().is_ok());
    assert!("yesterday".parse::<Since>().is_err());
}

/// The backlog is told from the catalogue of components, so it must name the stages that are.
#[test]
fn the_components_that_the_backlog_counts_are_the_stages_that_run() {
    for entry in crate::stages::CATALOGUE {
        let component = schemas::components::Component::named(entry.name).expect(entry.name);
        let sorted = |types: &[EventType]| {
            let mut types = types.to_vec();
            types.sort_unstable();
            types
        };

        assert!(component.is_stage, "{}", entry.name);
        assert_eq!(sorted(entry.inputs), sorted(component.receives), "{}", entry.name);
        assert_eq!(
            entry.output,
            component.sends.first().map(|sent| sent.topic()),
            "{}",
            entry.name
        );
    }
}
