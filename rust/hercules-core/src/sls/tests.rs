//! Each tier against the definition, bit for bit, and the promises of the plan.

use super::reference::{self, Question};
use super::*;
use crate::control::Control;
use crate::rng::{Purpose, Stream};
use proptest::prelude::*;

pub(super) fn tiers() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| *isa <= Isa::detected())
}

/// Values of mixed sign and size, so that any change in the order of additions shows.
pub(super) fn values(n: usize, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, Purpose::Search, 0);
    (0..n as u64)
        .map(|i| ((stream.uniform(2 * i) - 0.5) * 10.0_f64.powi((stream.bits(2 * i + 1) % 7) as i32)) as f32)
        .collect()
}

pub(super) fn picks(n: usize, rows: usize, seed: u64) -> Vec<i64> {
    let stream = Stream::new(seed, Purpose::Sizes, 1);
    (0..n as u64).map(|i| (stream.bits(i) % rows as u64) as i64).collect()
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()))
}

fn run(call: Call) -> Result<Vec<f32>> {
    let plan = Plan::new(call)?;
    // Poisoned, so that a value that is not written shows.
    let mut out = vec![f32::NAN; plan.bags() * plan.columns()];
    plan.run_into(&mut out, &Control::new())?;
    Ok(out)
}

fn call<'a>(table: Table<'a>, indices: &'a [i64], lengths: &'a [i64]) -> Call<'a> {
    Call {
        tables: table.into(),
        indices: indices.into(),
        bags: Bags::Lengths(lengths.into()),
        mode: Mode::Sum,
        lookup_weights: None,
        exact: false,
        skip: Skip::Nothing,
        threads: Some(1),
        isa: None,
    }
}

pub(super) fn ends_of(lengths: &[i64]) -> Vec<usize> {
    lengths
        .iter()
        .scan(0, |end, &n| {
            *end += n as usize;
            Some(*end)
        })
        .collect()
}

/// Compare all tiers and thread counts with the definition for one shape, in every mode.
fn compare(rows: usize, dim: usize, lengths: &[i64], padding: Option<usize>, seed: u64) {
    let weight = values(rows * dim, seed);
    let lookups = lengths.iter().sum::<i64>() as usize;
    let indices = picks(lookups, rows, seed ^ 1);
    let factors = values(lookups, seed ^ 2);
    let ends = ends_of(lengths);
    let table = Table::new(&weight, rows, dim).unwrap();
    for mode in Mode::ALL {
        for lookup_weights in [None, Some(&factors[..])] {
            if mode == Mode::Max && lookup_weights.is_some() {
                continue;
            }
            let question =
                Question { weight: &weight, rows, dim, indices: &indices, ends: &ends, mode, lookup_weights, padding };
            let right = reference::embedding_bag(&question).unwrap();
            for isa in tiers() {
                for threads in 1..=3 {
                    let ours = run(Call {
                        mode,
                        lookup_weights: lookup_weights.map(Into::into),
                        skip: padding.map_or(Skip::Nothing, |row| Skip::Padding(row as i64)),
                        threads: Some(threads),
                        isa: Some(isa),
                        ..call(table, &indices, lengths)
                    });
                    assert!(
                        same(&ours.unwrap(), &right),
                        "{isa} {mode:?} rows {rows} dim {dim} {lengths:?} {padding:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_tail_length_is_bit_equal_to_the_definition() {
    for dim in (0..=70).chain([127, 128, 129, 255, 256, 257, 272, 300, 513]) {
        compare(37, dim, &[3, 0, 1, 2, 17], None, dim as u64);
        compare(37, dim, &[3, 0, 1, 2, 17], Some(5), dim as u64);
    }
}

#[test]
fn every_small_number_of_lookups_and_bags_longer_than_the_window() {
    for lookups in (0..40).chain([127, 128, 129, 383, 384, 385, 511, 512, 513, 2000]) {
        compare(1000, 20, &[lookups], None, lookups as u64);
        compare(50, 5, &[1, lookups, 0, lookups], Some(7), lookups as u64);
    }
}

#[test]
fn wide_rows_are_pooled_in_batches_that_split_bags() {
    // Rows of several strips in every tier, and more rows than one batch holds.
    for padding in [None, Some(3)] {
        compare(40, 600, &[0, 300, 1, 0, 400, 0], padding, 1);
        compare(40, 2000, &[90, 2, 40], padding, 2);
    }
}

#[test]
fn threads_share_a_large_call_and_give_the_same_bytes() {
    // Skewed lengths: a few huge bags, many small ones, empty ones at the ends.
    let lengths: Vec<i64> = (0..900).map(|b| if b % 300 == 7 { 12_000 } else { b % 5 }).collect();
    let table_values = values(500 * 33, 3);
    let table = Table::new(&table_values, 500, 33).unwrap();
    let indices = picks(lengths.iter().sum::<i64>() as usize, 500, 4);
    let plan = Plan::new(Call { threads: Some(3), ..call(table, &indices, &lengths) }).unwrap();
    assert_eq!(plan.threads(), 3, "the call must be large enough to be shared");
    compare(500, 33, &lengths, None, 3);
}

#[test]
fn pieces_cover_the_bags_once_and_in_order() {
    let weight = values(8, 0);
    let table = Table::new(&weight, 8, 1).unwrap();
    for lengths in [vec![], vec![0; 9], vec![100, 0, 0, 1], vec![1; 50], vec![0, 0, 1000], vec![3, 900, 2, 2, 2]] {
        let indices = picks(lengths.iter().sum::<i64>() as usize, 8, 1);
        let plan = Plan::new(call(table, &indices, &lengths)).unwrap();
        for count in 1..10 {
            let joined: Vec<usize> = plan.pieces(count).into_iter().flatten().collect();
            assert_eq!(joined, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
    // Equal bags are cut evenly.
    let lengths = vec![10; 64];
    let indices = picks(640, 8, 1);
    let plan = Plan::new(call(table, &indices, &lengths)).unwrap();
    assert!(plan.pieces(8).iter().all(|piece| piece.len() == 8));
}

#[test]
fn special_values_pass_through() {
    let weight = [f32::NAN, 1.0, f32::INFINITY, -0.0, f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY, -3.0];
    let table = Table::new(&weight, 4, 2).unwrap();
    for isa in tiers() {
        let of =
            |mode, indices: &[i64]| run(Call { mode, isa: Some(isa), ..call(table, indices, &[indices.len() as i64]) });
        // A NaN wins from any place in the bag.
        for order in [[0, 1, 2], [1, 0, 2], [1, 2, 0]] {
            let max = of(Mode::Max, &order).unwrap();
            assert!(max[0].is_nan() && max[1] == 2.0, "{isa}");
            assert!(of(Mode::Sum, &order).unwrap()[0].is_nan());
        }
        assert_eq!(of(Mode::Max, &[2, 3]).unwrap(), [f32::NEG_INFINITY, 2.0]);
        assert!(of(Mode::Mean, &[1, 2]).unwrap()[0].is_nan());
        assert_eq!(of(Mode::Sum, &[1]).unwrap(), [f32::INFINITY, 0.0]);
    }
}

#[test]
fn the_first_bad_index_is_named_for_any_thread_count() {
    let weight = values(100 * 64, 0);
    let table = Table::new(&weight, 100, 64).unwrap();
    let lengths = vec![10; 4000];
    let mut indices = picks(40_000, 100, 1);
    indices[39_000] = -1;
    indices[3_333] = 100;
    for threads in 1..=3 {
        let call = Call { threads: Some(threads), ..call(table, &indices, &lengths) };
        assert_eq!(Plan::new(call).unwrap().threads(), threads, "the call must be large enough to be shared");
        let error = run(call).unwrap_err();
        assert_eq!(error, Error::Index { position: 3_333, value: 100, rows: 100, table: None });
    }
}

#[test]
fn bags_are_checked_before_any_work() {
    let weight = values(12, 0);
    let table = Table::new(&weight, 4, 3).unwrap();
    let indices = [0_i64, 1, 2, 3];
    let of = |offsets: &[i64], include_last| {
        run(Call { bags: Bags::Offsets { offsets: offsets.into(), include_last }, ..call(table, &indices, &[]) })
            .map_err(|e| e.to_string())
    };
    assert_eq!(of(&[], false), Ok(vec![]));
    assert_eq!(of(&[0], true), Ok(vec![]));
    assert_eq!(of(&[0], false).unwrap().len(), 3);
    assert_eq!(of(&[0, 2, 4], true).unwrap().len(), 6);
    assert_eq!(of(&[0, 4, 4], false).unwrap()[3..], [0.0; 6]);
    for (offsets, include_last, message) in [
        (&[][..], true, "offsets: is empty"),
        (&[1, 2], false, "offsets[0]: is 1; the first bag starts at 0"),
        (&[0, 3, 2], false, "offsets[2]: is 2, less than offsets[1] = 3"),
        (&[0, -5, 2], false, "offsets[1]: is -5, less than offsets[0] = 0"),
        (&[0, 5], false, "offsets[1]: is 5, beyond the 4 indices"),
        (&[0, i64::MAX], true, "offsets[1]: is 9223372036854775807, beyond"),
        (&[i64::MIN], false, "offsets[0]: is -9223372036854775808"),
    ] {
        let error = of(offsets, include_last).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
    let lengths = |lengths: &[i64]| run(call(table, &indices, lengths)).map_err(|e| e.to_string());
    assert!(lengths(&[2, -1]).unwrap_err().starts_with("lengths[1]: is -1"));
    assert!(lengths(&[2, 3]).unwrap_err().starts_with("lengths[1]: is 3, but only 2 of the 4"));
    assert!(lengths(&[1, i64::MAX]).unwrap_err().starts_with("lengths[1]: is 9223372036854775807"));
    assert_eq!(lengths(&[1, 1]).unwrap_err(), "lengths: sum to 2, but there are 4 indices");
    let fixed = |bags, lookups| run(Call { bags: Bags::Fixed { bags, lookups }, ..call(table, &indices, &[]) });
    assert_eq!(fixed(2, 2).unwrap().len(), 6);
    assert!(fixed(3, 2).is_err() && fixed(usize::MAX, usize::MAX).is_err());
}

#[test]
fn options_are_checked() {
    let weight = values(12, 0);
    let table = Table::new(&weight, 4, 3).unwrap();
    let indices = [0_i64, 3];
    let base = call(table, &indices, &[2]);
    for padding in [4, -5, i64::MIN, i64::MAX] {
        let error = run(Call { skip: Skip::Padding(padding), ..base }).unwrap_err().to_string();
        assert!(error.contains("-4 <= padding_idx < 4"), "{error}");
    }
    assert_eq!(run(Call { skip: Skip::Padding(-1), ..base }).unwrap(), weight[..3]);
    assert_eq!(run(Call { skip: Skip::Padding(-4), ..base }).unwrap(), weight[9..]);
    let factors = [1.0_f32; 3];
    assert!(run(Call { lookup_weights: Some(factors[..].into()), ..base }).is_err());
    let two = factors[..2].into();
    assert!(run(Call { lookup_weights: Some(two), mode: Mode::Max, ..base }).unwrap_err().to_string().contains("max"));
    assert!(run(Call { threads: Some(0), ..base }).is_err());
    assert!(Table::new(&weight, 5, 3).is_err());
    assert!(matches!(checked_bytes("weight", usize::MAX, 2, 4), Err(Error::Size(_))));
    assert!(Mode::parse("prod").unwrap_err().to_string().contains("sum, mean, max"));
}

#[test]
fn a_cancelled_call_stops() {
    let weight = values(12, 0);
    let indices = picks(5000, 4, 0);
    let lengths = [5000];
    let plan = Plan::new(call(Table::new(&weight, 4, 3).unwrap(), &indices, &lengths)).unwrap();
    let control = Control::new();
    control.cancel();
    assert_eq!(plan.run_into(&mut [0.0; 3], &control), Err(Error::Cancelled));
    assert!(plan.run_into(&mut [0.0; 4], &Control::new()).is_err(), "wrong size of out");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_shape_is_bit_equal_to_the_definition(
        rows in 1..60_usize,
        dim in 0..150_usize,
        lengths in prop::collection::vec(0..30_i64, 0..12),
        padding in prop::option::of(0..60_usize),
        seed in any::<u64>(),
    ) {
        compare(rows, dim, &lengths, padding.filter(|&row| row < rows), seed);
    }

    #[test]
    fn any_numbers_give_a_result_or_an_error(
        indices in prop::collection::vec(prop_oneof![0..9_i64, any::<i64>()], 0..20),
        offsets in prop::collection::vec(prop_oneof![0..20_i64, any::<i64>()], 0..6),
        include_last in any::<bool>(),
    ) {
        let weight = values(8 * 5, 0);
        let table = Table::new(&weight, 8, 5).unwrap();
        let bags = Bags::Offsets { offsets: offsets[..].into(), include_last };
        let outcome = run(Call { bags, ..call(table, &indices, &[]) });
        let bags = offsets.len() - usize::from(include_last && !offsets.is_empty());
        if let Ok(out) = outcome {
            prop_assert_eq!(out.len(), bags * 5);
            prop_assert!(out.iter().all(|x| x.is_finite()));
        }
    }
}
