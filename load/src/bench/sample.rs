//! Numbers of one round, and medians over rounds.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::usage::Cpu;

/// A rate and what it cost.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Sample {
    /// Units per second.
    pub(super) per_second: f64,
    /// CPU seconds per a number of units, by process.
    pub(super) cpu: Cpu,
}

impl Sample {
    pub(super) fn cpu_total(&self) -> f64 {
        self.cpu.values().sum()
    }

    /// Medians, number by number.
    pub(super) fn median(rounds: &[Self]) -> Self {
        let names: BTreeMap<&'static str, ()> =
            rounds.iter().flat_map(|round| round.cpu.keys().map(|name| (*name, ()))).collect();
        let cpu = names.into_keys().map(|name| {
            (name, median(rounds.iter().filter_map(|round| round.cpu.get(name)).copied()))
        });
        Self { cpu: cpu.collect(), per_second: median(rounds.iter().map(|round| round.per_second)) }
    }
}

/// The middle one, or the mean of the two in the middle; 0 of nothing.
pub(super) fn median(numbers: impl IntoIterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match (numbers.len() % 2, numbers.get(middle)) {
        (_, None) => 0.0,
        (1, Some(number)) => *number,
        (_, Some(number)) => f64::midpoint(*number, numbers[middle - 1]),
    }
}

/// The value below which `share` of the sorted `numbers` lie.
pub(super) fn quantile(sorted: &[u32], share: f64) -> u32 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles_are_what_the_textbook_says() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0]), 2.5);
        assert_eq!(median([]), 0.0);

        let numbers: Vec<u32> = (1..=100).collect();
        assert_eq!(quantile(&numbers, 0.5), 50);
        assert_eq!(quantile(&numbers, 0.99), 99);
        assert_eq!(quantile(&[7], 0.99), 7);
        assert_eq!(quantile(&[], 0.99), 0);
    }
}
