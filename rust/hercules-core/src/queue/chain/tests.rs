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
    })
    .unwrap()
}

fn config(batch: u32, threads: u32) -> Config {
    Config { variant: 0, batch, fuse_items: 1, max_wait_s: 0.0, threads: vec![threads] }
}

fn latencies(grid: &Grid, config: &Config, arrival_s: &[f64], sizes: &[u32]) -> Vec<f64> {
    let input = Input::trace(arrival_s.to_vec(), sizes.to_vec()).unwrap();
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
    let fusing = GridParts { units: vec![Unit::Fused], ..grid_parts() };
    let none_fused = Config { fuse_items: 0, ..right.clone() };
    assert!(System::from_grid(&grid, &none_fused, 4).is_ok());
    let refused = System::from_grid(&Grid::new(fusing).unwrap(), &none_fused, 4).unwrap_err();
    assert!(refused.to_string().starts_with("fuse_items"));
    let mut thin = rules(0.1);
    thin.targets = vec![(0.999, 0.1)];
    assert!(thin.check().unwrap_err().to_string().contains("at least 10000"));
}
