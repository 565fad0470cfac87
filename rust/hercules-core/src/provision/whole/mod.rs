//! Whole machines from the fractional optimum and its prices.
//!
//! Every workload is a small covering problem of its own: the cheapest units that carry its demand, when a machine of
//! type h costs its watts and the stock price u[h]. What ties the workloads together is the stock. So the fractional
//! answer is rounded down and completed from the stock left over ([`moves`]), and then the workloads [`negotiate`]: each
//! exchanges units for what suits it best at prices that rise where stock is overdrawn, until stock holds again. Last,
//! units are exchanged at their bare cost for what is still free. Small fleets, where one machine is much, are disturbed
//! and completed again a number of times.
//!
//! An exchange takes out up to three units and puts in up to two ([`cover`]): with rates as unlike as servers have, two
//! more units come close enough to any gap.

mod bound;
mod cover;
mod desk;
mod moves;
mod negotiate;
#[cfg(test)]
mod tests;

use super::fleet::{Assignment, Fleet, Interval};
use super::timeline::Timeline;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::rng::{Purpose, Stream};
use cover::Menu;
use desk::Desk;
use negotiate::Prices;
use rayon::prelude::*;

/// A fractional count this close below a whole one is that whole one.
const SNAP: f64 = 1e-7;
/// A workload whose fractional answer lacks no more than this part of its demand is meant to be covered.
const MEANT: f64 = 1e-6;
/// A change must save more than this part of the dearest unit: no cycling on rounding noise.
const LEAST: f64 = 1e-12;
/// Least number of items that each workload lists; more are worth their time where there are many rows.
const LISTED: usize = 24;
/// Sweeps of a negotiation; further ones change little.
const SWEEPS: usize = 30;
/// Up to this many (row, workload) pairs a fleet is small.
const SMALL: usize = 200;
/// From this many on it is large: exchanges of three units are worth their time again.
const LARGE: usize = 30_000;
/// Disturbances of a small fleet: one for each of these parts of the cost that the bound leaves open, within limits.
const DISTURBANCE: f64 = 2e-4;
const DISTURBANCES: [f64; 2] = [16.0, 96.0];
/// Workloads that a disturbance touches, and what it may take out of each place: 0 to 3 units.
const TOUCHED: u64 = 4;
const OUT: u64 = 4;
/// Prices of a disturbance differ by up to this part of a machine's.
const NOISE: f64 = 0.1;

/// Linear optima of the intervals of a timeline; arrays are interval by interval.
#[derive(Clone, Copy, Debug)]
pub struct Relaxed<'a> {
    /// `[intervals + 1]`: where the places of an interval begin, and after the last where they end.
    pub starts: &'a [usize],
    pub row: &'a [u32],
    pub workload: &'a [u32],
    /// Machines at each place, fractional.
    pub machines: &'a [f64],
    /// `[intervals, types]` price of a machine.
    pub stock_price: &'a [f64],
}

impl<'a> Relaxed<'a> {
    fn check(&self, fleet: &Fleet<'_>, intervals: usize) -> Result<()> {
        let places = self.row.len();
        let wanted = [
            ("starts", self.starts.len(), intervals + 1),
            ("workload", self.workload.len(), places),
            ("machines", self.machines.len(), places),
            ("stock_price", self.stock_price.len(), intervals * fleet.types()),
        ];
        for (field, len, wanted) in wanted {
            if len != wanted {
                return Err(Error::invalid(field, format!("has {len} entries; must have {wanted}")));
            }
        }
        if self.starts[0] != 0 || self.starts[intervals] != places || !self.starts.is_sorted() {
            return Err(Error::invalid("starts", format!("must rise from 0 to {places}, the number of places")));
        }
        for (field, values, limit) in [("row", self.row, fleet.rows()), ("workload", self.workload, fleet.workloads())]
        {
            if let Some(i) = values.iter().position(|&value| value as usize >= limit) {
                return Err(Error::invalid(field, format!("entry {i} is {}; must be below {limit}", values[i])));
            }
        }
        for (field, values) in [("machines", self.machines), ("stock_price", self.stock_price)] {
            if let Some(i) = values.iter().position(|x| !(x.is_finite() && *x >= 0.0)) {
                return Err(Error::invalid(field, format!("entry {i} is {}; must be finite, 0 or more", values[i])));
            }
        }
        let able = |i: usize| fleet.row(self.row[i] as usize).0[self.workload[i] as usize] > 0.0;
        if let Some(i) = (0..places).find(|&i| self.machines[i] > 0.0 && !able(i)) {
            let message = format!("entry {i}: row {} cannot serve workload {}", self.row[i], self.workload[i]);
            return Err(Error::invalid("machines", message));
        }
        Ok(())
    }

    fn task(&self, t: usize, interval: Interval<'a>) -> Task<'a> {
        let (places, types) = (self.starts[t]..self.starts[t + 1], interval.stock.len());
        Task {
            interval,
            row: &self.row[places.clone()],
            workload: &self.workload[places.clone()],
            machines: &self.machines[places],
            stock_price: &self.stock_price[t * types..(t + 1) * types],
        }
    }
}

/// The answer for one interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    pub machines: Assignment<u32>,
    /// No plan in whole machines has a lower `penalty * shortfall + cost`; where it was asked for.
    pub bound: Option<f64>,
}

/// Whole machines for every interval of `timeline`, in parallel; an answer is a function of its interval alone. `None`
/// for those that were not reached before the caller asked to stop.
///
/// `timeline` must tell the penalties. Stock always holds, and counts are multiples of the fleet's groups. Weighted
/// shortfall (`penalty` times q/s) goes first, cost second. Where the counts of the linear optimum, all rounded up, fit
/// into the stock, the cost above its objective is at most that of the fractional places, of which a basic optimum has
/// at most workloads + types.
pub fn whole_machines(
    fleet: &Fleet<'_>,
    timeline: &Timeline<'_>,
    relaxed: &Relaxed<'_>,
    with_bound: bool,
    control: &Control,
) -> Result<Vec<Option<Whole>>> {
    relaxed.check(fleet, timeline.check(fleet)?)?;
    let Some(penalty) = timeline.penalty else {
        return Err(Error::invalid("penalty", "is missing; must have an entry for each interval and workload"));
    };
    let by_interval = penalty.chunks_exact(fleet.workloads()).enumerate();
    let tasks: Vec<Task<'_>> =
        by_interval.map(|(t, penalty)| relaxed.task(t, timeline.interval(fleet, t, penalty))).collect();
    let answer = |task: &Task<'_>| {
        let machines = Search::run(fleet, task, control)?;
        let bound = with_bound.then(|| bound::bound(fleet, &task.interval, task.stock_price, control)).transpose()?;
        Ok(Whole { machines, bound })
    };
    let answer = |task| match answer(task) {
        Ok(whole) => {
            control.advance();
            Ok(Some(whole))
        }
        Err(Error::Cancelled) => Ok(None),
        Err(error) => Err(error),
    };
    if tasks.len() == 1 {
        return tasks.iter().map(answer).collect();
    }
    tasks.par_iter().with_max_len(1).map(answer).collect()
}

/// An interval to be answered, and its linear optimum.
#[derive(Clone, Copy, Debug)]
struct Task<'a> {
    interval: Interval<'a>,
    row: &'a [u32],
    workload: &'a [u32],
    machines: &'a [f64],
    stock_price: &'a [f64],
}

impl<'a> Task<'a> {
    /// Row, workload and machines of each place in use.
    fn places(&self) -> impl Iterator<Item = (usize, usize, f64)> + use<'a> {
        let index = self.row.iter().zip(self.workload).map(|(&r, &w)| (r as usize, w as usize));
        index.zip(self.machines).filter(|(_, machines)| **machines > 0.0).map(|((r, w), &machines)| (r, w, machines))
    }
}

struct Search<'a> {
    task: &'a Task<'a>,
    control: &'a Control,
    desk: Desk<'a>,
    prices: Prices,
    /// Units that an exchange may take out.
    most_out: usize,
    small: bool,
    /// Least gain of a change.
    least: f64,
    /// What each workload is to reach at first: what the linear optimum gives it.
    targets: Vec<f64>,
    menu: Menu,
    best: Assignment<u32>,
    /// Weighted shortfall and cost of `best`.
    value: (f64, f64),
}

impl<'a> Search<'a> {
    fn run(fleet: &Fleet<'a>, task: &'a Task<'a>, control: &'a Control) -> Result<Assignment<u32>> {
        let mut search = Self::new(fleet, task, control);
        search.round_down();
        search.finish();
        search.negotiate()?;
        search.finish();
        search.round_up();
        search.disturb()?;
        Ok(search.best)
    }

    fn new(fleet: &Fleet<'a>, task: &'a Task<'a>, control: &'a Control) -> Self {
        let cells = fleet.rows() * fleet.workloads();
        let keep = LISTED.max((10 * fleet.rows()).isqrt());
        let desk = Desk::new(fleet, &task.interval, task.stock_price, keep);
        let mut targets = vec![0.0; fleet.workloads()];
        for (r, w, machines) in task.places() {
            targets[w] += machines * fleet.row(r).0[w];
        }
        for (target, &demand) in targets.iter_mut().zip(task.interval.demand) {
            *target = if *target >= (1.0 - MEANT) * demand { demand } else { *target };
        }
        let items = desk.works.iter().flat_map(|work| &work.items);
        let dearest = items.fold(0.0, |dearest: f64, item| dearest.max(item.cost));
        Self {
            task,
            control,
            prices: Prices::new(&desk, task.stock_price),
            desk,
            most_out: if (SMALL..LARGE).contains(&cells) { 2 } else { 3 },
            small: cells <= SMALL,
            least: LEAST * (dearest + 1.0),
            targets,
            menu: Menu::default(),
            best: Assignment::default(),
            value: (f64::INFINITY, f64::INFINITY),
        }
    }

    /// The linear counts, rounded to whole units by `round`, as far as stock goes.
    fn round(&mut self, round: impl Fn(f64) -> f64) {
        for (r, w, machines) in self.task.places() {
            let i = self.desk.place(r, w);
            let item = &self.desk.works[w].items[i];
            let units = round(machines / f64::from(item.size)).min(f64::from(self.desk.available(item)));
            self.desk.add(w, i, units as i64);
        }
    }

    fn round_down(&mut self) {
        self.round(|units| (units + SNAP).floor());
        self.desk.aim(&self.targets);
        // Who misses the largest part of its demand chooses first.
        let part = |w: usize| self.desk.works[w].missing() / self.desk.works[w].target;
        let mut order: Vec<(f64, usize)> =
            (0..self.desk.works.len()).filter(|&w| self.desk.works[w].missing() > 0.0).map(|w| (part(w), w)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, w) in order {
            self.complete(w);
        }
    }

    /// Complete `w` from the stock at the present prices.
    fn complete(&mut self, w: usize) {
        let prices = &self.prices;
        self.desk
            .complete(w, &mut self.menu, |desk, item| desk.at_cost(item).map(|(_, units)| (prices.of(item), units)));
    }

    fn negotiate(&mut self) -> Result<()> {
        self.desk.aim(&self.targets);
        self.desk.negotiate(&mut self.prices, SWEEPS, self.most_out, self.least, &mut self.menu, self.control)
    }

    /// Serve what the linear optimum sheds with what is left, exchange at bare cost, and keep the result if better.
    fn finish(&mut self) {
        self.desk.aim(self.task.interval.demand);
        for w in 0..self.desk.works.len() {
            self.desk.complete(w, &mut self.menu, Desk::at_cost);
        }
        self.desk.polish(self.most_out, self.least, &mut self.menu);
        let value = self.desk.value();
        if value.0 < self.value.0 || (value.0 == self.value.0 && value.1 < self.value.1) {
            (self.best, self.value) = (self.desk.assignment(), value);
        }
    }

    /// What keeps the promise on the cost, where the answer so far does not.
    fn round_up(&mut self) {
        self.desk.load(&Assignment::default());
        self.round(|units| (units - SNAP).ceil());
        let value = self.desk.value();
        if value.0 <= self.value.0 && value.1 < self.value.1 {
            self.finish();
        }
    }

    /// Take units out of a few workloads and complete them at other prices, again and again.
    fn disturb(&mut self) -> Result<()> {
        let rounds = self.rounds();
        for round in 0..rounds {
            if self.control.cancelled() {
                return Err(Error::Cancelled);
            }
            let stream = Stream::new(0, Purpose::WholeMachines, round);
            self.desk.load(&self.best);
            self.prices.disturb(self.task.stock_price, NOISE, stream.inner(0));
            let workloads = self.desk.works.len() as u64;
            let touched: Vec<usize> = (1..=TOUCHED).map(|k| below(stream.bits(k), workloads) as usize).collect();
            for (k, &w) in (1..).zip(&touched) {
                let stream = stream.inner(k);
                for i in 0..self.desk.works[w].items.len() {
                    let units = u64::from(self.desk.works[w].items[i].units);
                    if units == 0 {
                        continue;
                    }
                    self.desk.add(w, i, -(below(stream.bits(i as u64), OUT).min(units) as i64));
                }
            }
            for w in touched {
                self.complete(w);
            }
            self.finish();
        }
        Ok(())
    }

    /// How many disturbances are worth their time: more, the more of the cost may yet be saved.
    fn rounds(&self) -> u64 {
        if !self.small {
            return 0;
        }
        let bound = self.desk.bound(self.task.stock_price);
        let open = self.value.0 + self.value.1 - bound;
        if open <= 0.0 {
            return 0;
        }
        (open / bound.max(0.0) / DISTURBANCE).clamp(DISTURBANCES[0], DISTURBANCES[1]) as u64
    }
}

/// A whole number in 0..limit-1 from 64 bits, for limits below 2^32.
fn below(bits: u64, limit: u64) -> u64 {
    ((bits >> 32) * limit) >> 32
}
