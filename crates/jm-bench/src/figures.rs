//! Medians, ranges and quantiles.

use serde::Serialize;

/// A median with what lies around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Range {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Range {
    /// Of values in any order; zeros where there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (values.first().copied().unwrap_or(0.0), values.last().copied().unwrap_or(0.0));
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => 0.0,
            even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Self { median, min, max }
    }
}

/// The value below which a part of sorted values lies; zero where there are none.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a slice that was counted in the same way"
    )]
    let index = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(index.max(1) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(Range::of([3.0, 1.0, 2.0]), Range { median: 2.0, min: 1.0, max: 3.0 });
        assert!((Range::of([4.0, 1.0, 2.0, 3.0]).median - 2.5).abs() < f64::EPSILON);
        assert_eq!(Range::of([]), Range { median: 0.0, min: 0.0, max: 0.0 });
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        let found = [0.5, 0.99, 1.0].map(|part| quantile(&values, part));
        assert_eq!(found.map(|value| value.to_string()), ["50", "99", "100"]);
        assert!(quantile(&[], 0.5).abs() < f64::EPSILON);
    }
}
