//! Every row format: bits against the definition, bounds where bits are not promised, and memory that ends at a fence.

use super::encode::encode_row;
use super::guard_tests::{Flush, Guarded};
use super::half::{brain_to_f32, f32_to_half, half_to_f32};
use super::owned::Source;
use super::reference::{self, Quantised, Question};
use super::tests::{ends_of, picks, tiers, values};
use super::*;
use crate::control::Control;
use std::ptr;

const DIMS: [usize; 34] = [
    1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 31, 32, 33, 35, 48, 63, 64, 65, 66, 67, 68, 100, 127, 128, 129, 130,
    255, 256, 260, 513, 600,
];

pub(super) fn encode(format: RowFormat, weight: &[f32], rows: usize, dim: usize) -> OwnedTable {
    // SAFETY: the slice holds rows * dim values.
    unsafe { OwnedTable::encode(Source::F32(weight.as_ptr()), rows, dim, format, Some(2), &Control::new()) }.unwrap()
}

/// Values of mixed sign and size that a half can hold.
pub(super) fn small_values(n: usize, seed: u64) -> Vec<f32> {
    values(n, seed).iter().map(|x| x / 64.0).collect()
}

pub(super) fn bytes_of(table: &OwnedTable) -> &[u8] {
    // SAFETY: the table holds that many bytes, and nobody writes them.
    unsafe { std::slice::from_raw_parts(table.data(), table.rows() * table.row_bytes()) }
}

/// The values of rows of sixteen bits, or codes and parameters of quantised rows, by the layout's definition.
pub(super) fn decode(table: &OwnedTable) -> Quantised {
    let (format, dim) = (table.format(), table.dim());
    let mut all = Quantised { codes: Vec::new(), scale_and_bias: Vec::new() };
    for row in bytes_of(table).chunks_exact(table.row_bytes()) {
        let bits = format.bits();
        for column in 0..dim {
            let at = column * bits;
            all.codes.push(match format {
                RowFormat::F32 => f32::from_le_bytes(row[at / 8..at / 8 + 4].try_into().unwrap()),
                RowFormat::F16 => half_to_f32(u16::from_le_bytes([row[at / 8], row[at / 8 + 1]])),
                RowFormat::Bf16 => brain_to_f32(u16::from_le_bytes([row[at / 8], row[at / 8 + 1]])),
                _ => f32::from((u16::from(row[at / 8]) >> (at % 8)) as u8 & ((1_u16 << bits) - 1) as u8),
            });
        }
        let params = &row[row.len() - format.param_bytes()..];
        all.scale_and_bias.push(match params.len() {
            8 => (
                f32::from_le_bytes(params[..4].try_into().unwrap()),
                f32::from_le_bytes(params[4..].try_into().unwrap()),
            ),
            4 => (
                half_to_f32(u16::from_le_bytes([params[0], params[1]])),
                half_to_f32(u16::from_le_bytes([params[2], params[3]])),
            ),
            _ => (1.0, 0.0),
        });
    }
    all
}

pub(super) fn run(call: Call) -> Vec<f32> {
    let plan = Plan::new(call).unwrap();
    let mut out = vec![f32::NAN; plan.bags() * plan.columns()];
    plan.run_into(&mut out, &Control::new()).unwrap();
    out
}

fn call<'a>(table: Table<'a>, indices: &'a [i64], lengths: &'a [i64], mode: Mode) -> Call<'a> {
    Call {
        tables: table.into(),
        indices: indices.into(),
        bags: Bags::Lengths(lengths.into()),
        mode,
        lookup_weights: None,
        exact: false,
        skip: Skip::Nothing,
        threads: Some(1),
        isa: None,
    }
}

pub(super) fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// All tiers and thread counts over one table of sixteen-bit floats.
fn compare_narrow(format: RowFormat, rows: usize, dim: usize, lengths: &[i64], padding: Option<usize>) {
    let table = encode(format, &small_values(rows * dim, dim as u64), rows, dim);
    let decoded = decode(&table).codes;
    let lookups = lengths.iter().sum::<i64>() as usize;
    let (indices, factors, ends) = (picks(lookups, rows, 3), values(lookups, 4), ends_of(lengths));
    for (mode, weighted) in [(Mode::Sum, false), (Mode::Sum, true), (Mode::Mean, true), (Mode::Max, false)] {
        let lookup_weights = weighted.then_some(&factors[..]);
        let question =
            Question { weight: &decoded, rows, dim, indices: &indices, ends: &ends, mode, lookup_weights, padding };
        let right = reference::embedding_bag(&question).unwrap();
        for isa in tiers() {
            for threads in 1..=2 {
                let ours = run(Call {
                    lookup_weights: lookup_weights.map(Into::into),
                    skip: padding.map_or(Skip::Nothing, |row| Skip::Padding(row as i64)),
                    threads: Some(threads),
                    isa: Some(isa),
                    ..call(table.table(), &indices, lengths, mode)
                });
                assert!(same(&ours, &right), "{} {isa} {mode:?} {dim} {lengths:?}", format.name());
            }
        }
    }
}

/// All tiers and thread counts over one quantised table: the exact order bit by bit, the fast one within its bound and
/// equal for any thread count.
fn compare_quantised(format: RowFormat, rows: usize, dim: usize, lengths: &[i64], padding: Option<usize>) {
    const U: f64 = 1.0 / (1 << 24) as f64;
    let weight = small_values(rows * dim, dim as u64);
    let table = encode(format, &weight, rows, dim);
    let decoded = decode(&table);
    let lookups = lengths.iter().sum::<i64>() as usize;
    let (indices, factors, ends) = (picks(lookups, rows, 3), values(lookups, 4), ends_of(lengths));
    for (mode, weighted) in [(Mode::Sum, false), (Mode::Sum, true), (Mode::Mean, true), (Mode::Max, false)] {
        let base = Call {
            lookup_weights: weighted.then_some(factors[..].into()),
            skip: padding.map_or(Skip::Nothing, |row| Skip::Padding(row as i64)),
            ..call(table.table(), &indices, lengths, mode)
        };
        let mut right = Vec::new();
        let mut bounds = Vec::new();
        let mut start = 0;
        for &end in &ends {
            let bag: Vec<(usize, f32)> = (start..end)
                .map(|j| (indices[j] as usize, if weighted { factors[j] } else { 1.0 }))
                .filter(|&(row, _)| Some(row) != padding)
                .collect();
            for column in 0..dim {
                let (value, magnitude) = reference::quantised_column(&decoded, dim, column, &bag, mode);
                right.push(value);
                // Both orders' errors together, and the division of a mean.
                let n = bag.len() as f64;
                bounds.push(((n + 3.0) + (2.0 * n + 2.0)) * U * 1.001 * magnitude);
            }
            start = end;
        }
        for isa in tiers() {
            let mut fast = Vec::new();
            for threads in 1..=2 {
                let (threads, isa) = (Some(threads), Some(isa));
                let exact = run(Call { exact: true, threads, isa, ..base });
                assert!(same(&exact, &right), "{} {isa:?} {mode:?} {dim} {lengths:?}", format.name());
                fast.push(run(Call { threads, isa, ..base }));
            }
            assert!(same(&fast[0], &fast[1]), "{} {isa} {mode:?} {dim}: threads differ", format.name());
            for ((ours, right), bound) in fast[0].iter().zip(&right).zip(&bounds) {
                let error = (f64::from(*ours) - f64::from(*right)).abs();
                assert!(error <= *bound, "{} {isa} {mode:?} {dim}: {ours} {right} {bound}", format.name());
            }
            if format != RowFormat::Int8 && !weighted {
                // Products of few bits are exact, so tiers agree to the bit.
                let portable = run(Call { isa: Some(Isa::Portable), ..base });
                assert!(same(&fast[0], &portable), "{} {isa} {mode:?} {dim}", format.name());
            }
        }
    }
}

#[test]
fn halves_and_brains_are_bit_equal_to_the_definition() {
    for format in [RowFormat::F16, RowFormat::Bf16] {
        for dim in DIMS {
            compare_narrow(format, 29, dim, &[3, 0, 1, 17], None);
            compare_narrow(format, 29, dim, &[3, 0, 1, 17], Some(5));
        }
        compare_narrow(format, 29, 70, &[2000, 1], None);
        compare_narrow(format, 29, 600, &[700, 0, 2], Some(5));
        compare_narrow(format, 500, 33, &[60; 300], None);
    }
}

#[test]
fn quantised_rows_are_exact_on_request_and_within_the_bound_otherwise() {
    for format in [RowFormat::Int8, RowFormat::Int4, RowFormat::Int2] {
        for dim in DIMS {
            compare_quantised(format, 29, dim, &[3, 0, 1, 17], None);
            compare_quantised(format, 29, dim, &[3, 0, 1, 17], Some(5));
        }
        // Bags that go on over several windows and, for wide rows, over several batches of strips.
        compare_quantised(format, 29, 70, &[2000, 1], None);
        compare_quantised(format, 29, 1100, &[700, 0, 2], Some(5));
        compare_quantised(format, 500, 33, &[60; 300], None);
    }
}

#[test]
fn the_bound_holds_against_real_arithmetic() {
    // Against f64, which errs 2^29 times less: the derivation of `fold`, with n + 2 roundings.
    for format in [RowFormat::Int8, RowFormat::Int4, RowFormat::Int2] {
        let weight = small_values(50 * 40, 9);
        let table = encode(format, &weight, 50, 40);
        let decoded = decode(&table);
        for n in [1, 2, 10, 300, 3000] {
            let (indices, factors) = (picks(n, 50, n as u64), values(n, 5));
            for isa in tiers() {
                let lengths = [n as i64];
                let ours = run(Call {
                    lookup_weights: Some(factors[..].into()),
                    isa: Some(isa),
                    ..call(table.table(), &indices, &lengths, Mode::Sum)
                });
                for (column, ours) in ours.iter().enumerate() {
                    let (mut real, mut magnitude) = (0.0, 0.0);
                    for (&row, &w) in indices.iter().zip(&factors) {
                        let (scale, bias) = decoded.scale_and_bias[row as usize];
                        let code = f64::from(decoded.codes[row as usize * 40 + column]);
                        let (product, bias) = (f64::from(w) * code * f64::from(scale), f64::from(w) * f64::from(bias));
                        real += product + bias;
                        magnitude += product.abs() + bias.abs();
                    }
                    let k = (n as f64 + 2.0) * 2.0_f64.powi(-24);
                    let bound = (k / (1.0 - k) + 4.0 * n as f64 * 2.0_f64.powi(-53)) * magnitude;
                    assert!((f64::from(*ours) - real).abs() <= bound, "{} {isa} {n}", format.name());
                }
            }
        }
    }
}

#[test]
fn doubles_are_bit_equal_to_the_definition() {
    for dim in [1, 3, 7, 8, 9, 16, 33, 64, 127, 130, 600] {
        let weight: Vec<f64> =
            values(40 * dim, 1).iter().zip(values(40 * dim, 2)).map(|(&a, b)| f64::from(a) * f64::from(b)).collect();
        let lengths = [5, 0, 1, 700];
        let indices = picks(706, 40, 3);
        let factors: Vec<f64> = values(706, 4).iter().map(|&x| f64::from(x) / 3.0).collect();
        // SAFETY: the vector holds 40 * dim values.
        let table = unsafe { Table::from_raw(weight.as_ptr().cast(), RowFormat::F64, 40, dim) }.unwrap();
        let ends = ends_of(&lengths);
        for (mode, weighted) in [(Mode::Sum, false), (Mode::Mean, true), (Mode::Max, false)] {
            let lookup_weights = weighted.then_some(&factors[..]);
            let question = Question {
                weight: &weight,
                rows: 40,
                dim,
                indices: &indices,
                ends: &ends,
                mode,
                lookup_weights,
                padding: Some(3),
            };
            let right = reference::embedding_bag(&question).unwrap();
            for isa in tiers() {
                for threads in 1..=2 {
                    let plan = Plan::new(Call {
                        lookup_weights: lookup_weights.map(Into::into),
                        skip: Skip::Padding(3),
                        threads: Some(threads),
                        isa: Some(isa),
                        ..call(table, &indices, &lengths, mode)
                    })
                    .unwrap();
                    let mut out = vec![f64::NAN; right.len()];
                    // SAFETY: the vector holds bags * dim values.
                    unsafe { plan.run(Output::F64(out.as_mut_ptr()), &Control::new()) }.unwrap();
                    assert!(out.iter().zip(&right).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa} {mode:?} {dim}");
                    let mut single = vec![0.0; right.len()];
                    assert!(plan.run_into(&mut single, &Control::new()).is_err(), "an f64 table has f64 results");
                }
            }
        }
        let single = vec![0.0_f32; 706];
        let base = call(table, &indices, &lengths, Mode::Sum);
        let mixed = Plan::new(Call { lookup_weights: Some(single[..].into()), ..base }).err().unwrap();
        assert_eq!(mixed.to_string(), "per_sample_weights: are float32; sums of this table need float64");
    }
}

#[test]
fn results_in_halves_are_rounded_once() {
    for (dim, bags) in [(1, 5), (20, 3000), (33, 700), (40_000, 3)] {
        let weight = values(20 * dim, 3);
        let table = Table::new(&weight, 20, dim).unwrap();
        let lengths: Vec<i64> = (0..bags).map(|b| b % 4).collect();
        let indices = picks(lengths.iter().sum::<i64>() as usize, 20, 8);
        for mode in Mode::ALL {
            for isa in tiers() {
                let base = Call { isa: Some(isa), threads: Some(2), ..call(table, &indices, &lengths, mode) };
                let right: Vec<u16> = run(base).into_iter().map(f32_to_half).collect();
                let mut out = vec![u16::MAX; right.len()];
                let plan = Plan::new(base).unwrap();
                // SAFETY: the vector holds bags * dim values.
                unsafe { plan.run(Output::F16(out.as_mut_ptr()), &Control::new()) }.unwrap();
                assert!(out == right, "{isa} {mode:?} {dim}");
                let mut wide = vec![0.0; right.len()];
                // SAFETY: as above.
                assert!(unsafe { plan.run(Output::F64(wide.as_mut_ptr()), &Control::new()) }.is_err());
            }
        }
    }
}

#[test]
fn special_values_of_narrow_rows_pass_through() {
    let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 5.960_464_5e-8, 65504.0, 1.0];
    for format in [RowFormat::F16, RowFormat::Bf16] {
        let table = encode(format, &specials, 7, 1);
        let right = decode(&table).codes;
        for isa in tiers() {
            for (row, right) in right.iter().enumerate() {
                // The maximum of one row is the row, with the sign of its zero.
                let indices = [row as i64];
                let ours = run(Call { isa: Some(isa), ..call(table.table(), &indices, &[1], Mode::Max) });
                assert!(ours[0].to_bits() == right.to_bits() || (ours[0].is_nan() && right.is_nan()), "{isa} {row}");
            }
        }
    }
}

#[test]
fn rows_that_cannot_be_encoded_are_named() {
    let error = |format, values: &[f32]| {
        let mut to = vec![0; format_bytes(format, values.len())];
        encode_row(format, values, 4, &mut to).unwrap_err().to_string()
    };
    assert!(error(RowFormat::Int8, &[1.0, f32::NAN]).starts_with("array[4, 1]: is NaN; rows of int8 hold finite"));
    assert!(error(RowFormat::Int2, &[f32::INFINITY]).starts_with("array[4, 0]: is inf; rows of int2 hold finite"));
    assert!(error(RowFormat::Int8, &[f32::MAX, f32::MIN]).starts_with("array[4]: holds values from -3.4028235e38 to"));
    assert!(error(RowFormat::Int4, &[-1e6, 0.0]).starts_with("array[4]: holds values from -1e6 to 0e0; scale or bias"));
    assert!(error(RowFormat::Int4, &[0.0, 1e6]).contains("beyond float16"));
    assert_eq!(error(RowFormat::F16, &[0.0, 0.0, -65520.0]), "array[4, 2]: is -6.552e4, beyond the largest float16");
    assert_eq!(error(RowFormat::Bf16, &[f32::MAX]), "array[4, 0]: is 3.4028235e38, beyond the largest bfloat16");
}

fn format_bytes(format: RowFormat, dim: usize) -> usize {
    format.row_bytes(dim).unwrap()
}

#[test]
fn an_error_of_a_shared_encoding_is_that_of_the_first_row() {
    let (rows, dim) = (40_000, 16);
    let mut weight = vec![1.0_f32; rows * dim];
    weight[39_000 * dim] = f32::NAN;
    weight[33_333 * dim + 3] = f32::INFINITY;
    for threads in 1..=3 {
        // SAFETY: the vector holds rows * dim values.
        let error = unsafe {
            let source = Source::F32(weight.as_ptr());
            OwnedTable::encode(source, rows, dim, RowFormat::Int8, Some(threads), &Control::new()).err().unwrap()
        };
        assert!(error.to_string().starts_with("array[33333, 3]: is inf"), "{error}");
    }
    let control = Control::new();
    control.cancel();
    // SAFETY: as above.
    let stopped = unsafe {
        OwnedTable::encode(Source::F32(weight.as_ptr()), rows, dim, RowFormat::Int8, Some(2), &control).err()
    };
    assert_eq!(stopped, Some(Error::Cancelled));
}

#[test]
fn layouts_go_both_ways() {
    for format in [RowFormat::Int8, RowFormat::Int4, RowFormat::Int2] {
        for dim in [1, 2, 3, 5, 16, 33] {
            let table = encode(format, &small_values(7 * dim, 1), 7, dim);
            for layout in [Layout::ParamsLast, Layout::ParamsFirst] {
                let codes = table.row_bytes() - format.param_bytes();
                let their_bytes = codes + layout.param_bytes(format);
                let mut theirs = vec![0; 7 * their_bytes];
                // SAFETY: the vector has the size of seven rows in that layout.
                unsafe { table.export(layout, theirs.as_mut_ptr()) }.unwrap();
                // SAFETY: as above.
                let back = unsafe { OwnedTable::import(theirs.as_ptr(), layout, 7, dim, format) }.unwrap();
                for row in 0..7 {
                    let (first, our_row) = (&theirs[row * their_bytes..], &bytes_of(&table)[row * table.row_bytes()..]);
                    let at = if layout == Layout::ParamsFirst { 4 } else { 0 };
                    assert_eq!(first[at..at + codes], our_row[..codes], "codes do not change");
                }
                if layout == Layout::ParamsLast || format != RowFormat::Int8 {
                    assert_eq!(bytes_of(&back), bytes_of(&table), "{} {layout:?}", format.name());
                } else {
                    let rounded: Vec<(f32, f32)> = decode(&table).scale_and_bias;
                    let rounded: Vec<(f32, f32)> = rounded
                        .into_iter()
                        .map(|(s, b)| (half_to_f32(f32_to_half(s)), half_to_f32(f32_to_half(b))))
                        .collect();
                    assert_eq!(decode(&back).scale_and_bias, rounded);
                }
            }
        }
    }
    let table = encode(RowFormat::Int8, &[1e30, 1e30], 1, 2);
    let mut to = [0; 6];
    // SAFETY: a row has two codes and two halves.
    let error = unsafe { table.export(Layout::ParamsFirst, to.as_mut_ptr()) }.unwrap_err().to_string();
    assert_eq!(error, "row 0: has bias 1e30, beyond float16, which layout \"first\" needs");
}

#[test]
fn absurd_shapes_are_refused_before_anything_is_allocated() {
    for format in RowFormat::OWNED {
        let source = Source::F32(ptr::NonNull::<f32>::dangling().as_ptr());
        // SAFETY: nothing is read.
        let of = |rows, dim| unsafe { OwnedTable::encode(source, rows, dim, format, None, &Control::new()).err() };
        assert!(matches!(of(usize::MAX, 3), Some(Error::Size(_))));
        assert!(matches!(of(3, usize::MAX), Some(Error::Size(_) | Error::Memory { .. })));
        assert!(of(3, 0).unwrap().to_string().contains("has no columns"));
    }
    for (format, name) in [(RowFormat::Int4, "int4"), (RowFormat::Bf16, "bfloat16")] {
        assert_eq!(RowFormat::parse(name), Ok(format));
    }
    assert!(RowFormat::parse("float64").unwrap_err().to_string().contains("float32, float16, bfloat16, int8"));
}

/// Run one shape in every tier and mode, with results of either width, all buffers flush with forbidden pages.
fn run_guarded(format: RowFormat, dim: usize, flush: Flush) -> usize {
    let rows = 3;
    let is_f64 = format == RowFormat::F64;
    let floats = small_values(rows * dim, 1);
    let doubles = |values: &[f32]| values.iter().flat_map(|&x| f64::from(x).to_ne_bytes()).collect::<Vec<u8>>();
    let bytes = if is_f64 { doubles(&floats) } else { bytes_of(&encode(format, &floats, rows, dim)).to_vec() };
    let weight = Guarded::new(&bytes, flush);
    let indices = Guarded::new(&[2_i64, 0, 2, 1, 2], flush);
    let singles = Guarded::new(&[2.0_f32; 5], flush);
    let pairs = Guarded::new(&[2.0_f64; 5], flush);
    let lookup_weights: LookupWeights = if is_f64 { pairs.get().into() } else { singles.get().into() };
    // SAFETY: the buffer holds the rows, and starts at a multiple of its items' size from a page's border.
    let table = unsafe { Table::from_raw(weight.data, format, rows, dim) }.unwrap();
    let mut shapes = 0;
    for (mode, weighted, exact) in
        [(Mode::Sum, false, false), (Mode::Sum, true, false), (Mode::Mean, true, true), (Mode::Max, false, false)]
    {
        for isa in tiers() {
            for value_bytes in if is_f64 { vec![8] } else { vec![4, 2] } {
                let out = Guarded::new(&vec![0_u8; 2 * dim * value_bytes], flush);
                let to = match value_bytes {
                    2 => Output::F16(out.data.cast()),
                    4 => Output::F32(out.data.cast()),
                    _ => Output::F64(out.data.cast()),
                };
                let lookup_weights = weighted.then_some(lookup_weights);
                let call = Call { lookup_weights, exact, isa: Some(isa), ..call(table, indices.get(), &[2, 3], mode) };
                // SAFETY: the buffer holds two rows of `dim` such values.
                unsafe { Plan::new(call).unwrap().run(to, &Control::new()) }.unwrap();
                shapes += 1;
            }
        }
    }
    shapes
}

#[test]
fn no_format_touches_a_byte_outside_its_buffers() {
    let mut shapes = 0;
    for dim in (1..=70).chain([127, 128, 129, 130, 131, 257, 300]) {
        for format in RowFormat::OWNED.into_iter().chain([RowFormat::F64]) {
            for flush in [Flush::Start, Flush::End] {
                shapes += run_guarded(format, dim, flush);
            }
        }
    }
    assert!(shapes >= 2_000, "{shapes} shapes");
}
