//! How a table's rows are stored.

use crate::error::{Error, Result};

/// Type of a table's values and layout of its rows.
///
/// Quantised rows are packed codes followed by the row's scale and bias: `value = scale * code + bias`. Within a byte
/// the first column has the lowest bits. These are the layouts of PyTorch's "fused rowwise" tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFormat {
    F32,
    F64,
    F16,
    Bf16,
    /// One byte per column; scale and bias are f32.
    Int8,
    /// Two columns per byte; scale and bias are f16.
    Int4,
    /// Four columns per byte; scale and bias are f16.
    Int2,
}

impl RowFormat {
    /// Formats of tables of our own. (Of an array of somebody else's, also f64.)
    pub const OWNED: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Int8, Self::Int4, Self::Int2];

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Int2 => "int2",
        }
    }

    /// The format of a table of our own by its name.
    pub fn parse(text: &str) -> Result<Self> {
        Self::OWNED.into_iter().find(|format| format.name() == text).ok_or_else(|| {
            let names = Self::OWNED.map(Self::name).join(", ");
            Error::invalid("dtype", format!("is {text:?}; allowed are {names}"))
        })
    }

    /// Bits per column.
    pub fn bits(self) -> usize {
        match self {
            Self::F64 => 64,
            Self::F32 => 32,
            Self::F16 | Self::Bf16 => 16,
            Self::Int8 => 8,
            Self::Int4 => 4,
            Self::Int2 => 2,
        }
    }

    /// Bytes of a row's scale and bias together.
    pub fn param_bytes(self) -> usize {
        match self {
            Self::F32 | Self::F64 | Self::F16 | Self::Bf16 => 0,
            Self::Int8 => 2 * size_of::<f32>(),
            Self::Int4 | Self::Int2 => 2 * size_of::<u16>(),
        }
    }

    pub fn is_quantised(self) -> bool {
        self.param_bytes() > 0
    }

    /// Bytes of `dim` columns without scale and bias; `None` where that overflows.
    pub fn code_bytes(self, dim: usize) -> Option<usize> {
        if self.bits() < 8 { Some(dim.div_ceil(8 / self.bits())) } else { dim.checked_mul(self.bits() / 8) }
    }

    /// Bytes of a row of `dim` columns.
    pub fn row_bytes(self, dim: usize) -> Option<usize> {
        self.code_bytes(dim)?.checked_add(self.param_bytes())
    }

    /// Bytes of `rows` rows of `dim` columns, refused where the address space ends.
    pub fn table_bytes(self, field: &str, rows: usize, dim: usize) -> Result<usize> {
        // A row must fit even where there are none: others reckon with its size.
        let fits = |row: usize| row.checked_mul(rows.max(1)).is_some_and(|n| isize::try_from(n).is_ok());
        self.row_bytes(dim).filter(|&row| fits(row)).map(|row| row * rows).ok_or_else(|| {
            Error::Size(format!("{field}: {rows} rows of {dim} {} values exceed the address space", self.name()))
        })
    }
}
