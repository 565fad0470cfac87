//! Tables of our own: rows of any format on huge pages, or in a mapped file.

use super::encode::encode_row;
use super::format::RowFormat;
use super::half::{f32_to_half, half_to_f32};
use super::input::Table;
use super::kernel::LINE_BYTES;
use super::pages::{MappedFile, Pages};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::pool;
use rayon::prelude::*;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Rows to encode between two looks at the wish to stop, in bytes of the table.
const ENCODE_BYTES: usize = 1 << 18;
/// Bytes of a file to read at a time.
const READ_BYTES: usize = 1 << 24;
/// Below this size of a table its rows are encoded by one thread.
const SHARED_BYTES: usize = 1 << 20;

/// Values to make a table of: rows without gaps, which may change meanwhile.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    F32(*const f32),
    F16(*const u16),
}

// SAFETY: the pointer is only read; see `OwnedTable::encode`.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

/// Where a quantised row has its scale and bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Behind the codes: PyTorch's fused rowwise tables, and ours.
    ParamsLast,
    /// Before the codes, always as two halves: FBGEMM's table-batched embeddings.
    ParamsFirst,
}

impl Layout {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "last" => Ok(Self::ParamsLast),
            "first" => Ok(Self::ParamsFirst),
            _ => Err(Error::invalid("layout", format!("is {text:?}; allowed are last, first"))),
        }
    }

    pub fn param_bytes(self, format: RowFormat) -> usize {
        match self {
            Self::ParamsLast => format.param_bytes(),
            Self::ParamsFirst => 2 * size_of::<u16>(),
        }
    }
}

enum Storage {
    Pages(Pages),
    File { file: MappedFile, offset: usize },
}

/// A table that owns its rows.
pub struct OwnedTable {
    storage: Storage,
    format: RowFormat,
    rows: usize,
    dim: usize,
}

impl OwnedTable {
    /// Encode `rows` x `dim` values.
    ///
    /// # Safety
    /// `source` is aligned and readable for `rows * dim` values during the call; they may change meanwhile.
    pub unsafe fn encode(
        source: Source,
        rows: usize,
        dim: usize,
        format: RowFormat,
        threads: Option<usize>,
        control: &Control,
    ) -> Result<Self> {
        let bytes = format.table_bytes("array", rows, dim)?;
        let row_bytes = row_bytes(format, dim, "array")?;
        let threads = pool::resolve_threads(threads)?;
        let mut pages = Pages::zeroed(bytes)?;
        let rows_per_chunk = (ENCODE_BYTES / row_bytes).max(1);
        let chunk = |(chunk, to): (usize, &mut [u8])| {
            if control.cancelled() {
                return Err(Error::Cancelled);
            }
            let mut values = vec![0.0_f32; dim];
            for (i, to) in to.chunks_exact_mut(row_bytes).enumerate() {
                let row = chunk * rows_per_chunk + i;
                // SAFETY: the caller promises `rows` rows at the source, and there are no more chunks than that.
                unsafe {
                    match (source, format) {
                        // Bit by bit, so that a NaN stays what it is.
                        (Source::F16(from), RowFormat::F16) => {
                            from.add(row * dim).cast::<u8>().copy_to_nonoverlapping(to.as_mut_ptr(), row_bytes);
                            continue;
                        }
                        (Source::F16(from), _) => {
                            for (column, value) in values.iter_mut().enumerate() {
                                *value = half_to_f32(from.add(row * dim + column).read());
                            }
                        }
                        (Source::F32(from), _) => {
                            from.add(row * dim).copy_to_nonoverlapping(values.as_mut_ptr(), dim);
                        }
                    }
                }
                encode_row(format, &values, row, to)?;
            }
            Ok(())
        };
        let to = &mut pages.bytes_mut()[..bytes];
        let chunk_bytes = rows_per_chunk * row_bytes;
        let outcomes: Vec<Result<()>> = if bytes < SHARED_BYTES {
            to.chunks_mut(chunk_bytes).enumerate().map(chunk).collect()
        } else {
            pool::install(threads, || to.par_chunks_mut(chunk_bytes).enumerate().map(chunk).collect())?
        };
        outcomes.into_iter().collect::<Result<()>>()?; // the first error in the order of the rows
        Ok(Self { storage: Storage::Pages(pages), format, rows, dim })
    }

    /// Copy quantised rows of the given layout.
    ///
    /// # Safety
    /// `from` is readable for `rows` rows during the call; they may change meanwhile.
    pub unsafe fn import(from: *const u8, layout: Layout, rows: usize, dim: usize, format: RowFormat) -> Result<Self> {
        let bytes = format.table_bytes("array", rows, dim)?;
        let codes = code_bytes(format, dim)?;
        let (theirs, ours) = (codes + layout.param_bytes(format), row_bytes(format, dim, "array")?);
        let mut pages = Pages::zeroed(bytes)?;
        for (row, to) in pages.bytes_mut()[..bytes].chunks_exact_mut(ours).enumerate() {
            // SAFETY: the caller promises `rows` rows of `theirs` bytes; `to` has room for codes and parameters.
            unsafe {
                let from = from.add(row * theirs);
                if layout == Layout::ParamsLast {
                    from.copy_to_nonoverlapping(to.as_mut_ptr(), ours);
                    continue;
                }
                from.add(theirs - codes).copy_to_nonoverlapping(to.as_mut_ptr(), codes);
                let params = from.cast::<[u16; 2]>().read_unaligned();
                write_params(format, params, &mut to[codes..]);
            }
        }
        Ok(Self { storage: Storage::Pages(pages), format, rows, dim })
    }

    /// Copy the rows of a quantised table out in the given layout, `rows` rows of codes plus [`Layout::param_bytes`].
    ///
    /// # Safety
    /// `to` is writable for that and unshared.
    pub unsafe fn export(&self, layout: Layout, to: *mut u8) -> Result<()> {
        let codes = code_bytes(self.format, self.dim)?;
        let (ours, theirs) = (codes + self.format.param_bytes(), codes + layout.param_bytes(self.format));
        for row in 0..self.rows {
            // SAFETY: `row` is one of ours, and the caller promises room for it.
            unsafe {
                let (from, to) = (self.data().add(row * ours), to.add(row * theirs));
                if layout == Layout::ParamsLast {
                    from.copy_to_nonoverlapping(to, ours);
                    continue;
                }
                to.cast::<[u16; 2]>().write_unaligned(self.half_params(from.add(codes), row)?);
                from.copy_to_nonoverlapping(to.add(theirs - codes), codes);
            }
        }
        Ok(())
    }

    /// A row's scale and bias as halves; those of int8 are rounded.
    ///
    /// # Safety
    /// `from` points to them.
    unsafe fn half_params(&self, from: *const u8, row: usize) -> Result<[u16; 2]> {
        if self.format != RowFormat::Int8 {
            // SAFETY: the caller's promise.
            return Ok(unsafe { from.cast::<[u16; 2]>().read_unaligned() });
        }
        // SAFETY: the caller's promise.
        let params = unsafe { from.cast::<[f32; 2]>().read_unaligned() };
        let halves = params.map(f32_to_half);
        for (name, value, half) in [("scale", params[0], halves[0]), ("bias", params[1], halves[1])] {
            if value.is_finite() && half_to_f32(half).is_infinite() {
                let message = format!("has {name} {value:e}, beyond float16, which layout \"first\" needs");
                return Err(Error::invalid(format!("row {row}"), message));
            }
        }
        Ok(halves)
    }

    /// Read the rows from `offset` of `file` to its end.
    pub fn read(
        file: &File,
        offset: u64,
        rows: usize,
        dim: usize,
        format: RowFormat,
        control: &Control,
    ) -> Result<Self> {
        let bytes = Self::checked_file(file, offset, rows, dim, format)?;
        let mut pages = Pages::zeroed(bytes)?;
        for (i, to) in pages.bytes_mut()[..bytes].chunks_mut(READ_BYTES).enumerate() {
            if control.cancelled() {
                return Err(Error::Cancelled);
            }
            file.read_exact_at(to, offset + (i * READ_BYTES) as u64)
                .map_err(|e| Error::invalid("path", format!("cannot be read: {e}")))?;
        }
        Ok(Self { storage: Storage::Pages(pages), format, rows, dim })
    }

    /// Use the rows from `offset` of `file` to its end where they are. The file must not become shorter.
    pub fn map(file: &File, offset: u64, rows: usize, dim: usize, format: RowFormat) -> Result<Self> {
        let bytes = Self::checked_file(file, offset, rows, dim, format)?;
        if !offset.is_multiple_of(LINE_BYTES as u64) {
            return Err(Error::invalid(
                "offset",
                format!("is {offset}; rows are mapped from a multiple of {LINE_BYTES}"),
            ));
        }
        let too_large = || Error::Size("path: the file exceeds the address space".to_owned());
        let offset = usize::try_from(offset).map_err(|_| too_large())?;
        let whole = bytes.checked_add(offset).ok_or_else(too_large)?;
        let file = MappedFile::new(file, whole)?;
        Ok(Self { storage: Storage::File { file, offset }, format, rows, dim })
    }

    /// Bytes of the rows, which must be what `file` holds from `offset` on.
    fn checked_file(file: &File, offset: u64, rows: usize, dim: usize, format: RowFormat) -> Result<usize> {
        let bytes = format.table_bytes("path", rows, dim)?;
        let has = file.metadata().map_err(|e| Error::invalid("path", format!("cannot be read: {e}")))?.len();
        if has.checked_sub(offset) != Some(bytes as u64) {
            let needed = offset.saturating_add(bytes as u64);
            return Err(Error::invalid("path", format!("has {has} bytes; its header promises {needed}")));
        }
        Ok(bytes)
    }

    /// The table as kernels take it.
    pub fn table(&self) -> Table<'_> {
        // SAFETY: the storage holds that many rows, at an address aligned to a page, for as long as `self` is borrowed.
        unsafe { Table::from_raw(self.data(), self.format, self.rows, self.dim) }
            .expect("the size was checked when the table was made")
    }

    pub fn data(&self) -> *const u8 {
        match &self.storage {
            Storage::Pages(pages) => pages.data(),
            Storage::File { file, offset } => file.data().wrapping_add(*offset),
        }
    }

    pub fn format(&self) -> RowFormat {
        self.format
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    pub fn row_bytes(&self) -> usize {
        self.table().row_bytes()
    }

    /// Whether the rows lie in a mapped file.
    pub fn is_mapped(&self) -> bool {
        matches!(self.storage, Storage::File { .. })
    }

    /// Share of the rows' memory that lies on 2 MiB pages, 0 to 1.
    pub fn huge_share(&self) -> f64 {
        match &self.storage {
            Storage::Pages(pages) => pages.huge_share(),
            Storage::File { .. } => 0.0,
        }
    }
}

/// Write the parameters of a row, given as halves, as `format` stores them.
fn write_params(format: RowFormat, params: [u16; 2], to: &mut [u8]) {
    let (scale, bias) = to.split_at_mut(to.len() / 2);
    if format == RowFormat::Int8 {
        scale.copy_from_slice(&half_to_f32(params[0]).to_ne_bytes());
        bias.copy_from_slice(&half_to_f32(params[1]).to_ne_bytes());
    } else {
        scale.copy_from_slice(&params[0].to_ne_bytes());
        bias.copy_from_slice(&params[1].to_ne_bytes());
    }
}

/// Bytes of a row, at least one: a table has columns.
fn row_bytes(format: RowFormat, dim: usize, field: &str) -> Result<usize> {
    if dim == 0 {
        return Err(Error::invalid(field, "has no columns; a table has at least one"));
    }
    format
        .row_bytes(dim)
        .ok_or_else(|| Error::Size(format!("{field}: a row of {dim} columns exceeds the address space")))
}

fn code_bytes(format: RowFormat, dim: usize) -> Result<usize> {
    Ok(row_bytes(format, dim, "array")? - format.param_bytes())
}
