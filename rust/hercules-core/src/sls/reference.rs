//! The slow twin: embedding-bag as its definition reads, over checked slices. Read this first.

use super::{Mode, check_index};
use crate::error::Result;

/// What the twin is asked: bag `b` holds lookups `ends[b - 1]..ends[b]` (from 0 for the first bag).
pub(crate) struct Question<'a> {
    pub weight: &'a [f32],
    pub rows: usize,
    pub dim: usize,
    pub indices: &'a [i64],
    pub ends: &'a [usize],
    pub mode: Mode,
    pub lookup_weights: Option<&'a [f32]>,
    pub padding: Option<usize>,
}

/// `out[b, c]` = reduce over the lookups `j` of bag `b`, in order, of `w[j] * weight[indices[j], c]`.
pub(crate) fn embedding_bag(q: &Question) -> Result<Vec<f32>> {
    let mut out = Vec::with_capacity(q.ends.len() * q.dim);
    let mut start = 0;
    for &end in q.ends {
        let mut rows = Vec::new();
        for (position, &value) in q.indices.iter().enumerate().take(end).skip(start) {
            let row = check_index(value, position, q.rows)?;
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

fn reduce(mode: Mode, values: impl Iterator<Item = f32>, count: usize) -> f32 {
    if count == 0 {
        return 0.0;
    }
    match mode {
        Mode::Sum => values.fold(0.0, |sum, x| sum + x),
        Mode::Mean => values.fold(0.0, |sum, x| sum + x) / count as f32,
        Mode::Max => values.fold(f32::NEG_INFINITY, |best, x| if x > best || x.is_nan() { x } else { best }),
    }
}
