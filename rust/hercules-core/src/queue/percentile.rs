//! Exact percentiles: the smallest x with F_n(x) >= p, no interpolation between order statistics.

use crate::error::{Error, Result};

/// Refuse a percentile outside (0, 1).
pub fn check(field: &str, p: f64) -> Result<()> {
    if p > 0.0 && p < 1.0 { Ok(()) } else { Err(Error::invalid(field, format!("is {p}; allowed is 0 < p < 1"))) }
}

/// Smallest k in 1..=n with k/n >= p.
pub fn rank(p: f64, n: usize) -> usize {
    let mut k = ((p * n as f64).ceil() as usize).clamp(1, n);
    // The product may round up past a whole number.
    if k > 1 && (k - 1) as f64 / n as f64 >= p {
        k -= 1;
    }
    k
}

/// Percentiles of `values`, which are reordered; NaN for no values.
pub fn percentiles(values: &mut [f64], ps: &[f64]) -> Vec<f64> {
    if values.is_empty() {
        return vec![f64::NAN; ps.len()];
    }
    ps.iter().map(|p| *values.select_nth_unstable_by(rank(*p, values.len()) - 1, f64::total_cmp).1).collect()
}

/// Percentile of a weighted sample (weights sum to 1); `pairs` (value, weight) are sorted by value.
pub fn weighted(pairs: &mut [(f64, f64)], p: f64) -> f64 {
    pairs.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut sum = 0.0;
    for (value, weight) in pairs.iter() {
        sum += weight;
        if sum >= p * (1.0 - 1e-12) {
            return *value;
        }
    }
    pairs.last().map_or(f64::NAN, |pair| pair.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_is_the_smallest_that_reaches_p() {
        for n in 1..400 {
            for k in 1..=n {
                assert_eq!(rank(k as f64 / n as f64, n), k, "k {k} n {n}");
            }
        }
        assert_eq!(rank(0.07, 100), 7);
        assert_eq!(rank(0.0701, 100), 8);
    }

    #[test]
    fn percentiles_follow_the_definition() {
        let mut values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(percentiles(&mut values, &[0.2, 0.21, 0.5, 0.99]), [1.0, 2.0, 3.0, 5.0]);
        assert_eq!(weighted(&mut [(3.0, 0.5), (1.0, 0.25), (2.0, 0.25)], 0.5), 2.0);
    }
}
