//! Random laws with mean 1. A draw is a pure function of (stream, index), so that configurations share their numbers.

use crate::error::{Error, Result};
use crate::rng::{Stream, exp, ln};

/// Largest Erlang order and largest number of hyperexponential branches.
const MAX_PHASES: usize = 1000;

/// Parameters other than 0: their sums, products and inverses stay finite.
const PARAMETERS: std::ops::RangeInclusive<f64> = 1e-12..=1e12;

/// A law of positive numbers, scaled to mean 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Law {
    Deterministic,
    Exponential,
    /// Sum of `k` exponentials.
    Erlang {
        k: u32,
    },
    /// Branch i with probability `p[i]` is exponential with mean `means[i]`.
    Hyperexponential {
        cumulative: Vec<f64>,
        means: Vec<f64>,
    },
    /// `sigma` of the logarithm.
    Lognormal {
        sigma: f64,
    },
    /// A Poisson *count* of ticks, as the load generator of DeepRecInfra draws its gaps. This is not a Poisson process:
    /// its coefficient of variation is 1/sqrt(mean ticks).
    PoissonCount {
        first: u32,
        cumulative: Vec<f64>,
        mean_ticks: f64,
    },
    /// Recorded values, repeated cyclically; no randomness.
    Replay {
        values: Vec<f64>,
    },
    Gamma {
        shape: f64,
    },
    Uniform {
        low: f64,
        width: f64,
    },
    /// One of `values`, with these running probabilities.
    Empirical {
        cumulative: Vec<f64>,
        values: Vec<f64>,
    },
}

impl Law {
    /// Names that [`Law::parse`] knows, with their parameters.
    pub const NAMES: &str = "poisson or exponential [], deterministic [], erlang [k], hyperexponential [p..., rate...], \
                             gamma [shape], lognormal [sigma], uniform [low, high], empirical [values..., \
                             probabilities...], deeprecsys-gap [mean ticks], replay [values...]";

    /// The law `name` with `params`; the field in errors is `field`.
    pub fn parse(field: &str, name: &str, params: &[f64]) -> Result<Self> {
        if let Some(i) = params.iter().position(|x| *x != 0.0 && !PARAMETERS.contains(x)) {
            let (least, most) = (PARAMETERS.start(), PARAMETERS.end());
            return Err(Error::invalid(
                format!("{field}_params[{i}]"),
                format!("is {}; allowed are 0 and {least:e} to {most:e}", params[i]),
            ));
        }
        let wrong =
            |what: &str| Err(Error::invalid(format!("{field}_params"), format!("{name}: {what}, got {params:?}")));
        match (name, params) {
            ("poisson" | "exponential", []) => Ok(Self::Exponential),
            ("deterministic", []) => Ok(Self::Deterministic),
            ("poisson" | "exponential" | "deterministic", _) => wrong("takes no parameter"),
            ("erlang", [k]) if *k >= 1.0 && *k <= MAX_PHASES as f64 && k.fract() == 0.0 => {
                Ok(Self::Erlang { k: *k as u32 })
            }
            ("erlang", _) => wrong("needs one whole number from 1 to 1000"),
            ("hyperexponential", _) => Self::hyperexponential(params).map_or_else(|| wrong(HYPER), Ok),
            ("gamma", [shape]) if (0.01..=1e4).contains(shape) => Ok(Self::Gamma { shape: *shape }),
            ("gamma", _) => wrong("needs one shape from 0.01 to 1e4"),
            ("uniform", [low, high]) if low < high => {
                let mean = 0.5 * (low + high);
                Ok(Self::Uniform { low: low / mean, width: (high - low) / mean })
            }
            ("uniform", _) => wrong("needs low and high, 0 <= low < high"),
            ("empirical", _) => Self::empirical(params)
                .map_or_else(|| wrong("needs values of positive mean and then as many probabilities (sum 1)"), Ok),
            ("lognormal", [sigma]) if *sigma > 0.0 && *sigma <= 5.0 => Ok(Self::Lognormal { sigma: *sigma }),
            ("lognormal", _) => wrong("needs one sigma above 0, at most 5"),
            ("deeprecsys-gap", [mean]) if *mean >= 0.1 && *mean <= 1e6 => Ok(Self::poisson_count(*mean)),
            ("deeprecsys-gap", _) => wrong("needs the mean number of ticks, 0.1 to 1e6"),
            ("replay", values) => Self::replay(values).map_or_else(|| wrong("needs gaps of positive sum"), Ok),
            _ => Err(Error::invalid(field, format!("is {name:?}; allowed are {}", Self::NAMES))),
        }
    }

    fn hyperexponential(params: &[f64]) -> Option<Self> {
        let branches = params.len() / 2;
        if branches == 0 || !params.len().is_multiple_of(2) || branches > MAX_PHASES {
            return None;
        }
        let (p, rates) = params.split_at(branches);
        let total: f64 = p.iter().sum();
        if (total - 1.0).abs() > 1e-9 || rates.contains(&0.0) {
            return None;
        }
        let mean: f64 = p.iter().zip(rates).map(|(p, rate)| p / total / rate).sum();
        let means = rates.iter().map(|rate| 1.0 / rate / mean).collect();
        Some(Self::Hyperexponential { cumulative: cumulative(p), means })
    }

    /// The Poisson law by its recursion p(k+1) = p(k) mean/(k+1) away from the mode, then normalised: no exponential.
    fn poisson_count(mean: f64) -> Self {
        let mode = mean as u32;
        let mut below = Vec::new();
        let mut p = 1.0;
        for k in (1..=mode).rev() {
            p = p * f64::from(k) / mean;
            if p < 1e-18 {
                break;
            }
            below.push(p);
        }
        let first = mode - below.len() as u32;
        let mut weights: Vec<f64> = below.into_iter().rev().collect();
        weights.push(1.0);
        let (mut p, mut k) = (1.0, mode);
        while p >= 1e-18 {
            k += 1;
            p = p * mean / f64::from(k);
            weights.push(p);
        }
        Self::PoissonCount { first, cumulative: cumulative(&weights), mean_ticks: mean }
    }

    fn empirical(params: &[f64]) -> Option<Self> {
        if params.is_empty() || !params.len().is_multiple_of(2) {
            return None;
        }
        let (values, p) = params.split_at(params.len() / 2);
        let total: f64 = p.iter().sum();
        let mean: f64 = values.iter().zip(p).map(|(x, p)| x * p).sum();
        if (total - 1.0).abs() > 1e-9 || mean <= 0.0 {
            return None;
        }
        Some(Self::Empirical { cumulative: cumulative(p), values: values.iter().map(|x| x / mean).collect() })
    }

    fn replay(values: &[f64]) -> Option<Self> {
        let sum: f64 = values.iter().sum();
        let scale = values.len() as f64 / sum;
        (sum > 0.0 && scale.is_finite()).then(|| Self::Replay { values: values.iter().map(|x| x * scale).collect() })
    }

    /// Number `index` of this law's sequence in `stream`.
    #[inline]
    pub fn draw(&self, stream: Stream, index: u64) -> f64 {
        match self {
            Self::Deterministic => 1.0,
            Self::Exponential => stream.exponential(index),
            Self::Erlang { k } => {
                let k = u64::from(*k);
                let sum: f64 = (0..k).map(|j| stream.exponential(index * k + j)).sum();
                sum / k as f64
            }
            Self::Hyperexponential { cumulative, means } => {
                means[pick(cumulative, stream.uniform(2 * index))] * stream.exponential(2 * index + 1)
            }
            Self::Lognormal { sigma } => lognormal(*sigma, normal_quantile(stream.uniform(index))),
            Self::PoissonCount { first, cumulative, mean_ticks } => {
                (f64::from(*first) + pick(cumulative, stream.uniform(index)) as f64) / mean_ticks
            }
            Self::Replay { values } => values[(index % values.len() as u64) as usize],
            Self::Gamma { shape } => gamma(*shape, stream.inner(index)) / shape,
            Self::Uniform { low, width } => low + width * stream.uniform(index),
            Self::Empirical { cumulative, values } => values[pick(cumulative, stream.uniform(index))],
        }
    }

    /// Square of the coefficient of variation.
    pub fn scv(&self) -> f64 {
        let weighted = |p: &mut dyn Iterator<Item = (f64, f64)>| p.map(|(p, square)| p * square).sum::<f64>() - 1.0;
        let step = |sums: &[f64], i: usize| if i == 0 { sums[0] } else { sums[i] - sums[i - 1] };
        match self {
            Self::Deterministic => 0.0,
            Self::Exponential => 1.0,
            Self::Erlang { k } => 1.0 / f64::from(*k),
            Self::Gamma { shape } => 1.0 / shape,
            Self::Hyperexponential { cumulative, means } => {
                weighted(&mut means.iter().enumerate().map(|(i, mean)| (step(cumulative, i), 2.0 * mean * mean)))
            }
            Self::Lognormal { sigma } => exp(sigma * sigma) - 1.0,
            Self::PoissonCount { mean_ticks, .. } => 1.0 / mean_ticks,
            Self::Replay { values } => values.iter().map(|x| x * x).sum::<f64>() / values.len() as f64 - 1.0,
            Self::Uniform { width, .. } => width * width / 12.0,
            Self::Empirical { cumulative, values } => {
                weighted(&mut values.iter().enumerate().map(|(i, x)| (step(cumulative, i), x * x)))
            }
        }
    }
}

/// Gamma variate of `shape` and scale 1 (Marsaglia & Tsang 2000), from as many numbers of `stream` as it takes.
fn gamma(shape: f64, stream: Stream) -> f64 {
    if shape < 1.0 {
        // gamma(a) = gamma(a + 1) U^(1/a); below e^-700 there is nothing.
        let log = ln(stream.uniform(u64::MAX)) / shape;
        return if log < -700.0 { 0.0 } else { gamma(shape + 1.0, stream) * exp(log) };
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    let mut draw = 0;
    loop {
        let x = normal_quantile(stream.uniform(draw));
        let t = 1.0 + c * x;
        let v = t * t * t;
        let u = stream.uniform(draw + 1);
        if v > 0.0 && ln(u) < 0.5 * x * x + d - d * v + d * ln(v) {
            return d * v;
        }
        draw += 2;
    }
}

/// Number of mean 1 whose logarithm is `sigma` times the normal number `z`, moved to fit.
#[inline(always)]
pub(crate) fn lognormal(sigma: f64, z: f64) -> f64 {
    exp(sigma * z - 0.5 * sigma * sigma)
}

const HYPER: &str = "needs branch probabilities (sum 1) and then as many rates above 0";

/// Running sums, scaled to end at 1 exactly.
pub(crate) fn cumulative(weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let mut sums: Vec<f64> = weights
        .iter()
        .map(|w| {
            sum += w;
            sum / total
        })
        .collect();
    // Rounding must not leave a gap under 1; entries of probability 0 at the end must stay unreachable.
    let last = weights.iter().rposition(|w| *w > 0.0).unwrap_or(0);
    sums[last..].fill(1.0);
    sums
}

/// First index whose running sum exceeds `u`: never one of probability 0.
#[inline]
pub(crate) fn pick(cumulative: &[f64], u: f64) -> usize {
    cumulative.partition_point(|c| *c <= u)
}

/// Coefficients of Acklam's rational approximations, highest power first.
mod acklam {
    pub(super) const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    pub(super) const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    pub(super) const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    pub(super) const D: [f64; 5] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416, 1.0];
}

/// Distance from 0 and 1 below which [`normal_tail`] holds, above which [`normal_middle`].
pub(crate) const NORMAL_TAIL: f64 = 0.024_25;

#[inline(always)]
fn horner<const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    coefficients[1..].iter().fold(coefficients[0], |sum, c| f64::mul_add(sum, x, *c))
}

/// Quantile of the standard normal law away from its tails; no branch.
#[inline(always)]
pub(crate) fn normal_middle(u: f64) -> f64 {
    let q = u - 0.5;
    let r = q * q;
    horner(&acklam::A, r) * q / horner(&acklam::B, r)
}

/// Quantile of the standard normal law in its tails.
pub(crate) fn normal_tail(u: f64) -> f64 {
    let q = (-2.0 * ln(u.min(1.0 - u))).sqrt();
    let z = horner(&acklam::C, q) / horner(&acklam::D, q);
    if u < 0.5 { z } else { -z }
}

/// Quantile of the standard normal law by Acklam's rational approximation; relative error below 1.2e-9.
pub(crate) fn normal_quantile(u: f64) -> f64 {
    if u.min(1.0 - u) < NORMAL_TAIL { normal_tail(u) } else { normal_middle(u) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    #[test]
    fn normal_quantile_hits_known_points() {
        for (u, z) in
            [(0.5, 0.0), (0.975, 1.959_963_984_540_054), (0.01, -2.326_347_874_040_841), (1e-6, -4.753_424_308_822_899)]
        {
            assert!((normal_quantile(u) - z).abs() < 6e-9, "{u}");
        }
    }

    #[test]
    fn laws_have_mean_one_and_the_stated_variance() {
        let cases = [
            ("poisson", vec![], 1.0),
            ("deterministic", vec![], 0.0),
            ("erlang", vec![4.0], 0.25),
            ("hyperexponential", vec![0.887_298_334_621, 0.112_701_665_379, 1.774_596_669_24, 0.225_403_330_759], 4.0),
            ("lognormal", vec![0.5], 0.284_025_416_687_741_5),
            ("deeprecsys-gap", vec![25.0], 0.04),
            ("replay", vec![1.0, 3.0], 0.25),
            ("gamma", vec![2.5], 0.4),
            ("gamma", vec![0.4], 2.5),
            ("uniform", vec![1.0, 3.0], 1.0 / 12.0),
            ("empirical", vec![1.0, 2.0, 6.0, 0.5, 0.25, 0.25], 10.5 / 6.25 - 1.0),
        ];
        let stream = Stream::new(11, Purpose::Arrivals, 0);
        for (name, params, variance) in cases {
            let law = Law::parse("arrivals", name, &params).unwrap();
            assert!((law.scv() - variance).abs() < 1e-9, "{name}: scv {}", law.scv());
            let n = 400_000;
            let (mut sum, mut square) = (0.0, 0.0);
            for i in 0..n {
                let x = law.draw(stream, i) - 1.0;
                sum += x;
                square += x * x;
            }
            let n = n as f64;
            assert!((sum / n).abs() < 5.0 * (f64::max(variance, 1e-12) / n).sqrt(), "{name}: mean {}", sum / n);
            assert!((square / n - variance).abs() < 0.05 * variance + 1e-12, "{name}: variance {}", square / n);
        }
    }

    #[test]
    fn zero_probabilities_are_never_picked() {
        let sums = cumulative(&[0.0, 0.5, 0.0, 0.5, 0.0]);
        for i in 0..1000 {
            assert!([1, 3].contains(&pick(&sums, (f64::from(i) + 0.5) / 1000.0)));
        }
    }

    #[test]
    fn faults_name_the_parameter() {
        for (name, params) in [
            ("poisson", vec![1.0]),
            ("erlang", vec![0.0]),
            ("erlang", vec![1.5]),
            ("hyperexponential", vec![0.5, 1.0, 1.0]),
            ("hyperexponential", vec![0.5, 0.4, 1.0, 1.0]),
            ("lognormal", vec![0.0]),
            ("deeprecsys-gap", vec![]),
            ("replay", vec![0.0]),
            ("replay", vec![f64::INFINITY]),
            ("hyperexponential", vec![0.5, 0.5, 5e-324, 2.0]),
        ] {
            assert!(Law::parse("arrivals", name, &params).unwrap_err().to_string().starts_with("arrivals_params"));
        }
        assert!(Law::parse("arrivals", "bursty", &[]).unwrap_err().to_string().contains("deeprecsys-gap"));
        assert!(
            Law::parse("arrivals", "erlang", &[f64::NAN]).unwrap_err().to_string().starts_with("arrivals_params[0]")
        );
    }
}
