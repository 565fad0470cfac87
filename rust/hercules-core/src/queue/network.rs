//! Description of a server: routes of stations, what each execution takes, where queries wait and for how long.
//!
//! One description serves both engines ([`super::recursion`] and [`super::events`]) and the slow twin of the tests. It
//! knows threads and seconds, never hardware.

use crate::error::{Error, Result};
use crate::queue::fusion::Limits;
use crate::queue::law::Law;
use crate::queue::table::{MAX_THREADS, SECONDS, StageTable, Unit};

/// Most stations of a route, and most routes.
pub const MAX_STATIONS: usize = 64;

/// Seconds of an execution by a thread that is alone.
#[derive(Debug, Clone)]
pub enum Service {
    /// `mean_s` times a draw of the law.
    Law { law: Law, mean_s: f64 },
    /// `base_s + per_item_s * items`, times a draw of the noise where there is any.
    Linear { base_s: f64, per_item_s: f64, noise: Option<Law> },
    /// By items and busy threads, times a draw of the noise where there is any.
    Table { table: StageTable, noise: Option<Law> },
}

impl Service {
    /// The law whose draws are used up by executions.
    pub fn law(&self) -> Option<&Law> {
        match self {
            Self::Law { law, .. } => Some(law),
            Self::Linear { noise, .. } | Self::Table { noise, .. } => noise.as_ref(),
        }
    }

    /// Mean seconds for `items` while `busy` threads are busy, before any [`Station::speed`].
    pub fn mean_s(&self, items: u32, busy: u32) -> f64 {
        match self {
            Self::Law { mean_s, .. } => *mean_s,
            Self::Linear { base_s, per_item_s, .. } => base_s + per_item_s * f64::from(items),
            Self::Table { table, .. } => table.seconds(items, busy.min(table.columns())),
        }
    }

    /// Square of the coefficient of variation for a fixed number of items.
    pub fn scv(&self) -> f64 {
        self.law().map_or(0.0, Law::scv)
    }
}

/// What other busy threads do to an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interference {
    None,
    /// The number of busy threads just after the start fixes the time.
    AtStart,
    /// All work in progress speeds up or slows down when the number of busy threads changes.
    DynamicRate,
}

impl Interference {
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "at_start" => Ok(Self::AtStart),
            "dynamic_rate" => Ok(Self::DynamicRate),
            _ => Err(Error::invalid(field, format!("is {text:?}; allowed are none, at_start, dynamic_rate"))),
        }
    }
}

/// A pool of identical threads, or of devices that fuse queries, with one line in front of it.
#[derive(Debug, Clone)]
pub struct Station {
    pub unit: Unit,
    pub threads: u32,
    pub service: Service,
    /// Waiting places in front of it; a thread of the station before keeps a result that finds none.
    pub buffer: Option<u32>,
    pub interference: Interference,
    /// Whose busy threads count: this station or an earlier one of the route.
    pub slowed_by: usize,
    /// Relative speed with 1, 2, ... busy threads, constant beyond the end; empty for a table, which has its own.
    pub speed: Vec<f64>,
    /// When a device launches; not looked at elsewhere.
    pub limits: Limits,
}

impl Station {
    /// Speed of each thread while `busy` are busy.
    #[inline]
    pub fn speed(&self, busy: u32) -> f64 {
        match self.speed.len() {
            0 => 1.0,
            n => self.speed[(busy as usize).clamp(1, n) - 1],
        }
    }
}

/// A chain of stations for the queries of at least `min_size` items.
#[derive(Debug, Clone)]
pub struct Route {
    pub min_size: u32,
    /// Most items of a sub-batch.
    pub batch: u32,
    pub stations: Vec<Station>,
}

/// A checked description.
#[derive(Debug, Clone)]
pub struct Network {
    pub routes: Vec<Route>,
    /// Most queries inside; one that arrives when so many are there is refused.
    pub capacity: Option<u32>,
    /// A query whose first execution would begin later than this after its arrival leaves.
    pub drop_after_s: Option<f64>,
}

impl Network {
    /// Refuse what has no meaning, naming the field.
    pub fn new(routes: Vec<Route>, capacity: Option<u32>, drop_after_s: Option<f64>) -> Result<Self> {
        if routes.is_empty() || routes.len() > MAX_STATIONS {
            let message = format!("has {} entries; allowed are 1 to {MAX_STATIONS}", routes.len());
            return Err(Error::invalid("routes", message));
        }
        if capacity == Some(0) {
            return Err(Error::invalid("capacity", "is 0; at least 1 query is needed"));
        }
        if let Some(limit) = drop_after_s
            && !(limit >= 0.0 && limit <= *SECONDS.end())
        {
            let message = format!("is {limit}; allowed are 0 to {:e} seconds", SECONDS.end());
            return Err(Error::invalid("drop_after_s", message));
        }
        for (r, route) in routes.iter().enumerate() {
            let least = if r == 0 { 1 } else { routes[r - 1].min_size + 1 };
            if route.min_size < least || (r == 0 && route.min_size != 1) {
                let allowed = if r == 0 { "1, so that every query has a route" } else { "more than the route before" };
                let message = format!("is {}; allowed is {allowed}", route.min_size);
                return Err(Error::invalid(format!("routes[{r}].min_size"), message));
            }
            check_route(&format!("routes[{r}]."), route)?;
        }
        Ok(Self { routes, capacity, drop_after_s })
    }

    /// The route of a query of `size` items.
    #[inline]
    pub fn route_of(&self, size: u32) -> usize {
        self.routes.iter().rposition(|route| route.min_size <= size).unwrap_or(0)
    }

    /// All stations in order, over all routes.
    pub fn stations(&self) -> impl Iterator<Item = &Station> {
        self.routes.iter().flat_map(|route| &route.stations)
    }

    /// Refuse queries larger than a table answers for.
    pub fn check_sizes(&self, max_size: u32) -> Result<()> {
        for (r, route) in self.routes.iter().enumerate() {
            if route.min_size > max_size {
                continue;
            }
            let largest = match self.routes.get(r + 1) {
                Some(next) => max_size.min(next.min_size - 1),
                None => max_size,
            };
            for (s, station) in route.stations.iter().enumerate() {
                let Service::Table { table, .. } = &station.service else { continue };
                let most = match station.unit {
                    Unit::SubBatch => route.batch.min(largest),
                    Unit::Query => largest,
                    Unit::Fused if station.limits.queries == 1 => largest,
                    // A batch grows to its limit of items if it has one, else to any number.
                    Unit::Fused => {
                        largest.max(station.limits.items.min(station.limits.queries.saturating_mul(largest)))
                    }
                };
                if most > table.max_items() {
                    let message = format!("ends at {} items; executions may have {most}", table.max_items());
                    return Err(Error::invalid(format!("routes[{r}].stations[{s}].service"), message));
                }
            }
        }
        Ok(())
    }

    /// Most queries per second that each station can work off, for sizes with these probabilities.
    ///
    /// Its own threads count as all busy, those of another station that slows it as idle; a fusing device as always
    /// running the batch that is cheapest per item. No load above the least of these can be carried for ever; with
    /// blocking, less.
    pub fn capacities(&self, sizes: &[(u32, f64)]) -> Vec<f64> {
        let mut capacities = Vec::new();
        for (r, route) in self.routes.iter().enumerate() {
            for (s, station) in route.stations.iter().enumerate() {
                let slows_itself = station.interference != Interference::None && station.slowed_by == s;
                let busy = if slows_itself { station.threads } else { 1 };
                let mut work_s = 0.0;
                let mine = || sizes.iter().filter(|(size, _)| self.route_of(*size) == r);
                let largest = mine().map(|(size, _)| *size).max().unwrap_or(1);
                let fused_item_s = station.cheapest_item_s(busy, largest);
                for &(size, p) in mine() {
                    work_s += p * station.work_s(size, route.batch, busy, fused_item_s);
                }
                capacities.push(if work_s > 0.0 { f64::from(station.threads) / work_s } else { f64::INFINITY });
            }
        }
        capacities
    }
}

impl Station {
    /// Thread-seconds that a query of `size` items needs.
    fn work_s(&self, size: u32, batch: u32, busy: u32, fused_item_s: f64) -> f64 {
        let one = |items: u32| self.service.mean_s(items, busy) / self.speed(busy);
        match self.unit {
            Unit::Query => one(size),
            Unit::SubBatch => {
                let (full, rest) = (size / batch, size % batch);
                let tail = if rest > 0 { one(rest) } else { 0.0 };
                tail + if full > 0 { f64::from(full) * one(batch) } else { 0.0 }
            }
            Unit::Fused => match (&self.service, self.limits.queries) {
                // A law does not look at items: a query has its share of a full execution.
                (Service::Law { .. }, queries) => {
                    let share = (f64::from(size) / f64::from(self.limits.items)).max(1.0 / f64::from(queries));
                    one(size) * share.min(1.0)
                }
                (_, 1) => one(size),
                _ if size >= self.limits.items => one(size),
                _ => f64::from(size) * fused_item_s,
            },
        }
    }

    /// Fewest seconds per item that a fused execution of queries of at most `largest` items can reach.
    fn cheapest_item_s(&self, busy: u32, largest: u32) -> f64 {
        let speed = self.speed(busy);
        let most = self.limits.items.min(self.limits.queries.saturating_mul(largest));
        match &self.service {
            Service::Law { .. } => 0.0,
            Service::Linear { base_s, per_item_s, .. } => (base_s / f64::from(most) + per_item_s) / speed,
            Service::Table { table, .. } => table.best_seconds_per_item(busy.min(table.columns()), most) / speed,
        }
    }
}

fn check_route(prefix: &str, route: &Route) -> Result<()> {
    if route.batch == 0 {
        return Err(Error::invalid(format!("{prefix}batch"), "is 0; at least 1 item is needed"));
    }
    if route.stations.is_empty() || route.stations.len() > MAX_STATIONS {
        let message = format!("has {} entries; allowed are 1 to {MAX_STATIONS}", route.stations.len());
        return Err(Error::invalid(format!("{prefix}stations"), message));
    }
    for (s, station) in route.stations.iter().enumerate() {
        let field = |name: &str| format!("{prefix}stations[{s}].{name}");
        if !(1..=MAX_THREADS).contains(&station.threads) {
            let message = format!("is {}; allowed are 1 to {MAX_THREADS}", station.threads);
            return Err(Error::invalid(field("threads"), message));
        }
        if s == 0 && station.buffer.is_some() {
            let message = "is set; the first station of a route has no limit (capacity refuses queries)";
            return Err(Error::invalid(field("buffer"), message));
        }
        if station.slowed_by > s {
            let message = format!("is {}; allowed are 0 to {s} (itself or earlier)", station.slowed_by);
            return Err(Error::invalid(field("slowed_by"), message));
        }
        if let Some(i) = station.speed.iter().position(|x| !(1e-6..=1e6).contains(x)) {
            let message = format!("is {}; allowed are 1e-6 to 1e6", station.speed[i]);
            return Err(Error::invalid(field(&format!("speed[{i}]")), message));
        }
        if station.speed.first().is_some_and(|x| *x != 1.0) {
            return Err(Error::invalid(field("speed[0]"), format!("is {}; a thread alone has 1", station.speed[0])));
        }
        let has_table = matches!(station.service, Service::Table { .. });
        if has_table && !station.speed.is_empty() {
            return Err(Error::invalid(field("speed"), "is set; a table has its own axis of busy threads"));
        }
        if station.interference == Interference::None && !station.speed.is_empty() {
            return Err(Error::invalid(field("speed"), "is set, but interference is none"));
        }
        station.limits.check(&field("max_batch"), &field("max_wait_s"))?;
        let seconds = match &station.service {
            Service::Law { mean_s, .. } => *mean_s,
            Service::Linear { base_s, per_item_s, .. } => {
                if !(*base_s >= 0.0 && *per_item_s >= 0.0) {
                    let message = format!("has base {base_s} s and {per_item_s} s per item; must be from 0");
                    return Err(Error::invalid(field("service"), message));
                }
                base_s + per_item_s
            }
            Service::Table { .. } => continue,
        };
        if !SECONDS.contains(&seconds) {
            let (least, most) = (SECONDS.start(), SECONDS.end());
            let message = format!("takes {seconds} s; allowed are {least:e} to {most:e} seconds");
            return Err(Error::invalid(field("service"), message));
        }
    }
    Ok(())
}
