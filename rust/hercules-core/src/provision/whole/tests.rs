use super::bound::knapsack;
use super::cover::Menu;
use super::desk::{Desk, Item};
use super::moves::best_change;
use super::*;
use proptest::prelude::*;

/// Units with the given rate, cost and number to be had, the largest rate first; each of a type of its own, or all of
/// one.
fn items(units: &[(f64, f64, u32)], one_type: bool) -> Vec<Item> {
    let mut items: Vec<Item> = (0..)
        .zip(units)
        .map(|(i, &(qps, cost, units))| {
            let kind = if one_type { 0 } else { i };
            Item { qps, per_qps: 1.0 / qps, cost, row: i, kind, size: 1, limit: units, units }
        })
        .collect();
    items.sort_by(|a, b| b.qps.total_cmp(&a.qps).then(a.row.cmp(&b.row)));
    items
}

fn units() -> impl Strategy<Value = Vec<(f64, f64, u32)>> {
    let rate = prop_oneof![(1..9u32).prop_map(f64::from), 0.5..9.0];
    let cost = prop_oneof![Just(0.0), (1..9u32).prop_map(f64::from), 0.5..9.0];
    prop::collection::vec((rate, cost, 1..4u32), 1..7)
}

proptest! {
    /// Among all sets of up to two units, none that covers is cheaper.
    #[test]
    fn a_cover_is_the_cheapest(units in units(), missing in 0.1..20.0f64, one_type: bool) {
        let items = items(&units, one_type);
        let mut menu = Menu::default();
        menu.fill(&items, |item| Some((item.cost, item.units)));
        let mut best = f64::INFINITY;
        let n = items.len();
        let none = n; // place of "nothing"
        for i in 0..n {
            for j in i..=n {
                let set: Vec<usize> = [i, j].into_iter().filter(|&a| a != none).collect();
                let allowed = set.iter().all(|&a| {
                    let same = set.iter().filter(|&&b| items[b].kind == items[a].kind).count();
                    same as u32 <= items[a].units
                });
                let rate: f64 = set.iter().map(|&a| items[a].qps).sum();
                if allowed && rate >= missing {
                    best = best.min(set.iter().map(|&a| items[a].cost).sum());
                }
            }
        }
        match menu.cover(missing, f64::INFINITY) {
            Some(cover) => {
                let chosen = |a: &u32| items[*a as usize];
                prop_assert!(cover.items().iter().map(|a| chosen(a).qps).sum::<f64>() >= missing - 1e-12);
                let cost: f64 = cover.items().iter().map(|a| chosen(a).cost).sum();
                prop_assert!((cost - cover.cost).abs() < 1e-12);
                prop_assert!(cover.cost >= best - 1e-12);
                // Where units are few, the second cheapest may do and is not looked at.
                prop_assert!(cover.cost <= best + 1e-12 || items.iter().any(|item| item.units < 2));
            }
            None => prop_assert!(best == f64::INFINITY || items.iter().any(|item| item.units < 2)),
        }
    }

    /// Among all sets of up to `out` units with one that gives, and of up to two that cover again, none gains more.
    #[test]
    fn a_change_is_the_best(units in units(), part in 0.3..1.0f64, out in 1..=3usize, givers: [bool; 7]) {
        let n = units.len();
        let qps: Vec<f64> = units.iter().map(|unit| unit.0).collect();
        let power: Vec<f64> = units.iter().map(|unit| unit.1).collect();
        let rows: Vec<u32> = (0..n as u32).collect();
        let fleet = Fleet::new(1, n, &qps, &power, &rows, None).unwrap();
        let demand = [part * units.iter().map(|unit| unit.0 * f64::from(unit.2)).sum::<f64>()];
        let interval =
            Interval { demand: &demand, stock: &vec![99; n], penalty: &[1e3], watt_cost: None, machine_cost: None };
        let mut desk = Desk::new(&fleet, &interval, &vec![0.0; n], n);
        for i in 0..n {
            let row = desk.works[0].items[i].row as usize;
            desk.add(0, i, i64::from(units[row].2));
        }
        let work = &desk.works[0];
        let gives = |item: &Item| givers[item.row as usize];
        let (offer, worth) = (|item: &Item| Some((item.cost, 9)), |item: &Item| 1.2 * item.cost);
        let found = best_change(work, &mut Menu::default(), offer, worth, gives, out, 1e-9);

        let none = n; // place of "nothing"
        let sets: Vec<[usize; 3]> =
            (0..(n + 1).pow(3)).map(|k| [k % (n + 1), k / (n + 1) % (n + 1), k / (n + 1).pow(2)]).collect();
        let some = |set: &[usize; 3]| -> Vec<Item> {
            set.iter().filter(|&&i| i != none).map(|&i| work.items[i]).collect()
        };
        let sum = |set: &[Item], of: fn(&Item) -> f64| set.iter().map(of).sum::<f64>();
        let added: Vec<(f64, f64)> = sets
            .iter()
            .map(some)
            .filter(|set| set.len() <= 2)
            .map(|set| (sum(&set, |item| item.qps), sum(&set, |item| item.cost)))
            .collect();
        let mut best = 1e-9;
        for set in sets.iter().map(some) {
            let there = |item: &Item| set.iter().filter(|other| other.row == item.row).count() <= item.units as usize;
            if set.len() <= out && set.iter().all(there) && set.iter().any(gives) {
                let missing = sum(&set, |item| item.qps) - work.slack();
                let covers = added.iter().filter(|cover| cover.0 >= missing).map(|cover| cover.1);
                best = f64::max(best, sum(&set, worth) - covers.fold(f64::INFINITY, f64::min));
            }
        }
        match found {
            Some(change) => {
                prop_assert!((change.gain - best).abs() < 1e-6, "{} instead of {best}", change.gain);
                prop_assert!(change.taken().iter().any(|&i| gives(&work.items[i as usize])));
            }
            None => prop_assert!(best < 1e-6, "nothing instead of {best}"),
        }
    }

    /// Each workload lists the rows of least reduced cost, whatever the order in which they come.
    #[test]
    fn a_list_has_the_least_reduced_costs(
        cells in prop::collection::vec((0..9u32, 1..9u32), 40 * 19),
        stock in prop::collection::vec(0..3u32, 40),
        price in prop::collection::vec(0..4u32, 40),
        keep in 1..45usize,
    ) {
        let (n, workloads) = (40, 19);
        let qps: Vec<f64> = cells.iter().map(|cell| f64::from(cell.0)).collect();
        let power: Vec<f64> = cells.iter().map(|cell| f64::from(cell.1)).collect();
        let price: Vec<f64> = price.iter().map(|&price| f64::from(price)).collect();
        let rows: Vec<u32> = (0..n as u32).collect();
        let fleet = Fleet::new(workloads, n, &qps, &power, &rows, None).unwrap();
        let demand = vec![1.0; workloads];
        let interval =
            Interval { demand: &demand, stock: &stock, penalty: &demand, watt_cost: None, machine_cost: None };
        let desk = Desk::new(&fleet, &interval, &price, keep);
        for (w, work) in desk.works.iter().enumerate() {
            let cell = |r: usize| (qps[r * workloads + w], power[r * workloads + w] + price[r]);
            let able: Vec<usize> = (0..n).filter(|&r| stock[r] > 0 && cell(r).0 > 0.0).collect();
            let least = able.iter().map(|&r| cell(r).1 / cell(r).0).fold(f64::INFINITY, f64::min);
            let mut expected: Vec<(f64, usize)> = able.iter().map(|&r| (cell(r).1 - least * cell(r).0, r)).collect();
            expected.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let mut expected: Vec<usize> = expected.iter().take(keep).map(|row| row.1).collect();
            expected.sort_by(|&a, &b| cell(b).0.total_cmp(&cell(a).0).then(a.cmp(&b)));
            let listed: Vec<usize> = work.items.iter().map(|item| item.row as usize).collect();
            prop_assert_eq!(listed, expected);
        }
    }

    /// What a change says it gains is what it gains, and it keeps the workload covered.
    #[test]
    fn a_change_gains_what_it_says(units in units(), part in 0.05..1.0f64, out in 1..=3usize) {
        let qps: Vec<f64> = units.iter().map(|unit| unit.0).collect();
        let power: Vec<f64> = units.iter().map(|unit| unit.1).collect();
        let stock: Vec<u32> = units.iter().map(|unit| 2 * unit.2).collect();
        let rows: Vec<u32> = (0..qps.len() as u32).collect();
        let fleet = Fleet::new(1, qps.len(), &qps, &power, &rows, None).unwrap();
        let demand = [part * units.iter().map(|unit| unit.0 * f64::from(unit.2)).sum::<f64>()];
        let interval = Interval { demand: &demand, stock: &stock, penalty: &[1e3], watt_cost: None, machine_cost: None };
        let mut desk = Desk::new(&fleet, &interval, &vec![0.0; qps.len()], 24);
        for i in 0..qps.len() {
            let row = desk.works[0].items[i].row as usize;
            desk.add(0, i, i64::from(units[row].2));
        }
        let mut menu = Menu::default();
        while {
            let before = desk.value();
            let offer = |item: &Item| desk.at_cost(item);
            let change = best_change(&desk.works[0], &mut menu, offer, |item| item.cost, |_| true, out, 1e-9);
            change.is_some_and(|change| {
                let done = desk.try_change(0, &change);
                let after = desk.value();
                assert!(done && (before.1 - change.gain - after.1).abs() < 1e-9 && change.gain > 1e-9);
                assert!(after.0 == 0.0 && desk.free.iter().all(|&free| free >= 0));
                true
            })
        } {}
    }

    /// The knapsack is that of all numbers of units, and no more than it where the sets looked at do not suffice.
    #[test]
    fn a_knapsack_is_that_of_all_counts(units in units(), demand in 0.0..25.0f64, penalty in 0.1..20.0f64) {
        let units: Vec<(f64, f64)> = units.iter().take(4).map(|&(qps, cost, _)| (cost, qps)).collect();
        let mut best = f64::INFINITY;
        let most: Vec<usize> = units.iter().map(|unit| (demand / unit.1).ceil() as usize).collect();
        let mut counts = vec![0usize; units.len()];
        loop {
            let of = |part: fn(&(f64, f64)) -> f64| -> f64 {
                counts.iter().zip(&units).map(|(&n, unit)| n as f64 * part(unit)).sum()
            };
            best = best.min(of(|unit| unit.0) + penalty * (demand - of(|unit| unit.1)).max(0.0));
            let Some(place) = (0..counts.len()).find(|&i| counts[i] < most[i]) else { break };
            counts[..place].fill(0);
            counts[place] += 1;
        }
        let found = knapsack(units.clone(), demand, penalty);
        prop_assert!(found <= best + 1e-9, "{found} > {best}");
        prop_assert!(found >= best - 1e-9 || units.iter().filter(|unit| unit.0 == 0.0).count() > 1, "{found} < {best}");
    }
}

fn one(
    qps: &[f64],
    power: &[f64],
    demand: &[f64],
    stock: &[u32],
    machines: &[(u32, u32, f64)],
    price: &[f64],
) -> Vec<(u32, u32, u32)> {
    let rows: Vec<u32> = (0..stock.len() as u32).collect();
    let fleet = Fleet::new(demand.len(), stock.len(), qps, power, &rows, None).unwrap();
    let penalty = vec![1e3; demand.len()];
    let timeline = Timeline { demand, stock, penalty: Some(&penalty), watt_cost: None, machine_cost: None };
    let row: Vec<u32> = machines.iter().map(|place| place.0).collect();
    let workload: Vec<u32> = machines.iter().map(|place| place.1).collect();
    let counts: Vec<f64> = machines.iter().map(|place| place.2).collect();
    let starts = [0, row.len()];
    let relaxed = Relaxed { starts: &starts, row: &row, workload: &workload, machines: &counts, stock_price: price };
    let answers = whole_machines(&fleet, &timeline, &relaxed, true, &Control::new()).unwrap();
    let whole = answers[0].clone().unwrap();
    let cost: f64 = whole
        .machines
        .row
        .iter()
        .zip(&whole.machines.workload)
        .zip(&whole.machines.machines)
        .map(|((&r, &w), &n)| f64::from(n) * power[r as usize * demand.len() + w as usize])
        .sum();
    assert!(whole.bound.unwrap() <= cost + 1e3 * demand.iter().sum::<f64>());
    let places = whole.machines.row.iter().zip(&whole.machines.workload).zip(&whole.machines.machines);
    places.map(|((&r, &w), &n)| (r, w, n)).collect()
}

#[test]
fn rounds_up_where_that_is_all_there_is() {
    assert_eq!(one(&[100.0], &[200.0], &[250.0], &[5], &[(0, 0, 2.5)], &[0.0]), [(0, 0, 3)]);
    assert_eq!(one(&[100.0], &[200.0], &[250.0], &[2], &[(0, 0, 2.0)], &[9.0]), [(0, 0, 2)]);
    assert!(one(&[100.0], &[200.0], &[0.0], &[2], &[], &[0.0]).is_empty());
    assert!(one(&[0.0], &[0.0], &[7.0], &[2], &[], &[0.0]).is_empty());
    assert!(one(&[5.0], &[1.0], &[7.0], &[0], &[], &[0.0]).is_empty());
}

#[test]
fn a_scarce_type_goes_where_only_it_can_serve() {
    // Both workloads would like type 1, of which there are two; workload 1 has nothing else.
    let (qps, power) = ([10.0, 0.0, 12.0, 10.0], [100.0, 0.0, 90.0, 100.0]);
    let relaxed = [(0, 0, 2.0), (1, 1, 2.0)];
    assert_eq!(one(&qps, &power, &[20.0, 20.0], &[2, 2], &relaxed, &[0.0, 30.0]), [(0, 0, 2), (1, 1, 2)]);
    // Also from an answer that gave it to the other one.
    let wrong = [(1, 0, 2.0)];
    assert_eq!(one(&qps, &power, &[20.0, 20.0], &[2, 2], &wrong, &[0.0, 30.0]), [(0, 0, 2), (1, 1, 2)]);
}

#[test]
fn a_linear_answer_beyond_the_stock_is_cut_to_it() {
    assert_eq!(one(&[1.0], &[1.0], &[9.0], &[4], &[(0, 0, 1e12)], &[0.0]), [(0, 0, 4)]);
}

#[test]
fn many_machines_of_tiny_rates_end_soon() {
    let stock = [10_000_000, 10_000_000];
    let places = one(&[1e-3, 2e-3], &[1.0, 1.5], &[30_000.0], &stock, &[(1, 0, 1e7), (0, 0, 1e7)], &[0.5, 0.0]);
    assert_eq!(places, [(0, 0, 10_000_000), (1, 0, 10_000_000)]);
    let places = one(&[1e-3, 2e-3], &[1.0, 1.5], &[19_999.999_5], &stock, &[], &[0.0, 0.0]);
    assert_eq!(places, [(1, 0, 10_000_000)]);
}

#[test]
fn what_does_not_fit_is_named() {
    let fleet = Fleet::new(1, 1, &[1.0], &[1.0], &[0], None).unwrap();
    let timeline = Timeline { demand: &[1.0], stock: &[1], penalty: Some(&[1.0]), watt_cost: None, machine_cost: None };
    let right = Relaxed { starts: &[0, 1], row: &[0], workload: &[0], machines: &[1.0], stock_price: &[0.0] };
    let error = |timeline: &Timeline<'_>, relaxed: &Relaxed<'_>| {
        whole_machines(&fleet, timeline, relaxed, false, &Control::new()).unwrap_err().to_string()
    };
    assert_eq!(error(&timeline, &Relaxed { row: &[1], ..right }), "row: entry 0 is 1; must be below 1");
    assert_eq!(
        error(&timeline, &Relaxed { starts: &[0, 2], ..right }),
        "starts: must rise from 0 to 1, the number of places"
    );
    assert_eq!(error(&timeline, &Relaxed { starts: &[0], ..right }), "starts: has 1 entries; must have 2");
    assert!(error(&timeline, &Relaxed { machines: &[f64::NAN], ..right }).contains("machines: entry 0 is NaN"));
    assert!(error(&timeline, &Relaxed { stock_price: &[-1.0], ..right }).contains("stock_price: entry 0 is -1"));
    assert!(error(&Timeline { penalty: None, ..timeline }, &right).contains("penalty: is missing"));
}

#[test]
fn a_stop_is_heeded() {
    let fleet = Fleet::new(1, 1, &[1.0], &[1.0], &[0], None).unwrap();
    let timeline =
        Timeline { demand: &[1.0, 2.0], stock: &[2], penalty: Some(&[9.0, 9.0]), watt_cost: None, machine_cost: None };
    let relaxed = Relaxed {
        starts: &[0, 1, 2],
        row: &[0, 0],
        workload: &[0, 0],
        machines: &[1.0, 2.0],
        stock_price: &[0.0, 0.0],
    };
    let control = Control::new();
    control.cancel();
    let answers = whole_machines(&fleet, &timeline, &relaxed, false, &control).unwrap();
    assert_eq!((answers, control.done()), (vec![None, None], 0));
}
