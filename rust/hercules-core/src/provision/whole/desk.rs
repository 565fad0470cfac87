//! What is being decided: for each workload a short list of items it may use, and how many units of each it has.

use crate::provision::fleet::{Assignment, Fleet, Interval};
use std::ops::Range;

/// A workload counts as covered when it misses no more than this part of its demand: room for the rounding of
/// `count * qps`, far below what a load forecast knows.
pub(super) const COVER_TOL: f64 = 1e-9;

/// Workloads whose columns are read together: two cache lines of each row.
const BLOCK: usize = 16;

/// A row on one workload. A unit is the group of machines in which it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// Rate of a unit.
    pub qps: f64,
    pub per_qps: f64,
    /// Cost of a unit.
    pub cost: f64,
    pub row: u32,
    /// Server type.
    pub kind: u32,
    /// Machines in a unit.
    pub size: u32,
    /// Units that the stock of its type makes.
    pub limit: u32,
    pub units: u32,
}

#[derive(Debug, Default)]
pub(super) struct Work {
    /// What it is to reach for now; at most its demand.
    pub target: f64,
    pub capacity: f64,
    /// Least cost of a q/s, the price of the stock included.
    load_price: f64,
    /// Largest rate first, then by row.
    pub items: Vec<Item>,
    /// Places of the items in use, in rising order.
    in_use: Vec<u32>,
}

impl Work {
    /// Items in use, with their places.
    pub fn used(&self) -> impl Iterator<Item = (usize, &Item)> {
        self.in_use.iter().map(|&i| (i as usize, &self.items[i as usize]))
    }

    /// What it lacks, 0 where that is no more than rounding.
    pub fn missing(&self) -> f64 {
        let missing = self.target - self.capacity;
        if missing > COVER_TOL * self.target { missing } else { 0.0 }
    }

    /// What it could do without.
    pub fn slack(&self) -> f64 {
        self.capacity - self.target + COVER_TOL * self.target
    }
}

/// All workloads of an interval, and the stock between them.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    fleet: Fleet<'a>,
    interval: Interval<'a>,
    /// Machines left of each type; below 0 while workloads negotiate.
    pub free: Vec<i64>,
    pub works: Vec<Work>,
}

impl<'a> Desk<'a> {
    /// Nothing assigned; each workload lists the `keep` items of least reduced cost under `price`.
    pub fn new(fleet: &Fleet<'a>, interval: &Interval<'a>, price: &[f64], keep: usize) -> Self {
        let works = interval.demand.iter().map(|&target| Work { target, ..Work::default() }).collect();
        let free = interval.stock.iter().map(|&machines| i64::from(machines)).collect();
        let mut desk = Self { fleet: *fleet, interval: *interval, free, works };
        let rows: Vec<usize> =
            (0..fleet.rows()).filter(|&r| interval.stock[fleet.row_type()[r] as usize] > 0).collect();
        // Rates and costs of row `r` on the workloads of a block.
        let cells = |r: usize, block: Range<usize>| {
            let kind = fleet.row_type()[r] as usize;
            let (watt, machine, price) = (interval.watt_cost(kind), interval.machine_cost(kind), price[kind]);
            let (qps, power) = fleet.row(r);
            qps[block.clone()].iter().zip(&power[block]).map(move |(qps, power)| (*qps, watt * power + machine + price))
        };
        let mut lists = vec![Shortlist::default(); BLOCK];
        for first in (0..fleet.workloads()).step_by(BLOCK) {
            let block = first..(first + BLOCK).min(fleet.workloads());
            let mut load_price = [f64::INFINITY; BLOCK];
            for &r in &rows {
                for (least, (qps, cost)) in load_price.iter_mut().zip(cells(r, block.clone())) {
                    let rate = cost / qps;
                    *least = if rate < *least { rate } else { *least }; // not where qps is 0
                }
            }
            for &r in &rows {
                for ((list, least), (qps, cost)) in lists.iter_mut().zip(load_price).zip(cells(r, block.clone())) {
                    let reduced = cost - least * qps;
                    if qps > 0.0 && reduced < list.below {
                        list.push(reduced, r, keep);
                    }
                }
            }
            for (w, (list, least)) in block.zip(lists.iter_mut().zip(load_price)) {
                let mut items: Vec<Item> = list.take(keep).map(|r| desk.item(r, w)).collect();
                items.sort_unstable_by(|a, b| b.qps.total_cmp(&a.qps).then(a.row.cmp(&b.row)));
                desk.works[w].items = items;
                desk.works[w].load_price = least;
            }
        }
        desk
    }

    fn item(&self, r: usize, w: usize) -> Item {
        let kind = self.fleet.row_type()[r] as usize;
        let (qps, power) = self.fleet.row(r);
        let size = self.fleet.group(r, w);
        let qps = f64::from(size) * qps[w];
        let cost = self.interval.watt_cost(kind) * power[w] + self.interval.machine_cost(kind);
        Item {
            qps,
            per_qps: 1.0 / qps,
            cost: f64::from(size) * cost,
            row: r as u32,
            kind: kind as u32,
            size,
            limit: self.interval.stock[kind] / size,
            units: 0,
        }
    }

    /// Let `w` use every row that can serve it and has machines left; false if it may already.
    pub fn widen(&mut self, w: usize) -> bool {
        let before = self.works[w].items.len();
        for r in 0..self.fleet.rows() {
            let size = i64::from(self.fleet.group(r, w));
            if self.free[self.fleet.row_type()[r] as usize] >= size && self.fleet.row(r).0[w] > 0.0 {
                self.place(r, w);
            }
        }
        self.works[w].items.len() > before
    }

    /// Index of row `r` among the items of `w`; it is added where it is missing.
    pub fn place(&mut self, r: usize, w: usize) -> usize {
        let known = |items: &[Item]| items.iter().position(|item| item.row as usize == r);
        if let Some(i) = known(&self.works[w].items) {
            return i;
        }
        let item = self.item(r, w);
        let items = &mut self.works[w].items;
        let at = items.partition_point(|other| precedes(other, &item));
        items.insert(at, item);
        for i in self.works[w].in_use.iter_mut().filter(|i| **i as usize >= at) {
            *i += 1;
        }
        at
    }

    /// Units of `item` that stock allows beside those in use.
    pub fn available(&self, item: &Item) -> u32 {
        let free = self.free[item.kind as usize].clamp(0, i64::from(u32::MAX)) as u32;
        if item.size == 1 { free } else { free / item.size }
    }

    /// Change the units of an item.
    pub fn add(&mut self, w: usize, i: usize, units: i64) {
        if units == 0 {
            return;
        }
        let work = &mut self.works[w];
        let item = &mut work.items[i];
        item.units = (i64::from(item.units) + units) as u32;
        self.free[item.kind as usize] -= units * i64::from(item.size);
        match (work.in_use.binary_search(&(i as u32)), item.units) {
            (Err(at), 1..) => work.in_use.insert(at, i as u32),
            (Ok(at), 0) => _ = work.in_use.remove(at),
            _ => {}
        }
        // Summed afresh: what is added to and taken from a sum leaves its rounding behind.
        work.capacity = work.used().map(|(_, item)| f64::from(item.units) * item.qps).sum();
    }

    pub fn penalty(&self, w: usize) -> f64 {
        self.interval.penalty[w]
    }

    /// Weighted shortfall and cost.
    pub fn value(&self) -> (f64, f64) {
        let mut value = (0.0, 0.0);
        for (work, penalty) in self.works.iter().zip(self.interval.penalty) {
            value.0 += penalty * work.missing();
            value.1 += work.used().map(|(_, item)| f64::from(item.units) * item.cost).sum::<f64>();
        }
        value
    }

    /// Lower bound on penalty times shortfall plus cost, for the prices that the lists were made with.
    pub fn bound(&self, price: &[f64]) -> f64 {
        let load: f64 = (self.works.iter().zip(self.interval.demand).zip(self.interval.penalty))
            .map(|((work, demand), penalty)| demand * work.load_price.min(*penalty))
            .sum();
        load - self.interval.stock.iter().zip(price).map(|(&stock, price)| f64::from(stock) * price).sum::<f64>()
    }

    /// Set what the workloads are to reach.
    pub fn aim(&mut self, targets: &[f64]) {
        for (work, &target) in self.works.iter_mut().zip(targets) {
            work.target = target;
        }
    }

    /// Machines in use.
    pub fn assignment(&self) -> Assignment<u32> {
        let mut places: Vec<(u32, u32, u32)> = Vec::new();
        for (w, work) in self.works.iter().enumerate() {
            places.extend(work.used().map(|(_, item)| (item.row, w as u32, item.units * item.size)));
        }
        places.sort_unstable();
        Assignment {
            row: places.iter().map(|place| place.0).collect(),
            workload: places.iter().map(|place| place.1).collect(),
            machines: places.iter().map(|place| place.2).collect(),
        }
    }

    /// Take over `assignment` in place of what is assigned.
    pub fn load(&mut self, assignment: &Assignment<u32>) {
        for w in 0..self.works.len() {
            let work = &mut self.works[w];
            for i in work.in_use.drain(..) {
                let item = &mut work.items[i as usize];
                self.free[item.kind as usize] += i64::from(item.units) * i64::from(item.size);
                item.units = 0;
            }
            work.capacity = 0.0;
        }
        for ((&r, &w), &machines) in assignment.row.iter().zip(&assignment.workload).zip(&assignment.machines) {
            let i = self.place(r as usize, w as usize);
            self.add(w as usize, i, i64::from(machines / self.works[w as usize].items[i].size));
        }
    }
}

fn precedes(a: &Item, b: &Item) -> bool {
    a.qps > b.qps || (a.qps == b.qps && a.row < b.row)
}

/// The rows of least reduced cost of a workload, found while reading all.
#[derive(Clone, Debug)]
struct Shortlist {
    /// Reduced cost and row.
    rows: Vec<(f64, usize)>,
    /// Others need not be listed.
    below: f64,
}

impl Default for Shortlist {
    fn default() -> Self {
        Self { rows: Vec::new(), below: f64::INFINITY }
    }
}

impl Shortlist {
    /// List row `r`; rows come in rising order.
    fn push(&mut self, reduced: f64, r: usize, keep: usize) {
        self.rows.push((reduced, r));
        if self.rows.len() >= 2 * keep {
            self.cut(keep);
            self.below = self.rows[keep - 1].0;
        }
    }

    /// Keep the first `keep` by reduced cost, then by row, the dearest of them last.
    fn cut(&mut self, keep: usize) {
        if self.rows.len() > keep {
            self.rows.select_nth_unstable_by(keep - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            self.rows.truncate(keep);
        }
    }

    /// The `keep` rows; the list is empty then.
    fn take(&mut self, keep: usize) -> impl Iterator<Item = usize> {
        self.cut(keep);
        self.below = f64::INFINITY;
        self.rows.drain(..).map(|(_, r)| r)
    }
}
