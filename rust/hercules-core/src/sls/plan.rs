//! A call, checked and cut into pieces of about equal work; each piece is pooled by [`super::piece`].

use super::format::RowFormat;
use super::half::f32_to_brain;
use super::input::{Bags, Ints, LookupWeights, Table, Tables, checked_bytes};
use super::kernel::{Kernels, LINE_BYTES, PoolingKind, Rounder};
use super::piece::{Piece, Shared};
use super::window::{CACHED_BYTES, Lookups, NO_ADDRESSES, Stretch, skipped};
use super::{Mode, Tier, tier};
use crate::control::Control;
use crate::cpu::Isa;
use crate::error::{Error, Result};
use crate::helpers;
use crate::pool;
use std::ops::Range;

/// Below this estimate a call stays on the caller's thread: waking others costs tens of microseconds.
const NS_TO_SHARE: usize = 100_000;
/// From this estimate on it is worth letting other Python threads run.
const NS_TO_DETACH: usize = 10_000;
/// From this estimate on Ctrl-C must be looked for.
const NS_TO_WATCH: usize = 100_000_000;
/// Rough cost of a cache line, for the estimates only.
const NS_PER_LINE_IN_CACHE: usize = 1;
const NS_PER_LINE_IN_MEMORY: usize = 4;
/// Pieces of work per thread, so that one slow thread is helped out.
const PIECES_PER_THREAD: usize = 4;

/// One embedding-bag call.
///
/// Over several tables, lookups and bags stand table after table, each table with the same number of bags, and bag `b`
/// of all tables makes row `b` of the result: their columns side by side.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub tables: Tables<'a>,
    pub indices: Ints<'a>,
    pub bags: Bags<'a>,
    pub mode: Mode,
    /// Factors, one per index; not with [`Mode::Max`].
    pub lookup_weights: Option<LookupWeights<'a>>,
    /// Sum quantised rows by `acc = fma(code, w * scale, acc + w * bias)`, as PyTorch does, and not in the fastest order.
    pub exact: bool,
    pub skip: Skip,
    /// Threads to use at most; `None`: what the environment or the machine says.
    pub threads: Option<usize>,
    /// Highest tier to use; `None`: what the environment or the machine says.
    pub isa: Option<Isa>,
}

/// Lookups that are skipped and not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    Nothing,
    /// Those of one row of the only table; a negative number counts from the end.
    Padding(i64),
    /// Those of index -1, which stands for a row that was pruned away.
    Pruned,
}

/// How long a call will take, roughly: what its caller should do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Microseconds: just run it.
    Short,
    /// Long enough to let go of a lock.
    Medium,
    /// Long enough for a person to press Ctrl-C.
    Long,
}

/// Where a call's result goes: `bags x columns` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    F32(*mut f32),
    F64(*mut f64),
    /// Halves, each rounded once from f32, ties to even.
    F16(*mut u16),
    /// bfloat16, rounded alike.
    Bf16(*mut u16),
}

/// What one table brings to the result.
pub(super) struct Part {
    pub kernels: Kernels,
    /// Where its columns start in a row of the result.
    pub first_column: usize,
    /// Cache lines that are moved for the tables before it.
    work_before: usize,
}

/// A call whose shape, bags and options are checked, with its kernels chosen.
pub struct Plan<'a> {
    pub(super) call: Call<'a>,
    /// Private copy of where each bag ends in the indices, table after table.
    pub(super) ends: Vec<usize>,
    pub(super) stretches: Vec<Stretch<'a>>,
    pub(super) parts: Vec<Part>,
    pub(super) tier: Tier,
    skip: Option<i64>,
    is_f64: bool,
    bags: usize,
    columns: usize,
    /// Rough time on one thread.
    ns: usize,
    threads: usize,
}

impl<'a> Plan<'a> {
    /// Check `call` (all but the values of its indices) and choose its kernels.
    pub fn new(call: Call<'a>) -> Result<Self> {
        let Call { indices, mode, .. } = call;
        let tables = call.tables.as_slice();
        let requested = call.threads.map(|n| pool::resolve_threads(Some(n))).transpose()?;
        let skip = match call.skip {
            Skip::Nothing => None,
            Skip::Padding(value) => Some(resolve_padding(value, tables)?),
            Skip::Pruned => Some(-1),
        };
        if tables.is_empty() {
            return Err(Error::invalid("tables", "is empty; at least one is needed"));
        }
        let is_f64 = tables[0].format == RowFormat::F64;
        if let Some(other) = tables.iter().position(|table| (table.format == RowFormat::F64) != is_f64) {
            let (first, this) = if is_f64 { ("", "not ") } else { ("not ", "") };
            let message = format!("is {this}float64 and tables[0] is {first}float64; all tables are, or none is");
            return Err(Error::invalid(format!("tables[{other}]"), message));
        }
        check_weights(&call, is_f64)?;
        let ends = call.bags.ends(indices.len())?;
        if !ends.len().is_multiple_of(tables.len()) {
            let (made, tables) = (ends.len(), tables.len());
            let message = format!("make {made} bags for {tables} tables; B bags of each take {tables} * B + 1 entries");
            return Err(Error::invalid("offsets", message));
        }
        let bags = ends.len() / tables.len();
        let pooling = match (mode, call.lookup_weights) {
            (Mode::Max, _) => PoolingKind::Max,
            (_, Some(_)) => PoolingKind::WeightedSum,
            (_, None) => PoolingKind::Sum,
        };
        let tier = tier(Isa::chosen(call.isa)?);
        let mut plan = Self {
            call,
            ends,
            stretches: Vec::with_capacity(tables.len()),
            parts: Vec::with_capacity(tables.len()),
            tier,
            skip,
            is_f64,
            bags,
            columns: 0,
            ns: 0,
            threads: 1,
        };
        let all_bytes = tables.iter().fold(0, |bytes: usize, table| bytes.saturating_add(table.bytes()));
        let ns_per_line = if all_bytes <= CACHED_BYTES { NS_PER_LINE_IN_CACHE } else { NS_PER_LINE_IN_MEMORY };
        let mut work = 0_usize;
        for (t, &table) in tables.iter().enumerate() {
            let kernels = (tier.kernels)(table.format, table.dim, pooling, call.exact, skip.is_some());
            plan.parts.push(Part { kernels, first_column: plan.columns, work_before: work });
            plan.stretches.push(Stretch::new(table, plan.start_of((t + 1) * bags), all_bytes));
            plan.columns = plan.columns.checked_add(table.dim).ok_or_else(|| too_wide(tables.len()))?;
            work = work.saturating_add(plan.work_of(t, (t + 1) * bags));
        }
        plan.ns = work.saturating_mul(ns_per_line);
        // One row at least: NumPy refuses wider ones even where there are none.
        checked_bytes("out", bags.max(1), plan.columns, plan.value_bytes())?;
        if plan.ns >= NS_TO_SHARE && plan.ends.len() > 1 {
            plan.threads = requested.map_or_else(|| pool::resolve_threads(None), Ok)?;
        }
        Ok(plan)
    }

    /// Rows of the result.
    pub fn bags(&self) -> usize {
        self.bags
    }

    /// Columns of the result: those of all tables.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Threads that will be used.
    pub fn threads(&self) -> usize {
        self.threads
    }

    pub fn length(&self) -> Length {
        match self.ns {
            0..NS_TO_DETACH => Length::Short,
            NS_TO_DETACH..NS_TO_WATCH => Length::Medium,
            _ => Length::Long,
        }
    }

    /// Whether sums are kept, and results given, in f64.
    pub fn is_f64(&self) -> bool {
        self.is_f64
    }

    /// Bytes of a number that sums are kept in.
    pub(super) fn value_bytes(&self) -> usize {
        if self.is_f64() { size_of::<f64>() } else { size_of::<f32>() }
    }

    /// Position of the first lookup of bag `bag`, counted over all tables.
    pub(super) fn start_of(&self, bag: usize) -> usize {
        if bag == 0 { 0 } else { self.ends[bag - 1] }
    }

    /// How many of `rows`, addresses that the window gave, count.
    pub(super) fn count(&self, rows: &[usize]) -> usize {
        match self.skip {
            None => rows.len(),
            Some(_) => rows.iter().filter(|&&address| address != skipped()).count(),
        }
    }

    /// Run the call and write every value of `out`, `bags x columns`. After an error its content is unspecified.
    pub fn run_into(&self, out: &mut [f32], control: &Control) -> Result<()> {
        if out.len() != self.bags * self.columns {
            let message = format!("has {} values, needs {} x {}", out.len(), self.bags, self.columns);
            return Err(Error::invalid("out", message));
        }
        // SAFETY: `out` holds bags * columns values and is borrowed for us alone.
        unsafe { self.run(Output::F32(out.as_mut_ptr()), control) }
    }

    /// [`Plan::run_into`] for memory that Python owns, and for other types of result.
    ///
    /// An index outside its table gives [`Error::Index`] with the lowest such position, for any number of threads.
    ///
    /// # Safety
    /// `out` is aligned, writable for `bags * columns` values, and overlaps none of the call's inputs.
    pub unsafe fn run(&self, out: Output, control: &Control) -> Result<()> {
        let (to, narrow) = match (out, self.is_f64()) {
            (Output::F32(to), false) => (to.cast(), None),
            (Output::F16(to), false) => (to.cast(), Some(self.tier.round_to_half)),
            (Output::Bf16(to), false) => (to.cast(), Some(round_to_brain as Rounder)),
            (Output::F64(to), true) => (to.cast(), None),
            (Output::F64(_), false) => return Err(Error::invalid("out", "is float64; this table's result is float32")),
            (_, true) => return Err(Error::invalid("out", "must be float64, as the table is")),
        };
        let to = Shared::new(to, narrow);
        let work = |bags: Range<usize>| {
            if bags.is_empty() {
                return Ok(());
            }
            let lookups = Lookups {
                stretches: &self.stretches,
                indices: self.call.indices,
                skip: self.skip,
                resolve: self.tier.resolve,
            };
            let mut addresses = NO_ADDRESSES;
            let mut piece = Piece::open(self, lookups, bags, control, &mut addresses)?;
            // SAFETY: the caller's promise; each bag is worked on once, so nobody else writes its part of the result.
            unsafe { piece.run(to) }
        };
        let all = self.ends.len();
        if self.threads == 1 {
            return work(0..all);
        }
        let pieces = self.pieces(self.threads * PIECES_PER_THREAD);
        // Pieces are disjoint, so no two threads write the same part of the result.
        let outcomes = helpers::share(self.threads, pieces.len(), |i| work(pieces[i].clone()));
        outcomes.into_iter().collect() // the first error in the order of the bags
    }

    /// Cut the bags of all tables into up to `count` runs of about equal work.
    pub(super) fn pieces(&self, count: usize) -> Vec<Range<usize>> {
        let all = self.ends.len();
        let total = self.work_before(all);
        let mut pieces = Vec::with_capacity(count);
        let mut start = 0;
        for piece in 1..=count {
            let target = (total as u128 * piece as u128 / count as u128) as usize;
            // The last one takes the rest, wherever the numbers of lines saturate.
            let end = if piece == count { all } else { lowest(start, all, |bag| self.work_before(bag) >= target) };
            if end > start {
                pieces.push(start..end);
            }
            start = end;
        }
        pieces
    }

    /// Cache lines that are moved for the bags before `bag`, counted over all tables.
    fn work_before(&self, bag: usize) -> usize {
        let t = bag.checked_div(self.bags).unwrap_or(0).min(self.parts.len() - 1);
        self.parts[t].work_before.saturating_add(self.work_of(t, bag))
    }

    /// Cache lines that are moved for those bags of table `t` that come before `bag`: at least one for each lookup, and one
    /// for each bag's result.
    fn work_of(&self, t: usize, bag: usize) -> usize {
        let table = &self.stretches[t].table;
        let per_row = table.row_bytes().div_ceil(LINE_BYTES).max(1);
        let per_bag = table.dim.saturating_mul(self.value_bytes()).div_ceil(LINE_BYTES).max(1);
        let first = t * self.bags;
        let lookups = self.start_of(bag) - self.start_of(first);
        lookups.saturating_mul(per_row).saturating_add((bag - first).saturating_mul(per_bag))
    }
}

fn check_weights(call: &Call, is_f64: bool) -> Result<()> {
    let Some(weights) = call.lookup_weights else { return Ok(()) };
    let refuse = |message: String| Err(Error::invalid("per_sample_weights", message));
    if call.mode == Mode::Max {
        return refuse("go with modes sum and mean, not with max".to_owned());
    }
    if weights.len != call.indices.len() {
        return refuse(format!("has {} values for {} indices; one each is needed", weights.len, call.indices.len()));
    }
    let needed = if is_f64 { RowFormat::F64 } else { RowFormat::F32 };
    if weights.format != needed {
        return refuse(format!("are {}; sums of this table need {}", weights.format.name(), needed.name()));
    }
    Ok(())
}

/// The index of the padding row.
fn resolve_padding(value: i64, tables: &[Table]) -> Result<i64> {
    let [table] = tables else { return Err(Error::invalid("padding_idx", "goes with one table only")) };
    let rows = table.rows as i64; // an address space has fewer bytes than that
    let row = if value < 0 { value.checked_add(rows) } else { Some(value) };
    row.filter(|row| (0..rows).contains(row))
        .ok_or_else(|| Error::invalid("padding_idx", format!("is {value}; allowed is -{rows} <= padding_idx < {rows}")))
}

fn too_wide(tables: usize) -> Error {
    Error::Size(format!("out: the columns of {tables} tables exceed the address space"))
}

/// The lowest value of `from..=to` for which `holds`, which stays true once it is; `to` if none.
fn lowest(from: usize, to: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (from, to);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// Round `n` values of f32 to bfloat16, ties to even.
///
/// # Safety
/// `from` and `to` are valid for `n` values and apart from each other.
unsafe fn round_to_brain(from: *const f32, to: *mut u16, n: usize) {
    // SAFETY: the caller's promise.
    let (from, to) = unsafe { (std::slice::from_raw_parts(from, n), std::slice::from_raw_parts_mut(to, n)) };
    for (to, x) in to.iter_mut().zip(from) {
        *to = f32_to_brain(*x);
    }
}
