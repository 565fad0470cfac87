//! What a call is made of: views of memory that belongs to somebody else, and how lookups are grouped into bags.
//!
//! Indices, offsets and lengths may be written by other threads while a call reads them (Python cannot forbid it), so
//! they are never turned into references: each value is read once, by a volatile load, checked, and used from the
//! checked copy. A torn or changed value can give a wrong sum or an error, never a read outside the table.

use super::format::RowFormat;
use super::kernel::prefetch_bytes;
use crate::error::{Error, Result};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

#[derive(Debug, Clone, Copy)]
enum Data {
    I32(*const i32),
    I64(*const i64),
}

/// Whole numbers of 32 or 64 bits, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Ints<'a> {
    data: Data,
    len: usize,
    memory: PhantomData<&'a ()>,
}

// SAFETY: the pointer is only read, by volatile loads, and is valid for 'a from any thread.
unsafe impl Send for Ints<'_> {}
// SAFETY: as above.
unsafe impl Sync for Ints<'_> {}

impl<'a> From<&'a [i32]> for Ints<'a> {
    fn from(values: &'a [i32]) -> Self {
        Self { data: Data::I32(values.as_ptr()), len: values.len(), memory: PhantomData }
    }
}

impl<'a> From<&'a [i64]> for Ints<'a> {
    fn from(values: &'a [i64]) -> Self {
        Self { data: Data::I64(values.as_ptr()), len: values.len(), memory: PhantomData }
    }
}

impl Ints<'_> {
    /// # Safety
    /// `data` is aligned and readable for `len` values during the lifetime; its values may change meanwhile.
    pub unsafe fn from_raw_i32(data: *const i32, len: usize) -> Self {
        Self { data: Data::I32(data), len, memory: PhantomData }
    }

    /// # Safety
    /// As [`Ints::from_raw_i32`].
    pub unsafe fn from_raw_i64(data: *const i64, len: usize) -> Self {
        Self { data: Data::I64(data), len, memory: PhantomData }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values, each read once as the iterator reaches it.
    fn iter(&self) -> impl Iterator<Item = i64> {
        // SAFETY: i < len, and the constructors promise that many readable values.
        (0..self.len).map(|i| unsafe {
            match self.data {
                Data::I32(data) => i64::from(data.add(i).read_volatile()),
                Data::I64(data) => data.add(i).read_volatile(),
            }
        })
    }

    /// Copy the values from `start` on into `slots`, as bits; gives what was copied.
    pub(super) fn copy<'s>(&self, start: usize, slots: &'s mut [MaybeUninit<usize>]) -> &'s mut [usize] {
        assert!(self.len.checked_sub(start).is_some_and(|rest| slots.len() <= rest), "copy from outside the indices");
        // One loop per type, so that none asks for each value which it is.
        // SAFETY: positions are below len by the assertion, and the constructors promise that many readable values;
        // every slot is written.
        unsafe {
            match self.data {
                Data::I32(data) => copy_each(slots, |i| i64::from(data.add(start + i).read_volatile())),
                Data::I64(data) => copy_each(slots, |i| data.add(start + i).read_volatile()),
            }
            &mut *(std::ptr::from_mut(slots) as *mut [usize])
        }
    }

    /// Ask for the memory of the values at `positions`.
    pub(super) fn prefetch(&self, positions: Range<usize>) {
        let (data, bytes) = match self.data {
            Data::I32(data) => (data.addr(), size_of::<i32>()),
            Data::I64(data) => (data.addr(), size_of::<i64>()),
        };
        prefetch_bytes(data.wrapping_add(positions.start * bytes), positions.len() * bytes, false);
    }
}

#[inline(always)]
fn copy_each(slots: &mut [MaybeUninit<usize>], read: impl Fn(usize) -> i64) {
    for (i, slot) in slots.iter_mut().enumerate() {
        slot.write(read(i) as usize);
    }
}

/// An embedding table: `rows` rows of `dim` columns, row after row without gaps.
///
/// Values may change during a call (another thread training them): sums then mix old and new values.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    pub(super) data: *const u8,
    pub(super) format: RowFormat,
    pub(super) rows: usize,
    pub(super) dim: usize,
    pub(super) row_bytes: usize,
    memory: PhantomData<&'a ()>,
}

// SAFETY: the pointer is only read and is valid for 'a from any thread.
unsafe impl Send for Table<'_> {}
// SAFETY: as above.
unsafe impl Sync for Table<'_> {}

impl<'a> Table<'a> {
    pub fn new(values: &'a [f32], rows: usize, dim: usize) -> Result<Self> {
        if rows.checked_mul(dim) != Some(values.len()) {
            return Err(Error::invalid("weight", format!("has {} values, not {rows} x {dim}", values.len())));
        }
        // SAFETY: the slice holds exactly rows * dim values.
        unsafe { Self::from_raw(values.as_ptr().cast(), RowFormat::F32, rows, dim) }
    }

    /// # Safety
    /// `data` is readable for `rows` rows of `format.row_bytes(dim)` bytes during the lifetime; aligned for f32 or f64
    /// if that is the format.
    pub unsafe fn from_raw(data: *const u8, format: RowFormat, rows: usize, dim: usize) -> Result<Self> {
        format.table_bytes("weight", rows, dim)?;
        let row_bytes = format.row_bytes(dim).unwrap_or(usize::MAX); // fits, unless there are no rows
        Ok(Self { data, format, rows, dim, row_bytes, memory: PhantomData })
    }

    pub(super) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows * self.row_bytes
    }
}

/// The tables of a call.
#[derive(Debug, Clone, Copy)]
pub enum Tables<'a> {
    One(Table<'a>),
    Many(&'a [Table<'a>]),
}

impl<'a> From<Table<'a>> for Tables<'a> {
    fn from(table: Table<'a>) -> Self {
        Self::One(table)
    }
}

impl<'a> Tables<'a> {
    pub(super) fn as_slice(&self) -> &[Table<'a>] {
        match self {
            Self::One(table) => std::slice::from_ref(table),
            Self::Many(tables) => tables,
        }
    }
}

/// Bytes of `rows` x `dim` values of a result, refused where the address space ends.
pub fn checked_bytes(field: &str, rows: usize, dim: usize, value_bytes: usize) -> Result<usize> {
    rows.checked_mul(dim).and_then(|n| n.checked_mul(value_bytes)).filter(|&n| isize::try_from(n).is_ok()).ok_or_else(
        || Error::Size(format!("{field}: {rows} x {dim} values of {value_bytes} bytes exceed the address space")),
    )
}

/// One factor per lookup, of the type that sums are kept in: f64 over tables of f64, else f32.
#[derive(Debug, Clone, Copy)]
pub struct LookupWeights<'a> {
    pub(super) data: *const u8,
    pub(super) format: RowFormat,
    pub(super) len: usize,
    memory: PhantomData<&'a ()>,
}

// SAFETY: the pointer is only read and is valid for 'a from any thread.
unsafe impl Send for LookupWeights<'_> {}
// SAFETY: as above.
unsafe impl Sync for LookupWeights<'_> {}

impl<'a> From<&'a [f32]> for LookupWeights<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self { data: values.as_ptr().cast(), format: RowFormat::F32, len: values.len(), memory: PhantomData }
    }
}

impl<'a> From<&'a [f64]> for LookupWeights<'a> {
    fn from(values: &'a [f64]) -> Self {
        Self { data: values.as_ptr().cast(), format: RowFormat::F64, len: values.len(), memory: PhantomData }
    }
}

impl LookupWeights<'_> {
    /// # Safety
    /// `data` is aligned for f32 and readable for `len` values during the lifetime.
    pub unsafe fn from_raw_f32(data: *const f32, len: usize) -> Self {
        Self { data: data.cast(), format: RowFormat::F32, len, memory: PhantomData }
    }

    /// # Safety
    /// `data` is aligned for f64 and readable for `len` values during the lifetime.
    pub unsafe fn from_raw_f64(data: *const f64, len: usize) -> Self {
        Self { data: data.cast(), format: RowFormat::F64, len, memory: PhantomData }
    }
}

/// How the lookups are grouped: consecutive runs, from the first lookup on.
#[derive(Debug, Clone, Copy)]
pub enum Bags<'a> {
    /// Bag `b` starts at `offsets[b]` and ends where the next one starts. The last bag ends at the last index, or at
    /// the last offset if `include_last` (which is then no bag of its own; indices after it are never read).
    Offsets { offsets: Ints<'a>, include_last: bool },
    /// Bag `b` holds `lengths[b]` lookups; they sum to the number of indices.
    Lengths(Ints<'a>),
    /// `bags` bags of `lookups` each.
    Fixed { bags: usize, lookups: usize },
}

impl Bags<'_> {
    /// A private copy of where each bag ends: never decreasing, all within `indices` lookups.
    pub(super) fn ends(&self, indices: usize) -> Result<Vec<usize>> {
        match *self {
            Self::Offsets { offsets, include_last } => ends_of_offsets(&offsets, include_last, indices),
            Self::Lengths(lengths) => ends_of_lengths(&lengths, indices),
            Self::Fixed { bags, lookups } => {
                if bags.checked_mul(lookups) != Some(indices) {
                    let message = format!("{bags} bags of {lookups} lookups need other than {indices} indices");
                    return Err(Error::invalid("indices", message));
                }
                let mut ends = reserve(bags)?;
                ends.extend((1..=bags).map(|bag| bag * lookups));
                Ok(ends)
            }
        }
    }
}

fn reserve(bags: usize) -> Result<Vec<usize>> {
    let mut ends = Vec::new();
    let bytes = bags.saturating_mul(size_of::<usize>());
    ends.try_reserve_exact(bags).map_err(|_| Error::Memory { bytes })?;
    Ok(ends)
}

fn ends_of_offsets(offsets: &Ints, include_last: bool, indices: usize) -> Result<Vec<usize>> {
    if include_last && offsets.is_empty() {
        let message = "is empty; where it includes the last offset it has at least one entry, a leading 0";
        return Err(Error::invalid("offsets", message));
    }
    let mut ends = reserve(offsets.len())?;
    let mut previous = 0;
    for (position, value) in offsets.iter().enumerate() {
        let refuse = |message: String| Err(Error::invalid(format!("offsets[{position}]"), message));
        if position == 0 {
            if value != 0 {
                return refuse(format!("is {value}; the first bag starts at 0"));
            }
            continue;
        }
        if value < previous {
            return refuse(format!(
                "is {value}, less than offsets[{}] = {previous}; offsets never decrease",
                position - 1
            ));
        }
        if value as u64 > indices as u64 {
            return refuse(format!("is {value}, beyond the {indices} indices"));
        }
        ends.push(value as usize);
        previous = value;
    }
    if !include_last && !offsets.is_empty() {
        ends.push(indices);
    }
    Ok(ends)
}

fn ends_of_lengths(lengths: &Ints, indices: usize) -> Result<Vec<usize>> {
    let mut ends = reserve(lengths.len())?;
    let mut end = 0_usize;
    for (position, value) in lengths.iter().enumerate() {
        let refuse = |message: String| Err(Error::invalid(format!("lengths[{position}]"), message));
        let Ok(length) = usize::try_from(value) else {
            return refuse(format!("is {value}; a length is 0 or more"));
        };
        // Compared by difference, so that no sum can overflow.
        if length > indices - end {
            return refuse(format!("is {value}, but only {} of the {indices} indices are left", indices - end));
        }
        end += length;
        ends.push(end);
    }
    if end != indices {
        return Err(Error::invalid("lengths", format!("sum to {end}, but there are {indices} indices")));
    }
    Ok(ends)
}
