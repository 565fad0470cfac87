//! The engine against its twin, the hand-made traces of the oracle, and laws that hold bit for bit.

use super::fusion::Limits;
use super::load::{Bracket, Limit, Prober, Rules, max_load};
use super::system::{Allowance, Config, Detail, Ended, Scratch, Service, SlowedBy, Split, Station, System, Watch};
use super::table::{Grid, GridParts, Unit};
use super::{Input, Law, Traffic, reference};
use crate::rng::{Purpose, Stream};
use proptest::prelude::*;

const NO_FUSION: Limits = Limits { items: u32::MAX, queries: u32::MAX, max_wait_s: 0.0 };

fn station(stage: usize, unit: Unit, threads: u32, service: Service) -> Station {
    Station { stage, unit, threads, service, slowed_by: SlowedBy::Nobody, limits: NO_FUSION }
}

fn affine(base_s: f64, per_item_s: f64) -> Service {
    Service::Affine { base_s, per_item_s }
}

fn run(system: &System, arrival_s: &[f64], sizes: &[u32]) -> Vec<f64> {
    let input = Input::trace(arrival_s.to_vec(), sizes.to_vec()).unwrap();
    let split = Split::of(system, &input).unwrap();
    let mut scratch = Scratch::new();
    let ended = system.run(&input, &split, 1.0, &mut scratch, &mut Watch::blind(), Detail::Waits);
    assert_eq!(ended, Ended::Complete);
    scratch.latencies(0)
}

fn close(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len());
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= 1e-12, "{got:?} against {expected:?}");
    }
}

#[test]
fn oracle_traces() {
    let pool = |batch, base, per_item| {
        System::from_stations(vec![station(0, Unit::SubBatch, 2, affine(base, per_item))], batch).unwrap()
    };
    close(
        &run(&pool(100, 0.5, 0.5), &[0.0, 0.0, 0.0, 1.0, 5.0, 5.5], &[4, 2, 1, 8, 3, 3]),
        &[2.5, 1.5, 2.5, 6.0, 2.0, 3.5],
    );
    close(&run(&pool(32, 1.0, 0.1), &[0.0, 0.5, 1.0, 20.0], &[70, 10, 33, 64]), &[5.8, 5.7, 9.0, 4.2]);
    let mut device = station(0, Unit::Fused, 1, affine(1.0, 0.05));
    device.limits = Limits { items: u32::MAX, queries: 3, max_wait_s: 2.0 };
    let device = System::from_stations(vec![device], 1).unwrap();
    close(
        &run(&device, &[0.0, 0.5, 3.0, 3.2, 3.4, 3.5, 9.0, 30.0], &[10, 10, 20, 5, 5, 40, 1, 100]),
        &[4.0, 3.5, 3.5, 3.3, 3.1, 6.0, 3.05, 8.0],
    );
}

/// A random table of three stages whose entries are multiples of 1/4, so that ties are common.
fn any_grid() -> impl Strategy<Value = Grid> {
    let unit = prop_oneof![Just(Unit::SubBatch), Just(Unit::Query), Just(Unit::Fused)];
    (prop::collection::vec(unit, 3), prop::collection::vec(1_u32..9, 3 * 4 * 2), 0..2_usize, 0..3_usize).prop_map(
        |(units, quarters, of_second, of_third)| {
            Grid::new(GridParts {
                items: vec![1, 2, 4, 64],
                busy: vec![1, 3],
                seconds: quarters.iter().map(|q| f64::from(*q) / 4.0).collect(),
                energy_j: vec![1.0; 12],
                units,
                busy_of: vec![0, of_second, of_third],
            })
            .unwrap()
        },
    )
}

fn any_config() -> impl Strategy<Value = Config> {
    let threads = prop::collection::vec(0_u32..4, 3).prop_filter("some thread", |t| t.iter().any(|n| *n > 0));
    (1_u32..7, 1_u32..16, 0_u32..5, threads).prop_map(|(batch, fuse_items, quarters, threads)| Config {
        variant: 0,
        batch,
        fuse_items,
        max_wait_s: f64::from(quarters) / 4.0,
        threads,
    })
}

fn any_trace() -> impl Strategy<Value = (Vec<f64>, Vec<u32>)> {
    prop::collection::vec((0_u32..6, 1_u32..13), 1..60).prop_map(|queries| {
        let mut clock = 0.0;
        queries
            .into_iter()
            .map(|(gap, size)| {
                clock += f64::from(gap) / 4.0;
                (clock, size)
            })
            .unzip()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn engine_equals_its_twin(grid in any_grid(), config in any_config(), (arrival_s, sizes) in any_trace()) {
        let system = System::from_grid(&grid, &config, 12).unwrap();
        let twin = reference::latencies(system.stations(), config.batch, &arrival_s, &sizes);
        prop_assert_eq!(run(&system, &arrival_s, &sizes), twin);
    }

    #[test]
    fn splitting_with_a_batch_above_every_size_equals_none(threads in 1_u32..5, (arrival_s, sizes) in any_trace()) {
        let whole = System::from_stations(vec![station(0, Unit::Query, threads, affine(0.3, 0.1))], 1).unwrap();
        let split = System::from_stations(vec![station(0, Unit::SubBatch, threads, affine(0.3, 0.1))], 12).unwrap();
        prop_assert_eq!(run(&whole, &arrival_s, &sizes), run(&split, &arrival_s, &sizes));
    }

    #[test]
    fn doubling_all_times_doubles_all_latencies(threads in 1_u32..5, (arrival_s, sizes) in any_trace()) {
        let chain = |scale: f64| {
            let first = station(0, Unit::SubBatch, threads, affine(0.3 * scale, 0.1 * scale));
            let mut second = station(1, Unit::Fused, 2, affine(0.7 * scale, 0.01 * scale));
            second.limits = Limits { items: 20, queries: u32::MAX, max_wait_s: 0.15 * scale };
            System::from_stations(vec![first, second], 4).unwrap()
        };
        let doubled: Vec<f64> = arrival_s.iter().map(|t| 2.0 * t).collect();
        let expected: Vec<f64> = run(&chain(1.0), &arrival_s, &sizes).iter().map(|x| 2.0 * x).collect();
        prop_assert_eq!(run(&chain(2.0), &doubled, &sizes), expected);
    }

    #[test]
    fn fusing_one_query_at_a_time_equals_a_pool(threads in 1_u32..4, (arrival_s, sizes) in any_trace()) {
        let pool = System::from_stations(vec![station(0, Unit::Query, threads, affine(0.3, 0.1))], 1).unwrap();
        let mut device = station(0, Unit::Fused, threads, affine(0.3, 0.1));
        device.limits.queries = 1;
        let device = System::from_stations(vec![device], 1).unwrap();
        prop_assert_eq!(run(&device, &arrival_s, &sizes), run(&pool, &arrival_s, &sizes));
    }
}

#[test]
fn one_thread_equals_lindley() {
    let stream = Stream::new(5, Purpose::Service, 0);
    let gaps = Stream::new(5, Purpose::Arrivals, 0);
    let service = Service::Law { law: Law::Exponential, stream, mean_s: 0.9 };
    let system = System::from_stations(vec![station(0, Unit::Query, 1, service)], 1).unwrap();
    let mut clock = 0.0;
    let arrival_s: Vec<f64> = (0..5000)
        .map(|i| {
            clock += gaps.exponential(i);
            clock
        })
        .collect();
    let got = run(&system, &arrival_s, &vec![1; arrival_s.len()]);
    let mut free = f64::NEG_INFINITY;
    for (i, arrival) in arrival_s.iter().enumerate() {
        free = arrival.max(free) + Law::Exponential.draw(stream, i as u64) * 0.9;
        assert_eq!(got[i], free - arrival);
    }
}

fn simple_grid() -> Grid {
    Grid::new(grid_parts()).unwrap()
}

fn grid_parts() -> GridParts {
    GridParts {
        items: vec![1, 64],
        busy: vec![1],
        seconds: vec![0.001, 0.004],
        energy_j: vec![0.1, 0.4],
        units: vec![Unit::SubBatch],
        busy_of: vec![0],
    }
}

fn rules(seconds: f64) -> Rules {
    Rules { targets: vec![(0.95, seconds)], queries: 4096, warmup: 409, cap: 0.95, tolerance: 0.005 }
}

#[test]
fn max_load_is_a_rate_that_passes_next_to_one_that_fails() {
    let traffic = Traffic::new(Law::Exponential, &[0.0, 0.0, 0.0, 1.0], 3).unwrap();
    let config = Config { variant: 0, batch: 64, fuse_items: 1, max_wait_s: 0.0, threads: vec![2] };
    let system = System::from_grid(&simple_grid(), &config, 4).unwrap();
    let input = Input::draw(&traffic, 4096, 0, None).unwrap();
    let mut scratch = Scratch::new();
    let answer = max_load(&system, &traffic, &input, &rules(0.004), &mut scratch, None).unwrap();
    assert_eq!(answer.limit, Limit::Target(0));
    assert!(answer.qps > 0.0 && answer.qps < answer.bound_qps);
    let summary = answer.summary.unwrap();
    assert!(summary.percentiles_s[0] <= 0.004 && summary.percentiles_s[0] > 0.0035);
    assert!((summary.uses[0].energy_j_per_query - (0.1 + 0.3 * 3.0 / 63.0)).abs() < 1e-12);
    assert!((summary.uses[0].executions_per_query - 1.0).abs() < 1e-15);
    // Wherever the search for the rate begins, it ends in the same place.
    let fixed = rules(0.004);
    let mut prober = Prober::new(&system, &input, &fixed, None).unwrap();
    for (floor, guess) in [(0.3, 0.0), (0.95, 0.0), (0.0, 0.2), (0.0, 0.9), (0.0, 1.1), (0.5, 0.8)] {
        let (floor, guess) = (floor * answer.qps, guess * answer.qps);
        let bracket = Bracket { floor, guess, bound: answer.bound_qps, tolerance: 0.005 };
        let (qps, limit) = prober.highest(bracket, &mut scratch).unwrap();
        assert!((qps / answer.qps - 1.0).abs() <= 0.011, "floor {floor}, guess {guess}: {qps} against {}", answer.qps);
        assert_eq!(limit, Limit::Target(0));
    }
    // A loose target leaves the cap, a tight one leaves nothing.
    let loose = max_load(&system, &traffic, &input, &rules(10.0), &mut scratch, None).unwrap();
    assert_eq!(loose.limit, Limit::UtilisationCap);
    let tight = max_load(&system, &traffic, &input, &rules(0.001), &mut scratch, None).unwrap();
    assert_eq!((tight.qps, tight.limit, tight.probes), (0.0, Limit::Unloaded(0), 0));
}

#[test]
fn the_early_verdict_equals_the_full_one() {
    let traffic = Traffic::new(Law::Exponential, &[0.25; 4], 9).unwrap();
    let config = Config { variant: 0, batch: 3, fuse_items: 1, max_wait_s: 0.0, threads: vec![3] };
    let system = System::from_grid(&simple_grid(), &config, 4).unwrap();
    let input = Input::draw(&traffic, 2000, 0, None).unwrap();
    let split = Split::of(&system, &input).unwrap();
    let mut scratch = Scratch::new();
    for step in 1..60 {
        let qps = 40.0 * f64::from(step);
        system.run(&input, &split, qps, &mut scratch, &mut Watch::blind(), Detail::Latency);
        let full = super::percentile::percentiles(&mut scratch.latencies(200), &[0.9])[0] > 0.003;
        let mut watch = Watch::new(&[Allowance::of((0.9, 0.003), 1800)], 200, None);
        let early = system.run(&input, &split, qps, &mut scratch, &mut watch, Detail::Latency) == Ended::Missed(0);
        assert_eq!(early, full, "at {qps}");
    }
}

#[test]
fn what_a_configuration_must_not_ask_for() {
    let grid = simple_grid();
    let config = Config { variant: 0, batch: 64, fuse_items: 1, max_wait_s: 0.0, threads: vec![2] };
    let fault = |change: fn(&mut Config), max_size| {
        let mut config = config.clone();
        change(&mut config);
        System::from_grid(&grid, &config, max_size).unwrap_err().to_string()
    };
    assert!(fault(|c| c.variant = 1, 4).starts_with("variant"));
    assert!(fault(|c| c.batch = 0, 4).starts_with("batch"));
    assert!(fault(|c| c.batch = 65, 70).contains("service table ends at 64"));
    assert!(fault(|c| c.threads = vec![0], 4).starts_with("threads"));
    assert!(fault(|c| c.threads = vec![1, 1], 4).starts_with("threads"));
    assert!(fault(|c| c.threads = vec![5000], 4).starts_with("threads[0]"));
    assert!(fault(|c| c.max_wait_s = f64::NAN, 4).starts_with("max_wait_s"));
    let fusing = GridParts { units: vec![Unit::Fused], ..grid_parts() };
    let none_fused = Config { fuse_items: 0, ..config.clone() };
    assert!(System::from_grid(&grid, &none_fused, 4).is_ok());
    let refused = System::from_grid(&Grid::new(fusing).unwrap(), &none_fused, 4).unwrap_err();
    assert!(refused.to_string().starts_with("fuse_items"));
    let mut thin = rules(0.1);
    thin.targets = vec![(0.999, 0.1)];
    assert!(thin.check().unwrap_err().to_string().contains("at least 10000"));
}
