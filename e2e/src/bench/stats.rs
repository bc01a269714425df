//! From single times to what is said of them. Pure.

use std::time::Duration;

use serde::Serialize;

/// Measured values, one list a round.
#[derive(Debug, Clone, Default)]
pub struct Series(Vec<Vec<f64>>);

/// What is said of a series.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// Median of the rounds' medians.
    pub p50: f64,
    /// Of all values.
    pub p99: f64,
    /// The lowest of the rounds' medians.
    pub low: f64,
    /// The highest of the rounds' medians.
    pub high: f64,
    /// The highest of all values.
    pub max: f64,
    /// How many values there are.
    pub values: usize,
}

impl Figure {
    /// Of something that was measured once.
    #[must_use]
    pub fn single(value: f64) -> Self {
        Self { p50: value, p99: value, low: value, high: value, max: value, values: 1 }
    }
}

/// Milliseconds.
#[must_use]
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A number of things, to calculate with.
#[must_use]
pub fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

/// The value below which that many percent of the values are: the nearest rank.
#[must_use]
pub fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// The middle one, or between the two in the middle.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.get(middle)) {
        (_, None) => f64::NAN,
        (1, Some(value)) => *value,
        (_, Some(value)) => f64::midpoint(values[middle - 1], *value),
    }
}

impl Series {
    /// The lowest of all values.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.0.iter().flatten().copied().fold(f64::INFINITY, f64::min)
    }

    /// Adds a value to a round.
    pub fn push(&mut self, round: usize, value: f64) {
        if self.0.len() <= round {
            self.0.resize(round + 1, Vec::new());
        }
        self.0[round].push(value);
    }

    /// The rounds' medians; a round without values has none.
    fn medians(&self) -> Vec<f64> {
        self.0.iter().filter(|round| !round.is_empty()).map(|round| median(round)).collect()
    }

    /// What is said of it.
    #[must_use]
    pub fn figure(&self) -> Figure {
        let (all, medians) = (self.0.concat(), self.medians());
        Figure {
            p50: median(&medians),
            p99: percentile(&all, 99),
            low: percentile(&medians, 0),
            high: percentile(&medians, 100),
            max: percentile(&all, 100),
            values: all.len(),
        }
    }

    /// Its median divided by the other's, round by round.
    #[must_use]
    pub fn over(&self, floor: &Self) -> Figure {
        let mut ratios = Self::default();
        for (ours, floor) in self.medians().iter().zip(floor.medians()) {
            ratios.push(ratios.0.len(), ours / floor);
        }
        ratios.figure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let hundred: Vec<_> = (1..=100).rev().map(f64::from).collect();
        let found = [0, 1, 50, 99, 100].map(|percent| percentile(&hundred, percent));
        assert_eq!(found.map(|value| format!("{value}")), ["1", "1", "50", "99", "100"]);
        assert_eq!(format!("{}", percentile(&[7.0], 99)), "7");
        assert!(percentile(&[], 50).is_nan() && median(&[]).is_nan());
        assert_eq!(format!("{} {}", median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), "2 2.5");
    }

    #[test]
    fn the_spread_is_that_of_the_rounds() {
        let mut series = Series::default();
        for (round, values) in [[1.0, 2.0, 90.0], [3.0, 4.0, 5.0], [1.0, 1.0, 1.0]].iter().enumerate() {
            for value in values {
                series.push(round, *value);
            }
        }
        let figure = series.figure();
        assert_eq!(format!("{} {} {} {}", figure.p50, figure.low, figure.high, figure.max), "2 1 4 90");
        assert_eq!(figure.values, 9);
        let mut floor = Series::default();
        [1.0, 2.0, 1.0].iter().enumerate().for_each(|(round, value)| floor.push(round, *value));
        let ratio = series.over(&floor);
        assert_eq!(format!("{} {} {}", ratio.p50, ratio.low, ratio.high), "2 1 2");
    }
}
