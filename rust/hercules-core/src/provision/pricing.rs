//! Passes over all columns of the program: the best few per workload at given prices, and the load prices themselves.
//!
//! A pass reads rates and powers once, in the order in which they lie, and does a handful of operations on each: cheap
//! enough to prove an optimum that was found on a small pool of columns.

use super::fleet::{Fleet, Interval};
use crate::cpu::Isa;
use crate::error::Result;

/// Below this share of eligible pairs the columns are kept as lists.
const SPARSE_BELOW: f64 = 0.4;

/// Up to one in this many workloads, single columns are read faster than all of them.
const FEW: usize = 64;

/// The eligible pairs of a fleet, as the matrices that they lie in or as lists, whichever is read faster.
#[derive(Debug)]
pub struct Columns<'a> {
    fleet: Fleet<'a>,
    sparse: Option<Lists>,
    kernels: Kernels,
}

/// The two passes over one row of a matrix, for one tier of instructions; the same bits in each.
#[derive(Clone, Copy, Debug)]
struct Kernels {
    lower: unsafe fn(&[f64], &[f64], f64, f64, &mut [f64]),
    collect: unsafe fn(u32, &[f64], &[f64], f64, f64, &mut Best),
}

impl Kernels {
    fn of(isa: Isa) -> Self {
        assert!(isa <= Isa::detected(), "tier above the CPU's");
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Self { lower: lower_avx512, collect: collect_avx512 },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Self { lower: lower_avx2, collect: collect_avx2 },
            _ => Self { lower, collect },
        }
    }
}

/// Eligible pairs by row.
#[derive(Debug)]
struct Lists {
    starts: Vec<usize>,
    workload: Vec<u32>,
    qps: Vec<f64>,
    power_w: Vec<f64>,
}

/// What a machine costs in an interval: `watt * power_w + machine`, both by type.
#[derive(Clone, Copy, Debug)]
pub struct Costs<'a> {
    interval: Option<&'a Interval<'a>>,
}

impl<'a> Costs<'a> {
    pub fn of(interval: &'a Interval<'a>) -> Self {
        Self { interval: Some(interval) }
    }

    /// Every machine for nothing.
    pub fn none() -> Self {
        Self { interval: None }
    }

    /// Cost of a watt and of a machine of type `h`.
    pub fn rates(&self, h: usize) -> (f64, f64) {
        self.interval.map_or((0.0, 0.0), |interval| (interval.watt_cost(h), interval.machine_cost(h)))
    }

    /// Cost of one machine of type `h` that draws `power_w`.
    pub fn machine(&self, h: usize, power_w: f64) -> f64 {
        let (watt, machine) = self.rates(h);
        watt * power_w + machine
    }
}

impl<'a> Columns<'a> {
    pub fn new(fleet: Fleet<'a>) -> Result<Self> {
        let cells = fleet.rows() * fleet.workloads();
        let sparse = (eligible(&fleet) as f64) < SPARSE_BELOW * cells as f64;
        Ok(Self::with(fleet, sparse, Isa::chosen(None)?))
    }

    /// As lists where `sparse`, by the kernels of `isa`.
    pub(super) fn with(fleet: Fleet<'a>, sparse: bool, isa: Isa) -> Self {
        Self { fleet, sparse: sparse.then(|| Lists::new(&fleet)), kernels: Kernels::of(isa) }
    }

    pub fn fleet(&self) -> &Fleet<'a> {
        &self.fleet
    }

    /// Lower `v` [workloads] to `min (cost + u) / qps` over all rows: with `v` the penalties before, the load prices.
    pub fn lower_to_prices(&self, costs: Costs<'_>, u: &[f64], v: &mut [f64]) {
        for (r, &h) in self.fleet.row_type().iter().enumerate() {
            let (watt, machine) = costs.rates(h as usize);
            let add = machine + u[h as usize];
            if let Some(lists) = &self.sparse {
                let part = lists.starts[r]..lists.starts[r + 1];
                let columns = lists.workload[part.clone()].iter().zip(&lists.qps[part.clone()]);
                for ((&w, &qps), &power_w) in columns.zip(&lists.power_w[part]) {
                    let price = (watt * power_w + add) / qps;
                    let least = &mut v[w as usize];
                    *least = if price < *least { price } else { *least };
                }
            } else {
                let (qps, power_w) = self.fleet.row(r);
                // SAFETY: the tier of the kernels is one that this CPU has.
                unsafe { (self.kernels.lower)(qps, power_w, watt, add, v) }
            }
        }
    }

    /// Offer every column with `cost + u < limit[w] * qps` to `best`, which lowers its limits as it fills.
    pub fn collect(&self, costs: Costs<'_>, u: &[f64], best: &mut Best) {
        for (r, &h) in self.fleet.row_type().iter().enumerate() {
            let (watt, machine) = costs.rates(h as usize);
            let add = machine + u[h as usize];
            if let Some(lists) = &self.sparse {
                for place in lists.starts[r]..lists.starts[r + 1] {
                    let (w, qps) = (lists.workload[place] as usize, lists.qps[place]);
                    let cost = watt * lists.power_w[place] + add;
                    if cost < best.limit[w] * qps {
                        best.offer(w, r as u32, cost / qps);
                    }
                }
            } else {
                let (qps, power_w) = self.fleet.row(r);
                // SAFETY: the tier of the kernels is one that this CPU has.
                unsafe { (self.kernels.collect)(r as u32, qps, power_w, watt, add, best) }
            }
        }
    }

    /// [`Columns::collect`] for some workloads only, `which`; for a few of them, only their columns are read.
    pub fn collect_for(&self, which: &[u32], costs: Costs<'_>, u: &[f64], best: &mut Best) {
        if self.sparse.is_some() || which.len() * FEW > self.fleet.workloads() {
            return self.collect(costs, u, best);
        }
        for (r, &h) in self.fleet.row_type().iter().enumerate() {
            let (watt, machine) = costs.rates(h as usize);
            let add = machine + u[h as usize];
            let (qps, power_w) = self.fleet.row(r);
            for &w in which {
                let w = w as usize;
                let cost = watt * power_w[w] + add;
                if cost < best.limit[w] * qps[w] {
                    best.offer(w, r as u32, cost / qps[w]);
                }
            }
        }
    }

    /// Largest `cost / qps` of each workload over the rows whose type is in stock; 0 without any.
    pub fn worst(&self, costs: Costs<'_>, stock: &[u32]) -> Vec<f64> {
        let mut worst = vec![0.0_f64; self.fleet.workloads()];
        for (r, &h) in self.fleet.row_type().iter().enumerate() {
            if stock[h as usize] == 0 {
                continue;
            }
            let (watt, machine) = costs.rates(h as usize);
            let (qps, power_w) = self.fleet.row(r);
            for ((worst, &qps), &power_w) in worst.iter_mut().zip(qps).zip(power_w) {
                let cost = watt * power_w + machine;
                if cost > *worst * qps && qps > 0.0 {
                    *worst = cost / qps;
                }
            }
        }
        worst
    }
}

/// Number of eligible pairs.
fn eligible(fleet: &Fleet<'_>) -> usize {
    (0..fleet.rows()).map(|r| fleet.row(r).0.iter().filter(|q| **q > 0.0).count()).sum()
}

impl Lists {
    fn new(fleet: &Fleet<'_>) -> Self {
        let eligible = eligible(fleet);
        let mut lists = Self {
            starts: Vec::with_capacity(fleet.rows() + 1),
            workload: Vec::with_capacity(eligible),
            qps: Vec::with_capacity(eligible),
            power_w: Vec::with_capacity(eligible),
        };
        lists.starts.push(0);
        for r in 0..fleet.rows() {
            let (qps, power_w) = fleet.row(r);
            for (w, (&qps, &power_w)) in qps.iter().zip(power_w).enumerate() {
                if qps > 0.0 {
                    lists.workload.push(w as u32);
                    lists.qps.push(qps);
                    lists.power_w.push(power_w);
                }
            }
            lists.starts.push(lists.qps.len());
        }
        lists
    }
}

/// The `k` cheapest columns of each workload, by `(cost + u) / qps`; of equals, those of lower rows.
#[derive(Debug)]
pub struct Best {
    k: usize,
    /// Columns that are not below this are not wanted, by workload.
    pub limit: Vec<f64>,
    count: Vec<u32>,
    key: Vec<f64>,
    row: Vec<u32>,
}

impl Best {
    pub fn new(k: usize, limit: Vec<f64>) -> Self {
        let n = limit.len();
        Self { k, limit, count: vec![0; n], key: vec![0.0; n * k], row: vec![0; n * k] }
    }

    /// Rows kept for workload `w`, the cheapest first.
    pub fn rows(&self, w: usize) -> &[u32] {
        &self.row[w * self.k..w * self.k + self.count[w] as usize]
    }

    fn offer(&mut self, w: usize, row: u32, key: f64) {
        let (start, count) = (w * self.k, self.count[w] as usize);
        let keys = &mut self.key[start..start + self.k];
        let rows = &mut self.row[start..start + self.k];
        let mut place = count.min(self.k - 1);
        if count == self.k && key >= keys[place] {
            return; // passed the limit by rounding
        }
        while place > 0 && keys[place - 1] > key {
            (keys[place], rows[place]) = (keys[place - 1], rows[place - 1]);
            place -= 1;
        }
        (keys[place], rows[place]) = (key, row);
        if count < self.k {
            self.count[w] += 1;
        }
        if count + 1 >= self.k {
            self.limit[w] = keys[self.k - 1];
        }
    }
}

#[inline(always)]
fn lower(qps: &[f64], power_w: &[f64], watt: f64, add: f64, v: &mut [f64]) {
    for ((&qps, &power_w), least) in qps.iter().zip(power_w).zip(v) {
        // Not eligible: x / 0 is infinite or NaN, and neither is below the least so far.
        let price = (watt * power_w + add) / qps;
        *least = if price < *least { price } else { *least };
    }
}

/// Columns looked at together: one branch for all of them.
const LANES: usize = 16;

#[inline(always)]
fn collect(row: u32, qps: &[f64], power_w: &[f64], watt: f64, add: f64, best: &mut Best) {
    let n = qps.len();
    let mut start = 0;
    while start < n {
        let end = (start + LANES).min(n);
        let mut any = false;
        for ((&qps, &power_w), &limit) in qps[start..end].iter().zip(&power_w[start..end]).zip(&best.limit[start..end])
        {
            any |= watt * power_w + add < limit * qps;
        }
        if any {
            for w in start..end {
                let cost = watt * power_w[w] + add;
                if cost < best.limit[w] * qps[w] {
                    best.offer(w, row, cost / qps[w]);
                }
            }
        }
        start = end;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn lower_avx2(qps: &[f64], power_w: &[f64], watt: f64, add: f64, v: &mut [f64]) {
    lower(qps, power_w, watt, add, v);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn lower_avx512(qps: &[f64], power_w: &[f64], watt: f64, add: f64, v: &mut [f64]) {
    lower(qps, power_w, watt, add, v);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn collect_avx2(row: u32, qps: &[f64], power_w: &[f64], watt: f64, add: f64, best: &mut Best) {
    collect(row, qps, power_w, watt, add, best);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn collect_avx512(row: u32, qps: &[f64], power_w: &[f64], watt: f64, add: f64, best: &mut Best) {
    collect(row, qps, power_w, watt, add, best);
}
