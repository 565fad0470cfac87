//! Calls over several tables: against the definition table by table, the window that runs across their borders, the
//! shares of threads, and memory that ends at a fence.

use super::guard_tests::{Flush, Guarded};
use super::reference::{self, Quantised, Question};
use super::tests::{picks, tiers, values};
use super::tests_formats::{bytes_of, decode, encode, run, same, small_values};
use super::window::{Lookups, NO_ADDRESSES, Stretch, Window, skipped};
use super::*;
use crate::control::Control;
use crate::rng::{Purpose, Stream};
use proptest::prelude::*;
use std::ops::Range;

/// A table and the numbers of its rows, as the definition takes them.
struct Known {
    owned: OwnedTable,
    numbers: Quantised,
}

fn known(shapes: &[(RowFormat, usize, usize)]) -> Vec<Known> {
    let one = |(seed, &(format, rows, dim)): (usize, &(RowFormat, usize, usize))| {
        let owned = encode(format, &small_values(rows * dim, seed as u64), rows, dim);
        Known { numbers: decode(&owned), owned }
    };
    shapes.iter().enumerate().map(one).collect()
}

/// Lookups in several tables, table after table, as many bags in each.
struct Job {
    indices: Vec<i64>,
    /// One more than there are bags in all tables.
    offsets: Vec<i64>,
    factors: Vec<f32>,
    bags: usize,
}

impl Job {
    /// `lengths`: of the bags of all tables. About every `pruned`-th lookup is -1.
    fn new(tables: &[Known], lengths: &[usize], pruned: Option<u64>) -> Self {
        let bags = lengths.len() / tables.len();
        let mut job = Self { indices: Vec::new(), offsets: vec![0], factors: Vec::new(), bags };
        for (t, lengths) in lengths.chunks(bags.max(1)).enumerate() {
            job.indices.extend(picks(lengths.iter().sum(), tables[t].owned.rows(), t as u64));
            job.offsets.extend(lengths.iter().scan(job.offsets[job.offsets.len() - 1], |end, &n| {
                *end += n as i64;
                Some(*end)
            }));
        }
        job.factors = values(job.indices.len(), 99);
        if let Some(pruned) = pruned {
            let dice = Stream::new(7, Purpose::Search, 2);
            for (j, index) in job.indices.iter_mut().enumerate() {
                if dice.bits(j as u64).is_multiple_of(pruned) {
                    *index = -1;
                }
            }
        }
        job
    }

    fn positions(&self, table: usize, bag: usize) -> Range<usize> {
        let at = table * self.bags + bag;
        self.offsets[at] as usize..self.offsets[at + 1] as usize
    }

    fn call<'a>(&'a self, tables: &'a [Table<'a>], mode: Mode, weighted: bool) -> Call<'a> {
        Call {
            tables: Tables::Many(tables),
            indices: self.indices[..].into(),
            bags: Bags::Offsets { offsets: self.offsets[..].into(), include_last: true },
            mode,
            lookup_weights: weighted.then_some(self.factors[..].into()),
            exact: true,
            skip: if self.indices.contains(&-1) { Skip::Pruned } else { Skip::Nothing },
            threads: Some(1),
            isa: None,
        }
    }

    /// The definition: for each bag, the tables' columns side by side; -1 is no row.
    fn right(&self, tables: &[Known], mode: Mode, weighted: bool) -> Vec<f32> {
        let mut out = Vec::new();
        for bag in 0..self.bags {
            for (t, Known { owned, numbers }) in tables.iter().enumerate() {
                let kept: Vec<usize> = self.positions(t, bag).filter(|&j| self.indices[j] != -1).collect();
                let rows: Vec<i64> = kept.iter().map(|&j| self.indices[j]).collect();
                let factors: Vec<f32> = kept.iter().map(|&j| if weighted { self.factors[j] } else { 1.0 }).collect();
                if owned.format().is_quantised() {
                    let lookups: Vec<_> = rows.iter().map(|&row| row as usize).zip(factors).collect();
                    let column = |c| reference::quantised_column(numbers, owned.dim(), c, &lookups, mode).0;
                    out.extend((0..owned.dim()).map(column));
                } else {
                    let question = Question {
                        weight: &numbers.codes,
                        rows: owned.rows(),
                        dim: owned.dim(),
                        indices: &rows,
                        ends: &[rows.len()],
                        mode,
                        lookup_weights: weighted.then_some(&factors[..]),
                        padding: None,
                    };
                    out.extend(reference::embedding_bag(&question).unwrap());
                }
            }
        }
        out
    }
}

fn views(tables: &[Known]) -> Vec<Table<'_>> {
    tables.iter().map(|table| table.owned.table()).collect()
}

const WAYS: [(Mode, bool); 5] =
    [(Mode::Sum, false), (Mode::Sum, true), (Mode::Mean, false), (Mode::Mean, true), (Mode::Max, false)];

/// Every tier, mode and thread count against the definition, to the bit; the fast order of quantised rows against a call
/// per table.
fn compare(tables: &[Known], job: &Job) {
    let views = views(tables);
    let columns: usize = views.iter().map(|view| view.dim).sum();
    for (mode, weighted) in WAYS {
        let right = job.right(tables, mode, weighted);
        for isa in tiers() {
            let call = Call { isa: Some(isa), ..job.call(&views, mode, weighted) };
            let fast = run(Call { exact: false, ..call });
            for threads in 1..=3 {
                let ours = run(Call { threads: Some(threads), ..call });
                assert!(same(&ours, &right), "{isa} {mode:?} {weighted} {threads}");
                let ours = run(Call { threads: Some(threads), exact: false, ..call });
                assert!(same(&ours, &fast), "{isa} {mode:?} {weighted} {threads}: threads differ");
            }
            let mut first_column = 0;
            for (t, view) in views.iter().enumerate() {
                let (all, offsets) = (
                    &job.offsets[t * job.bags..=(t + 1) * job.bags],
                    job.offsets.iter().map(|x| x - job.offsets[t * job.bags]),
                );
                let offsets: Vec<i64> = offsets.skip(t * job.bags).take(all.len()).collect();
                let lookups = all[0] as usize..all[job.bags] as usize;
                let alone = run(Call {
                    tables: (*view).into(),
                    indices: job.indices[lookups.clone()].into(),
                    bags: Bags::Offsets { offsets: offsets[..].into(), include_last: true },
                    lookup_weights: weighted.then_some(job.factors[lookups].into()),
                    exact: false,
                    skip: Skip::Pruned,
                    ..call
                });
                for bag in 0..job.bags {
                    let at = bag * columns + first_column;
                    let (ours, alone) = (&fast[at..at + view.dim], &alone[bag * view.dim..(bag + 1) * view.dim]);
                    assert!(same(ours, alone), "{isa} {mode:?} {weighted} table {t} bag {bag}");
                }
                first_column += view.dim;
            }
        }
    }
}

const MIXED: [(RowFormat, usize, usize); 7] = [
    (RowFormat::F32, 50, 17),
    (RowFormat::Int4, 40, 65),
    (RowFormat::Int8, 1, 3),
    (RowFormat::F16, 30, 600),
    (RowFormat::Int2, 60, 130),
    (RowFormat::Bf16, 20, 1),
    (RowFormat::F32, 2, 300),
];

#[test]
fn tables_of_any_width_and_format_are_pooled_side_by_side() {
    let tables = known(&MIXED);
    // Three bags each: empty ones, a table without lookups, bags longer than the window.
    let lengths = [3, 0, 17, 0, 5, 0, 1, 1, 900, 0, 0, 0, 2, 600, 0, 0, 0, 4, 7, 0, 1];
    for pruned in [None, Some(2)] {
        compare(&tables, &Job::new(&tables, &lengths, pruned));
        compare(&tables[..1], &Job::new(&tables[..1], &lengths, pruned));
        compare(&tables, &Job::new(&tables, &[0; 14], pruned));
    }
    let none = Job::new(&tables, &[], None);
    compare(&tables, &none);
    let views = views(&tables);
    let plan = Plan::new(none.call(&views, Mode::Mean, false)).unwrap();
    assert_eq!((plan.bags(), plan.columns()), (0, 17 + 65 + 3 + 600 + 130 + 1 + 300));
}

#[test]
fn threads_share_tables_and_give_the_same_bytes() {
    let tables = known(&MIXED);
    let lengths: Vec<usize> = (0..7 * 40).map(|bag| if bag % 100 == 7 { 3000 } else { bag * 7 % 400 }).collect();
    for pruned in [None, Some(4)] {
        let job = Job::new(&tables, &lengths, pruned);
        let views = views(&tables);
        let plan = Plan::new(Call { threads: Some(3), ..job.call(&views, Mode::Sum, false) }).unwrap();
        assert_eq!(plan.threads(), 3, "the call must be large enough to be shared");
        compare(&tables, &job);
    }
}

/// Tables in memory of several widths, among which prefetches have to reach, and small ones between them.
const LARGE: [(RowFormat, usize, usize); 9] = [
    (RowFormat::F32, 20_000, 64),
    (RowFormat::F32, 100, 16),
    (RowFormat::F32, 300_000, 4),
    (RowFormat::Int8, 21_000, 200),
    (RowFormat::Int8, 6_100, 200),
    (RowFormat::F16, 9, 33),
    (RowFormat::Int4, 120_000, 64),
    (RowFormat::F32, 4_300, 256),
    (RowFormat::Bf16, 35_000, 16),
];

#[test]
fn results_are_the_same_where_prefetches_cross_borders_of_tables() {
    let tables = known(&LARGE);
    let mut distances: Vec<_> =
        views(&tables).iter().map(|&view| Stretch::new(view, 0, view.bytes()).rows_ahead).collect();
    distances.sort_unstable();
    distances.dedup();
    assert!(distances.len() >= 4, "{distances:?}");
    let of = |lookups: [usize; 9]| lookups.iter().flat_map(|&n| [n / 3, n - n / 3]).collect::<Vec<_>>();
    for lookups in [
        [1, 2, 3, 1, 2, 3, 1, 2, 3],
        [127, 5, 129, 40, 40, 0, 128, 1, 300],
        [0, 0, 511, 0, 513, 2, 512, 40, 0],
        [700, 30, 0, 9, 1000, 1, 0, 0, 64],
    ] {
        for pruned in [None, Some(3)] {
            compare(&tables, &Job::new(&tables, &of(lookups), pruned));
        }
    }
}

/// Take all lookups from position `from` on through a window, `steps` at a time in turn, and check what it gives.
///
/// Tables are (columns, rows, lookups). Their rows are only named, never read: addresses of no memory at all.
fn walk(shapes: &[(usize, usize, usize)], steps: &[usize], from: usize, skip: bool, isa: Isa) {
    let mut stretches = Vec::new();
    let (mut indices, mut right) = (Vec::new(), Vec::new());
    for (t, &(dim, rows, lookups)) in shapes.iter().enumerate() {
        // SAFETY: nothing is read through it.
        let table =
            unsafe { Table::from_raw(std::ptr::without_provenance((t + 1) << 32), RowFormat::F32, rows, dim) }.unwrap();
        for (j, row) in picks(lookups, rows, t as u64).into_iter().enumerate() {
            let pruned = skip && j % 5 == 3;
            indices.push(if pruned { -1 } else { row });
            right.push((t, if pruned { skipped() } else { table.data.addr() + row as usize * table.row_bytes() }));
        }
        stretches.push(Stretch::new(table, indices.len(), table.bytes()));
    }
    let all = indices.len();
    let alike = |a: &Stretch, b: &Stretch| {
        (a.table.row_bytes(), a.straddles, a.rows_ahead) == (b.table.row_bytes(), b.straddles, b.rows_ahead)
    };
    let uniform = stretches.iter().all(|stretch| alike(stretch, &stretches[0]));
    let lookups = Lookups {
        stretches: &stretches,
        indices: indices[..].into(),
        skip: skip.then_some(-1),
        resolve: tier(isa).resolve,
    };
    let control = Control::new();
    let mut addresses = NO_ADDRESSES;
    let mut window = Window::open(lookups, from..all, &control, &mut addresses).unwrap();
    let mut asked = from;
    for &most in steps.iter().cycle() {
        let position = window.position();
        if position == all {
            break;
        }
        let table = right[position].0;
        let Stretch { rows_ahead, .. } = stretches[table];
        let taken = window.take(table, most).unwrap();
        assert!((1..=most).contains(&taken.rows.len()));
        let reach = position + taken.rows.len();
        assert!(
            right[position..reach].iter().eq(taken.rows.iter().map(|&row| (table, row)).collect::<Vec<_>>().iter())
        );
        // Later rows that the kernel has not asked for, of the width that it asks for.
        let least = (position + rows_ahead).min(all);
        if uniform && rows_ahead > 0 {
            assert_eq!(taken.ahead.len(), (reach + rows_ahead).min(all) - least, "each row is asked for once");
        }
        if taken.ahead.is_empty() {
            continue;
        }
        let same_width = |t: usize| stretches[t].table.row_bytes() == stretches[table].table.row_bytes();
        let is_ahead = |&start: &usize| {
            let mut pairs = right[start..].iter().zip(taken.ahead);
            pairs.all(|(&(t, row), &ahead)| row == ahead && same_width(t))
        };
        let last = (reach + rows_ahead).min(all) - taken.ahead.len();
        let start = (least.max(asked)..=last).find(is_ahead).expect("these are not the rows ahead");
        asked = start + taken.ahead.len();
    }
    assert_eq!(window.position(), all);
}

#[test]
fn a_window_asks_for_each_row_once_across_borders_of_tables_of_one_width() {
    for isa in tiers() {
        for lookups in [[5, 300, 700], [0, 1, 2], [600, 0, 600], [1, 1, 513]] {
            let shapes: Vec<_> = lookups.into_iter().map(|n| (16, 40_000, n)).collect();
            for from in [0, 1] {
                walk(&shapes, &[usize::MAX, 7, 1], from, false, isa);
                walk(&shapes, &[3], from, true, isa);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_window_gives_every_row_in_order(
        shapes in prop::collection::vec(
            (prop::sample::select(vec![1_usize, 16, 60, 300]), prop::sample::select(vec![1_usize, 50, 600_000]), 0..700_usize),
            1..7,
        ),
        steps in prop::collection::vec(1..600_usize, 1..6),
        from in 0..400_usize,
        skip in any::<bool>(),
    ) {
        let all = shapes.iter().map(|&(_, _, lookups)| lookups).sum::<usize>();
        for isa in tiers() {
            walk(&shapes, &steps, from.min(all), skip, isa);
        }
    }
}

#[test]
fn pieces_are_of_about_equal_bytes_and_cover_all_bags_once() {
    // 1 KiB a row beside 36 B a row (of one line), bags of 20 lookups; and lengths of all sorts.
    let wide_and_narrow = known(&[(RowFormat::F32, 100, 256), (RowFormat::Int4, 100, 64)]);
    let even = vec![20; 2 * 500];
    let skewed: Vec<usize> = (0..1000).map(|bag| [0, 1, 40, 3, 300][bag * bag % 5]).collect();
    for lengths in [&even, &skewed] {
        let job = Job::new(&wide_and_narrow, lengths, None);
        let views = views(&wide_and_narrow);
        let plan = Plan::new(job.call(&views, Mode::Sum, false)).unwrap();
        let work = |bag: usize| if bag < 500 { lengths[bag] * 1024 + 1024 } else { lengths[bag] * 64 + 256 };
        let (total, largest) = ((0..1000).map(work).sum::<usize>(), (0..1000).map(work).max().unwrap());
        for count in [1, 2, 3, 4, 8, 12, 64] {
            let pieces = plan.pieces(count);
            assert!(pieces.len() <= count);
            assert!(pieces.iter().cloned().flatten().eq(0..1000));
            for piece in pieces {
                let bytes: usize = piece.clone().map(work).sum();
                assert!(bytes <= total / count + 1 + largest, "{count} pieces, {piece:?}: {bytes} of {total}");
            }
        }
    }
    // In bags, the border lies far from the middle.
    let job = Job::new(&wide_and_narrow, &even, None);
    let views = views(&wide_and_narrow);
    let halves = Plan::new(job.call(&views, Mode::Sum, false)).unwrap().pieces(2);
    assert!((240..=300).contains(&halves[0].end), "{halves:?}");
}

#[test]
fn the_first_bad_index_is_named_with_its_table_for_any_thread_count() {
    let tables = known(&[(RowFormat::F32, 100, 100), (RowFormat::Int8, 50, 32), (RowFormat::F16, 7, 5)]);
    let views = views(&tables);
    let lengths = vec![10; 3 * 1500];
    let error = |wrong: &[(usize, i64)], threads, skip| {
        let mut job = Job::new(&tables, &lengths, None);
        for &(position, value) in wrong {
            job.indices[position] = value;
        }
        let call = Call { threads: Some(threads), skip, ..job.call(&views, Mode::Sum, false) };
        let plan = Plan::new(call).unwrap();
        assert_eq!(plan.threads(), threads, "the call must be large enough to be shared");
        plan.run_into(&mut vec![0.0; plan.bags() * plan.columns()], &Control::new()).unwrap_err()
    };
    let index = |position, value, rows, table| Error::Index { position, value, rows, table: Some(table) };
    for threads in 1..=3 {
        let all = [(44_999, 7), (30_000, -1), (29_999, 50), (20_000, i64::MIN)];
        assert_eq!(error(&all, threads, Skip::Nothing), index(20_000, i64::MIN, 50, 1));
        assert_eq!(error(&all[..3], threads, Skip::Nothing), index(29_999, 50, 50, 1));
        assert_eq!(error(&all[..2], threads, Skip::Nothing), index(30_000, -1, 7, 2));
        assert_eq!(error(&all[..2], threads, Skip::Pruned), index(44_999, 7, 7, 2));
        assert_eq!(error(&[(0, 100), (1, -1)], threads, Skip::Pruned), index(0, 100, 100, 0));
        assert_eq!(error(&[(0, -1), (14_999, -2)], threads, Skip::Pruned), index(14_999, -2, 100, 0));
    }
}

#[test]
fn indices_of_a_table_without_columns_are_checked_by_any_number_of_threads() {
    let values = [1.0; 64];
    let tables = [Table::new(&values, 1, 64).unwrap(), Table::new(&[], 1, 0).unwrap()];
    for (lengths, wrong) in [([100_000, 100_000], 150_000), ([0, 200_000], 7)] {
        let mut indices = vec![0_i64; 200_000];
        indices[wrong] = 1;
        let offsets = [0, lengths[0] / 2, lengths[0], 200_000 - lengths[1] / 2, 200_000_i64];
        for threads in 1..=3 {
            let plan = Plan::new(Call {
                tables: Tables::Many(&tables),
                indices: indices[..].into(),
                bags: Bags::Offsets { offsets: offsets[..].into(), include_last: true },
                mode: Mode::Sum,
                lookup_weights: None,
                exact: false,
                skip: Skip::Nothing,
                threads: Some(threads),
                isa: None,
            })
            .unwrap();
            assert_eq!(plan.threads(), threads, "the call must be large enough to be shared");
            let error = plan.run_into(&mut [0.0; 2 * 64], &Control::new()).unwrap_err();
            assert_eq!(error, Error::Index { position: wrong, value: 1, rows: 1, table: Some(1) });
        }
    }
}

#[test]
fn skipped_rows_are_not_counted() {
    let tables = known(&[(RowFormat::F32, 3, 20), (RowFormat::Bf16, 3, 2), (RowFormat::Int4, 3, 9)]);
    let views = views(&tables);
    // A row among skipped ones, and nothing but skipped ones; the same with the skipped ones left out.
    let mut pruned = Job::new(&tables, &[3, 2, 3, 2, 3, 2], None);
    pruned.indices = vec![-1, 2, -1, -1, -1, 1, -1, -1, -1, -1, -1, -1, 0, -1, -1];
    let mut left_out = Job::new(&tables, &[1, 0, 1, 0, 1, 0], None);
    left_out.indices = vec![2, 1, 0];
    for isa in tiers() {
        for mode in Mode::ALL {
            let of = |job: &Job| run(Call { isa: Some(isa), ..job.call(&views, mode, false) });
            let ours = of(&pruned);
            assert!(same(&ours, &of(&left_out)), "{isa} {mode:?}");
            assert!(ours[31..].iter().all(|x| x.to_bits() == 0), "{isa} {mode:?}");
            // The padding row of one table is skipped alike.
            let (indices, offsets) = ([0_i64, 2, 0, 0, 0], [0_i64, 3, 5]);
            let padded = run(Call {
                tables: views[0].into(),
                indices: indices[..].into(),
                bags: Bags::Offsets { offsets: offsets[..].into(), include_last: true },
                skip: Skip::Padding(-3),
                isa: Some(isa),
                ..pruned.call(&views, mode, false)
            });
            assert!(
                same(&padded[..20], &ours[..20]) && padded[20..].iter().all(|x| x.to_bits() == 0),
                "{isa} {mode:?}"
            );
        }
    }
}

#[test]
fn tables_and_bags_that_do_not_fit_are_refused() {
    let (narrow, doubles) = ([0.0_f32; 6], [0.0_f64; 6]);
    let single = Table::new(&narrow, 2, 3).unwrap();
    // SAFETY: the array holds 2 x 3 values.
    let double = unsafe { Table::from_raw(doubles.as_ptr().cast(), RowFormat::F64, 2, 3) }.unwrap();
    // SAFETY: there are no rows to read.
    let wide = unsafe { Table::from_raw(narrow.as_ptr().cast(), RowFormat::Int2, 0, usize::MAX / 2) }.unwrap();
    let of = |tables: &[Table], offsets: &[i64], skip| {
        let call = Call {
            tables: Tables::Many(tables),
            indices: [0_i64, 1, 1][..].into(),
            bags: Bags::Offsets { offsets: offsets.into(), include_last: true },
            mode: Mode::Sum,
            lookup_weights: None,
            exact: false,
            skip,
            threads: Some(1),
            isa: None,
        };
        Plan::new(call).err().unwrap().to_string()
    };
    let (two, none) = ([single; 2], Skip::Nothing);
    assert_eq!(of(&[], &[0], none), "tables: is empty; at least one is needed");
    let uneven = "offsets: make 3 bags for 2 tables; B bags of each take 2 * B + 1 entries";
    assert_eq!(of(&two, &[0, 1, 2, 3], none), uneven);
    let mixed = "tables[1]: is float64 and tables[0] is not float64; all tables are, or none is";
    assert_eq!(of(&[single, double], &[0], none), mixed);
    let mixed = "tables[2]: is not float64 and tables[0] is float64; all tables are, or none is";
    assert_eq!(of(&[double, double, single], &[0], none), mixed);
    assert_eq!(of(&two, &[0, 1, 3], Skip::Padding(0)), "padding_idx: goes with one table only");
    assert_eq!(of(&[wide; 3], &[0], none), "out: the columns of 3 tables exceed the address space");
    assert!(of(&[wide], &[0, 1], none).starts_with("out: 1 x 9223372036854775807 values of 4 bytes exceed"));
}

/// Run one pair of tables in every tier and mode, results of either width, all buffers flush with forbidden pages.
fn run_guarded(formats: [RowFormat; 2], dims: [usize; 2], flush: Flush) -> usize {
    let rows = 3;
    let bytes = [0, 1].map(|t| bytes_of(&encode(formats[t], &small_values(rows * dims[t], 1), rows, dims[t])).to_vec());
    let rows_of = bytes.map(|bytes| Guarded::new(&bytes, flush));
    // SAFETY: the buffers hold the rows, and start at a multiple of their items' size from a page's border.
    let tables = [0, 1].map(|t| unsafe { Table::from_raw(rows_of[t].data, formats[t], rows, dims[t]) }.unwrap());
    let columns = dims[0] + dims[1];
    let indices = Guarded::new(&[2_i64, 0, 2, 1, -1, 0, 2], flush);
    let offsets = Guarded::new(&[0_i32, 2, 3, 3, 7], flush);
    let factors = Guarded::new(&[2.0_f32; 7], flush);
    let mut shapes = 0;
    for (mode, weighted) in WAYS {
        for isa in tiers() {
            for value_bytes in [4, 2] {
                let out = Guarded::new(&vec![0xFF_u8; 2 * columns * value_bytes], flush);
                let plan = Plan::new(Call {
                    tables: Tables::Many(&tables),
                    indices: indices.get().into(),
                    bags: Bags::Offsets { offsets: offsets.get().into(), include_last: true },
                    mode,
                    lookup_weights: weighted.then(|| factors.get().into()),
                    exact: weighted,
                    skip: Skip::Pruned,
                    threads: Some(1),
                    isa: Some(isa),
                })
                .unwrap();
                let to = if value_bytes == 2 { Output::F16(out.data.cast()) } else { Output::F32(out.data.cast()) };
                // SAFETY: the buffer holds two rows of `columns` such values.
                unsafe { plan.run(to, &Control::new()) }.unwrap();
                // What was there before is a NaN in either type.
                let left = out.get().chunks_exact(value_bytes).filter(|value| value.iter().all(|&byte| byte == 0xFF));
                assert_eq!(left.count(), 0, "{formats:?} {dims:?} {isa} {mode:?}: values that are not written");
                shapes += 1;
            }
        }
    }
    shapes
}

#[test]
fn no_pair_of_tables_touches_a_byte_outside_its_buffers() {
    let mut shapes = 0;
    for (i, dim) in (1..=34).chain([63, 64, 65, 129, 257]).enumerate() {
        for (j, first) in RowFormat::OWNED.into_iter().enumerate() {
            // Every pair of formats, and other dims beside each, over the whole of the two loops.
            let second = RowFormat::OWNED[(i + j) % RowFormat::OWNED.len()];
            for flush in [Flush::Start, Flush::End] {
                shapes += run_guarded([first, second], [dim, (7 * i + 11 * j) % 70 + 1], flush);
            }
        }
    }
    assert!(shapes >= 4_000, "{shapes} shapes");
}
