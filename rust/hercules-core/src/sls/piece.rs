//! One thread's share of a call: consecutive bags, pooled table by table through one window.

use super::Mode;
use super::input::checked_bytes;
use super::kernel::Rounder;
use super::kernel::{Batch, Kernels};
use super::plan::{Part, Plan};
use super::window::{Addresses, Lookups, Stretch, Taken, Window, skipped};
use crate::control::Control;
use crate::error::{Error, Result};
use std::cell::Cell;
use std::ops::{Div, Range};

/// Bytes of table rows to pool at a time where rows are wider than a strip: a fraction of a second-level cache.
const BATCH_BYTES: usize = 1 << 18;
const LEAST_BATCH_ROWS: usize = 16;
/// Bytes of f32 results to keep at a time where they are yet to be rounded to 16 bits.
const SCRATCH_BYTES: usize = 1 << 17;

/// A pointer to the result that threads share, each writing rows of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    to: *mut u8,
    /// How sums become results of 16 bits, where those are asked for.
    narrow: Option<Rounder>,
}

impl Shared {
    pub fn new(to: *mut u8, narrow: Option<Rounder>) -> Self {
        Self { to, narrow }
    }
}

// SAFETY: `Plan::run` hands disjoint parts of the result to its threads.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Consecutive bags of a plan, counted over all tables, and their lookups.
pub(super) struct Piece<'a> {
    plan: &'a Plan<'a>,
    bags: Range<usize>,
    window: Window<'a>,
}

impl<'a> Piece<'a> {
    /// The bags `bags`, at least one.
    pub fn open(
        plan: &'a Plan<'a>,
        lookups: Lookups<'a>,
        bags: Range<usize>,
        control: &'a Control,
        addresses: &'a mut Addresses,
    ) -> Result<Self> {
        let positions = plan.start_of(bags.start)..plan.ends[bags.end - 1];
        Ok(Self { plan, bags, window: Window::open(lookups, positions, control, addresses)? })
    }

    /// Pool the bags into their places in the result.
    ///
    /// # Safety
    /// `out` points to the plan's whole result, and nobody else uses the parts that belong to these bags.
    pub unsafe fn run(&mut self, out: Shared) -> Result<()> {
        let rows = self.plan.bags();
        let mut scratch = Vec::new();
        let mut bag = self.bags.start;
        while bag < self.bags.end {
            let table = bag / rows;
            let end = self.bags.end.min((table + 1) * rows);
            // SAFETY: the caller's promise; bag / rows is below the number of tables, as bag < ends.len().
            unsafe {
                if let Some(round) = out.narrow {
                    self.pool_narrow(table, bag..end, out.to, round, &mut scratch)?;
                } else {
                    let first = (bag % rows) * self.plan.columns() + self.plan.parts[table].first_column;
                    self.pool(table, bag..end, out.to.add(first * self.plan.value_bytes()), self.plan.columns())?;
                }
            }
            bag = end;
        }
        Ok(())
    }

    /// Pool bags of one table into f32 that nobody else sees, a bounded number at a time, and round them into `out`.
    ///
    /// # Safety
    /// As [`Piece::run`].
    unsafe fn pool_narrow(
        &mut self,
        table: usize,
        bags: Range<usize>,
        out: *mut u8,
        round: Rounder,
        scratch: &mut Vec<f32>,
    ) -> Result<()> {
        let (rows, columns) = (self.plan.bags(), self.plan.columns());
        let dim = self.plan.stretches[table].table.dim;
        let at_a_time = (SCRATCH_BYTES / size_of::<f32>() / dim.max(1)).clamp(1, bags.len());
        let bytes = checked_bytes("out", at_a_time, dim, size_of::<f32>())?;
        scratch.clear();
        scratch.try_reserve_exact(at_a_time * dim).map_err(|_| Error::Memory { bytes })?;
        for start in bags.clone().step_by(at_a_time) {
            let some = start..bags.end.min(start + at_a_time);
            // SAFETY: the scratch has room for `dim` values of each of `some`, which `pool` writes; their places in `out`
            // are ours.
            unsafe {
                self.pool(table, some.clone(), scratch.as_mut_ptr().cast(), dim)?;
                for (i, bag) in some.enumerate() {
                    let to = (bag % rows) * columns + self.plan.parts[table].first_column;
                    round(scratch.as_ptr().add(i * dim), out.cast::<u16>().add(to), dim);
                }
            }
        }
        Ok(())
    }

    /// Pool bags of one table, the next in the window, into `out`: where the first column of the first of them goes.
    /// `stride` values further on is that of the next.
    ///
    /// # Safety
    /// `out` is aligned for the type of the sums and writable for the table's columns of each bag; nobody else uses it.
    unsafe fn pool(&mut self, table: usize, bags: Range<usize>, out: *mut u8, stride: usize) -> Result<()> {
        let plan = self.plan;
        let row = Row { plan, stretch: &plan.stretches[table], part: &plan.parts[table], stride };
        let until = plan.ends[bags.end - 1];
        let mut bag = bags.start;
        let mut kept = 0; // rows of bag `bag` pooled so far
        let mut shared = 0.0; // their sum of what a row adds to all columns alike
        while bag < bags.end {
            let position = self.window.position();
            let taken = self.window.take(table, row.rows_at_a_time().min(until - position))?;
            let ends = &plan.ends[bag..bags.end];
            let resumed = (plan.start_of(bag) < position).then_some(shared);
            let closed;
            // SAFETY: `out` has a row for each bag; the window's rows are rows of this table.
            unsafe {
                let out = out.add((bag - bags.start) * stride * plan.value_bytes());
                (closed, shared) = row.pool(&taken, position, ends, resumed, out);
                kept = if plan.is_f64() {
                    row.finish(taken.rows, position, &ends[..closed], kept, out.cast::<f64>(), |n| n as f64)
                } else {
                    row.finish(taken.rows, position, &ends[..closed], kept, out.cast::<f32>(), |n| n as f32)
                };
            }
            bag += closed;
        }
        Ok(())
    }
}

/// How rows of one table are pooled.
struct Row<'a> {
    plan: &'a Plan<'a>,
    stretch: &'a Stretch<'a>,
    part: &'a Part,
    /// Values from one bag's result to the next.
    stride: usize,
}

impl Row<'_> {
    /// Rows to pool at a time. Rows of several strips are read once per strip, so a batch must stay in the cache.
    fn rows_at_a_time(&self) -> usize {
        let table = &self.stretch.table;
        if self.part.kernels.hold(table.dim) {
            usize::MAX
        } else {
            (BATCH_BYTES / table.row_bytes()).max(LEAST_BATCH_ROWS)
        }
    }

    /// Pool a batch of rows into the results of its bags, strip by strip. `resumed` is the shared sum of the first bag's
    /// earlier rows, if there are any; gives the number of bags that ended, and that sum of the one that stays open.
    ///
    /// # Safety
    /// `taken` are rows of the table, or `skipped` if the call skips any, from `position` on; `ends` are those of the bags
    /// that hold them, in order, and maybe of later ones; `out` is writable for the table's columns of each bag and
    /// unshared; if there is a `resumed`, it holds the accumulators of the first bag's earlier rows.
    unsafe fn pool(
        &self,
        taken: &Taken,
        position: usize,
        ends: &[usize],
        resumed: Option<f32>,
        out: *mut u8,
    ) -> (usize, f32) {
        let Kernels { unit_columns, unit_bytes, .. } = self.part.kernels;
        let table = &self.stretch.table;
        if table.dim == 0 {
            let reach = position + taken.rows.len();
            return (ends.partition_point(|&end| end <= reach), 0.0);
        }
        let value_bytes = self.plan.value_bytes();
        let quantised = table.format.is_quantised();
        let (weights, weight_stride) = match self.plan.call.lookup_weights {
            Some(weights) => (weights.data.wrapping_add(position * value_bytes), 1),
            None => ((&raw const NO_WEIGHT).cast(), 0),
        };
        let open_shared = Cell::new(0.0);
        let mut batch = Batch {
            rows: taken.rows,
            ahead: taken.ahead,
            first_byte: 0,
            position,
            ends,
            weights,
            weight_stride,
            skipped: skipped(),
            last_columns: 0,
            params: 0,
            last_byte: 0,
            // The scale and bias of a quantised row may lie in any line behind the strip's.
            straddles: self.stretch.straddles || quantised,
            resumed,
            open_shared: &open_shared,
            stride: self.stride,
        };
        let mut closed = 0;
        let mut column = 0;
        while column < table.dim {
            let (units, kernel) = self.part.kernels.widest(table.dim - column);
            let columns = (table.dim - column).min(units * unit_columns);
            let rest = table.row_bytes() - batch.first_byte;
            batch.last_columns = columns - (units - 1) * unit_columns;
            batch.params = rest - table.format.param_bytes();
            batch.last_byte = if quantised { rest - 1 } else { columns * table.format.bits() / 8 - 1 };
            // SAFETY: the tier was chosen among those that the CPU has; columns column..column + columns exist in each
            // row, from `first_byte` on, and in each bag's result; scale and bias end a quantised row; weights, where
            // used, are there for each lookup.
            closed = unsafe { kernel(&batch, out.add(column * value_bytes)) };
            column += columns;
            batch.first_byte += units * unit_bytes;
        }
        (closed, open_shared.get())
    }

    /// Turn the accumulators of the bags that ended within a batch, at `ends`, into results. `kept` rows of the first bag
    /// were pooled before this batch; gives the same count for the bag that stays open.
    ///
    /// # Safety
    /// `out` is writable for the table's columns of each bag, initialised and unshared.
    unsafe fn finish<N: Copy + Div<Output = N>>(
        &self,
        rows: &[usize],
        position: usize,
        ends: &[usize],
        kept: usize,
        out: *mut N,
        number: impl Fn(usize) -> N,
    ) -> usize {
        if self.plan.call.mode == Mode::Sum {
            return 0; // a sum is finished as it stands, and nobody asks for the count
        }
        let mut kept = kept;
        let mut start = 0;
        for (bag, &end) in ends.iter().enumerate() {
            let stop = end - position;
            kept += self.plan.count(&rows[start..stop]);
            // SAFETY: the caller's promise.
            unsafe { self.finish_bag(out.add(bag * self.stride), kept, &number) };
            kept = 0;
            start = stop;
        }
        kept + self.plan.count(&rows[start..])
    }

    /// Turn a bag's accumulators into its result.
    ///
    /// # Safety
    /// `out` is writable for the table's columns, initialised and unshared.
    unsafe fn finish_bag<N: Copy + Div<Output = N>>(&self, out: *mut N, count: usize, number: impl Fn(usize) -> N) {
        let dim = self.stretch.table.dim;
        // SAFETY: the caller's promise; zero bytes are the zero of f32 and f64.
        unsafe {
            if count == 0 {
                out.write_bytes(0, dim);
            } else if self.plan.call.mode == Mode::Mean && count > 1 {
                for column in 0..dim {
                    *out.add(column) = *out.add(column) / number(count);
                }
            }
        }
    }
}

/// The weight of every lookup of a call without weights, over quantised rows.
static NO_WEIGHT: f32 = 1.0;
