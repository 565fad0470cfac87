//! The cheapest way to cover what one workload still misses, with one or two more units.

use super::desk::Item;

/// Units that could be added to one workload, the largest rate first, with the cheapest of each beginning.
#[derive(Debug, Default)]
pub(super) struct Menu {
    entries: Vec<Entry>,
    /// Least cost per q/s of all entries.
    rate: f64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    qps: f64,
    cost: f64,
    /// Cost above what its rate is worth at [`Menu::rate`].
    excess: f64,
    item: u32,
    kind: u32,
    /// How many units of it may be taken at once.
    most: u32,
    /// Position of the cheapest entry of those up to here.
    cheapest: u32,
}

/// Items of the workload, by their index; each stands for one unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cover {
    pub cost: f64,
    items: [u32; 2],
    len: usize,
}

impl Cover {
    pub const NONE: Self = Self { cost: 0.0, items: [0; 2], len: 0 };

    pub fn items(&self) -> &[u32] {
        &self.items[..self.len]
    }
}

impl Menu {
    /// List what `offer` prices: `None` = not to be had, else the cost of a unit and how many there are.
    #[inline(always)]
    pub fn fill(&mut self, items: &[Item], offer: impl Fn(&Item) -> Option<(f64, u32)>) {
        self.price(items, offer);
        self.keep(f64::INFINITY);
    }

    /// The first half of [`Menu::fill`], after which [`Menu::rate`] is known.
    #[inline(always)]
    pub fn price(&mut self, items: &[Item], offer: impl Fn(&Item) -> Option<(f64, u32)>) {
        self.entries.clear();
        self.rate = f64::INFINITY;
        for (i, item) in items.iter().enumerate() {
            if let Some((cost, most)) = offer(item) {
                self.rate = self.rate.min(cost * item.per_qps);
                let (qps, kind) = (item.qps, item.kind);
                self.entries.push(Entry { qps, cost, excess: 0.0, item: i as u32, kind, most, cheapest: 0 });
            }
        }
    }

    /// The second half: keep the entries of less than `most` excess.
    pub fn keep(&mut self, most: f64) {
        let rate = self.rate;
        let mut least = f64::INFINITY;
        let (mut n, mut cheapest) = (0, 0);
        for i in 0..self.entries.len() {
            let entry = self.entries[i];
            let excess = entry.cost - rate * entry.qps;
            if excess < most {
                if entry.cost < least {
                    (least, cheapest) = (entry.cost, n as u32);
                }
                self.entries[n] = Entry { excess, cheapest, ..entry };
                n += 1;
            }
        }
        self.entries.truncate(n);
    }

    /// Least cost per q/s of all entries; infinite where there are none.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Largest rate of a unit, 0 where there is none.
    pub fn largest(&self) -> f64 {
        self.entries.first().map_or(0.0, |entry| entry.qps)
    }

    /// Item that covers part of `missing` at the least cost per q/s, and as many units as fit, at least one.
    pub fn cheapest_part(&self, missing: f64) -> Option<(usize, u32)> {
        let rate = |entry: &Entry| entry.cost / entry.qps.min(missing);
        let best = self.entries.iter().min_by(|a, b| rate(a).total_cmp(&rate(b)))?;
        let fitting = (missing / best.qps).clamp(1.0, f64::from(u32::MAX)) as u32;
        Some((best.item as usize, fitting.min(best.most)))
    }

    /// The cheapest cover of `missing` q/s by one or two units that costs less than `limit`.
    pub fn cover(&self, missing: f64, limit: f64) -> Option<Cover> {
        let entries = self.entries.as_slice();
        let mut best = Cover { cost: limit, ..Cover::NONE };
        let alone = entries.partition_point(|entry| entry.qps >= missing);
        if alone > 0 {
            let cheapest = &entries[entries[alone - 1].cheapest as usize];
            if cheapest.cost < best.cost {
                best = Cover { cost: cheapest.cost, items: [cheapest.item, 0], len: 1 };
            }
        }
        let mut budget = best.cost - self.rate * missing;
        // From the smallest rate up, what a unit leaves to cover shrinks, and the entries that do so reach further.
        let mut enough = 0;
        for entry in entries[alone..].iter().rev() {
            if entry.excess >= budget {
                continue;
            }
            let left = missing - entry.qps;
            while enough < entries.len() && entries[enough].qps >= left {
                enough += 1;
            }
            if enough == 0 {
                continue;
            }
            let other = &entries[entries[enough - 1].cheapest as usize];
            let cost = entry.cost + other.cost;
            let allowed = entry.kind != other.kind || entry.most.min(other.most) >= 2;
            if cost < best.cost && allowed {
                best = Cover { cost, items: [entry.item, other.item], len: 2 };
                budget = cost - self.rate * missing;
            }
        }
        (best.len > 0).then_some(best)
    }
}
