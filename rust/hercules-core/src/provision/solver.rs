//! One interval after the other: from scratch, or from the basis of the interval before.

use super::crash;
use super::fleet::{Assignment, Fleet, Interval};
use super::forest::{Kind, Variable};
use super::pool::Pool;
use super::pricing::{Best, Columns, Costs};
use super::simplex::{PRICE_TOL, Simplex, unsolved};
use crate::control::Control;
use crate::error::{Error, Result};

/// Columns per workload in the first pool, and added at most at once.
const FIRST: usize = 6;
const MORE: usize = 4;
/// Times that prices are guessed before the first basis.
const GUESSES: usize = 3;
/// A column this much dearer than its price leaves the pool when others come in.
const KEEP_WITHIN: f64 = 0.15;
/// Rounds of adding columns after which none leaves any more, and after which there is no end to be seen.
const KEEP_ALL: usize = 32;
const MOST_ROUNDS: usize = 1000;
/// Times that the penalties are raised by [`RAISE`] while less load could be shed.
const MOST_RAISES: usize = 6;
const RAISE: f64 = 16.0;
/// Parts of a stock or a demand that are its rounding.
const DUST: f64 = 1e-14;
/// Part of a demand that is the rounding of the capacity for it.
const COVERED: f64 = 1e-12;
/// Rounding of the prices of shed load alone, which are built from rates only: part of a price, and, where a price that
/// should be nothing is compared, part of the penalty.
const SHED_PRICE_TOL: f64 = 1e-9;
const SHED_NOTHING: f64 = 1e-15;
/// A price of load this part of its penalty below nothing is nothing.
const BELOW_NOTHING: f64 = 1e-12;
/// A unit of load that is shed costs this many times the worst cost of serving it.
const SHED_FACTOR: f64 = 20.0;

/// The optimum of one interval.
#[derive(Clone, Debug)]
pub struct Answer {
    pub machines: Assignment<f64>,
    /// q/s, by workload.
    pub shed: Vec<f64>,
    /// u: what one more machine would save, by type.
    pub stock_price: Vec<f64>,
    /// v: what one more q/s would cost, by workload.
    pub load_price: Vec<f64>,
    /// Cost of a q/s that is shed, by workload, after raises.
    pub penalty: Vec<f64>,
    /// What was minimised, at `machines` and `shed`.
    pub objective: f64,
    /// `sum demand v - sum stock u`: nothing costs less.
    pub bound: f64,
    /// Simplex steps.
    pub steps: u64,
}

/// A fleet with the basis that its last interval left.
#[derive(Clone, Debug)]
pub struct Solver<'a> {
    columns: &'a Columns<'a>,
    simplex: Option<Simplex>,
}

impl<'a> Solver<'a> {
    pub fn new(columns: &'a Columns<'a>) -> Self {
        Self { columns, simplex: None }
    }

    fn fleet(&self) -> &Fleet<'a> {
        self.columns.fleet()
    }

    /// Solve `interval`; `fixed_penalty`: its penalties are the caller's, else they rise until the least load is shed.
    /// `costs_changed`: whether costs or penalties differ from those of the interval before.
    pub fn solve(
        &mut self,
        interval: &Interval<'_>,
        fixed_penalty: bool,
        costs_changed: bool,
        control: &Control,
    ) -> Result<Answer> {
        let costs = Costs::of(interval);
        if let Some(last) = self.simplex.take() {
            let before = last.steps;
            let warm = self.warm(last, interval, costs, costs_changed, control);
            match warm.and_then(|simplex| self.finish(simplex, interval, fixed_penalty, before, control)) {
                Err(Error::Unsolved(_)) => {} // from scratch, the way is another
                answer => return answer,
            }
        }
        let cold = self.cold(interval, costs, control)?;
        self.finish(cold, interval, fixed_penalty, 0, control)
    }

    /// The answer from a basis within bounds, which stays for the next interval.
    fn finish(
        &mut self,
        mut simplex: Simplex,
        interval: &Interval<'_>,
        fixed_penalty: bool,
        before: u64,
        control: &Control,
    ) -> Result<Answer> {
        let costs = Costs::of(interval);
        let mut prices = self.optimise(&mut simplex, costs, control)?;
        for _ in 0..MOST_RAISES {
            if fixed_penalty || self.sheds_least(&mut simplex, interval) {
                break;
            }
            for penalty in &mut simplex.penalty {
                *penalty *= RAISE;
            }
            reprice(&mut simplex);
            prices = self.optimise(&mut simplex, costs, control)?;
        }
        let answer = self.read(&simplex, interval, costs, prices, before);
        if !(answer.objective.is_finite() && answer.bound.is_finite()) {
            return Err(unsolved("loses its figures"));
        }
        self.simplex = Some(simplex);
        Ok(answer)
    }

    fn cold(&self, interval: &Interval<'_>, costs: Costs<'_>, control: &Control) -> Result<Simplex> {
        let fleet = self.fleet();
        let needed: Vec<f64> =
            interval.stock.iter().map(|&n| f64::from(n)).chain(interval.demand.iter().copied()).collect();
        let mut u = vec![0.0; fleet.types()];
        let mut pool = Pool::new(fleet);
        let everything = fleet.rows() <= FIRST;
        for _ in 0..if everything { 1 } else { GUESSES } {
            let mut best = Best::new(FIRST, interval.penalty.to_vec());
            self.columns.collect(costs, &u, &mut best);
            pool.merge(fleet, costs, &best, |_| true);
            if !everything {
                crash::bid(&pool, &needed, &mut u);
            }
            if control.cancelled() {
                return Err(Error::Cancelled);
            }
        }
        let mut simplex = Simplex::new(fleet.types(), interval.penalty.to_vec(), pool);
        simplex.needed = needed;
        crash::serve(&mut simplex, &u);
        Ok(simplex)
    }

    fn warm(
        &self,
        mut simplex: Simplex,
        interval: &Interval<'_>,
        costs: Costs<'_>,
        costs_changed: bool,
        control: &Control,
    ) -> Result<Simplex> {
        if costs_changed || simplex.penalty != interval.penalty {
            // Costs first, while all variables are in bounds; then the right-hand side, while all prices are in order.
            simplex.penalty.copy_from_slice(interval.penalty);
            simplex.pool.set_costs(self.fleet(), costs);
            let fleet = self.fleet();
            let penalty = simplex.penalty.clone();
            simplex.forest.set_prices(|variable| match variable.kind {
                Kind::Pair => {
                    let w = variable.b as usize - fleet.types();
                    costs.machine(variable.a as usize, fleet.row(variable.row as usize).1[w])
                }
                Kind::Slack => 0.0,
                Kind::Shed => penalty[variable.a as usize - fleet.types()],
            });
            simplex.primal(control)?;
        }
        let types = self.fleet().types();
        for (needed, &stock) in simplex.needed[..types].iter_mut().zip(interval.stock) {
            *needed = f64::from(stock);
        }
        simplex.needed[types..].copy_from_slice(interval.demand);
        simplex.refresh();
        simplex.dual(control)?;
        Ok(simplex)
    }

    /// From a basis within bounds to one that is optimal over all columns; its stock prices and load prices.
    fn optimise(&self, simplex: &mut Simplex, costs: Costs<'_>, control: &Control) -> Result<(Vec<f64>, Vec<f64>)> {
        let types = self.fleet().types();
        for round in 0..MOST_ROUNDS {
            simplex.primal(control)?;
            let u: Vec<f64> = (0..types as u32).map(|h| simplex.forest.price(h).max(0.0)).collect();
            let mut v = simplex.penalty.clone();
            self.columns.lower_to_prices(costs, &u, &mut v);
            let basis_price = |w: usize| simplex.forest.price((types + w) as u32);
            let undercut: Vec<u32> = (0..v.len() as u32)
                .filter(|&w| v[w as usize] < basis_price(w as usize) * (1.0 - 2.0 * PRICE_TOL))
                .collect();
            // Columns of the pool that seem to undercut still are there by rounding.
            if undercut.is_empty() || !self.widen(simplex, costs, &u, &undercut, round < KEEP_ALL) {
                if simplex.restore(control)? {
                    continue;
                }
                return Ok((u, v));
            }
            if control.cancelled() {
                return Err(Error::Cancelled);
            }
        }
        Err(unsolved("finds no end of better columns"))
    }

    /// Add the best columns for the workloads `undercut` to the pool, which may `forget` dear ones; whether any is new.
    fn widen(&self, simplex: &mut Simplex, costs: Costs<'_>, u: &[f64], undercut: &[u32], forget: bool) -> bool {
        let (fleet, forest) = (self.fleet(), &simplex.forest);
        let price = |w: usize| forest.price((fleet.types() + w) as u32);
        let limit = (0..fleet.workloads()).map(|w| price(w) * (1.0 - PRICE_TOL)).collect();
        let mut best = Best::new(MORE, limit);
        self.columns.collect_for(undercut, costs, u, &mut best);
        simplex.pool.merge(fleet, costs, &best, |column| {
            let worth = column.qps * forest.price(column.b);
            !forget || column.cost + forest.price(column.a) <= worth * (1.0 + KEEP_WITHIN)
        })
    }

    /// Whether no less load, weighed by its first penalty, could be shed: the basis is optimal for shed alone.
    fn sheds_least(&self, simplex: &mut Simplex, interval: &Interval<'_>) -> bool {
        let n = simplex.forest.len() as u32;
        let types = self.fleet().types();
        let sheds = (types as u32..n).any(|i| {
            simplex.forest.kind(i) == Kind::Shed && simplex.forest.flow(i) > 1e-12 * simplex.needed[i as usize]
        });
        if !sheds {
            return true;
        }
        let mut shed_only = simplex.forest.clone();
        shed_only.set_prices(|variable| {
            if variable.kind == Kind::Shed { interval.penalty[variable.a as usize - types] } else { 0.0 }
        });
        let in_order = (0..n).all(|i| {
            let price = shed_only.price(i);
            let Some(w) = (i as usize).checked_sub(types) else { return price >= 0.0 };
            let penalty = interval.penalty[w];
            price >= -BELOW_NOTHING * penalty && price <= penalty * (1.0 + SHED_PRICE_TOL)
        });
        if !in_order {
            return false;
        }
        let u: Vec<f64> = (0..types as u32).map(|h| shed_only.price(h).max(0.0)).collect();
        let mut v = interval.penalty.to_vec();
        self.columns.lower_to_prices(Costs::none(), &u, &mut v);
        let price = |w: usize| shed_only.price((types + w) as u32) * (1.0 - SHED_PRICE_TOL);
        (0..v.len()).all(|w| v[w] >= price(w) - SHED_NOTHING * interval.penalty[w])
    }

    fn read(
        &self,
        simplex: &Simplex,
        interval: &Interval<'_>,
        costs: Costs<'_>,
        (stock_price, load_price): (Vec<f64>, Vec<f64>),
        steps_before: u64,
    ) -> Answer {
        let fleet = self.fleet();
        let types = fleet.types();
        let mut pairs: Vec<(u32, u32, f64)> = Vec::new();
        // What rounding leaves of nothing is neither part of a load nor of a stock.
        let counts = |variable: &Variable, flow: f64| {
            let [stock, demand] = [variable.a, variable.b].map(|i| simplex.needed[i as usize]);
            stock > 0.0 && (flow > DUST * stock || flow * variable.qps > DUST * demand)
        };
        for i in 0..simplex.forest.len() as u32 {
            let (variable, flow) = (simplex.forest.variable(i), simplex.forest.flow(i).max(0.0));
            if variable.kind == Kind::Pair && counts(&variable, flow) {
                pairs.push((variable.row, variable.b - types as u32, flow));
            }
        }
        pairs.sort_unstable_by_key(|&(row, w, _)| (row, w));
        let mut used = vec![0.0; types];
        for &(row, _, flow) in &pairs {
            used[fleet.row_type()[row as usize] as usize] += flow;
        }
        // Stock is never exceeded, and what is shed is what the machines leave: where rounding has gone too far, the
        // objective shows it.
        let mut objective = 0.0;
        let mut capacity = vec![0.0; fleet.workloads()];
        for (row, w, flow) in &mut pairs {
            let (h, w) = (fleet.row_type()[*row as usize] as usize, *w as usize);
            let (qps, power_w) = fleet.row(*row as usize);
            *flow *= (f64::from(interval.stock[h]) / used[h]).min(1.0);
            capacity[w] += *flow * qps[w];
            objective += *flow * costs.machine(h, power_w[w]);
        }
        let short = |(demand, capacity): (&f64, &f64)| {
            if demand - capacity > COVERED * demand { demand - capacity } else { 0.0 }
        };
        let shed: Vec<f64> = interval.demand.iter().zip(&capacity).map(short).collect();
        objective += shed.iter().zip(&simplex.penalty).map(|(shed, penalty)| shed * penalty).sum::<f64>();
        let worth: f64 = interval.demand.iter().zip(&load_price).map(|(demand, v)| demand * v).sum();
        let rent: f64 = interval.stock.iter().zip(&stock_price).map(|(&stock, u)| f64::from(stock) * u).sum();
        Answer {
            machines: Assignment {
                row: pairs.iter().map(|pair| pair.0).collect(),
                workload: pairs.iter().map(|pair| pair.1).collect(),
                machines: pairs.iter().map(|pair| pair.2).collect(),
            },
            shed,
            stock_price,
            load_price,
            penalty: simplex.penalty.clone(),
            objective,
            bound: worth - rent,
            steps: simplex.steps - steps_before,
        }
    }
}

/// Prices of the basis after its penalties changed.
fn reprice(simplex: &mut Simplex) {
    let types = simplex.forest.types();
    let penalty = simplex.penalty.clone();
    simplex.forest.set_prices(|variable| match variable.kind {
        Kind::Shed => penalty[variable.a as usize - types],
        Kind::Pair | Kind::Slack => variable.cost,
    });
}

/// Penalties under which load is shed only where stock ends: far above the worst cost of serving it.
pub fn shed_penalties(columns: &Columns<'_>, costs: Costs<'_>, stock: &[u32]) -> Vec<f64> {
    let mut penalty: Vec<f64> = columns.worst(costs, stock).iter().map(|worst| SHED_FACTOR * worst).collect();
    let most = penalty.iter().copied().fold(0.0, f64::max);
    for penalty in &mut penalty {
        if *penalty <= 0.0 {
            *penalty = if most > 0.0 { most } else { 1.0 };
        }
    }
    penalty
}
