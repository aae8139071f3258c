//! The files of `prometheus/` that a server needs, one line each. In the program, so that it works wherever it is put.

pub(super) const CONFIG: &str = include_str!("../../../../prometheus/prometheus.yml");

macro_rules! files {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_str!(concat!("../../../../prometheus/", $file)))),*]
    };
}

pub(super) const FILES: &[(&str, &str)] = files![
    "prometheus.yml",
    "rules/api.yml",
    "rules/batch.yml",
    "rules/database.yml",
    "rules/lag.yml",
    "rules/orders.yml",
    "rules/slo.yml",
    "rules/stages.yml",
    "rules/temporal.yml",
    "alerts/batch.yml",
    "alerts/database.yml",
    "alerts/kafka.yml",
    "alerts/meta.yml",
    "alerts/orders.yml",
    "alerts/slo.yml",
    "alerts/stages.yml",
    "alerts/temporal.yml",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_file_of_the_folder_is_here() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../prometheus");
        let mut found = vec!["prometheus.yml".to_owned()];
        for folder in ["rules", "alerts"] {
            for entry in std::fs::read_dir(format!("{root}/{folder}")).unwrap() {
                found.push(format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()));
            }
        }
        found.sort();

        let mut listed: Vec<_> = FILES.iter().map(|(file, _)| *file).collect();
        listed.sort_unstable();

        assert_eq!(listed, found);
    }

    #[test]
    fn in_faster_time_every_window_holds_as_many_scrapes_and_no_length_of_time_is_forgotten() {
        let milliseconds = |text: &str| -> u64 {
            let digits = text.split(|c: char| !c.is_ascii_digit()).next().unwrap();
            digits.parse().unwrap()
        };
        let mut windows = 0;
        for (file, text) in FILES {
            let faster = crate::servers::shortened::shortened(text, 24);
            for window in faster
                .split('[')
                .skip(1)
                .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            {
                windows += 1;
                assert!(milliseconds(window) >= 4 * 625, "{file}: [{window:.20}");
            }
            for line in faster.lines() {
                let (key, value) = line.trim().split_once(": ").unwrap_or_default();
                if ["for", "keep_firing_for", "interval", "scrape_interval"].contains(&key) {
                    assert!(value.ends_with("ms"), "{file}: {line}");
                }
            }
            assert!(!faster.contains("\"60("), "{file}: the minute of an objective");
        }
        assert!(windows > 100, "{windows}");
    }
}
