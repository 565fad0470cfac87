//! The machine's limit for a gather: the same rows in the same order with the same prefetches, but no sums.

use super::input::{Ints, Table};
use super::kernel::{LINE_BYTES, prefetch_bytes};
use super::tier;
use super::window::{Lookups, Stretch, Taken, Window};
use crate::control::Control;
use crate::cpu::Isa;
use crate::error::{Error, Result};
use crate::pool;
use rayon::prelude::*;
use std::hint::black_box;
use std::ops::Range;
use std::ptr::with_exposed_provenance;
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
    let stretches = [Stretch::new(*table, n, table.bytes())];
    let lookups =
        Lookups { stretches: &stretches, indices: *indices, skip: None, resolve: tier(Isa::chosen(None)?).resolve };
    let (outcomes, seconds) = pool::install(threads, || {
        let start = Instant::now();
        let outcomes: Vec<Result<u32>> = positions.into_par_iter().map(|run| touch(lookups, run, control)).collect();
        (outcomes, start.elapsed().as_secs_f64())
    })?;
    for outcome in outcomes {
        black_box(outcome?);
    }
    Ok((n * table.row_bytes()) as f64 / seconds)
}

/// Load one byte of each cache line of each row; their sum keeps the loads alive. Compiled for the usual widths.
fn touch(lookups: Lookups, positions: Range<usize>, control: &Control) -> Result<u32> {
    match lookups.stretches[0].table.row_bytes().div_ceil(LINE_BYTES) {
        1 => touch_lines::<1>(lookups, positions, control),
        2 => touch_lines::<2>(lookups, positions, control),
        4 => touch_lines::<4>(lookups, positions, control),
        8 => touch_lines::<8>(lookups, positions, control),
        16 => touch_lines::<16>(lookups, positions, control),
        _ => touch_lines::<0>(lookups, positions, control),
    }
}

/// [`touch`] for rows of `LINES` cache lines; 0 for any number.
fn touch_lines<const LINES: usize>(lookups: Lookups, positions: Range<usize>, control: &Control) -> Result<u32> {
    let Stretch { table, straddles, .. } = lookups.stretches[0];
    let row_bytes = table.row_bytes();
    let lines = if LINES == 0 { row_bytes.div_ceil(LINE_BYTES) } else { LINES };
    let end = positions.end;
    let mut window = Window::open(lookups, positions, control)?;
    let mut sum = 0_u32;
    while window.position() < end {
        let Taken { rows, ahead } = window.take(0, usize::MAX)?;
        for (j, &address) in rows.iter().enumerate() {
            if let Some(&next) = ahead.get(j) {
                prefetch_bytes(next, row_bytes, straddles);
            }
            let row = with_exposed_provenance::<u8>(address);
            for line in 0..lines {
                // SAFETY: the window checked the row against the table, and (lines - 1) * 64 < row_bytes.
                sum = sum.wrapping_add(u32::from(unsafe { row.add(line * LINE_BYTES).read() }));
            }
            if straddles {
                // SAFETY: as above; a row has at least one byte.
                sum = sum.wrapping_add(u32::from(unsafe { row.add(row_bytes - 1).read() }));
            }
        }
    }
    Ok(sum)
}
