//! What happened in a run, from topics and tables: what metrics are compared with, and never from a process that exports them.

use std::collections::BTreeMap;

use consumers::stages::CATALOGUE;
use load::pipeline::Tables;
use load::records::Records;
use schemas::Topic;

/// What happened, from topics and tables.
pub(crate) struct Truth {
    /// Records in all topics that the auditor reads.
    pub(crate) records: usize,
    /// By type of event.
    pub(crate) events: BTreeMap<String, f64>,
    /// By stage: records that it acts on.
    pub(crate) read: BTreeMap<String, f64>,
    /// By stage.
    pub(crate) letters: BTreeMap<String, f64>,
    /// Orders by status.
    pub(crate) statuses: BTreeMap<String, f64>,
}

impl Truth {
    pub(crate) async fn of(records: &Records<'_>, mut tables: Tables) -> Self {
        let letters = "select stage, count(*)::text from dead_letters group by 1";
        let letters = by(&mut tables, letters).await;
        let statuses = "select status, count(*)::text from orders group by 1";
        let statuses = by(&mut tables, statuses).await;
        let mut truth =
            Self { records: 0, events: BTreeMap::new(), read: letters.clone(), letters, statuses };
        for topic in Topic::ALL {
            if topic == Topic::DeadLetters {
                continue; // copies, of which the auditor reads the table's originals
            }
            for record in records.read(topic).await.unwrap() {
                truth.records += 1;
                if record.value.is_some() {
                    truth.count(std::str::from_utf8(record.header("ce_type").unwrap()).unwrap());
                }
            }
        }
        truth
    }

    fn count(&mut self, event_type: &str) {
        *self.events.entry(event_type.to_owned()).or_default() += 1.0;
        let readers = CATALOGUE
            .iter()
            .filter(|stage| stage.inputs.iter().any(|input| input.as_str() == event_type));
        for stage in readers {
            *self.read.entry(stage.name.to_owned()).or_default() += 1.0;
        }
    }

    pub(crate) fn events(&self, event_type: &str) -> f64 {
        self.events.get(event_type).copied().unwrap_or(0.0)
    }
}

async fn by(tables: &mut Tables, query: &str) -> BTreeMap<String, f64> {
    let rows = tables.rows(query).await.unwrap();
    let pair = |row: &Vec<Option<String>>| {
        let [name, count] = &row[..] else { panic!("{row:?}") };
        (name.clone().unwrap(), count.as_deref().unwrap().parse().unwrap())
    };
    rows.iter().map(pair).collect()
}
