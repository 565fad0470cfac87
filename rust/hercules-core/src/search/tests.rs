//! Gradient against exhaustive on lattices shaped like real ones: CPU pools with their ridge of copies * cores,
//! sparse-dense tandems, fusing devices.

use super::*;
use crate::queue::chain::load::Limit;
use crate::queue::{GridParts, Law, Unit};

const CORES: u32 = 18;
const BATCHES: [u32; 9] = [16, 24, 32, 48, 64, 96, 128, 256, 512];

/// Sizes with a tail: most queries small, some up to 512.
fn traffic(seed: u64) -> Arc<Traffic> {
    let weights: Vec<f64> = (1..=512_u32).map(|n| 1.0 / (40.0 + f64::from(n)).powi(2)).collect();
    let total: f64 = weights.iter().sum();
    let pmf: Vec<f64> = weights.iter().map(|w| w / total).collect();
    Arc::new(Traffic::new(Law::Exponential, &pmf, seed).unwrap())
}

/// A physical caricature: per-call overhead, compute spread over `o` cores with losses, shared memory bandwidth.
#[derive(Clone, Copy)]
struct Cpu {
    overhead_s: f64,
    compute_s: f64,
    memory_s: f64,
    pollution: f64,
}

const ITEMS: [u32; 11] = [1, 4, 16, 32, 64, 96, 128, 192, 256, 384, 512];
const BUSY: [u32; 6] = [1, 2, 4, 8, 12, 18];

impl Cpu {
    fn dense_s(self, items: u32, o: u32) -> f64 {
        let (items, o) = (f64::from(items), f64::from(o));
        self.overhead_s + self.compute_s * items * (0.15 + 0.85 / o) + 1e-4 * self.compute_s * 64.0 * o
    }

    fn sparse_s(self, items: u32, o: u32, busy: u32) -> f64 {
        let (items, o, busy) = (f64::from(items), f64::from(o), f64::from(busy));
        self.memory_s * items * (1.0 / o).max(busy / 8.0)
    }

    /// Stages: whole model (0), sparse part (1), dense part (2), slowed by busy sparse threads. Variants: cores per
    /// thread, (o - 1) for the first two stages and the same table for the third.
    fn grid(self) -> Arc<Grid> {
        let mut seconds = Vec::new();
        for variant in 0..CORES * 4 {
            let (o, dense_o) = (variant % CORES + 1, [1, 2, 4, 8][(variant / CORES) as usize]);
            for stage in 0..3 {
                for items in ITEMS {
                    for busy in BUSY {
                        let slow = 1.0 + self.pollution * f64::from(busy) / f64::from(CORES);
                        seconds.push(match stage {
                            0 => self.dense_s(items, o) * slow + self.sparse_s(items, o, busy),
                            1 => self.overhead_s * 0.3 + self.sparse_s(items, o, busy),
                            _ => self.dense_s(items, dense_o) * slow,
                        });
                    }
                }
            }
        }
        let energy_j = vec![f64::NAN; (CORES * 4) as usize * 3 * ITEMS.len()];
        let units = vec![Unit::SubBatch; 3];
        let (items, busy) = (ITEMS.to_vec(), BUSY.to_vec());
        Arc::new(
            Grid::new(GridParts {
                items,
                busy,
                seconds,
                energy_j,
                units,
                busy_of: vec![0, 1, 1],
                noise_cv: vec![0.0; 3],
            })
            .unwrap(),
        )
    }

    /// Kind 0: m copies of o cores. Kind 1: tandems. The lattices of both together.
    fn problem(self, sla_s: f64, with_tandems: bool, seed: u64) -> Arc<Problem> {
        let (mut candidates, mut coords, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        let mut push = |at: [i64; 6], variant: u32, threads: [u32; 3], batch: u32, start: bool| {
            if start {
                starts.push(candidates.len());
            }
            candidates.push(Config {
                variant: variant as usize,
                batch,
                fuse_items: 1,
                max_wait_s: 0.0,
                buffer: None,
                offload_items: 0,
                threads: threads.to_vec(),
            });
            coords.extend(at);
        };
        for (level, batch) in BATCHES.into_iter().enumerate() {
            for m in 1..=CORES {
                for o in 1..=CORES / m {
                    let start = batch == 64 && (m, o) == (CORES, 1)
                        || batch == 256 && (m, o) == (1, CORES)
                        || batch == 128 && (m, o) == (4, 4);
                    push([0, level as i64, i64::from(m), i64::from(o), 0, 0], o - 1, [m, 0, 0], batch, start);
                }
            }
            if !with_tandems {
                continue;
            }
            for (variant_d, o_d) in [1, 2, 4, 8].into_iter().enumerate() {
                for m_s in 1..CORES {
                    for o_s in 1..=CORES / m_s {
                        for m_d in 1..=(CORES - m_s * o_s) / o_d {
                            let start = batch == 128 && (m_s, o_s, m_d, o_d) == (6, 1, 6, 2);
                            let variant = o_s - 1 + CORES * variant_d as u32;
                            let at = [1, level as i64, i64::from(m_s), i64::from(o_s), i64::from(m_d), i64::from(o_d)];
                            push(at, variant, [0, m_s, m_d], batch, start);
                        }
                    }
                }
            }
        }
        let targets = vec![(0.95, sla_s)];
        Arc::new(Problem::new(self.grid(), traffic(seed), candidates, coords, starts, Vec::new(), targets).unwrap())
    }
}

/// A device that fuses: `instances` copies slow each other down; waits and sizes of batches on the lattice.
fn device_problem(sla_s: f64, seed: u64) -> Arc<Problem> {
    let items: Vec<u32> = (0..14).map(|k| 1 << k).collect();
    let busy = vec![1, 4];
    let mut seconds = Vec::new();
    for n in &items {
        for b in &busy {
            seconds.push(0.002 + 2e-6 * f64::from(*n) * f64::from(*b));
        }
    }
    let energy_j = vec![0.5; items.len()];
    let grid =
        GridParts { items, busy, seconds, energy_j, units: vec![Unit::Fused], busy_of: vec![0], noise_cv: vec![0.0] };
    let (mut candidates, mut coords) = (Vec::new(), Vec::new());
    for (level, fuse_items) in [512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192].into_iter().enumerate() {
        for k in 1..=6 {
            for (step, wait_us) in [0, 250, 500, 1000, 2000, 4000].into_iter().enumerate() {
                candidates.push(Config {
                    variant: 0,
                    batch: 1,
                    fuse_items,
                    max_wait_s: f64::from(wait_us) * 1e-6,
                    buffer: None,
                    offload_items: 0,
                    threads: vec![k],
                });
                coords.extend([0, level as i64, i64::from(k), step as i64]);
            }
        }
    }
    let starts = vec![0, candidates.len() / 2];
    Arc::new(
        Problem::new(
            Arc::new(Grid::new(grid).unwrap()),
            traffic(seed),
            candidates,
            coords,
            starts,
            Vec::new(),
            vec![(0.95, sla_s)],
        )
        .unwrap(),
    )
}

fn settings(method: Method) -> Settings {
    Settings { method, queries: 2048, final_queries: 2048, replications: 2, ..Settings::default() }
}

fn solve_all(problems: &[Arc<Problem>], method: Method, threads: usize) -> Vec<Outcome> {
    run(problems, &settings(method), threads, &|_, _| {}, &Control::new())
        .unwrap()
        .into_iter()
        .map(Option::unwrap)
        .collect()
}

fn pools() -> Vec<Arc<Problem>> {
    let balanced = Cpu { overhead_s: 2e-4, compute_s: 2e-5, memory_s: 1e-5, pollution: 0.2 };
    let compute = Cpu { compute_s: 1e-4, memory_s: 2e-6, ..balanced };
    let memory = Cpu { compute_s: 4e-6, memory_s: 4e-5, ..balanced };
    vec![
        balanced.problem(0.010, false, 1),
        balanced.problem(0.003, false, 2),
        compute.problem(0.020, false, 3),
        compute.problem(0.100, false, 4),
        memory.problem(0.010, false, 5),
        memory.problem(0.200, false, 6),
    ]
}

#[test]
fn gradient_finds_what_exhaustive_finds() {
    let mut problems = pools();
    problems.push(device_problem(0.010, 7));
    problems.push(device_problem(0.050, 8));
    let gradient = solve_all(&problems, Method::Gradient, 2);
    let exhaustive = solve_all(&problems, Method::Exhaustive, 2);
    for (i, (g, e)) in gradient.iter().zip(&exhaustive).enumerate() {
        let (found, best) = (g.verdict.as_ref().unwrap(), e.verdict.as_ref().unwrap());
        let share = g.counts.evaluations as f64 / problems[i].candidates() as f64;
        println!(
            "{i}: {:.4} of the best, {share:.3} of {} candidates; work {} against {} queries; {:?}",
            found.search_qps / best.search_qps,
            problems[i].candidates(),
            g.counts.simulated_queries,
            e.counts.simulated_queries,
            g.counts
        );
        assert!(found.search_qps >= 0.99 * best.search_qps, "problem {i}: {} of {}", found.search_qps, best.search_qps);
        assert!(share <= 0.25, "problem {i}: {share} of the candidates were simulated");
        assert!(found.qps_lo <= found.qps && found.qps <= found.qps_hi);
    }
}

#[test]
fn pruning_changes_no_answer() {
    let problems = [pools().swap_remove(1), device_problem(0.010, 7)];
    let pruned = solve_all(&problems, Method::Exhaustive, 2);
    let plain = solve_all(&problems, Method::ExhaustiveUnpruned, 2);
    for (a, b) in pruned.iter().zip(&plain) {
        assert_eq!(format!("{:?}", a.verdict), format!("{:?}", b.verdict)); // text, for NaN = NaN
        assert!(a.counts.probes < b.counts.probes);
    }
}

#[test]
fn threads_change_nothing() {
    let problems = pools();
    let one = solve_all(&problems, Method::Gradient, 1);
    for threads in [2, 3] {
        for (a, b) in one.iter().zip(&solve_all(&problems, Method::Gradient, threads)) {
            assert_eq!(format!("{a:?}"), format!("{b:?}"));
        }
    }
}

#[test]
fn an_impossible_target_is_answered_with_the_best_empty_system() {
    let cpu = Cpu { overhead_s: 2e-4, compute_s: 2e-5, memory_s: 1e-5, pollution: 0.2 };
    let outcome = solve_all(&[cpu.problem(1e-5, false, 1)], Method::Gradient, 1).remove(0);
    let infeasible = outcome.verdict.unwrap_err();
    assert!(infeasible.best_unloaded_s[0] > 1e-5);
    assert_eq!(outcome.counts.probes, 0);
}

#[test]
fn a_cancelled_search_returns_what_is_finished() {
    let control = Control::new();
    control.cancel();
    let found = run(&pools()[..2], &settings(Method::Gradient), 1, &|_, _| {}, &control).unwrap();
    assert!(found.iter().all(Option::is_none));
}

#[test]
fn tandems_too() {
    let cpu = Cpu { overhead_s: 2e-4, compute_s: 6e-5, memory_s: 2e-5, pollution: 0.8 };
    let problem = [cpu.problem(0.015, true, 11)];
    let gradient = solve_all(&problem, Method::Gradient, 1).remove(0);
    let exhaustive = solve_all(&problem, Method::Exhaustive, 1).remove(0);
    let (found, best) = (gradient.verdict.unwrap(), exhaustive.verdict.unwrap());
    println!(
        "{:.4} of the best, {} of {} candidates; {} against {} queries",
        found.search_qps / best.search_qps,
        gradient.counts.evaluations,
        problem[0].candidates(),
        gradient.counts.simulated_queries,
        exhaustive.counts.simulated_queries
    );
    assert!(found.search_qps >= 0.99 * best.search_qps);
    assert!(gradient.counts.evaluations as f64 <= 0.25 * problem[0].candidates() as f64);
}

/// One query in twenty is large and late even alone: whether a run can meet a p95 at all is its draw of sizes.
fn borderline_problem(seed: u64) -> Arc<Problem> {
    let grid = GridParts {
        items: vec![1, 50],
        busy: vec![1],
        seconds: vec![0.001, 0.050],
        energy_j: vec![1.0, 2.0],
        units: vec![Unit::Query],
        busy_of: vec![0],
        noise_cv: vec![0.0],
    };
    let mut pmf = vec![0.0; 50];
    (pmf[0], pmf[49]) = (0.951, 0.049);
    let config = Config {
        variant: 0,
        batch: 1,
        fuse_items: 1,
        max_wait_s: 0.0,
        buffer: None,
        offload_items: 0,
        threads: vec![8],
    };
    let traffic = Traffic::new(Law::Exponential, &pmf, seed).unwrap();
    let (grid, traffic) = (Arc::new(Grid::new(grid).unwrap()), Arc::new(traffic));
    Arc::new(Problem::new(grid, traffic, vec![config], vec![0, 0], vec![0], Vec::new(), vec![(0.95, 0.020)]).unwrap())
}

#[test]
fn the_claimed_load_meets_the_targets_over_all_replications_and_is_never_zero() {
    let settings = Settings { replications: 5, ..settings(Method::Gradient) };
    let mut verdicts = [0, 0];
    for seed in 0..24 {
        let outcome =
            run(&[borderline_problem(seed)], &settings, 1, &|_, _| {}, &Control::new()).unwrap().remove(0).unwrap();
        match outcome.verdict {
            Ok(answer) => {
                verdicts[0] += 1;
                assert!(answer.qps > 0.0 && answer.achieved_s[0] <= 0.020, "seed {seed}: {answer:?}");
                assert!(answer.qps_lo <= answer.qps && answer.qps <= answer.qps_hi);
            }
            Err(_) => verdicts[1] += 1,
        }
    }
    assert!(verdicts[0] > 0 && verdicts[1] > 0, "the border must be met from both sides: {verdicts:?}");
}

#[test]
fn the_limit_is_what_binds_all_replications_together() {
    // Far below its latency target at the cap: no target may be blamed, whatever one replication thinks.
    for outcome in solve_all(&[pools().swap_remove(3)], Method::Gradient, 1) {
        let answer = outcome.verdict.unwrap();
        assert!(answer.achieved_s[0] < 0.1);
        assert_eq!(answer.limit, Limit::UtilisationCap, "{answer:?}");
    }
    // A tight one: just above the answer the target is missed.
    let answer = solve_all(&[pools().swap_remove(1)], Method::Gradient, 1).remove(0).verdict.unwrap();
    assert_eq!(answer.limit, Limit::Target(0), "{answer:?}");
}
