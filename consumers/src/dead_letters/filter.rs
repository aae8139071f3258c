//! Which dead letters are meant: states, and the filters of the command line. No SQL.

use clap::{Args, ValueEnum};
use schemas::DecodeError;
use serde::Serialize;
use uuid::Uuid;

use crate::runner::metrics::STAGE_CODES;
use crate::stages::CATALOGUE;
use crate::store::dead_letters::PARKED;

/// What became of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Can not be applied; waits for a person.
    Open,
    /// Is sound, but waits behind an open one of its order.
    Parked,
    /// Was published again; its stage has not met it yet.
    Replaying,
    /// Was applied in the end.
    Replayed,
    /// Was given up.
    Discarded,
}

impl State {
    const ALL: [Self; 5] =
        [Self::Open, Self::Parked, Self::Replaying, Self::Replayed, Self::Discarded];
    /// Those that keep later events of their order from being applied.
    pub(super) const WAITING: [Self; 3] = [Self::Open, Self::Parked, Self::Replaying];

    /// As the table spells it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Parked => "parked",
            Self::Replaying => "replaying",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    pub(super) fn is_waiting(self) -> bool {
        Self::WAITING.contains(&self)
    }
}

/// Which letters.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Filter {
    /// Only those of this stage.
    #[arg(long, value_name = "STAGE", value_parser = known_stage)]
    pub(super) stage: Option<String>,

    /// Only those set aside for this reason; "parked" are those that wait behind another one.
    #[arg(long, value_name = "CODE", value_parser = known_code)]
    pub(super) code: Option<String>,

    /// Only those of this order.
    #[arg(long, value_name = "UUID")]
    pub(super) order: Option<Uuid>,
}

impl Filter {
    pub(super) fn is_empty(&self) -> bool {
        self.stage.is_none() && self.code.is_none() && self.order.is_none()
    }
}

/// A stage of the catalogue.
pub(crate) fn known_stage(text: &str) -> Result<String, String> {
    one_of("stage", text, CATALOGUE.iter().map(|entry| entry.name))
}

fn known_code(text: &str) -> Result<String, String> {
    one_of("code", text, DecodeError::CODES.into_iter().chain(STAGE_CODES).chain([PARKED]))
}

fn one_of(
    what: &str,
    text: &str,
    names: impl Iterator<Item = &'static str>,
) -> Result<String, String> {
    let names: Vec<&str> = names.collect();
    if names.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("no such {what}; there are: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_stage_or_code_is_answered_with_those_there_are() {
        assert_eq!(known_stage("payment").as_deref(), Ok("payment"));
        let stages = known_stage("paiment").unwrap_err();
        assert!(CATALOGUE.iter().all(|entry| stages.contains(entry.name)), "{stages}");

        for code in ["bad_data", "unknown_order", "parked"] {
            assert_eq!(known_code(code).as_deref(), Ok(code));
        }
        assert!(known_code("bad").unwrap_err().contains("idempotency_conflict"));
    }

    #[test]
    fn states_are_spelt_as_in_the_table() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("lost"), None);
    }
}
