//! The slow twin: embedding-bag as its definition reads, over checked slices. Read this first.

use super::Mode;
use crate::error::{Error, Result};
use std::ops::{Add, Div, Mul};

/// f32 or f64.
pub(crate) trait Real: Copy + PartialOrd + Add<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    const LEAST: Self;
    fn of(n: u16) -> Self;
}

impl Real for f32 {
    const LEAST: Self = Self::NEG_INFINITY;
    fn of(n: u16) -> Self {
        Self::from(n)
    }
}

impl Real for f64 {
    const LEAST: Self = Self::NEG_INFINITY;
    fn of(n: u16) -> Self {
        Self::from(n)
    }
}

/// What the twin is asked: bag `b` holds lookups `ends[b - 1]..ends[b]` (from 0 for the first bag).
pub(crate) struct Question<'a, N> {
    pub weight: &'a [N],
    pub rows: usize,
    pub dim: usize,
    pub indices: &'a [i64],
    pub ends: &'a [usize],
    pub mode: Mode,
    pub lookup_weights: Option<&'a [N]>,
    pub padding: Option<usize>,
}

/// `out[b, c]` = reduce over the lookups `j` of bag `b`, in order, of `w[j] * weight[indices[j], c]`.
pub(crate) fn embedding_bag<N: Real>(q: &Question<N>) -> Result<Vec<N>> {
    let mut out = Vec::with_capacity(q.ends.len() * q.dim);
    let mut start = 0;
    for &end in q.ends {
        let mut rows = Vec::new();
        for (position, &value) in q.indices.iter().enumerate().take(end).skip(start) {
            let outside = Error::Index { position, value, rows: q.rows, table: None };
            let row = usize::try_from(value).ok().filter(|&row| row < q.rows).ok_or(outside)?;
            if Some(row) != q.padding {
                rows.push((row, q.lookup_weights.map(|weights| weights[position])));
            }
        }
        for column in 0..q.dim {
            let values = rows.iter().map(|&(row, w)| {
                let value = q.weight[row * q.dim + column];
                w.map_or(value, |w| w * value)
            });
            out.push(reduce(q.mode, values, rows.len()));
        }
        start = end;
    }
    Ok(out)
}

#[allow(clippy::eq_op)] // only a NaN differs from itself
fn reduce<N: Real>(mode: Mode, values: impl Iterator<Item = N>, count: usize) -> N {
    if count == 0 {
        return N::of(0);
    }
    match mode {
        Mode::Sum => values.fold(N::of(0), |sum, x| sum + x),
        Mode::Mean => values.fold(N::of(0), |sum, x| sum + x) / N::of(count as u16),
        Mode::Max => values.fold(N::LEAST, |best, x| if x > best || x != x { x } else { best }),
    }
}

/// Rows of codes with a scale and a bias each.
pub(crate) struct Quantised {
    pub codes: Vec<f32>,
    pub scale_and_bias: Vec<(f32, f32)>,
}

/// The result of a bag of quantised rows by the exact formula, and the magnitude that bounds the error of any order:
/// the sum of `|w q scale| + |w bias|`. `lookups` are rows with their weights.
pub(crate) fn quantised_column(
    table: &Quantised,
    dim: usize,
    column: usize,
    lookups: &[(usize, f32)],
    mode: Mode,
) -> (f32, f64) {
    if lookups.is_empty() {
        return (0.0, 0.0);
    }
    let (mut acc, mut magnitude) = (if mode == Mode::Max { f32::NEG_INFINITY } else { 0.0 }, 0.0);
    for &(row, w) in lookups {
        let (scale, bias) = table.scale_and_bias[row];
        let code = table.codes[row * dim + column];
        if mode == Mode::Max {
            acc = acc.max(code.mul_add(scale, bias));
        } else {
            acc = code.mul_add(w * scale, acc + w * bias);
            magnitude +=
                (f64::from(w) * f64::from(code) * f64::from(scale)).abs() + (f64::from(w) * f64::from(bias)).abs();
        }
    }
    if mode == Mode::Mean {
        let n = lookups.len() as f32;
        return (acc / n, magnitude / f64::from(n));
    }
    (acc, magnitude)
}
