//! Rows of f32 into the bytes of a format, one row at a time, byte for byte as PyTorch's prepack operators do.
//!
//! - int8: `scale = (max - min) / 255`, `bias = min`, `code = rint((x - min) * (255 / (max - min + 1e-8)))`.
//! - int4, int2 (`b` bits): `bias` is `min` as a half; `scale` is `(max - bias) / (2^b - 1)` as a half, 1 where that is
//!   0; `code = clamp(rint((x - bias) * (1 / scale)), 0, 2^b - 1)`.
//!
//! `rint` rounds ties to even. Everything is computed in f32, one rounding per operation, in the order written.

use super::format::RowFormat;
use super::half::{f32_to_brain, f32_to_half, half_to_f32};
use crate::error::{Error, Result};

/// Write `values`, row number `row` of an array, to `to`, of `format.row_bytes(values.len())` bytes. Not for f64.
pub(super) fn encode_row(format: RowFormat, values: &[f32], row: usize, to: &mut [u8]) -> Result<()> {
    match format {
        RowFormat::F32 => {
            for (to, value) in to.chunks_exact_mut(4).zip(values) {
                to.copy_from_slice(&value.to_ne_bytes());
            }
            Ok(())
        }
        RowFormat::F16 => encode_narrow(format, values, row, to, f32_to_half, 0x7C00),
        RowFormat::Bf16 => encode_narrow(format, values, row, to, f32_to_brain, 0x7F80),
        RowFormat::Int8 | RowFormat::Int4 | RowFormat::Int2 => {
            if let Some(column) = values.iter().position(|x| !x.is_finite()) {
                let message = format!("is {}; rows of {} hold finite values only", values[column], format.name());
                return Err(Error::invalid(format!("array[{row}, {column}]"), message));
            }
            if format == RowFormat::Int8 { encode_int8(values, row, to) } else { encode_bits(format, values, row, to) }
        }
        RowFormat::F64 => Err(Error::Internal("tables of float64 are not encoded".to_owned())),
    }
}

/// Sixteen-bit floats; a finite value that would become infinite is refused.
fn encode_narrow(
    format: RowFormat,
    values: &[f32],
    row: usize,
    to: &mut [u8],
    narrow: impl Fn(f32) -> u16,
    infinity: u16,
) -> Result<()> {
    for (column, (to, &value)) in to.chunks_exact_mut(2).zip(values).enumerate() {
        let bits = narrow(value);
        if bits & 0x7FFF == infinity && value.is_finite() {
            let message = format!("is {value:e}, beyond the largest {}", format.name());
            return Err(Error::invalid(format!("array[{row}, {column}]"), message));
        }
        to.copy_from_slice(&bits.to_ne_bytes());
    }
    Ok(())
}

fn encode_int8(values: &[f32], row: usize, to: &mut [u8]) -> Result<()> {
    let (least, largest) = extremes(values);
    let range = largest - least;
    if range.is_infinite() {
        let message = format!("holds values from {least:e} to {largest:e}, a range beyond float32");
        return Err(Error::invalid(format!("array[{row}]"), message));
    }
    let inverse = 255.0 / (range + 1e-8);
    let (codes, params) = to.split_at_mut(values.len());
    for (code, value) in codes.iter_mut().zip(values) {
        *code = rint((value - least) * inverse) as u8;
    }
    params[..4].copy_from_slice(&(range / 255.0).to_ne_bytes());
    params[4..].copy_from_slice(&least.to_ne_bytes());
    Ok(())
}

fn encode_bits(format: RowFormat, values: &[f32], row: usize, to: &mut [u8]) -> Result<()> {
    let bits = format.bits();
    let top = ((1 << bits) - 1) as f32;
    let (least, largest) = extremes(values);
    let bias = f32_to_half(least);
    let least_half = half_to_f32(bias);
    let range = largest - least_half;
    let scale = half_to_f32(f32_to_half(if range == 0.0 { 1.0 } else { range / top }));
    if least_half.is_infinite() || scale.is_infinite() {
        let message = format!(
            "holds values from {least:e} to {largest:e}; scale or bias of {} would be beyond float16",
            format.name()
        );
        return Err(Error::invalid(format!("array[{row}]"), message));
    }
    // 1 / scale is finite: the least half is 2^-24.
    let scale = if scale == 0.0 { 1.0 } else { scale };
    let inverse = 1.0 / scale;
    let per_byte = 8 / bits;
    let (codes, params) = to.split_at_mut(values.len().div_ceil(per_byte));
    for (byte, group) in codes.iter_mut().zip(values.chunks(per_byte)) {
        *byte = group.iter().enumerate().fold(0, |byte, (place, value)| {
            let code = rint((value - least_half) * inverse).clamp(0.0, top) as u8;
            byte | code << (place * bits)
        });
    }
    params[..2].copy_from_slice(&f32_to_half(scale).to_ne_bytes());
    params[2..].copy_from_slice(&bias.to_ne_bytes());
    Ok(())
}

/// The nearest whole number, ties to even, for `|x| < 2^22`; beyond, a number at least as large. Without a call into
/// libm, which the baseline would need.
#[inline(always)]
fn rint(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23: the last place of the sum is 1
    (x + SHIFT) - SHIFT
}

/// Smallest and largest of finite values; the first of those that are equal (0 and -0).
fn extremes(values: &[f32]) -> (f32, f32) {
    const LANES: usize = 8;
    let mut least = [f32::INFINITY; LANES];
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for chunk in whole {
        for i in 0..LANES {
            least[i] = if chunk[i] < least[i] { chunk[i] } else { least[i] };
            largest[i] = if chunk[i] > largest[i] { chunk[i] } else { largest[i] };
        }
    }
    let least = least.iter().chain(rest).fold(f32::INFINITY, |a, &b| if b < a { b } else { a });
    let largest = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    let first = |wanted: f32| values.iter().copied().find(|&x| x == wanted).unwrap_or(wanted);
    (if least == 0.0 { first(least) } else { least }, if largest == 0.0 { first(largest) } else { largest })
}
