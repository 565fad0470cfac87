//! Working memory of a run, and what can be read from it afterwards.

use crate::queue::chain::bounded::Pool;
use crate::queue::chain::threads::{Entry, Threads, push_sorted};
use crate::queue::chain::{Input, Split, System};
use crate::queue::table::Unit;

/// What a station did in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    pub busy_s: f64,
    pub executions: u64,
    pub items: u64,
    pub energy_j: f64,
}

/// Working memory of runs, kept between them so that a probe allocates nothing.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) arrival: Vec<f64>,
    /// When each query's last part left the latest station.
    pub(super) done: Vec<f64>,
    pub(super) tally: Vec<Tally>,
    pub(super) entries: Vec<Entry>,
    pub(super) next: Vec<Entry>,
    pub(super) histories: Vec<History>,
    pub(super) threads: Threads,
    pub(super) pools: Vec<Pool>,
}

/// Starts and ends of a station's executions, each sorted, for a later station that is slowed by it.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) starts: Vec<f64>,
    pub(super) ends: Vec<f64>,
}

impl Scratch {
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn reset(&mut self, system: &System, input: &Input, rate: f64) {
        let scale = 1.0 / rate;
        let stations = system.stations.len();
        self.arrival.clear();
        self.arrival.extend(input.unit_time.iter().map(|time| time * scale));
        self.done.clear();
        self.done.resize(self.arrival.len(), f64::NEG_INFINITY);
        self.tally.clear();
        self.tally.resize(stations, Tally::default());
        self.histories.resize_with(stations, History::default);
        for history in &mut self.histories {
            history.starts.clear();
            history.ends.clear();
        }
    }

    /// Put the jobs of station `place` in line: arrivals for the first, else what the station before has finished.
    pub(super) fn enter(&mut self, system: &System, input: &Input, split: &Split, place: usize) {
        if system.offload_items > 0 {
            let queries =
                self.arrival.iter().zip(&input.size).zip(0..).filter(|((_, size), _)| system.visits(place, **size));
            self.entries.clear();
            self.entries.extend(queries.map(|((time, _), job)| Entry { time: *time, job }));
            if system.stations[place].unit == Unit::SubBatch {
                self.cut(split);
            }
            return;
        }
        let unit = system.stations[place].unit;
        let before = place.checked_sub(1).map(|p| system.stations[p].unit);
        self.entries.clear();
        if unit == Unit::SubBatch && before == Some(Unit::SubBatch) {
            std::mem::swap(&mut self.entries, &mut self.next);
        } else {
            let times = if place == 0 { &self.arrival } else { &self.done };
            for (query, time) in times.iter().enumerate() {
                push_sorted(&mut self.entries, Entry { time: *time, job: query as u32 });
            }
            if unit == Unit::SubBatch {
                self.cut(split);
            }
        }
        self.next.clear();
        self.done.clear();
        self.done.resize(self.arrival.len(), f64::NEG_INFINITY);
    }

    /// Put the sub-batches of the queries in line in their place.
    fn cut(&mut self, split: &Split) {
        self.next.clear();
        for entry in &self.entries {
            let query = entry.job as usize;
            let parts = split.first[query]..split.first[query + 1];
            self.next.extend(parts.map(|job| Entry { time: entry.time, job }));
        }
        std::mem::swap(&mut self.entries, &mut self.next);
    }

    /// Latencies in seconds of the queries after `warmup`, in order of arrival.
    pub fn latencies(&self, warmup: usize) -> Vec<f64> {
        self.done[warmup..].iter().zip(&self.arrival[warmup..]).map(|(done, arrival)| done - arrival).collect()
    }

    /// First arrival to last completion.
    pub fn span_s(&self) -> f64 {
        self.done.iter().copied().fold(f64::NEG_INFINITY, f64::max) - self.arrival[0]
    }

    /// How fast latency grows, as a share of elapsed time, between the second and the last quarter of the queries.
    /// About 0 in a stable system; a system that is offered 1+x times what it can do falls behind by x.
    pub fn backlog_growth(&self) -> f64 {
        let n = self.arrival.len();
        if n < 8 {
            return 0.0;
        }
        let mean = |from: usize, to: usize| {
            let (mut latency, mut arrival) = (0.0, 0.0);
            for i in from..to {
                latency += self.done[i] - self.arrival[i];
                arrival += self.arrival[i];
            }
            (latency / (to - from) as f64, arrival / (to - from) as f64)
        };
        let (early, late) = (mean(n / 4, n / 2), mean(n - n / 4, n));
        if late.1 > early.1 { (late.0 - early.0) / (late.1 - early.1) } else { 0.0 }
    }
}

/// What a stage did, per query and per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageUse {
    /// Busy time / (threads * span); 0 for a stage that is not in the chain.
    pub utilisation: f64,
    pub executions_per_query: f64,
    /// NaN for a stage that is not in the chain.
    pub items_per_execution: f64,
    /// NaN where the table does not know; 0 for a stage that is not in the chain.
    pub energy_j_per_query: f64,
}

impl StageUse {
    pub const UNUSED: Self =
        Self { utilisation: 0.0, executions_per_query: 0.0, items_per_execution: f64::NAN, energy_j_per_query: 0.0 };
}

impl System {
    /// Use of every stage in the run that `scratch` holds (over the whole run, warm-up included).
    pub fn stage_use(&self, scratch: &Scratch) -> Vec<StageUse> {
        let queries = scratch.arrival.len() as f64;
        let span = scratch.span_s();
        let mut uses = vec![StageUse::UNUSED; self.stages];
        for (station, tally) in self.stations.iter().zip(&scratch.tally) {
            uses[station.stage] = StageUse {
                utilisation: tally.busy_s / (f64::from(station.threads) * span),
                executions_per_query: tally.executions as f64 / queries,
                items_per_execution: tally.items as f64 / tally.executions as f64,
                energy_j_per_query: tally.energy_j / queries,
            };
        }
        uses
    }
}
