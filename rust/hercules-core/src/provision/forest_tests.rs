//! The forest against the equations that it solves, through random changes of basis.

use super::forest::{Forest, Kind, NONE, Variable};
use proptest::prelude::*;

const TOL: f64 = 1e-9;

/// A program with dense pairs, and the steps of a walk through its bases.
#[derive(Clone, Debug)]
struct Walk {
    /// Whether types differ in speed only: all cycles are without gain, but for rounding.
    proportional: bool,
    qps: Vec<Vec<f64>>,
    needed: Vec<f64>,
    penalty: Vec<f64>,
    /// Which variable enters, which of those that move leaves, and whether by a primal or a dual step.
    picks: Vec<(usize, usize, bool)>,
}

fn walk() -> impl Strategy<Value = Walk> {
    (1..8usize, 1..8usize).prop_flat_map(|(types, workloads)| {
        // Small whole rates make cycles without gain, others make every other kind.
        let rate = prop_oneof![(1..5u32).prop_map(f64::from), (-2.0..2.0f64).prop_map(f64::exp)];
        let row = prop::collection::vec(rate, workloads);
        let amount = prop_oneof![Just(0.0), (0..9u32).prop_map(f64::from), 0.0..9.0f64];
        (
            prop::collection::vec(row, types),
            prop::collection::vec(amount, types + workloads),
            prop::collection::vec(0.1..9.0f64, workloads),
            prop::collection::vec((any::<usize>(), any::<usize>(), any::<bool>()), 40),
            any::<bool>(),
        )
            .prop_map(|(mut qps, needed, penalty, picks, proportional)| {
                if proportional {
                    let scale = qps[0].clone();
                    for row in &mut qps {
                        let speed = row[0] / 3.0;
                        row.iter_mut().zip(&scale).for_each(|(qps, scale)| *qps = speed * scale);
                    }
                }
                Walk { proportional, qps, needed, penalty, picks }
            })
    })
}

fn cost(row: usize, w: usize) -> f64 {
    ((7 * row + 3 * w) % 11) as f64
}

/// Coefficients of a variable by node.
fn column(types: usize, variable: &Variable) -> Vec<(usize, f64)> {
    let (a, b) = (variable.a as usize, variable.b as usize);
    match variable.kind {
        Kind::Pair => vec![(a, 1.0), (b, variable.qps)],
        Kind::Slack if a >= types => vec![(a, -1.0)],
        Kind::Slack | Kind::Shed => vec![(a, 1.0)],
    }
}

impl Walk {
    fn types(&self) -> usize {
        self.qps.len()
    }

    fn variables(&self) -> Vec<Variable> {
        let types = self.types();
        let one = |kind, a: usize, cost| Variable { kind, row: NONE, a: a as u32, b: NONE, qps: 0.0, cost };
        let mut all: Vec<Variable> = (0..self.needed.len()).map(|i| one(Kind::Slack, i, 0.0)).collect();
        all.extend(self.penalty.iter().enumerate().map(|(w, &penalty)| one(Kind::Shed, types + w, penalty)));
        for (h, row) in self.qps.iter().enumerate() {
            all.extend(row.iter().enumerate().map(|(w, &qps)| Variable {
                kind: Kind::Pair,
                row: h as u32,
                a: h as u32,
                b: (types + w) as u32,
                qps,
                cost: cost(h, w),
            }));
        }
        all
    }

    /// The rows of the program, summed over `amounts` of variables, are `right`.
    fn assert_rows(&self, amounts: &[(Variable, f64)], right: &[f64], what: &str) {
        let (mut left, mut size) = (vec![0.0; right.len()], 1.0_f64);
        for (variable, amount) in amounts {
            for (i, coefficient) in column(self.types(), variable) {
                left[i] += coefficient * amount;
                size = size.max((coefficient * amount).abs());
            }
        }
        for (i, (left, right)) in left.iter().zip(right).enumerate() {
            assert!((left - right).abs() <= TOL * size, "{what}: row {i} has {left}, not {right}, in terms of {size}");
        }
    }

    fn assert_flows(&self, forest: &Forest, what: &str) {
        let amounts: Vec<_> = (0..forest.len() as u32).map(|i| (forest.variable(i), forest.flow(i))).collect();
        self.assert_rows(&amounts, &self.needed, what);
    }
}

/// Every basic variable costs what it is worth.
fn assert_prices(forest: &Forest, what: &str) {
    for i in 0..forest.len() as u32 {
        let variable = forest.variable(i);
        let (cost, terms) = match variable.kind {
            Kind::Pair => (variable.cost, [-forest.price(variable.a), variable.qps * forest.price(variable.b)]),
            Kind::Slack | Kind::Shed => (variable.cost, [forest.price(variable.a), 0.0]),
        };
        let size = cost.max(terms[0].abs()).max(terms[1].abs()).max(1.0);
        assert!((terms[0] + terms[1] - cost).abs() <= TOL * size, "{what}: {variable:?} at prices {terms:?}");
    }
}

proptest! {
    #[test]
    fn equations_hold_in_every_basis(walk in walk()) {
        let (types, n) = (walk.types(), walk.needed.len());
        let all = walk.variables();
        let mut forest = Forest::new(types, &walk.penalty);
        forest.set_flows(&walk.needed);
        for &(which, out, primal) in &walk.picks {
            walk.assert_flows(&forest, "flows");
            assert_prices(&forest, "prices");
            let basis: Vec<Variable> = (0..n as u32).map(|i| forest.variable(i)).collect();
            let outside: Vec<&Variable> = all.iter().filter(|one| !basis.iter().any(|two| two.is(one))).collect();
            let enter = *outside[which % outside.len()];

            forest.displace(&enter);
            let moved = forest.moved.clone();
            let displaced: Vec<_> = moved.iter().map(|&(i, change)| (forest.variable(i), change)).collect();
            let mut unit = vec![0.0; n];
            for (i, coefficient) in column(types, &enter) {
                unit[i] = coefficient;
            }
            walk.assert_rows(&displaced, &unit, "what an entering variable displaces");

            // A pivot that is no rounding: the next basis is one, too.
            let most = moved.iter().map(|one| one.1.abs()).fold(0.0, f64::max);
            if walk.proportional {
                let rounding = moved.iter().find(|one| one.1 != 0.0 && one.1.abs() < 1e-10 * most);
                prop_assert!(rounding.is_none(), "{rounding:?} of {most} moves by rounding alone");
            }
            let may: Vec<_> = moved.into_iter().filter(|one| one.1.abs() > 1e-2 * most).collect();
            let (leaving, change) = may[out % may.len()];
            let flow = forest.flow(leaving);
            if primal {
                forest.advance(flow / change);
                forest.detach(leaving);
                forest.attach(&enter, flow / change);
            } else {
                let (gone, amount) = forest.detach(leaving);
                prop_assert!(gone.is(&basis[leaving as usize]) && amount == flow);
                let mut ratio = vec![0.0; n];
                forest.price_ratios(&mut ratio);
                for (place, one) in basis.iter().enumerate().filter(|one| one.0 as u32 != leaving) {
                    let (a, b) = (ratio[one.a as usize], if one.b == NONE { 0.0 } else { ratio[one.b as usize] });
                    prop_assert!((a - one.qps * b).abs() <= TOL * a, "{place}: {one:?} would change its reduced cost");
                }
                prop_assert!(forest.tree.iter().all(|&i| ratio[i as usize] > 0.0));
                prop_assert_eq!(ratio.iter().filter(|&&x| x > 0.0).count(), forest.tree.len());
                forest.attach(&enter, 0.0);
                forest.make_up(&gone, amount);
            }
            prop_assert!((0..n as u32).any(|i| forest.variable(i).is(&enter)));

            let mut afresh = forest.clone();
            afresh.set_flows(&walk.needed);
            walk.assert_flows(&afresh, "flows afresh");
            afresh.set_prices(|variable| 2.0 * variable.cost);
            assert_prices(&afresh, "prices afresh");
        }
    }
}
