//! The private, checked copy of the indices that lie just ahead.

use super::input::{Ints, Table};
use super::kernel::{LINE_BYTES, prefetch_bytes};
use crate::control::Control;
use crate::error::{Error, Result};
use std::ops::Range;

/// Lookups held at a time: 4 KiB of offsets, a small part of the first-level cache.
const CAPACITY: usize = 512;

/// Cache lines to keep in flight ahead of the sum, for a table in memory. In lines rather than rows: memory answers
/// lines, and a distance in rows is right for one width only.
const LINES_AHEAD: usize = 160;
const MOST_ROWS_AHEAD: usize = 128;

/// A table up to this size sits in the second-level cache, where a long distance only evicts what is needed next.
pub(super) const CACHED_TABLE_BYTES: usize = 1 << 20;
const CACHED_ROWS_AHEAD: usize = 8;

/// How many rows ahead to prefetch.
pub(super) fn rows_ahead(table: &Table) -> usize {
    let by_lines = LINES_AHEAD / table.row_bytes().div_ceil(LINE_BYTES).max(1);
    let most = if table.bytes() <= CACHED_TABLE_BYTES { CACHED_ROWS_AHEAD } else { MOST_ROWS_AHEAD };
    by_lines.clamp(1, most)
}

/// Whether some rows lie across one cache line more than their size needs.
pub(super) fn straddles(table: &Table) -> bool {
    !table.row_bytes().is_multiple_of(LINE_BYTES) || !table.data.addr().is_multiple_of(LINE_BYTES)
}

/// A sliding window over one worker's lookups, as checked offsets of rows in bytes.
pub(super) struct Window<'a> {
    table: &'a Table<'a>,
    indices: &'a Ints<'a>,
    control: &'a Control,
    ahead: usize,
    offsets: [usize; CAPACITY],
    /// The part of `offsets` that is filled and not yet used.
    held: Range<usize>,
    /// Positions in `indices` that are not copied yet.
    unread: Range<usize>,
}

impl<'a> Window<'a> {
    /// A window over `positions`, filled, with the first rows asked for.
    pub fn open(
        table: &'a Table<'a>,
        indices: &'a Ints<'a>,
        positions: Range<usize>,
        control: &'a Control,
    ) -> Result<Self> {
        let mut window = Self {
            table,
            indices,
            control,
            ahead: rows_ahead(table),
            offsets: [0; CAPACITY],
            held: 0..0,
            unread: positions,
        };
        window.refill()?;
        let straddles = straddles(table);
        for &offset in window.offsets[window.held.clone()].iter().take(window.ahead) {
            prefetch_bytes(table.data.wrapping_add(offset), table.row_bytes(), straddles);
        }
        Ok(window)
    }

    /// Position in the indices of the next lookup.
    pub fn position(&self) -> usize {
        self.unread.start - self.held.len()
    }

    /// Take up to `most` lookups, at least one if any is left: their rows, and the rows to prefetch meanwhile, entry `j`
    /// with row `j`.
    pub fn take(&mut self, most: usize) -> Result<(&[usize], &[usize])> {
        if self.ready() == 0 {
            self.refill()?;
        }
        let from = self.held.start;
        let n = most.min(self.ready());
        self.held.start += n;
        let ahead = (from + self.ahead).min(self.held.end);
        Ok((&self.offsets[from..from + n], &self.offsets[ahead..self.held.end]))
    }

    /// Lookups that can be used without losing sight of the rows to prefetch.
    fn ready(&self) -> usize {
        if self.unread.is_empty() { self.held.len() } else { self.held.len().saturating_sub(self.ahead) }
    }

    /// Move what is left to the front, then copy and check as many indices as fit behind it.
    fn refill(&mut self) -> Result<()> {
        if self.control.cancelled() {
            return Err(Error::Cancelled);
        }
        let left = self.held.len();
        self.offsets.copy_within(self.held.clone(), 0);
        let n = self.unread.len().min(CAPACITY - left);
        let positions = self.unread.start..self.unread.start + n;
        self.indices.copy_checked(positions, self.table, &mut self.offsets[left..left + n])?;
        self.unread.start += n;
        self.held = 0..left + n;
        Ok(())
    }
}
