//! A start for the simplex method: stock prices by smoothed bidding, and a first basis by serving workloads greedily.

use super::forest::{Kind, Variable};
use super::pool::Pool;
use super::simplex::Simplex;

/// Rounds of bidding on one pool.
const ROUNDS: i32 = 6;
/// A column dearer than the best by this part gets a fraction of its load: in the first round, and by how much less in
/// each further one.
const SOFTNESS: (f64, f64) = (0.10, 0.905);
/// Part of its own price by which a type's price moves when asked for twice its stock: the same.
const PACE: (f64, f64) = (0.25, 0.92);

/// A column as its bids need it: price per q/s at u = 0, and its growth with u.
struct Bid {
    h: u32,
    base: f64,
    per_machine: f64,
    price: f64,
}

/// Move `u` [types] towards stock prices at which the load, spread over cheap columns, meets the stock.
///
/// The load of each workload is divided over its columns by a soft minimum of their price per q/s; types that are
/// asked for more than they have become dearer, the others cheaper. A heuristic: it decides how far the simplex method
/// has to go, not where it ends.
pub fn bid(pool: &Pool, needed: &[f64], u: &mut [f64]) {
    let types = u.len();
    let mut asked = vec![0.0; types];
    // What a machine of the type costs on average: the unit in which its price moves.
    let mut unit = vec![(0.0, 0.0); types];
    for column in &pool.columns {
        let unit = &mut unit[column.a as usize];
        *unit = (unit.0 + column.cost, unit.1 + 1.0);
    }
    let unit: Vec<f64> = unit.iter().map(|(sum, n)| if *n > 0.0 { sum / n } else { 0.0 }).collect();
    let mut bids: Vec<Bid> = pool
        .columns
        .iter()
        .map(|column| {
            let per_machine = 1.0 / column.qps;
            Bid { h: column.a, base: column.cost * per_machine, per_machine, price: 0.0 }
        })
        .collect();
    let (mut softness, mut pace) = (SOFTNESS.0, PACE.0);
    for _ in 0..ROUNDS {
        asked.fill(0.0);
        for (w, &load) in needed[types..].iter().enumerate() {
            let bids = &mut bids[pool.of_workload(w)];
            let mut least = f64::INFINITY;
            for bid in bids.iter_mut() {
                bid.price = bid.base + u[bid.h as usize] * bid.per_machine;
                least = least.min(bid.price);
            }
            if bids.is_empty() || least <= 0.0 {
                continue;
            }
            let steepness = 1.0 / (least * softness);
            let mut total = 0.0;
            for bid in bids.iter_mut() {
                bid.price = soft((bid.price - least) * steepness);
                total += bid.price;
            }
            let load = load / total;
            for bid in bids.iter() {
                asked[bid.h as usize] += load * bid.price * bid.per_machine;
            }
        }
        for h in 0..types {
            let stock = needed[h];
            let excess =
                if stock > 0.0 { (asked[h] / stock - 1.0).clamp(-1.0, 2.0) } else { f64::from(asked[h] > 0.0) };
            u[h] = (u[h] + pace * excess * (unit[h] + u[h])).max(0.0);
        }
        softness *= SOFTNESS.1;
        pace *= PACE.1;
    }
}

/// A weight that falls with x >= 0 like `exp(-x)` near 0, and slower further out; without the library's.
fn soft(x: f64) -> f64 {
    let y = 1.0 / (1.0 + 0.25 * x);
    (y * y) * (y * y)
}

/// Serve workload after workload from its cheapest columns at prices `u`; those that lose most by waiting go first.
///
/// Every machine taken exhausts its type or its workload, so what is taken is a basis.
pub fn serve(simplex: &mut Simplex, u: &[f64]) {
    let types = simplex.forest.types();
    let workloads = simplex.penalty.len();
    let mut free = simplex.needed[..types].to_vec();
    let mut order: Vec<(f64, u32)> = (0..workloads)
        .map(|w| {
            let (mut first, mut second) = (simplex.penalty[w], simplex.penalty[w]);
            for column in &simplex.pool.columns[simplex.pool.of_workload(w)] {
                let price = (column.cost + u[column.a as usize]) / column.qps;
                if price < first {
                    (first, second) = (price, first);
                } else if price < second {
                    second = price;
                }
            }
            ((second - first) * simplex.needed[types + w], w as u32)
        })
        .collect();
    order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut places: Vec<(f64, u32)> = Vec::new();
    for (_, w) in order {
        let mut short = simplex.needed[types + w as usize];
        places.clear();
        for place in simplex.pool.of_workload(w as usize) {
            let column = &simplex.pool.columns[place];
            places.push(((column.cost + u[column.a as usize]) / column.qps, place as u32));
        }
        places.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for &(_, place) in &places {
            let column = simplex.pool.columns[place as usize];
            let h = column.a as usize;
            if free[h] <= 0.0 {
                continue;
            }
            let machines = short / column.qps;
            let leaving = if machines <= free[h] { column.b } else { column.a };
            let taken = machines.min(free[h]);
            replace(simplex, leaving, &column.variable(), taken);
            if leaving == column.b {
                free[h] -= taken;
                break;
            }
            free[h] = 0.0;
            short -= taken * column.qps;
        }
    }
    simplex.refresh();
}

fn replace(simplex: &mut Simplex, leaving: u32, enter: &Variable, flow: f64) {
    debug_assert!(enter.kind == Kind::Pair);
    simplex.forest.detach(leaving);
    simplex.forest.attach(enter, flow);
}
