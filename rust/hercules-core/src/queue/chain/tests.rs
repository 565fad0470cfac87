//! Hand-made traces of the oracle, the search for a rate, the early verdict, refusals. The differential tests in Python hold
//! whole chains to their slow twin.

use super::load::{Bracket, Limit, Prober, Rules};
use super::{Allowance, Config, Detail, Ended, Input, Scratch, Split, System, Traffic, Watch};
use crate::queue::table::{Grid, GridParts, Unit};
use crate::queue::{Law, percentile};

/// One stage that takes `base_s + per_item_s * items`.
fn linear(unit: Unit, base_s: f64, per_item_s: f64) -> Grid {
    Grid::new(GridParts {
        items: vec![1, 200],
        busy: vec![1],
        seconds: vec![base_s + per_item_s, base_s + 200.0 * per_item_s],
        energy_j: vec![f64::NAN; 2],
        units: vec![unit],
        busy_of: vec![0],
        noise_cv: vec![0.0],
    })
    .unwrap()
}

fn config(batch: u32, threads: u32) -> Config {
    Config { variant: 0, batch, fuse_items: 1, max_wait_s: 0.0, buffer: None, offload_items: 0, threads: vec![threads] }
}

fn latencies(grid: &Grid, config: &Config, arrival_s: &[f64], sizes: &[u32]) -> Vec<f64> {
    let input = Input::trace(arrival_s.to_vec(), sizes.to_vec(), 0).unwrap();
    let system = System::from_grid(grid, config, input.max_size()).unwrap();
    let split = Split::of(&system, &input).unwrap();
    let mut scratch = Scratch::new();
    let ended = system.run(&input, &split, 1.0, &mut scratch, &mut Watch::blind(), Detail::Energy);
    assert_eq!(ended, Ended::Complete);
    scratch.latencies(0)
}

#[test]
fn oracle_traces() {
    let close = |got: Vec<f64>, expected: &[f64]| {
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() <= 1e-12, "{got:?} against {expected:?}");
        }
    };
    let pool = |batch, base_s, per_item_s, arrival_s: &[f64], sizes: &[u32]| {
        latencies(&linear(Unit::SubBatch, base_s, per_item_s), &config(batch, 2), arrival_s, sizes)
    };
    close(pool(100, 0.5, 0.5, &[0.0, 0.0, 0.0, 1.0, 5.0, 5.5], &[4, 2, 1, 8, 3, 3]), &[2.5, 1.5, 2.5, 6.0, 2.0, 3.5]);
    close(pool(32, 1.0, 0.1, &[0.0, 0.5, 1.0, 20.0], &[70, 10, 33, 64]), &[5.8, 5.7, 9.0, 4.2]);
}

#[test]
fn replications_are_runs_of_their_own() {
    let traffic = Traffic::new(Law::Exponential, &[0.5, 0.5], 7).unwrap();
    let draw = |replication| Input::draw(&traffic, 500, replication, None).unwrap();
    let (first, again, other) = (draw(0), draw(0), draw(1));
    assert_eq!((&first.unit_time, &first.size), (&again.unit_time, &again.size));
    assert_ne!(first.unit_time, other.unit_time);
    assert_ne!(first.size, other.size);
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
        noise_cv: vec![0.0],
    }
}

fn rules(seconds: f64) -> Rules {
    Rules { targets: vec![(0.95, seconds)], queries: 4096, warmup: 409, cap: 0.95, tolerance: 0.005 }
}

#[test]
fn the_highest_load_passes_next_to_one_that_fails_wherever_the_search_begins() {
    let traffic = Traffic::new(Law::Exponential, &[0.0, 0.0, 0.0, 1.0], 3).unwrap();
    let system = System::from_grid(&simple_grid(), &config(64, 2), 4).unwrap();
    let input = Input::draw(&traffic, 4096, 0, None).unwrap();
    let mut scratch = Scratch::new();
    let bound = 0.95 * system.bottleneck_qps(&traffic);
    let fixed = rules(0.004);
    let mut prober = Prober::new(&system, &input, &fixed, None).unwrap();
    let from_nothing = Bracket { floor: 0.0, guess: 0.0, bound, tolerance: 0.005 };
    let (best, limit) = prober.highest(from_nothing, &mut scratch).unwrap();
    assert_eq!(limit, Limit::Target(0));
    assert!(best > 0.0 && best < bound);
    assert_eq!(prober.probe(best, &mut scratch).unwrap(), None);
    assert_eq!(prober.probe(1.006 * best, &mut scratch).unwrap(), Some(Limit::Target(0)));
    prober.detail = Detail::Energy;
    prober.measure(best, &mut scratch).unwrap();
    let p95 = percentile::percentiles(&mut scratch.latencies(409), &[0.95])[0];
    assert!(p95 <= 0.004 && p95 > 0.0035);
    let used = system.stage_use(&scratch)[0];
    assert!((used.energy_j_per_query - (0.1 + 0.3 * 3.0 / 63.0)).abs() < 1e-12);
    assert!((used.executions_per_query - 1.0).abs() < 1e-15);
    for (floor, guess) in [(0.3, 0.0), (0.95, 0.0), (0.0, 0.2), (0.0, 0.9), (0.0, 1.1), (0.5, 0.8)] {
        let bracket = Bracket { floor: floor * best, guess: guess * best, bound, tolerance: 0.005 };
        let (qps, limit) = prober.highest(bracket, &mut scratch).unwrap();
        assert!((qps / best - 1.0).abs() <= 0.011, "floor {floor}, guess {guess}: {qps} against {best}");
        assert_eq!(limit, Limit::Target(0));
    }
    // A loose target leaves the cap, an impossible one nothing.
    let loose = rules(10.0);
    let found = Prober::new(&system, &input, &loose, None).unwrap().highest(from_nothing, &mut scratch).unwrap();
    assert_eq!(found, (bound, Limit::UtilisationCap));
    let tight = rules(0.001);
    let found = Prober::new(&system, &input, &tight, None).unwrap().highest(from_nothing, &mut scratch).unwrap();
    assert_eq!(found, (0.0, Limit::Target(0)));
}

#[test]
fn the_early_verdict_equals_the_full_one() {
    let traffic = Traffic::new(Law::Exponential, &[0.25; 4], 9).unwrap();
    let system = System::from_grid(&simple_grid(), &config(3, 3), 4).unwrap();
    let input = Input::draw(&traffic, 2000, 0, None).unwrap();
    let split = Split::of(&system, &input).unwrap();
    let mut scratch = Scratch::new();
    for step in 1..60 {
        let qps = 40.0 * f64::from(step);
        system.run(&input, &split, qps, &mut scratch, &mut Watch::blind(), Detail::Latency);
        let full = percentile::percentiles(&mut scratch.latencies(200), &[0.9])[0] > 0.003;
        let mut watch = Watch::new(&[Allowance::of((0.9, 0.003), 1800)], 200, None);
        let early = system.run(&input, &split, qps, &mut scratch, &mut watch, Detail::Latency) == Ended::Missed(0);
        assert_eq!(early, full, "at {qps}");
    }
}

/// Three stages of `units`; the first and the last slow themselves down, the second is slowed by the first.
fn three_stages(units: [Unit; 3], noise_cv: f64) -> Grid {
    let seconds = [0.001, 0.0012, 0.004, 0.0048, 0.002, 0.003, 0.005, 0.006, 0.0005, 0.0006, 0.001, 0.0012].to_vec();
    let (items, busy, busy_of) = (vec![1, 64], vec![1, 4], vec![0, 0, 2]);
    let (energy_j, noise_cv) = (vec![0.1; 6], vec![noise_cv; 3]);
    Grid::new(GridParts { items, busy, seconds, energy_j, units: units.to_vec(), busy_of, noise_cv }).unwrap()
}

#[test]
fn the_early_verdict_equals_the_full_one_when_pools_block_when_large_queries_go_elsewhere_and_with_noise() {
    let traffic = Traffic::new(Law::Exponential, &[0.1; 10], 5).unwrap();
    let input = Input::draw(&traffic, 2000, 0, None).unwrap();
    let pools = [Unit::SubBatch; 3];
    let device = [Unit::SubBatch, Unit::SubBatch, Unit::Fused];
    let plain = Config { threads: vec![3, 4, 1], fuse_items: 30, max_wait_s: 0.001, ..config(3, 1) };
    let cases = [
        (pools, Config { buffer: Some(0), ..plain.clone() }),
        (pools, Config { buffer: Some(2), ..plain.clone() }),
        (device, Config { buffer: Some(1), ..plain.clone() }),
        (device, Config { offload_items: 6, threads: vec![3, 0, 1], ..plain.clone() }),
        (device, plain),
    ];
    let mut scratch = Scratch::new();
    for (units, config) in cases {
        for noise_cv in [0.0, 0.6] {
            let system = System::from_grid(&three_stages(units, noise_cv), &config, 10).unwrap();
            let split = Split::of(&system, &input).unwrap();
            let bound = system.bottleneck_qps(&traffic);
            let mut verdicts = [0, 0];
            for step in 1..60 {
                let qps = 0.03 * f64::from(step) * bound;
                system.run(&input, &split, qps, &mut scratch, &mut Watch::blind(), Detail::Energy);
                let with_energy = scratch.latencies(0);
                system.run(&input, &split, qps, &mut scratch, &mut Watch::blind(), Detail::Latency);
                assert_eq!(scratch.latencies(0), with_energy);
                let full = percentile::percentiles(&mut scratch.latencies(200), &[0.9])[0] > 0.02;
                let mut watch = Watch::new(&[Allowance::of((0.9, 0.02), 1800)], 200, None);
                let ended = system.run(&input, &split, qps, &mut scratch, &mut watch, Detail::Latency);
                assert_eq!(ended == Ended::Missed(0), full, "at {qps}: {config:?}");
                verdicts[usize::from(full)] += 1;
            }
            assert!(verdicts.iter().all(|count| *count > 5), "{verdicts:?}: {config:?}");
        }
    }
}

#[test]
fn the_bottleneck_bounds_what_pools_carry_whoever_is_slowed_by_whom() {
    // The first pool rests most of the time, so the second, which it slows down, takes nearly 2 ms and not 8.
    let grid = Grid::new(GridParts {
        items: vec![1],
        busy: vec![1, 4],
        seconds: vec![0.001, 0.001, 0.002, 0.008],
        energy_j: vec![0.0; 2],
        units: vec![Unit::SubBatch; 2],
        busy_of: vec![0, 0],
        noise_cv: vec![0.0; 2],
    })
    .unwrap();
    let traffic = Traffic::new(Law::Deterministic, &[1.0], 0).unwrap();
    let input = Input::draw(&traffic, 2000, 0, None).unwrap();
    for buffer in [None, Some(0), Some(3)] {
        let system = System::from_grid(&grid, &Config { threads: vec![4, 1], buffer, ..config(1, 1) }, 1).unwrap();
        assert!((system.bottleneck_qps(&traffic) - 500.0).abs() < 1e-9);
        let split = Split::of(&system, &input).unwrap();
        let mut scratch = Scratch::new();
        system.run(&input, &split, 400.0, &mut scratch, &mut Watch::blind(), Detail::Latency);
        assert!(scratch.backlog_growth() < 1e-9, "{buffer:?}");
    }
}

#[test]
fn a_blocked_thread_is_not_busy() {
    // One job each 4 s in the second pool; the first works 1 s of each, and keeps its result for the other 3.
    let grid = Grid::new(GridParts {
        items: vec![1],
        busy: vec![1],
        seconds: vec![1.0, 4.0],
        energy_j: vec![0.0; 2],
        units: vec![Unit::SubBatch; 2],
        busy_of: vec![0, 1],
        noise_cv: vec![0.0; 2],
    })
    .unwrap();
    let system = System::from_grid(&grid, &Config { threads: vec![1, 1], buffer: Some(0), ..config(1, 1) }, 1).unwrap();
    let input = Input::trace(vec![0.0; 100], vec![1; 100], 0).unwrap();
    let split = Split::of(&system, &input).unwrap();
    let mut scratch = Scratch::new();
    system.run(&input, &split, 1.0, &mut scratch, &mut Watch::blind(), Detail::Latency);
    let expected: Vec<f64> = (1..=100).map(|k| 1.0 + 4.0 * f64::from(k)).collect();
    assert_eq!(scratch.latencies(0), expected);
    let uses = system.stage_use(&scratch);
    assert_eq!([uses[0].utilisation, uses[1].utilisation], [100.0 / 401.0, 400.0 / 401.0]);
}

#[test]
fn a_query_alone_meets_the_noise_too() {
    let traffic = Traffic::new(Law::Exponential, &[1.0], 1).unwrap();
    let parts = GridParts { noise_cv: vec![0.5], ..grid_parts() };
    let system = System::from_grid(&Grid::new(parts).unwrap(), &config(64, 2), 1).unwrap();
    let mut pairs = system.unloaded(&traffic, &mut Scratch::new());
    let mean: f64 = pairs.iter().map(|(latency, p)| latency * p).sum();
    assert!((mean / 0.001 - 1.0).abs() < 5.0 * 0.5 / 64.0, "{mean}");
    // p90 of the lognormal law of mean 1 and coefficient of variation 0.5: sigma^2 = ln 1.25, z = 1.2816.
    let p90 = (1.2816 * 1.25_f64.ln().sqrt() - 0.5 * 1.25_f64.ln()).exp() * 0.001;
    assert!((percentile::weighted(&mut pairs, 0.9) / p90 - 1.0).abs() < 0.05);
}

#[test]
fn what_a_configuration_must_not_ask_for() {
    let grid = simple_grid();
    let right = config(64, 2);
    let fault = |change: fn(&mut Config), max_size| {
        let mut config = right.clone();
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
    assert!(fault(|c| c.buffer = Some(1), 4).starts_with("buffer: is 1"));
    assert!(fault(|c| c.offload_items = 3, 4).starts_with("offload_items: is 3"));
    let slowed = three_stages([Unit::SubBatch; 3], 0.0);
    let both = Config { threads: vec![2, 1, 0], offload_items: 3, ..right.clone() };
    let message = System::from_grid(&slowed, &both, 4).unwrap_err().to_string();
    assert!(message.starts_with("offload_items: is 3; allowed is 0, since stage 0 slows stage 1 down"));
    let with_buffer = Config { threads: vec![1, 0, 1], offload_items: 3, buffer: Some(0), ..right.clone() };
    assert!(System::from_grid(&slowed, &with_buffer, 4).unwrap_err().to_string().starts_with("buffer: is 0"));
    let fusing = GridParts { units: vec![Unit::Fused], ..grid_parts() };
    let none_fused = Config { fuse_items: 0, ..right.clone() };
    assert!(System::from_grid(&grid, &none_fused, 4).is_ok());
    let refused = System::from_grid(&Grid::new(fusing).unwrap(), &none_fused, 4).unwrap_err();
    assert!(refused.to_string().starts_with("fuse_items"));
    let mut thin = rules(0.1);
    thin.targets = vec![(0.999, 0.1)];
    assert!(thin.check().unwrap_err().to_string().contains("at least 10000"));
}
