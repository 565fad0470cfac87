//! The machine's limit for a gather: the same rows in the same order with the same prefetches, but no sums.

use super::input::{Ints, Table};
use super::kernel::{LINE_BYTES, prefetch_bytes};
use super::window::{Window, straddles};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::pool;
use rayon::prelude::*;
use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

/// Bytes per second at which rows of `table` can be brought to the core in the order of `indices`: one byte of each
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

/// Load one byte of each cache line of each row; their sum keeps the loads alive. Compiled for the usual widths.
fn touch(table: &Table, indices: &Ints, positions: Range<usize>, control: &Control) -> Result<u32> {
    match table.row_bytes().div_ceil(LINE_BYTES) {
        1 => touch_lines::<1>(table, indices, positions, control),
        2 => touch_lines::<2>(table, indices, positions, control),
        4 => touch_lines::<4>(table, indices, positions, control),
        8 => touch_lines::<8>(table, indices, positions, control),
        16 => touch_lines::<16>(table, indices, positions, control),
        _ => touch_lines::<0>(table, indices, positions, control),
    }
}

/// [`touch`] for rows of `LINES` cache lines; 0 for any number.
fn touch_lines<const LINES: usize>(
    table: &Table,
    indices: &Ints,
    positions: Range<usize>,
    control: &Control,
) -> Result<u32> {
    let row_bytes = table.row_bytes();
    let lines = if LINES == 0 { row_bytes.div_ceil(LINE_BYTES) } else { LINES };
    let straddles = straddles(table);
    let end = positions.end;
    let mut window = Window::open(table, indices, positions, control)?;
    let mut sum = 0_u32;
    while window.position() < end {
        let (rows, ahead) = window.take(usize::MAX)?;
        for (j, &offset) in rows.iter().enumerate() {
            if let Some(&next) = ahead.get(j) {
                prefetch_bytes(table.data.wrapping_add(next), row_bytes, straddles);
            }
            for line in 0..lines {
                // SAFETY: the window checked the offset against the table, and (lines - 1) * 64 < row_bytes.
                sum = sum.wrapping_add(u32::from(unsafe { table.data.add(offset + line * LINE_BYTES).read() }));
            }
            if straddles {
                // SAFETY: as above; a row has at least one byte.
                sum = sum.wrapping_add(u32::from(unsafe { table.data.add(offset + row_bytes - 1).read() }));
            }
        }
    }
    Ok(sum)
}
