//! The private, checked copy of the lookups that lie just ahead, as addresses of rows.

use super::input::{Ints, Table};
use super::kernel::{LINE_BYTES, prefetch_bytes};
use crate::control::Control;
use crate::error::{Error, Result};
use std::mem::MaybeUninit;
use std::ops::{Range, RangeInclusive};

/// Lookups held at a time: 4 KiB of addresses, a small part of the first-level cache.
const CAPACITY: usize = 512;

/// Memory for a window.
pub(super) type Addresses = [MaybeUninit<usize>; CAPACITY];

pub(super) const NO_ADDRESSES: Addresses = [MaybeUninit::uninit(); CAPACITY];

/// Cache lines to keep in flight ahead of the sum, for a table in memory. In lines rather than rows: memory answers
/// lines, and a distance in rows is right for one width only.
const LINES_AHEAD: usize = 192;
const MOST_ROWS_AHEAD: usize = 128;

/// Tables up to this size together sit in caches near the core, where a long distance only evicts what is needed next.
pub(super) const CACHED_BYTES: usize = 4 << 20;
const CACHED_LINES_AHEAD: usize = 32;
const CACHED_ROWS_AHEAD: RangeInclusive<usize> = 8..=16;

/// How many rows ahead to prefetch in `table`, one of tables of `all_bytes` bytes.
fn rows_ahead(table: &Table, all_bytes: usize) -> usize {
    let lines = table.row_bytes().div_ceil(LINE_BYTES).max(1);
    if all_bytes <= CACHED_BYTES {
        (CACHED_LINES_AHEAD / lines).clamp(*CACHED_ROWS_AHEAD.start(), *CACHED_ROWS_AHEAD.end())
    } else {
        (LINES_AHEAD / lines).clamp(1, MOST_ROWS_AHEAD)
    }
}

/// Whether some rows lie across one cache line more than their size needs.
fn straddles(table: &Table) -> bool {
    !table.row_bytes().is_multiple_of(LINE_BYTES) || !table.data.addr().is_multiple_of(LINE_BYTES)
}

/// What stands for the address of a row that is skipped.
pub(super) fn skipped() -> usize {
    // Memory of our own, so that it is no table's row, and a prefetch of it finds it in the cache.
    static NOWHERE: u64 = 0;
    (&raw const NOWHERE).addr()
}

/// A table and the lookups that are made in it.
#[derive(Clone, Copy)]
pub(super) struct Stretch<'a> {
    pub table: Table<'a>,
    /// Position after its last lookup; its first one follows those of the stretch before.
    pub end: usize,
    pub straddles: bool,
    pub rows_ahead: usize,
}

impl<'a> Stretch<'a> {
    /// `all_bytes` are those of all tables of the call.
    pub fn new(table: Table<'a>, end: usize, all_bytes: usize) -> Self {
        Self { table, end, straddles: straddles(&table), rows_ahead: rows_ahead(&table, all_bytes) }
    }

    /// Ask for the rows at `addresses`.
    fn prefetch(&self, addresses: &[usize]) {
        for &address in addresses {
            prefetch_bytes(address, self.table.row_bytes(), self.straddles);
        }
    }
}

/// # Safety
/// All of `slots` are initialised.
unsafe fn initialised(slots: &[MaybeUninit<usize>]) -> &[usize] {
    // SAFETY: the caller's promise; a `MaybeUninit` is laid out as what it holds.
    unsafe { &*(std::ptr::from_ref(slots) as *const [usize]) }
}

/// Turn the indices in `slots` into addresses of rows of `table`; false, and no slot is changed, if one is outside it.
/// The index `skip`, if there is one, becomes [`skipped`].
#[inline(always)]
#[allow(clippy::needless_bitwise_bool)] // a branch per index would leave a loop that is no vectors
pub(super) fn resolve(slots: &mut [usize], table: &Table, skip: Option<i64>) -> bool {
    // Two plain passes, so that the compiler makes vectors of both.
    let (rows, row_bytes, base) = (table.rows, table.row_bytes(), table.data.expose_provenance());
    if let Some(skip) = skip.map(|skip| skip as usize) {
        let outside = slots.iter().fold(false, |outside, &index| outside | ((index >= rows) & (index != skip)));
        if !outside {
            for slot in slots {
                let address = base.wrapping_add(slot.wrapping_mul(row_bytes));
                *slot = if *slot == skip { skipped() } else { address };
            }
        }
        return !outside;
    }
    // As unsigned, a negative number is larger than any number of rows: one comparison does for both ends.
    let outside = slots.iter().fold(false, |outside, &index| outside | (index >= rows));
    if !outside {
        for slot in slots {
            *slot = base.wrapping_add(slot.wrapping_mul(row_bytes));
        }
    }
    !outside
}

/// A compiled instance of [`resolve`].
///
/// # Safety
/// The CPU has the tier.
pub(super) type Resolver = unsafe fn(slots: &mut [usize], table: &Table, skip: Option<i64>) -> bool;

/// A call's lookups.
#[derive(Clone, Copy)]
pub(super) struct Lookups<'a> {
    /// The tables, in the order of their lookups.
    pub stretches: &'a [Stretch<'a>],
    pub indices: Ints<'a>,
    /// The index that names no row.
    pub skip: Option<i64>,
    /// Of a tier that the CPU has.
    pub resolve: Resolver,
}

/// Rows to pool, and what to prefetch meanwhile.
pub(super) struct Taken<'w> {
    /// Addresses of rows of the stretch that was asked for, or [`skipped`].
    pub rows: &'w [usize],
    /// Addresses of rows to prefetch, entry `j` with row `j`. May be shorter than `rows`.
    pub ahead: &'w [usize],
}

/// A sliding window over one worker's lookups.
pub(super) struct Window<'a> {
    lookups: Lookups<'a>,
    control: &'a Control,
    addresses: &'a mut Addresses,
    /// The part of `addresses` that is filled and not yet used.
    held: Range<usize>,
    /// Positions that are not copied yet.
    unread: Range<usize>,
    /// Stretch of the first of them.
    reading: usize,
    /// Rows of lookups before this position were prefetched.
    asked: usize,
}

impl<'a> Window<'a> {
    /// A window over `positions`, filled. It borrows its memory, since to move that costs more than a small call.
    pub fn open(
        lookups: Lookups<'a>,
        positions: Range<usize>,
        control: &'a Control,
        addresses: &'a mut Addresses,
    ) -> Result<Self> {
        let mut window = Self {
            lookups,
            control,
            addresses,
            held: 0..0,
            asked: positions.start,
            reading: lookups.stretches.partition_point(|stretch| stretch.end <= positions.start),
            unread: positions,
        };
        window.refill()?;
        Ok(window)
    }

    /// Position of the next lookup.
    pub fn position(&self) -> usize {
        self.unread.start - self.held.len()
    }

    /// Take up to `most` lookups of the stretch `current`, which holds the next one; at least one if `most` allows it.
    pub fn take(&mut self, current: usize, most: usize) -> Result<Taken<'_>> {
        let Stretch { end, rows_ahead, .. } = self.lookups.stretches[current];
        if self.ready(rows_ahead) == 0 && most > 0 {
            self.refill()?;
        }
        let position = self.position();
        let n = most.min(self.ready(rows_ahead)).min(end - position);
        // At the start, and where the distance grows, there are rows within it that nobody asked for.
        self.ask((position + rows_ahead).min(self.unread.start));
        let to = (position + rows_ahead + n).min(self.unread.start).max(self.asked);
        // The kernel asks for rows as wide as its own; those of later stretches may be left to us.
        let alike = to.min(self.same_width_until(current, to)).max(self.asked);
        let ahead = self.entries(self.asked..alike);
        self.asked = alike;
        self.ask(to);
        let rows = self.entries(position..position + n);
        self.held.start += n;
        // SAFETY: entries held are initialised.
        unsafe { Ok(Taken { rows: initialised(&self.addresses[rows]), ahead: initialised(&self.addresses[ahead]) }) }
    }

    /// Where the lookups at `positions`, which are held, stand in `addresses`.
    fn entries(&self, positions: Range<usize>) -> Range<usize> {
        let first = self.position();
        self.held.start + (positions.start - first)..self.held.start + (positions.end - first)
    }

    /// Position from which on rows have other cache lines to ask for than those of the stretch `current`, as far as `to`.
    fn same_width_until(&self, current: usize, to: usize) -> usize {
        let lines = |s: &Stretch| (s.table.row_bytes(), s.straddles);
        let [first, later @ ..] = &self.lookups.stretches[current..] else { return to };
        let mut end = first.end;
        for next in later {
            if end >= to || lines(next) != lines(first) {
                break;
            }
            end = next.end;
        }
        end
    }

    /// Ask for the rows up to position `to`, as wide as each is.
    fn ask(&mut self, to: usize) {
        let stretches = self.lookups.stretches;
        let mut at = None;
        while self.asked < to {
            let stretch = at.unwrap_or_else(|| stretches.partition_point(|stretch| stretch.end <= self.asked));
            let until = stretches[stretch].end.min(to);
            // SAFETY: entries held are initialised.
            stretches[stretch].prefetch(unsafe { initialised(&self.addresses[self.entries(self.asked..until)]) });
            self.asked = until;
            at = Some(stretch + 1);
        }
    }

    /// Lookups that can be used without losing sight of the rows to prefetch.
    fn ready(&self, rows_ahead: usize) -> usize {
        if self.unread.is_empty() { self.held.len() } else { self.held.len().saturating_sub(rows_ahead) }
    }

    /// Move what is left to the front, then copy and check as many indices as fit behind it.
    fn refill(&mut self) -> Result<()> {
        if self.control.cancelled() {
            return Err(Error::Cancelled);
        }
        let left = self.held.len();
        self.addresses.copy_within(self.held.clone(), 0);
        self.held = 0..left;
        let Lookups { stretches, indices, skip, resolve } = self.lookups;
        while self.held.end < CAPACITY && !self.unread.is_empty() {
            let Stretch { table, end, .. } = &stretches[self.reading];
            let start = self.unread.start;
            let n = (self.unread.end.min(*end) - start).min(CAPACITY - self.held.end);
            let slots = indices.copy(start, &mut self.addresses[self.held.end..self.held.end + n]);
            // SAFETY: the resolver is of a tier that the CPU has.
            if !unsafe { resolve(slots, table, skip) } {
                return Err(outside(slots, start, table, skip, (stretches.len() > 1).then_some(self.reading)));
            }
            self.held.end += n;
            self.unread.start += n;
            self.reading += usize::from(self.unread.start == *end);
        }
        // The CPU's own prefetcher stops at the end of a page; by the next refill these have come.
        indices.prefetch(self.unread.start..self.unread.end.min(self.unread.start + CAPACITY));
        Ok(())
    }
}

/// The error for the first of `slots`, indices from position `start` on, that lies outside `table`.
fn outside(slots: &[usize], start: usize, table: &Table, skip: Option<i64>, number: Option<usize>) -> Error {
    let wrong = |&index: &usize| index >= table.rows && Some(index as i64) != skip;
    let at = slots.iter().position(wrong).unwrap_or(0);
    Error::Index { position: start + at, value: slots[at] as i64, rows: table.rows, table: number }
}
