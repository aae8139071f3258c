//! Every fault there is, by family, and the alerts that have none, with what stands in.

use anyhow::{Context, ensure};

use super::fault::Fault;
use super::faults;
use super::known;

/// In the order in which they are tried: a budget that is burnt slowly needs a clean month, and a dead broker leaves most
/// traces. One that is burnt fast is so far gone that for the next six hours any slow answer raises the alarm again; only
/// the last family has servers of its own.
pub(super) const CATALOGUE: &[&[Fault]] = &[
    faults::slo::SLOW,
    faults::orders::FAULTS,
    faults::stages::FAULTS,
    faults::meta::FAULTS,
    faults::pairs::FAULTS,
    faults::batch::FAULTS,
    faults::database::FAULTS,
    faults::kafka::FAULTS,
    faults::stages::FOR_GOOD,
    faults::slo::FAST,
    faults::temporal::FAULTS,
];

/// Alerts without a fault of their own here, and the proof in its place.
pub(super) const STANDS_IN: &[(&str, &str)] = &[(
    "Watchdog",
    "no fault makes it fire: it must reach the dead man during every one of them, and each proof fails if it does not",
)];

/// The faults that prove `only`; all of them when it is empty.
pub(super) fn choose(only: &[String]) -> anyhow::Result<Vec<&'static Fault>> {
    for name in only {
        known::alerts().find(|alert| alert.name == *name).with_context(|| {
            let all: Vec<_> = known::alerts().map(|alert| alert.name).collect();
            format!("no alert is called {name}; there is {}", all.join(", "))
        })?;
        ensure!(
            all().any(|fault| fault.proves(name)),
            "{name} is not proven by a fault of its own; see --list"
        );
    }
    let chosen =
        all().filter(|fault| only.is_empty() || only.iter().any(|name| fault.proves(name)));
    Ok(chosen.collect())
}

fn all() -> impl Iterator<Item = &'static Fault> {
    CATALOGUE.iter().flat_map(|family| family.iter())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_alert_has_a_page_a_unit_test_and_a_live_proof() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../prometheus");
        let tests = fs::read_dir(folder.join("tests")).unwrap();
        let tests: String =
            tests.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();

        for alert in known::alerts() {
            let name = alert.name;
            let page = folder.join(format!("runbooks/{name}.md"));
            assert!(page.is_file(), "{name} has no page in runbooks");
            let case = format!("alertname: {name}\n        exp_alerts:\n");
            assert!(tests.contains(&case), "no unit test shows that {name} fires");
            let proven = all().any(|fault| fault.proves(name));
            let stands_in = STANDS_IN.iter().any(|(other, _)| *other == name);
            assert!(
                proven != stands_in,
                "{name} needs a fault here, or a sentence on what stands in"
            );
        }
    }

    #[test]
    fn faults_and_sentences_are_about_alerts_that_exist() {
        let exists = |name: &str| known::alerts().any(|alert| alert.name == name);
        for fault in all() {
            assert!(!fault.proves.is_empty(), "{}", fault.what);
            for expected in fault.proves {
                assert!(exists(expected.alert), "{}: {}", fault.what, expected.alert);
            }
            for (alert, why) in fault.follows {
                assert!(exists(alert) && !fault.proves(alert), "{}: {alert}", fault.what);
                assert!(why.len() > 10, "{}: say why {alert} follows", fault.what);
            }
        }
        for (alert, why) in STANDS_IN {
            assert!(exists(alert) && why.len() > 10, "{alert}");
        }
    }
}
