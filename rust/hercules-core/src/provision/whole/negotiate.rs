//! Who gets the scarce machines: every workload takes what is best for it at prices that rise where stock is overdrawn
//! and fall where it lies idle.
//!
//! The rule of negotiated congestion (McMurchie & Ebeling, "PathFinder", FPGA 1995), with prices per type in place of
//! delays per wire: a sharing that is not allowed is cheap at first, so that each sees its own best, then dearer sweep
//! by sweep, so that those give way for whom it costs least.

use super::cover::Menu;
use super::desk::{Desk, Item};
use super::moves::best_change;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::rng::Stream;

/// Cost of overdrawing, in prices of a machine: in the first sweep, and what each sweep multiplies it by.
const FIRST: f64 = 0.03;
const GROWTH: f64 = 1.05;
/// At the first of so many sweeps anything may be exchanged, at the others sets with a unit of an overdrawn type: few
/// others would be found.
const EVERY: usize = 10;
/// Change of a type's price per sweep for each machine over or idle (up to three), in prices of a machine.
const STEP: f64 = 0.01;

/// Prices of the types while workloads negotiate.
#[derive(Debug)]
pub(super) struct Prices {
    /// Of a machine.
    price: Vec<f64>,
    /// Beside it for one that is not there.
    over: Vec<f64>,
    /// What a machine costs, price included, on average over the items of its type.
    scale: Vec<f64>,
}

impl Prices {
    pub fn new(desk: &Desk<'_>, price: &[f64]) -> Self {
        let mut sums = vec![(0.0, 0.0); price.len()];
        for item in desk.works.iter().flat_map(|work| &work.items) {
            let sum = &mut sums[item.kind as usize];
            sum.0 += item.cost / f64::from(item.size) + price[item.kind as usize];
            sum.1 += 1.0;
        }
        let scale: Vec<f64> = sums.iter().map(|(sum, n)| if *n > 0.0 { sum / n } else { 0.0 }).collect();
        let over = scale.iter().map(|scale| FIRST * scale).collect();
        Self { price: price.to_vec(), over, scale }
    }

    /// Cost of a unit of `item` with the stock that it takes, while stock lasts.
    pub fn of(&self, item: &Item) -> f64 {
        item.cost + f64::from(item.size) * self.price[item.kind as usize]
    }

    fn to_add(&self, item: &Item, free: &[i64]) -> f64 {
        let (kind, size) = (item.kind as usize, f64::from(item.size));
        let over = if free[kind] < i64::from(item.size) { self.over[kind] } else { 0.0 };
        item.cost + size * (self.price[kind] + over)
    }

    fn to_give(&self, item: &Item, free: &[i64]) -> f64 {
        let (kind, size) = (item.kind as usize, f64::from(item.size));
        let over = if free[kind] < 0 { self.over[kind] } else { 0.0 };
        item.cost + size * (self.price[kind] + over)
    }

    /// Prices around `price`, up to `noise` of a machine's price away.
    pub fn disturb(&mut self, price: &[f64], noise: f64, stream: Stream) {
        for (h, (now, price)) in self.price.iter_mut().zip(price).enumerate() {
            *now = (price + noise * self.scale[h] * (2.0 * stream.uniform(h as u64) - 1.0)).max(0.0);
        }
    }

    /// Prices of the next sweep; whether stock holds.
    fn advance(&mut self, free: &[i64]) -> bool {
        let mut holds = true;
        for (h, &free) in free.iter().enumerate() {
            self.over[h] *= GROWTH;
            holds &= free >= 0;
            if free < 0 || (free > 0 && self.price[h] > 0.0) {
                self.price[h] = (self.price[h] - STEP * self.scale[h] * free.clamp(-3, 3) as f64).max(0.0);
            }
        }
        holds
    }
}

impl Desk<'_> {
    /// Sweep over the workloads until stock holds, at most `sweeps` times; then settle what is still overdrawn.
    pub fn negotiate(
        &mut self,
        prices: &mut Prices,
        sweeps: usize,
        most_out: usize,
        least: f64,
        menu: &mut Menu,
        control: &Control,
    ) -> Result<()> {
        for sweep in 0..sweeps {
            if control.cancelled() {
                return Err(Error::Cancelled);
            }
            for w in 0..self.works.len() {
                self.sweep(w, sweep % EVERY == 0, prices, most_out, least, menu);
            }
            if prices.advance(&self.free) {
                break;
            }
        }
        for h in 0..self.free.len() {
            while self.free[h] < 0 {
                self.settle(h, menu);
            }
        }
        Ok(())
    }

    fn sweep(&mut self, w: usize, all: bool, prices: &Prices, most_out: usize, least: f64, menu: &mut Menu) {
        if self.works[w].missing() > 0.0 {
            self.complete(w, menu, |desk, item| {
                let units = item.limit.saturating_sub(item.units);
                (units > 0).then(|| (prices.to_add(item, &desk.free), units))
            });
        }
        let (work, free) = (&self.works[w], self.free.as_slice());
        let gives = |item: &Item| all || free[item.kind as usize] < 0;
        if work.missing() > 0.0 || !work.used().any(|(_, item)| gives(item)) {
            return;
        }
        let offer = |item: &Item| {
            let units = item.limit.saturating_sub(item.units);
            (units > 0).then(|| (prices.to_add(item, free), units))
        };
        let worth = |item: &Item| prices.to_give(item, free);
        if let Some(change) = best_change(work, menu, offer, worth, gives, most_out, least) {
            self.try_change(w, &change);
        }
    }

    /// Have somebody give units of type `h` back: who loses the least load by one, then the least cost.
    fn settle(&mut self, h: usize, menu: &mut Menu) {
        let mut best: Option<(f64, f64, usize, usize)> = None;
        for (w, work) in self.works.iter().enumerate() {
            if work.used().all(|(_, item)| item.kind as usize != h) {
                continue;
            }
            menu.fill(&work.items, |item| self.at_cost(item));
            for (i, item) in work.used().filter(|(_, item)| item.kind as usize == h) {
                let short = (item.qps - work.slack()).max(0.0);
                let (lost, cost) = if short == 0.0 {
                    (0.0, -item.cost)
                } else if let Some(cover) = menu.cover(short, f64::INFINITY) {
                    (0.0, cover.cost - item.cost)
                } else {
                    (self.penalty(w) * (short - menu.largest()).max(0.0), -item.cost)
                };
                if best.is_none_or(|best| (lost, cost) < (best.0, best.1)) {
                    best = Some((lost, cost, w, i));
                }
            }
        }
        if let Some((_, _, w, i)) = best {
            // One by one, unless that would take all day.
            let item = &self.works[w].items[i];
            let over = (-self.free[h]).div_euclid(i64::from(item.size));
            self.add(w, i, -(over / 8).clamp(1, i64::from(item.units)));
            self.complete(w, menu, Self::at_cost);
        }
    }
}
