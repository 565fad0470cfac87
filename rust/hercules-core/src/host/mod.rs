//! What this machine can do. Its CPUs: how much of their time a thread gets ([`spin_gaps`]), their clock
//! ([`clock_ghz`]). Its memory: rows of a block of memory are brought to the cores, and nothing is made of them.
//!
//! A gather of rows is bound by the lines that the cores keep in flight and by the page walks before them. How many
//! are in flight is decided by the prefetches, so the caller chooses them ([`Prefetch`]) and keeps the best: the limit
//! of a machine must not depend on how some kernel of ours is tuned. Rows in order give the sequential limit.

#![allow(clippy::inline_always)] // a line's visit is one instruction, of a loop that must be unrolled

use crate::control::Control;
use crate::error::{Error, Result};
use crate::pool;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

mod clock;
mod spin;
pub use clock::clock_ghz;
pub use spin::{Gaps, MAX_SECONDS, spin_gaps};

const LINE_BYTES: usize = 64;

/// Widest row that is accepted: wider ones are sequential reads.
pub const MAX_ROW_BYTES: usize = 1 << 16;
/// Farthest prefetch, in rows.
pub const MAX_ROWS_AHEAD: usize = 1 << 12;

/// How often threads meet before they start, and how long they wait without giving way to others.
const MEETINGS: usize = 20;
const PATIENCE: Duration = Duration::from_millis(10);

/// Rows between two looks at the cancel flag.
const ROWS_PER_POLL: usize = 1 << 12;

/// A block of memory that others may write meanwhile: it is read, and what is read is thrown away.
#[derive(Debug, Clone, Copy)]
pub struct Memory<'a> {
    data: *const u8,
    bytes: usize,
    lives: std::marker::PhantomData<&'a [u8]>,
}

// SAFETY: only read, and by volatile loads of single bytes.
unsafe impl Send for Memory<'_> {}
// SAFETY: as above.
unsafe impl Sync for Memory<'_> {}

impl Memory<'_> {
    /// # Safety
    /// `data` can be read for `bytes` bytes during `'a`.
    pub unsafe fn new(data: *const u8, bytes: usize) -> Self {
        Self { data, bytes, lives: std::marker::PhantomData }
    }
}

/// Which cache a prefetch fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    L1,
    L2,
}

/// How rows are asked for before they are read.
#[derive(Debug, Clone, Copy)]
pub struct Prefetch {
    /// Rows between the one that is asked for and the one that is read; 0 for no prefetch.
    pub rows_ahead: usize,
    /// Rows asked for at a time, then as many read. Requests that stand close together overlap their page walks.
    pub burst: usize,
    pub level: Level,
}

/// Seconds in which `threads` threads read every cache line of the `rows` of `memory`, in order, each thread its run of
/// them. Row `r` is bytes `r * row_bytes..(r + 1) * row_bytes`. One pass; the caller repeats.
pub fn read_seconds(
    memory: Memory<'_>,
    row_bytes: usize,
    rows: impl ExactSizeIterator<Item = i64>,
    prefetch: Prefetch,
    threads: Option<usize>,
    control: &Control,
) -> Result<f64> {
    within("row_bytes", row_bytes, 1..=MAX_ROW_BYTES)?;
    within("rows_ahead", prefetch.rows_ahead, 0..=MAX_ROWS_AHEAD)?;
    within("burst", prefetch.burst, 1..=MAX_ROWS_AHEAD)?;
    let threads = pool::resolve_threads(threads)?;
    let n = rows.len();
    if n == 0 {
        return Err(Error::invalid("rows", "must name at least one row"));
    }
    let (table_rows, mut offsets) = (memory.bytes / row_bytes, Vec::new());
    offsets.try_reserve_exact(n).map_err(|_| Error::Memory { bytes: n.saturating_mul(size_of::<usize>()) })?;
    for (position, value) in rows.enumerate() {
        let row = usize::try_from(value).ok().filter(|&row| row < table_rows);
        offsets.push(row.ok_or(Error::Index { position, value, rows: table_rows, table: None })? * row_bytes);
    }
    let read = reader(memory, row_bytes, prefetch.level);
    let ready = AtomicUsize::new(0);
    let run = &|t: usize| {
        // Threads start together: how fast they are made is not the memory's doing. They meet so often that those which
        // share a CPU would need many turns on it; by then the system has given each one of its own, if there is one.
        let made = Instant::now();
        for meeting in 1..=MEETINGS {
            ready.fetch_add(1, Ordering::AcqRel);
            while ready.load(Ordering::Acquire) < meeting * threads && !control.cancelled() {
                if made.elapsed() < PATIENCE { std::hint::spin_loop() } else { thread::yield_now() }
            }
        }
        let start = Instant::now();
        // SAFETY: every offset was checked above: a whole row follows it.
        unsafe { read(memory, row_bytes, &offsets[n * t / threads..n * (t + 1) / threads], prefetch, control)? };
        Ok((start, Instant::now()))
    };
    // New threads, and this one: two of a pool that wake each other may share a CPU for milliseconds, call after call
    // (seen: half the rate with two threads).
    let spans = thread::scope(|scope| {
        let spawn = |t| thread::Builder::new().name(format!("hercules-read-{t}")).spawn_scoped(scope, move || run(t));
        let others: std::io::Result<Vec<_>> = (1..threads).map(spawn).collect();
        if others.is_err() {
            ready.fetch_add(threads * MEETINGS, Ordering::AcqRel); // nobody waits for those that never come
        }
        let own = run(0)?;
        let others = others.map_err(|e| Error::Internal(format!("cannot start {threads} threads: {e}")))?;
        let join = |other: thread::ScopedJoinHandle<'_, Result<_>>| {
            other.join().map_err(|_| Error::Internal("a reading thread panicked".to_owned()))?
        };
        std::iter::once(Ok(own)).chain(others.into_iter().map(join)).collect::<Result<Vec<_>>>()
    })?;
    let start = spans.iter().map(|span| span.0).min().expect("there is a thread");
    let end = spans.iter().map(|span| span.1).max().expect("there is a thread");
    Ok((end - start).as_secs_f64())
}

fn within(name: &str, value: usize, allowed: std::ops::RangeInclusive<usize>) -> Result<()> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    Err(Error::invalid(name, format!("is {value}; allowed is a whole number from {least} to {most}")))
}

type Reader = unsafe fn(Memory<'_>, usize, &[usize], Prefetch, &Control) -> Result<()>;

/// The loop for the row's width and the prefetch's level.
fn reader(memory: Memory<'_>, row_bytes: usize, level: Level) -> Reader {
    let aligned = row_bytes.is_multiple_of(LINE_BYTES) && memory.data.addr().is_multiple_of(LINE_BYTES);
    match level {
        Level::L1 => of_width::<true>(row_bytes, aligned),
        Level::L2 => of_width::<false>(row_bytes, aligned),
    }
}

/// [`read_rows`] for the number of lines that a row fills, or for any number.
fn of_width<const L1: bool>(row_bytes: usize, aligned: bool) -> Reader {
    macro_rules! choose {
        ($($lines:literal)+) => {
            match (row_bytes.div_ceil(LINE_BYTES), aligned) {
                $(($lines, true) => read_rows::<$lines, true, L1>,
                  ($lines, false) => read_rows::<$lines, false, L1>,)+
                (_, true) => read_rows::<0, true, L1>,
                (_, false) => read_rows::<0, false, L1>,
            }
        };
    }
    choose!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 32)
}

/// Call `visit` with the first byte of each line that a row fills; with its last byte if the row is not `ALIGNED` and may
/// so reach into one line more. `LINES` is their number, 0 for any.
///
/// Unrolled, so that each line of a row has a load of its own: one load that walks through the row is a stride to the
/// CPU, whose prefetcher then fetches lines beyond the row (measured: 24 instead of 34 GB/s for rows of 1 KiB).
#[inline(always)]
fn for_each_line<const LINES: usize, const ALIGNED: bool>(row: *const u8, row_bytes: usize, visit: impl Fn(*const u8)) {
    for line in 0..if LINES == 0 { row_bytes.div_ceil(LINE_BYTES) } else { LINES } {
        visit(row.wrapping_add(line * LINE_BYTES));
    }
    if !ALIGNED {
        visit(row.wrapping_add(row_bytes - 1));
    }
}

/// Load one byte of every line of every row, with prefetches.
///
/// # Safety
/// `row_bytes` bytes of `memory` follow each of `offsets`, and fill `LINES` lines if that is not 0.
unsafe fn read_rows<const LINES: usize, const ALIGNED: bool, const L1: bool>(
    memory: Memory<'_>,
    row_bytes: usize,
    offsets: &[usize],
    prefetch: Prefetch,
    control: &Control,
) -> Result<()> {
    let ask = |rows: &[usize]| {
        for &offset in rows {
            for_each_line::<LINES, ALIGNED>(memory.data.wrapping_add(offset), row_bytes, ask_for::<L1>);
        }
    };
    let Prefetch { rows_ahead, burst, .. } = prefetch;
    let n = offsets.len();
    ask(&offsets[..rows_ahead.min(n)]);
    let mut until_poll = 0;
    for start in (0..n).step_by(burst) {
        if until_poll < burst {
            if control.cancelled() {
                return Err(Error::Cancelled);
            }
            until_poll = ROWS_PER_POLL.max(burst);
        }
        until_poll -= burst;
        if rows_ahead > 0 {
            ask(&offsets[(start + rows_ahead).min(n)..(start + rows_ahead + burst).min(n)]);
        }
        for &offset in &offsets[start..(start + burst).min(n)] {
            for_each_line::<LINES, ALIGNED>(memory.data.wrapping_add(offset), row_bytes, |byte| {
                // SAFETY: a byte of a row, which the caller promises. Volatile: the load must happen though nobody
                // wants the value.
                unsafe { byte.read_volatile() };
            });
        }
    }
    Ok(())
}

#[inline(always)]
fn ask_for<const L1: bool>(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint: it reads nothing and faults for no address. SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        if L1 { _mm_prefetch::<_MM_HINT_T0>(at.cast()) } else { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[cfg(test)]
mod tests;
