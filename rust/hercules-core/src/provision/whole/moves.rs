//! Moves of one workload: complete it, or exchange some of its units for a cheaper set.

use super::cover::{Cover, Menu};
use super::desk::{Desk, Item, Work};

/// Most items in use whose units are tried in exchange.
const MOST_USED: usize = 16;

/// Passes of exchanges after which a plan is taken as it is: only fleets of very unlike servers come near.
const MOST_PASSES: usize = 200;

/// Units taken out of a workload and units put in, by item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub gain: f64,
    out: [u32; 3],
    taken: usize,
    cover: Cover,
}

impl Change {
    pub fn taken(&self) -> &[u32] {
        &self.out[..self.taken]
    }
}

/// The best change of a covered workload that takes out at most `most_out` units (1 to 3), one of them of an item that
/// `gives`: the most worth under `worth` of what is taken out, less the cost under `offer` ([`Menu::fill`]) of what
/// covers again; more than `least`, or None.
///
/// At the least rate of the menu, a change gains at most the excess over that rate of what is taken out, plus the slack
/// at that rate. Most sets fall to this bound, and much of the menu before them.
#[inline(always)] // the closures differ from caller to caller
pub(super) fn best_change(
    work: &Work,
    menu: &mut Menu,
    offer: impl Fn(&Item) -> Option<(f64, u32)>,
    worth: impl Fn(&Item) -> f64,
    gives: impl Fn(&Item) -> bool,
    most_out: usize,
    least: f64,
) -> Option<Change> {
    menu.price(&work.items, offer);
    let slack = work.slack();
    let rate = if menu.rate() < f64::INFINITY { menu.rate() } else { 0.0 };
    let mut used = [Used::default(); MOST_USED];
    let mut n = 0;
    let mut givers = 0;
    let mut most = 0.0;
    // Those that give first: a set that has one begins with one.
    for turn in [true, false] {
        for (i, item) in work.used().filter(|(_, item)| gives(item) == turn).take(MOST_USED - n) {
            let worth = worth(item);
            used[n] = Used { item: i as u32, units: item.units, qps: item.qps, worth };
            most = f64::max(most, worth - rate * item.qps);
            n += 1;
        }
        givers = if turn { n } else { givers };
    }
    let used = &used[..n];
    let at_best = rate * slack + most_out as f64 * most;
    if at_best <= least {
        return None;
    }
    menu.keep(at_best - least);

    let mut best = Change { gain: least, out: [0; 3], taken: 0, cover: Cover::NONE };
    let mut consider = |out: [u32; 3], taken: usize, qps: f64, worth: f64| {
        let missing = qps - slack;
        if missing <= 0.0 {
            if worth > best.gain {
                best = Change { gain: worth, out, taken, cover: Cover::NONE };
            }
        } else if worth - best.gain > rate * missing
            && let Some(cover) = menu.cover(missing, worth - best.gain)
        {
            best = Change { gain: worth - cover.cost, out, taken, cover };
        }
    };
    for (a, i) in used[..givers].iter().enumerate() {
        consider([i.item, 0, 0], 1, i.qps, i.worth);
        if most_out < 2 {
            continue;
        }
        for (b, j) in used.iter().enumerate().skip(a + usize::from(i.units < 2)) {
            let (qps, worth) = (i.qps + j.qps, i.worth + j.worth);
            consider([i.item, j.item, 0], 2, qps, worth);
            if most_out < 3 {
                continue;
            }
            let taken_j = 1 + u32::from(a == b);
            for k in &used[b + usize::from(j.units <= taken_j)..] {
                consider([i.item, j.item, k.item], 3, qps + k.qps, worth + k.worth);
            }
        }
    }
    (best.taken > 0).then_some(best)
}

/// An item in use.
#[derive(Clone, Copy, Default)]
struct Used {
    item: u32,
    units: u32,
    qps: f64,
    worth: f64,
}

impl Desk<'_> {
    /// Make `change`, unless the workload would be short after it: sums of rates round.
    pub fn try_change(&mut self, w: usize, change: &Change) -> bool {
        for &i in change.taken() {
            self.add(w, i as usize, -1);
        }
        for &i in change.cover.items() {
            self.add(w, i as usize, 1);
        }
        let covers = self.works[w].missing() == 0.0;
        if !covers {
            for &i in change.cover.items() {
                self.add(w, i as usize, -1);
            }
            for &i in change.taken() {
                self.add(w, i as usize, 1);
            }
        }
        covers
    }

    /// Add units to `w` until it is covered or nothing is left that helps. `offer`: cost of a unit, and how many there
    /// are; `None` = not to be had.
    pub fn complete(&mut self, w: usize, menu: &mut Menu, offer: impl Fn(&Self, &Item) -> Option<(f64, u32)>) {
        loop {
            let work = &self.works[w];
            let missing = work.missing();
            if missing == 0.0 {
                return;
            }
            let before = work.capacity;
            menu.fill(&work.items, |item| offer(self, item));
            if let Some(cover) = menu.cover(missing, f64::INFINITY) {
                for &i in cover.items() {
                    self.add(w, i as usize, 1);
                }
            } else if let Some((i, units)) = menu.cheapest_part(missing) {
                self.add(w, i, i64::from(units));
            } else if self.widen(w) {
                continue;
            } else {
                return;
            }
            if self.works[w].capacity <= before {
                return; // a rate too small to be felt beside the others
            }
        }
    }

    /// A unit at its own cost, where stock has one.
    pub fn at_cost(&self, item: &Item) -> Option<(f64, u32)> {
        let units = self.available(item);
        (units > 0).then_some((item.cost, units))
    }

    /// Exchange units of each workload for cheaper ones that are free, while that pays.
    pub fn polish(&mut self, most_out: usize, least: f64, menu: &mut Menu) {
        let n = self.works.len();
        let mut idle = 0; // workloads looked at since the last change
        for w in (0..n).cycle().take(MOST_PASSES * n) {
            idle += 1;
            for _ in 0..MOST_PASSES {
                let work = &self.works[w];
                if work.missing() > 0.0 {
                    break;
                }
                match best_change(work, menu, |item| self.at_cost(item), |item| item.cost, |_| true, most_out, least) {
                    Some(change) if self.try_change(w, &change) => idle = 1,
                    _ => break,
                }
            }
            if idle == n {
                return;
            }
        }
    }
}
