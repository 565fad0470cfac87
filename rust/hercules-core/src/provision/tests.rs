//! Passes over columns against the plain formula, and the simplex method against enumeration of all bases.

use super::fleet::{Fleet, Interval};
use super::pool::Pool;
use super::pricing::{Best, Columns, Costs};
use super::simplex::Simplex;
use super::solver::Answer;
use super::timeline::{Timeline, solve};
use crate::control::Control;
use crate::cpu::Isa;
use crate::error::Error;
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// A fleet of some rows and a timeline, small and full of ties, or plain.
#[derive(Clone, Debug)]
struct Case {
    workloads: usize,
    row_type: Vec<u32>,
    types: usize,
    qps: Vec<f64>,
    power_w: Vec<f64>,
    demand: Vec<f64>,
    stock: Vec<u32>,
    penalty: Vec<f64>,
    watt_cost: Vec<f64>,
    machine_cost: Vec<f64>,
}

impl Case {
    fn fleet(&self) -> Fleet<'_> {
        Fleet::new(self.workloads, self.types, &self.qps, &self.power_w, &self.row_type, None).unwrap()
    }

    fn timeline(&self) -> Timeline<'_> {
        Timeline {
            demand: &self.demand,
            stock: &self.stock,
            penalty: Some(&self.penalty),
            watt_cost: Some(&self.watt_cost),
            machine_cost: Some(&self.machine_cost),
        }
    }

    fn interval(&self, t: usize) -> Interval<'_> {
        let (by_type, by_workload) =
            (t * self.types..(t + 1) * self.types, t * self.workloads..(t + 1) * self.workloads);
        Interval {
            demand: &self.demand[by_workload.clone()],
            stock: &self.stock[by_type.clone()],
            penalty: &self.penalty[by_workload],
            watt_cost: Some(&self.watt_cost[by_type.clone()]),
            machine_cost: Some(&self.machine_cost[by_type]),
        }
    }

    /// Interval `t` as a timeline of its own.
    fn alone(&self, t: usize) -> Self {
        let Interval { demand, stock, penalty, watt_cost, machine_cost } = self.interval(t);
        Self {
            demand: demand.to_vec(),
            stock: stock.to_vec(),
            penalty: penalty.to_vec(),
            watt_cost: watt_cost.unwrap().to_vec(),
            machine_cost: machine_cost.unwrap().to_vec(),
            ..self.clone()
        }
    }

    fn solved(&self) -> Vec<Answer> {
        all(solve(self.fleet(), &self.timeline(), &Control::new()).unwrap())
    }
}

fn all(answers: Vec<Option<Answer>>) -> Vec<Answer> {
    answers.into_iter().map(Option::unwrap).collect()
}

/// Rates that divide without rounding, each in two of three pairs; whole powers, costs and stocks: ties everywhere.
fn case(rows: usize, workloads: usize, intervals: usize) -> impl Strategy<Value = Case> {
    (1..=rows, 1..=workloads).prop_flat_map(move |(rows, workloads)| {
        let whole = |most: u32, n: usize| prop::collection::vec((0..=most).prop_map(f64::from), n);
        let rate = prop_oneof![Just(0.0), Just(1.0), (-2..3i32).prop_map(|x| f64::from(x).exp2())];
        let types = rows.div_ceil(2);
        (
            (
                prop::collection::vec(rate, rows * workloads),
                whole(4, rows * workloads),
                prop::collection::vec(0..types as u32, rows),
            ),
            (
                whole(6, intervals * workloads),
                prop::collection::vec(0..4u32, intervals * types),
                whole(40, intervals * workloads),
                whole(3, intervals * types),
                whole(2, intervals * types),
            ),
        )
            .prop_map(
                move |((qps, power_w, row_type), (demand, stock, mut penalty, watt_cost, machine_cost))| {
                    for penalty in &mut penalty {
                        *penalty += 0.5;
                    }
                    Case { workloads, row_type, types, qps, power_w, demand, stock, penalty, watt_cost, machine_cost }
                },
            )
    })
}

// -- passes over columns --------------------------------------------------------------------------------------------

fn tiers() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|&isa| isa <= Isa::detected())
}

proptest! {
    #[test]
    fn passes_are_the_plain_formula(case in case(9, 40, 1), u in prop::collection::vec(0..5u32, 9)) {
        let (fleet, interval) = (case.fleet(), case.interval(0));
        let u: Vec<f64> = u[..case.types].iter().map(|&u| f64::from(u)).collect();
        let rows = 0..fleet.rows();
        let key = |r: usize, w: usize| {
            let (h, (qps, power_w)) = (case.row_type[r] as usize, fleet.row(r));
            (case.watt_cost[h] * power_w[w] + case.machine_cost[h] + u[h]) / qps[w]
        };
        let eligible = |r: usize, w: usize| fleet.row(r).0[w] > 0.0;
        for (sparse, isa) in [false, true].into_iter().flat_map(|sparse| tiers().map(move |isa| (sparse, isa))) {
            let columns = Columns::with(fleet, sparse, isa);
            let costs = Costs::of(&interval);
            let mut v = case.penalty.clone();
            columns.lower_to_prices(costs, &u, &mut v);
            let [mut best, mut some] = [(); 2].map(|()| Best::new(3, case.penalty.clone()));
            columns.collect(costs, &u, &mut best);
            columns.collect_for(&[0], costs, &u, &mut some);
            for (w, &v) in v.iter().enumerate() {
                let mut cheap: Vec<usize> =
                    rows.clone().filter(|&r| eligible(r, w) && key(r, w) < case.penalty[w]).collect();
                cheap.sort_by(|&a, &b| key(a, w).total_cmp(&key(b, w)).then(a.cmp(&b)));
                prop_assert_eq!(v, cheap.first().map_or(case.penalty[w], |&r| key(r, w)));
                cheap.truncate(3);
                let found: Vec<usize> = best.rows(w).iter().map(|&r| r as usize).collect();
                prop_assert_eq!(&found, &cheap);
                if w == 0 {
                    prop_assert_eq!(some.rows(w), best.rows(w));
                }
            }
        }
        let worst = Columns::with(fleet, false, Isa::Portable).worst(Costs::of(&interval), &case.stock);
        for (w, &worst) in worst.iter().enumerate() {
            let usable = rows.clone().filter(|&r| eligible(r, w) && case.stock[case.row_type[r] as usize] > 0);
            let most = usable.map(|r| key(r, w) - u[case.row_type[r] as usize] / fleet.row(r).0[w]).fold(0.0, f64::max);
            prop_assert!((worst - most).abs() <= 1e-12 * most);
        }
    }
}

// -- the optimum ----------------------------------------------------------------------------------------------------

/// A column of the program: entries, cost, weighted shed.
type Dense = (Vec<f64>, f64, f64);

/// Right-hand sides of stock and coverage, and the columns.
fn program(case: &Case, t: usize) -> (Vec<f64>, Vec<Dense>) {
    let (fleet, interval) = (case.fleet(), case.interval(t));
    let n = case.types + case.workloads;
    let needed = interval.stock.iter().map(|&n| f64::from(n)).chain(interval.demand.iter().copied()).collect();
    let unit = |i: usize, x: f64| (0..n).map(|j| if i == j { x } else { 0.0 }).collect::<Vec<f64>>();
    let mut columns = Vec::new();
    for (r, &h) in case.row_type.iter().enumerate() {
        let (qps, power_w) = fleet.row(r);
        for w in (0..case.workloads).filter(|&w| qps[w] > 0.0) {
            let mut entries = unit(h as usize, 1.0);
            entries[case.types + w] = qps[w];
            columns.push((entries, Costs::of(&interval).machine(h as usize, power_w[w]), 0.0));
        }
    }
    for i in 0..n {
        columns.push((unit(i, if i < case.types { 1.0 } else { -1.0 }), 0.0, 0.0));
    }
    for w in 0..case.workloads {
        columns.push((unit(case.types + w, 1.0), 0.0, case.penalty[t * case.workloads + w]));
    }
    (needed, columns)
}

/// The solution of a square system, by elimination; `None` if there is not one.
fn eliminate(mut rows: Vec<Vec<f64>>) -> Option<Vec<f64>> {
    let n = rows.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs()))?;
        rows.swap(i, pivot);
        if rows[i][i].abs() < 1e-9 {
            return None;
        }
        let lead = rows[i].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|one| one.0 != i) {
            let factor = row[i] / lead[i];
            row.iter_mut().zip(&lead).skip(i).for_each(|(x, lead)| *x -= factor * lead);
        }
    }
    Some((0..n).map(|i| rows[i][n] / rows[i][i]).collect())
}

/// (cost, weighted shed) of every basic solution within bounds.
fn vertices(case: &Case, t: usize) -> Vec<(f64, f64)> {
    let (needed, columns) = program(case, t);
    let (n, m) = (needed.len(), columns.len());
    let mut chosen: Vec<usize> = (0..n).collect();
    let mut found = Vec::new();
    loop {
        let rows = (0..n).map(|i| chosen.iter().map(|&j| columns[j].0[i]).chain([needed[i]]).collect()).collect();
        if let Some(x) = eliminate(rows)
            && x.iter().all(|&x| x >= -1e-9)
        {
            let sum = |part: fn(&Dense) -> f64| chosen.iter().zip(&x).map(|(&j, x)| part(&columns[j]) * x).sum::<f64>();
            found.push((sum(|column| column.1), sum(|column| column.2)));
        }
        let Some(i) = (0..n).rev().find(|&i| chosen[i] < m - n + i) else { return found };
        chosen[i] += 1;
        for j in i + 1..n {
            chosen[j] = chosen[j - 1] + 1;
        }
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
}

/// The program of interval `t` on all of its columns, from the basis of nothing on.
fn simplex(case: &Case, t: usize) -> Simplex {
    let (fleet, interval) = (case.fleet(), case.interval(t));
    let columns = Columns::new(fleet).unwrap();
    let costs = Costs::of(&interval);
    let mut best = Best::new(fleet.rows(), vec![1e9; case.workloads]);
    columns.collect(costs, &vec![0.0; case.types], &mut best);
    let mut pool = Pool::new(&fleet);
    pool.merge(&fleet, costs, &best, |_| true);
    let mut simplex = Simplex::new(case.types, interval.penalty.to_vec(), pool);
    simplex.needed = program(case, t).0;
    simplex.refresh();
    simplex
}

fn objective(simplex: &Simplex) -> f64 {
    let forest = &simplex.forest;
    assert!(forest.flows().iter().all(|&flow| flow >= -1e-9), "{:?}", forest.flows());
    (0..forest.len() as u32).map(|i| forest.variable(i).cost * forest.flow(i)).sum()
}

proptest! {
    #[test]
    fn intervals_are_at_their_best_vertex(case in case(3, 2, 3)) {
        for (t, answer) in case.solved().iter().enumerate() {
            let best = vertices(&case, t).iter().map(|(cost, shed)| cost + shed).fold(f64::INFINITY, f64::min);
            prop_assert!(close(answer.objective, best), "interval {}: {} for {}", t, answer.objective, best);
            prop_assert!(close(answer.bound, best), "interval {}: bound {} of {}", t, answer.bound, best);
        }
    }

    /// With penalties chosen, no less could be shed, and no plan that sheds as little costs less.
    #[test]
    fn least_shed_goes_before_cost(case in case(3, 2, 3)) {
        let timeline = Timeline { penalty: None, ..case.timeline() };
        let answers = all(solve(case.fleet(), &timeline, &Control::new()).unwrap());
        for (t, answer) in answers.iter().enumerate() {
            let mut weighted = case.alone(t);
            weighted.penalty.clone_from(&answer.penalty);
            let vertices = vertices(&weighted, 0);
            let least = vertices.iter().map(|one| one.1).fold(f64::INFINITY, f64::min);
            let shed: f64 = answer.shed.iter().zip(&answer.penalty).map(|(shed, penalty)| shed * penalty).sum();
            prop_assert!(close(shed, least), "interval {}: sheds {}, least {}", t, shed, least);
            let stays = vertices.iter().filter(|one| close(one.1, least));
            let cheapest = stays.map(|one| one.0).fold(f64::INFINITY, f64::min);
            let cost = answer.objective - shed;
            prop_assert!((cost - cheapest).abs() <= 1e-9 * (1.0 + answer.objective), "{t}: {cost} for {cheapest}");
        }
    }

    /// The way does not matter: from the interval before or from nothing, by the best choice or the lowest index.
    #[test]
    fn all_ways_lead_to_the_optimum(case in case(8, 8, 5)) {
        for (t, answer) in case.solved().iter().enumerate() {
            let cold = &case.alone(t).solved()[0];
            prop_assert!(close(answer.objective, cold.objective), "{t}: {} {}", answer.objective, cold.objective);
            prop_assert!(close(cold.objective, cold.bound), "{t}: {} {}", cold.objective, cold.bound);
            for patience in [0, 1000] {
                let mut simplex = simplex(&case, t);
                simplex.patience = patience;
                simplex.primal(&Control::new()).unwrap();
                prop_assert!(close(objective(&simplex), cold.objective), "primal {t}: {}", objective(&simplex));
            }
            // The dual method, from the optimum for other stocks and loads.
            let mut simplex = simplex(&case, t);
            simplex.patience = t % 2 * 1000;
            simplex.needed = program(&case, t.saturating_sub(1)).0;
            simplex.refresh();
            simplex.primal(&Control::new()).unwrap();
            simplex.needed = program(&case, t).0;
            simplex.refresh();
            simplex.dual(&Control::new()).unwrap();
            prop_assert!(close(objective(&simplex), cold.objective), "dual {t}: {}", objective(&simplex));
        }
    }
}

/// Load that weighs a little more is served first, however much cheaper the other would be.
#[test]
fn penalties_rise_until_the_least_load_is_shed() {
    let (qps, power_w) = ([1.01, 1.0, 1.0, 1.0], [1.0, 0.1, 1.0, 1.0]);
    let fleet = Fleet::new(2, 2, &qps, &power_w, &[0, 1], None).unwrap();
    let (demand, stock) = ([100.0, 100.0], [10, 10]);
    let timeline = Timeline { demand: &demand, stock: &stock, penalty: None, watt_cost: None, machine_cost: None };
    let answers = all(solve(fleet, &timeline, &Control::new()).unwrap());
    assert_eq!(answers[0].penalty, [20.0 * 16.0; 2]);
    assert!(close(answers[0].shed.iter().sum(), 200.0 - 10.1 - 10.0), "{:?}", answers[0].shed);
    let kept = Timeline { penalty: Some(&[20.0, 20.0]), ..timeline };
    let answers = all(solve(fleet, &kept, &Control::new()).unwrap());
    assert!(close(answers[0].shed.iter().sum(), 180.0), "{:?}", answers[0].shed);
}

// -- ends, stops and refusals ---------------------------------------------------------------------------------------

/// A fleet with so much to choose that an interval takes many steps.
fn busy(types: usize, workloads: usize, intervals: usize) -> Case {
    let mix = |i: usize| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1 << 24);
    let cells = types * workloads;
    let qps: Vec<f64> = (0..cells).map(|i| 100.0 * (1.0 + 4.0 * mix(i))).collect();
    let day = |t: usize, w: usize| 1.0 + 0.6 * mix(7 * w + 1) + 0.5 * (t as f64 / 7.0 + w as f64).sin();
    let share = 250.0 * 50.0 * types as f64 / workloads as f64;
    Case {
        workloads,
        types,
        row_type: (0..types as u32).collect(),
        qps,
        power_w: (0..cells).map(|i| 100.0 + 500.0 * mix(i + cells)).collect(),
        demand: (0..intervals * workloads).map(|i| share * day(i / workloads, i % workloads)).collect(),
        stock: vec![50; intervals * types],
        penalty: vec![100.0; intervals * workloads],
        watt_cost: vec![1.0; intervals * types],
        machine_cost: vec![0.0; intervals * types],
    }
}

#[test]
fn a_method_that_has_lost_its_way_says_so() {
    let case = busy(8, 12, 1);
    let mut simplex = simplex(&case, 0);
    simplex.most_steps = 3;
    let error = simplex.primal(&Control::new()).unwrap_err();
    assert!(matches!(&error, Error::Unsolved(_)), "{error}");
    assert!(error.to_string().contains("goes on and on"), "{error}");
    assert_eq!(simplex.steps, 4);
}

#[test]
fn the_same_bytes_on_any_number_of_threads() {
    let case = busy(6, 20, 70);
    let timeline = Timeline { penalty: None, ..case.timeline() };
    let answers = |threads: usize| {
        let solved =
            crate::pool::install(threads, || solve(case.fleet(), &timeline, &Control::new()).unwrap()).unwrap();
        format!("{:?}", all(solved))
    };
    let one = answers(1);
    assert!(one.contains("steps"));
    assert!(one == answers(2) && one == answers(3));
}

#[test]
fn a_stop_is_heeded_and_what_was_done_returned() {
    let case = busy(60, 200, 600);
    let (fleet, timeline, control) = (case.fleet(), case.timeline(), Control::new());
    let (answers, late) = std::thread::scope(|scope| {
        let work = scope.spawn(|| solve(fleet, &timeline, &control).unwrap());
        while control.done() < 20 {
            std::thread::sleep(Duration::from_millis(1));
        }
        control.cancel();
        let stopped = Instant::now();
        (work.join().unwrap(), stopped.elapsed())
    });
    let done = answers.iter().flatten().count();
    assert!((20..600).contains(&done), "{done} intervals of 600");
    assert!(late < Duration::from_millis(200), "{late:?}");
    assert_eq!(answers[0].as_ref().map(|answer| answer.objective), Some(case.alone(0).solved()[0].objective));
}

#[test]
fn what_is_not_allowed_is_named_before_any_work() {
    let good = busy(2, 3, 4);
    let refused = |case: &Case| solve(case.fleet(), &case.timeline(), &Control::new()).unwrap_err().to_string();
    let with = |change: fn(&mut Case)| {
        let mut case = good.clone();
        change(&mut case);
        refused(&case)
    };
    assert_eq!(with(|case| case.demand[7] = f64::NAN), "demand: [2, 1] is NaN; must be 0, or from 1e-12 to 1e18");
    assert_eq!(with(|case| case.demand[11] = -1.0), "demand: [3, 2] is -1; must be 0, or from 1e-12 to 1e18");
    assert_eq!(with(|case| case.penalty[0] = 0.0), "penalty: [0, 0] is 0; must be from 1e-60 to 1e60");
    assert!(with(|case| case.watt_cost[5] = f64::INFINITY).starts_with("watt_cost: [2, 1] is inf"));
    assert!(with(|case| case.machine_cost[5] = -0.5).starts_with("machine_cost: [2, 1] is -0.5"));
    assert_eq!(with(|case| case.stock.truncate(5)), "stock: has 5 entries; must have 2, or 4 x 2");
    assert_eq!(with(|case| case.penalty.truncate(5)), "penalty: has 5 entries; must have 4 x 3");
    assert_eq!(with(|case| case.demand.clear()), "demand: has 0 entries; must have some intervals of 3");
    let fleet = |qps: &[f64], types| Fleet::new(3, types, qps, &good.power_w, &good.row_type, None).map(|_| ());
    assert!(fleet(&good.qps[1..], 2).unwrap_err().to_string().starts_with("qps: has 5 entries; must have 2 x 3"));
    assert!(fleet(&[1e-300; 6], 2).unwrap_err().to_string().starts_with("qps: [0, 0] is 0.000"));
    assert!(fleet(&good.qps, 1).unwrap_err().to_string().starts_with("row_type: entry 1 is 1; must be below 1"));
    assert!(fleet(&good.qps, usize::MAX).unwrap_err().to_string().starts_with("types: are"));
}
