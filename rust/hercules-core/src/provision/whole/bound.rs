//! A lower bound on plans in whole machines, from stock prices.
//!
//! With prices u on the stock the workloads decouple, and each is a covering knapsack: whole units of the least price
//! `cost + u` for its demand, or the penalty for what is missing. The sum of their optima, less what the stock is worth,
//! bounds every plan from below, and more closely than the linear program does (Geoffrion 1974, Lagrangean relaxation).
//!
//! In terms of excess, which is what a unit costs above `v` per q/s, v the least of all, a knapsack is: the least excess
//! of its units plus v times the surplus. The unit that gives v has none, so it fills up; the others are enumerated by
//! rising excess until that alone is more than the best total found.

use super::desk::{COVER_TOL, Desk};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::provision::fleet::{Fleet, Interval};
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Sets of units looked at per workload; where they do not suffice, the bound is what is proven by then.
const MOST_SETS: usize = 4096;

/// Lower bound on `penalty * shortfall + cost` of every plan of the interval in whole machines. `stock_price` `[types]`:
/// any prices >= 0; those of the linear optimum give a good bound.
pub(super) fn bound(fleet: &Fleet<'_>, interval: &Interval<'_>, stock_price: &[f64], control: &Control) -> Result<f64> {
    let desk = Desk::new(fleet, interval, stock_price, fleet.rows());
    let mut total = 0.0;
    for (work, &penalty) in desk.works.iter().zip(interval.penalty) {
        if control.cancelled() {
            return Err(Error::Cancelled);
        }
        let demand = work.target * (1.0 - COVER_TOL);
        let units = work.items.iter().map(|item| {
            let price = item.cost + f64::from(item.size) * stock_price[item.kind as usize];
            (price, item.qps)
        });
        total += knapsack(units.collect(), demand, penalty);
    }
    Ok(total - interval.stock.iter().zip(stock_price).map(|(&stock, price)| f64::from(stock) * price).sum::<f64>())
}

/// Lower bound on the price of covering `demand` with whole units (price, rate), `penalty` per q/s that is missing.
pub(super) fn knapsack(mut units: Vec<(f64, f64)>, demand: f64, penalty: f64) -> f64 {
    let rate = |unit: &(f64, f64)| unit.0 / unit.1;
    let Some(filler) = (0..units.len()).min_by(|&a, &b| rate(&units[a]).total_cmp(&rate(&units[b]))) else {
        return penalty * demand;
    };
    let (price, fill) = units.swap_remove(filler);
    let least = price / fill;
    if penalty <= least {
        return penalty * demand;
    }
    let mut others: Vec<(f64, f64)> = units.iter().map(|(price, qps)| ((price - least * qps).max(0.0), *qps)).collect();
    others.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));

    // Beside the excess of units that serve `qps`: what the filler serves too much, or leaves.
    let rest = |qps: f64| {
        let left = demand - qps;
        if left <= 0.0 {
            return -least * left;
        }
        let short = (left - (left / fill).floor() * fill).max(0.0);
        (least * (fill - short)).min((penalty - least) * short)
    };
    let mut best = rest(0.0);
    let mut queue = BinaryHeap::new();
    if let Some(&(excess, qps)) = others.first() {
        queue.push(Set { excess, qps, last: 0 });
    }
    for _ in 0..MOST_SETS {
        let Some(set) = queue.pop() else { break };
        if set.excess >= best {
            queue.clear();
            break;
        }
        best = best.min(set.excess + rest(set.qps));
        let (excess, qps) = others[set.last];
        if set.qps < demand {
            queue.push(Set { excess: set.excess + excess, qps: set.qps + qps, ..set });
        }
        if let Some((next_excess, next_qps)) = others.get(set.last + 1) {
            let (excess, qps) = (set.excess - excess + next_excess, set.qps - qps + next_qps);
            queue.push(Set { excess, qps, last: set.last + 1 });
        }
    }
    let open = queue.peek().map_or(f64::INFINITY, |set| set.excess);
    least * demand + best.min(open)
}

/// Units other than the filler; `last` is the place of the dearest of them.
#[derive(Clone, Copy, Debug)]
struct Set {
    excess: f64,
    qps: f64,
    last: usize,
}

impl Ord for Set {
    /// Least excess first, then the least rate.
    fn cmp(&self, other: &Self) -> Ordering {
        other.excess.total_cmp(&self.excess).then(other.qps.total_cmp(&self.qps)).then(other.last.cmp(&self.last))
    }
}

impl PartialOrd for Set {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Set {}
