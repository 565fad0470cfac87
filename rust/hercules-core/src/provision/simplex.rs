//! Primal and dual simplex steps on a pool of columns, over the basis in [`super::forest`].
//!
//! Primal: columns below their price are collected in rounds over the workloads, and the best of those collected
//! enters until none is left. Dual: after a change of the right-hand side, the variable furthest below zero leaves,
//! and what keeps all prices in order enters. Both turn to lowest-index choices (which cannot cycle) when steps stop
//! leading anywhere.

use super::forest::{Forest, Kind, NONE, Variable};
use super::pool::Pool;
use crate::control::Control;
use crate::error::{Error, Result};

/// A reduced cost below this part of its terms is a gain; above, rounding.
pub const PRICE_TOL: f64 = 1e-11;
/// By how much that part grows when rounding is seen to be worse.
const COARSER: f64 = 4.0;
/// A variable below minus this part of its scale breaks its bound; above, rounding.
const FLOW_TOL: f64 = 1e-12;
/// A rate of change of a reduced cost below this part of its terms is their rounding: both ends move alike.
const RATE_TOL: f64 = 1e-12;
/// Steps without gain after which the lowest index is chosen, and steps after which a run has lost its way to rounding:
/// each per row of the program, and besides.
const PATIENCE: (usize, usize) = (2, 100);
const MOST_STEPS: (usize, usize) = (100, 10_000);
/// Steps after which the flows are computed afresh.
const REFRESH: u64 = 512;
/// Workloads whose columns are collected together.
const BLOCK: usize = 256;

/// A program on a pool of columns with a basis, its right-hand side and what it costs to shed.
#[derive(Clone, Debug)]
pub struct Simplex {
    pub forest: Forest,
    pub pool: Pool,
    /// Stock, then demand.
    pub needed: Vec<f64>,
    /// Cost of a q/s that is shed, by workload.
    pub penalty: Vec<f64>,
    /// Steps taken so far.
    pub steps: u64,
    pub(super) patience: usize,
    pub(super) most_steps: u64,
    /// [`PRICE_TOL`], or more of it where rounding is seen to be worse in this run.
    price_tol: f64,
    /// Whether no step has been taken since the flows were computed afresh.
    fresh: bool,
    candidates: Vec<u32>,
    next_block: usize,
    ratio: Vec<f64>,
}

impl Simplex {
    pub fn new(types: usize, penalty: Vec<f64>, pool: Pool) -> Self {
        let n = types + penalty.len();
        Self {
            forest: Forest::new(types, &penalty),
            pool,
            needed: vec![0.0; n],
            penalty,
            steps: 0,
            patience: PATIENCE.0 * n + PATIENCE.1,
            most_steps: (MOST_STEPS.0 * n + MOST_STEPS.1) as u64,
            price_tol: PRICE_TOL,
            fresh: false,
            candidates: Vec::new(),
            next_block: 0,
            ratio: vec![0.0; n],
        }
    }

    fn types(&self) -> usize {
        self.forest.types()
    }

    /// Size against which the variable owned by node `i` counts as zero.
    fn flow_scale(&self, i: u32) -> f64 {
        let needed = self.needed[i as usize];
        match self.forest.kind(i) {
            Kind::Pair => 1.0 + self.needed[self.forest.variable(i).a as usize],
            _ if (i as usize) < self.types() => 1.0 + needed,
            _ => needed.max(f64::MIN_POSITIVE),
        }
    }

    // -- primal -----------------------------------------------------------------------------------------------------

    /// From a basis without negative variables to one that no column of the pool can improve.
    pub fn primal(&mut self, control: &Control) -> Result<()> {
        let (mut idle, last) = (0, self.steps + self.most_steps);
        self.price_tol = PRICE_TOL;
        self.candidates.clear();
        while let Some(enter) = self.entering(idle > self.patience) {
            let gain = self.primal_step(&enter, idle > self.patience)?;
            idle = if gain { 0 } else { idle + 1 };
            self.count_step(last, control)?;
        }
        Ok(())
    }

    /// All flows afresh from stock and demand.
    pub fn refresh(&mut self) {
        self.forest.set_flows(&self.needed);
        self.fresh = true;
    }

    fn count_step(&mut self, last: u64, control: &Control) -> Result<()> {
        self.steps += 1;
        if self.steps > last {
            return Err(unsolved("goes on and on"));
        }
        if self.steps.is_multiple_of(REFRESH) {
            self.refresh();
            if control.cancelled() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// Bring `enter` in; whether the objective moved.
    fn primal_step(&mut self, enter: &Variable, lowest_index: bool) -> Result<bool> {
        self.forest.displace(enter);
        let (mut leaving, mut step, mut pivot) = (NONE, f64::INFINITY, 0.0);
        for place in 0..self.forest.moved.len() {
            let (i, change) = self.forest.moved[place];
            if change > 0.0 {
                let flow = self.forest.flow(i);
                let here = if flow > 0.0 { flow / change } else { 0.0 };
                let better = here < step
                    || (here == step
                        && leaving != NONE
                        && if lowest_index { self.index(i) < self.index(leaving) } else { change > pivot });
                if better {
                    (leaving, step, pivot) = (i, here, change);
                }
            }
        }
        if leaving == NONE {
            return Err(unsolved("has a step without an end"));
        }
        if self.forest.variable(leaving).is(enter) {
            // It is in the basis, where all gains are 0: what prices promised is their rounding.
            self.price_tol *= COARSER;
            return Ok(false);
        }
        self.forest.advance(step);
        self.fresh = false;
        self.forest.detach(leaving);
        self.forest.attach(enter, step);
        Ok(step > FLOW_TOL * (1.0 + self.needed[enter.a as usize]))
    }

    /// A place in one fixed order of all variables, of the one owned by node `i`.
    fn index(&self, i: u32) -> (u32, u32, u32) {
        let variable = self.forest.variable(i);
        match variable.kind {
            Kind::Pair => (0, variable.b, variable.row),
            Kind::Slack => (1, variable.a, 0),
            Kind::Shed => (2, variable.a, 0),
        }
    }

    /// The next variable to enter: of those collected, the one that promises most.
    fn entering(&mut self, lowest_index: bool) -> Option<Variable> {
        if lowest_index {
            return self.first_entering();
        }
        loop {
            let (mut best, mut most) = (None, 0.0);
            let mut kept = 0;
            for place in 0..self.candidates.len() {
                let code = self.candidates[place];
                let promise = self.promise(code);
                if promise > 0.0 {
                    self.candidates[kept] = code;
                    kept += 1;
                    if promise > most {
                        (best, most) = (Some(code), promise);
                    }
                }
            }
            self.candidates.truncate(kept);
            if let Some(code) = best {
                return Some(self.decode(code));
            }
            if !self.gather() {
                return None;
            }
        }
    }

    fn first_entering(&self) -> Option<Variable> {
        let n = self.pool.columns.len() + 2 * self.forest.len();
        (0..n as u32).find(|&code| self.promise(code) > 0.0).map(|code| self.decode(code))
    }

    /// Code of a variable: its place in the pool, or after these its node, slack before shed.
    fn decode(&self, code: u32) -> Variable {
        let (pairs, n) = (self.pool.columns.len() as u32, self.forest.len() as u32);
        if code < pairs {
            self.pool.columns[code as usize].variable()
        } else if code < pairs + n {
            Variable { kind: Kind::Slack, row: NONE, a: code - pairs, b: NONE, qps: 0.0, cost: 0.0 }
        } else {
            let a = code - pairs - n;
            let cost = self.penalty.get((a as usize).wrapping_sub(self.types())).copied().unwrap_or(0.0);
            Variable { kind: Kind::Shed, row: NONE, a, b: NONE, qps: 0.0, cost }
        }
    }

    /// What the objective would gain if the variable took all that its rows ask for; 0 where it does not pay.
    fn promise(&self, code: u32) -> f64 {
        let pairs = self.pool.columns.len();
        let code = code as usize;
        if code < pairs {
            return self.promise_of_pair(code);
        }
        let (n, types) = (self.forest.len(), self.types());
        let i = (code - pairs) % n;
        let price = self.forest.price(i as u32);
        let (gain, scale) = if code - pairs < n {
            (-price, self.forest.price_scale(i as u32))
        } else if i < types {
            return 0.0;
        } else {
            (price - self.penalty[i - types], self.penalty[i - types])
        };
        if gain <= self.price_tol * scale {
            return 0.0;
        }
        gain * self.needed[i].max(f64::MIN_POSITIVE)
    }

    #[inline(always)]
    fn promise_of_pair(&self, place: usize) -> f64 {
        let column = &self.pool.columns[place];
        let rent = self.forest.price(column.a);
        let worth = column.qps * self.forest.price(column.b);
        let gain = worth - (column.cost + rent);
        if gain <= self.price_tol * (column.cost + rent.abs()) {
            return 0.0;
        }
        let machines = (self.needed[column.b as usize] / column.qps).min(self.needed[column.a as usize]);
        gain * machines.max(1e-9)
    }

    /// Collect what pays among the loops and, block by block, the columns; false if nothing does.
    fn gather(&mut self) -> bool {
        let (pairs, n) = (self.pool.columns.len(), self.forest.len());
        for code in pairs..pairs + 2 * n {
            if self.promise(code as u32) > 0.0 {
                self.candidates.push(code as u32);
            }
        }
        let workloads = self.penalty.len();
        let blocks = workloads.div_ceil(BLOCK);
        for _ in 0..blocks {
            let first = self.next_block * BLOCK;
            let last = (first + BLOCK).min(workloads);
            self.next_block = (self.next_block + 1) % blocks;
            for code in self.pool.of_workload(first).start..self.pool.of_workload(last - 1).end {
                if self.promise_of_pair(code) > 0.0 {
                    self.candidates.push(code as u32);
                }
            }
            if !self.candidates.is_empty() {
                return true;
            }
        }
        !self.candidates.is_empty()
    }

    // -- dual -------------------------------------------------------------------------------------------------------

    /// From a basis whose prices no column of the pool undercuts to one that has no negative variables either.
    pub fn dual(&mut self, control: &Control) -> Result<()> {
        let (mut idle, last) = (0, self.steps + self.most_steps);
        while let Some(leaving) = self.leaving(idle > self.patience) {
            let step = self.dual_step(leaving, idle > self.patience)?;
            idle = if step { 0 } else { idle + 1 };
            self.count_step(last, control)?;
        }
        Ok(())
    }

    /// From an optimal basis to one that is so with its flows computed afresh, too; whether a step was needed.
    pub fn restore(&mut self, control: &Control) -> Result<bool> {
        if !self.fresh {
            self.refresh();
        }
        let before = self.steps;
        self.dual(control)?;
        Ok(self.steps != before)
    }

    /// The node whose variable is furthest below zero.
    fn leaving(&self, lowest_index: bool) -> Option<u32> {
        let (mut leaving, mut most) = (NONE, FLOW_TOL);
        for (i, &flow) in (0..).zip(self.forest.flows()) {
            if flow >= 0.0 {
                continue;
            }
            let lack = -flow / self.flow_scale(i);
            if lack > most {
                if !lowest_index {
                    (leaving, most) = (i, lack);
                } else if leaving == NONE || self.index(i) < self.index(leaving) {
                    leaving = i;
                }
            }
        }
        (leaving != NONE).then_some(leaving)
    }

    /// Let the variable of `leaving` go to zero; whether prices moved.
    fn dual_step(&mut self, leaving: u32, lowest_index: bool) -> Result<bool> {
        let (gone, flow) = self.forest.detach(leaving);
        self.forest.price_ratios(&mut self.ratio);
        let ratio = |i: u32| self.ratio[i as usize];
        // Prices of the tree move so that the reduced cost of the variable that leaves rises from 0.
        let up = match gone.kind {
            Kind::Pair => ratio(gone.a) > gone.qps * ratio(gone.b),
            Kind::Slack => true,
            Kind::Shed => false,
        };
        let (mut enter, mut step, mut most) = (None, f64::INFINITY, 0.0);
        let mut offer = |code: usize, reduced: f64, rate: f64| {
            let reduced = reduced.max(0.0);
            if reduced > step * rate {
                return; // most end here, without a division
            }
            let here = reduced / rate;
            let tie = here == step && if lowest_index { enter.is_none_or(|best| code < best) } else { rate > most };
            if here < step || tie {
                (enter, step, most) = (Some(code), here, rate);
            }
        };
        let (pairs, n, types) = (self.pool.columns.len(), self.forest.len(), self.types());
        let price = |i: u32| self.forest.price(i);
        for &i in &self.forest.tree {
            let node = i as usize;
            if up {
                if node >= types {
                    for code in self.pool.of_workload(node - types) {
                        let column = &self.pool.columns[code];
                        let rate = column.qps * ratio(i) - ratio(column.a);
                        if rate > RATE_TOL * (column.qps * ratio(i)) {
                            offer(code, column.reduced_cost(price), rate);
                        }
                    }
                    offer(pairs + n + node, self.penalty[node - types] - price(i), ratio(i));
                }
            } else {
                offer(pairs + node, price(i), ratio(i));
                if node < types {
                    for &code in self.pool.of_type(node) {
                        let column = &self.pool.columns[code as usize];
                        let rate = ratio(i) - column.qps * ratio(column.b);
                        if rate > RATE_TOL * ratio(i) {
                            offer(code as usize, column.reduced_cost(price), rate);
                        }
                    }
                }
            }
        }
        for place in 0..self.forest.tree.len() {
            self.ratio[self.forest.tree[place] as usize] = 0.0;
        }
        let Some(code) = enter else {
            // Nothing can: the variable is below zero by gathered rounding. Once the flows are fresh, it is not.
            self.forest.attach(&gone, flow);
            if self.fresh {
                return Err(unsolved("has a dual step without an end"));
            }
            self.refresh();
            return Ok(false);
        };
        self.fresh = false;
        let enter = self.decode(code as u32);
        self.forest.attach(&enter, 0.0);
        self.forest.make_up(&gone, flow);
        Ok(step > 0.0)
    }
}

/// Rounding has the better of the method: rates, costs and loads are too far apart for it.
pub fn unsolved(what: &str) -> Error {
    Error::Unsolved(format!(
        "the network simplex method {what}: rates, costs or loads are too far apart for its rounding"
    ))
}
