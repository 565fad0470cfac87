//! The machine's limit for a gather: the same rows in the same order with the same prefetches, but no sums.

use super::input::{Ints, Table};
use super::kernel::LINE_BYTES;
use super::window::{BURST_ROWS, Window};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::pool;
use rayon::prelude::*;
use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

/// Bytes per second at which rows of `table` can be brought to the core in the order of `indices`: one word of each
/// cache line is loaded. Counts the rows' own bytes, as a kernel's useful traffic is counted.
///
/// `threads` share the lookups in equal runs. One timed pass; the caller repeats and takes the median.
pub fn gather_limit(table: &Table, indices: &Ints, threads: Option<usize>, control: &Control) -> Result<f64> {
    if indices.is_empty() || table.dim == 0 {
        return Err(Error::invalid("indices", "must name at least one row of at least one column"));
    }
    let threads = pool::resolve_threads(threads)?;
    let n = indices.len();
    let positions: Vec<Range<usize>> = (0..threads).map(|t| n * t / threads..n * (t + 1) / threads).collect();
    let (outcomes, seconds) = pool::install(threads, || {
        let start = Instant::now();
        let outcomes: Vec<Result<u32>> =
            positions.into_par_iter().map(|run| touch(table, indices, run, control)).collect();
        (outcomes, start.elapsed().as_secs_f64())
    })?;
    for outcome in outcomes {
        black_box(outcome?);
    }
    Ok((n * table.row_bytes()) as f64 / seconds)
}

/// Load one word of each cache line of each row; their sum keeps the loads alive.
fn touch(table: &Table, indices: &Ints, positions: Range<usize>, control: &Control) -> Result<u32> {
    const WORDS_PER_LINE: usize = LINE_BYTES / size_of::<f32>();
    let end = positions.end;
    let mut window = Window::open(table, indices, positions, control)?;
    let mut sum = 0_u32;
    while window.position() < end {
        // Runs this short leave all prefetching to the window.
        let (rows, _) = window.take((end - window.position()).min(BURST_ROWS - 1))?;
        for &offset in rows {
            for column in (0..table.dim).step_by(WORDS_PER_LINE) {
                // SAFETY: the window checked the offset against the table, and column < dim.
                sum = sum.wrapping_add(unsafe { table.data.add(offset + column).read() }.to_bits());
            }
        }
    }
    Ok(sum)
}
