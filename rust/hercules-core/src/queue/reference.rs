//! Slow twin of [`crate::queue::system`]: the same semantics, one instant after the other. Used by tests only.
//!
//! At each instant: everything that ends now ends; then, station by station along the chain, what arrives there now is
//! put in line and free threads take work. A fusing device looks at its line before each arrival (it may just have
//! fallen free, or its timer may fire) and after it.

use crate::queue::system::{Service, SlowedBy, Station};
use crate::queue::table::Unit;
use std::collections::VecDeque;

#[derive(Debug, Clone)]
struct Job {
    number: u32,
    query: usize,
    items: u32,
    ready: f64,
}

#[derive(Debug, Clone)]
struct Running {
    end: f64,
    jobs: Vec<Job>,
}

#[derive(Debug, Default)]
struct Place {
    line: VecDeque<Job>,
    running: Vec<Running>,
    launches: u32,
}

/// Latency of each query.
pub fn latencies(stations: &[Station], batch: u32, arrival_s: &[f64], sizes: &[u32]) -> Vec<f64> {
    Twin::new(stations, batch, arrival_s, sizes).run()
}

struct Twin<'a> {
    stations: &'a [Station],
    batch: u32,
    arrival_s: &'a [f64],
    sizes: &'a [u32],
    places: Vec<Place>,
    /// Parts of each query still to finish at each station.
    parts_left: Vec<Vec<u32>>,
    first_part: Vec<u32>,
    latency: Vec<f64>,
}

impl<'a> Twin<'a> {
    fn new(stations: &'a [Station], batch: u32, arrival_s: &'a [f64], sizes: &'a [u32]) -> Self {
        let parts = |station: &Station| -> Vec<u32> {
            sizes.iter().map(|size| if station.unit == Unit::SubBatch { size.div_ceil(batch) } else { 1 }).collect()
        };
        let mut total = 0;
        let first_part = sizes
            .iter()
            .map(|size| {
                total += size.div_ceil(batch);
                total - size.div_ceil(batch)
            })
            .collect();
        Self {
            stations,
            batch,
            arrival_s,
            sizes,
            places: stations.iter().map(|_| Place::default()).collect(),
            parts_left: stations.iter().map(parts).collect(),
            first_part,
            latency: vec![f64::NAN; sizes.len()],
        }
    }

    fn run(mut self) -> Vec<f64> {
        let mut arrived = 0;
        while let Some(now) = self.next_instant(arrived) {
            let finished: Vec<Vec<Job>> = self.places.iter_mut().map(|place| take_finished(place, now)).collect();
            for s in 0..self.stations.len() {
                let mut coming = Vec::new();
                if s == 0 {
                    while arrived < self.sizes.len() && self.arrival_s[arrived] == now {
                        coming.extend(self.jobs_of(0, arrived, now));
                        arrived += 1;
                    }
                } else {
                    coming = self.passed_on(s, &finished[s - 1], now);
                }
                self.admit(s, coming, now);
            }
            let last = self.stations.len() - 1;
            for job in &finished[last] {
                self.parts_left[last][job.query] -= 1;
                if self.parts_left[last][job.query] == 0 {
                    self.latency[job.query] = now - self.arrival_s[job.query];
                }
            }
        }
        self.latency
    }

    fn next_instant(&self, arrived: usize) -> Option<f64> {
        let mut next = self.arrival_s.get(arrived).copied().unwrap_or(f64::INFINITY);
        for (place, station) in self.places.iter().zip(self.stations) {
            for running in &place.running {
                next = next.min(running.end);
            }
            if station.unit == Unit::Fused
                && place.running.len() < station.threads as usize
                && let Some(head) = place.line.front()
            {
                next = next.min(head.ready + station.limits.max_wait_s);
            }
        }
        next.is_finite().then_some(next)
    }

    /// The jobs that `query` is at station `s`.
    fn jobs_of(&self, s: usize, query: usize, ready: f64) -> Vec<Job> {
        let size = self.sizes[query];
        if self.stations[s].unit != Unit::SubBatch {
            return vec![Job { number: query as u32, query, items: size, ready }];
        }
        let mut jobs = Vec::new();
        let mut left = size;
        while left > 0 {
            let items = left.min(self.batch);
            jobs.push(Job { number: self.first_part[query] + jobs.len() as u32, query, items, ready });
            left -= items;
        }
        jobs
    }

    /// What station `s` gets from the jobs that the station before it finished just now.
    fn passed_on(&mut self, s: usize, finished: &[Job], now: f64) -> Vec<Job> {
        if self.stations[s - 1].unit == Unit::SubBatch && self.stations[s].unit == Unit::SubBatch {
            return finished.iter().map(|job| Job { ready: now, ..job.clone() }).collect();
        }
        let mut complete = Vec::new();
        for job in finished {
            self.parts_left[s - 1][job.query] -= 1;
            if self.parts_left[s - 1][job.query] == 0 {
                complete.push(job.query);
            }
        }
        complete.sort_unstable();
        complete.into_iter().flat_map(|query| self.jobs_of(s, query, now)).collect()
    }

    fn admit(&mut self, s: usize, coming: Vec<Job>, now: f64) {
        if self.stations[s].unit == Unit::Fused {
            self.launch(s, now);
            for job in coming {
                self.places[s].line.push_back(job);
                self.launch(s, now);
            }
        } else {
            self.places[s].line.extend(coming);
            while self.has_free(s) {
                let Some(job) = self.places[s].line.pop_front() else { break };
                self.start(s, vec![job], now);
            }
        }
    }

    fn has_free(&self, s: usize) -> bool {
        self.places[s].running.len() < self.stations[s].threads as usize
    }

    fn launch(&mut self, s: usize, now: f64) {
        let limits = self.stations[s].limits;
        while self.has_free(s) {
            let line = &self.places[s].line;
            let Some(head) = line.front() else { return };
            let waiting_items: u64 = line.iter().map(|job| u64::from(job.items)).sum();
            let full = waiting_items >= u64::from(limits.items) || line.len() >= limits.queries as usize;
            if !full && now < head.ready + limits.max_wait_s {
                return;
            }
            let mut batch = vec![self.places[s].line.pop_front().expect("the line has a head")];
            let mut items = batch[0].items;
            while let Some(next) = self.places[s].line.front() {
                if items + next.items > limits.items || batch.len() >= limits.queries as usize {
                    break;
                }
                items += next.items;
                batch.extend(self.places[s].line.pop_front());
            }
            self.start(s, batch, now);
        }
    }

    fn start(&mut self, s: usize, jobs: Vec<Job>, now: f64) {
        let station = &self.stations[s];
        let busy = match station.slowed_by {
            SlowedBy::Nobody => 1,
            SlowedBy::Itself => self.places[s].running.len() as u32 + 1,
            SlowedBy::Station(other) => (self.places[other].running.len() as u32).max(1),
        };
        let items: u32 = jobs.iter().map(|job| job.items).sum();
        let number = if station.unit == Unit::Fused { self.places[s].launches } else { jobs[0].number };
        self.places[s].launches += 1;
        let seconds = match &station.service {
            Service::Table(table) => table.seconds(items, busy),
            Service::Law { law, stream, mean_s } => law.draw(*stream, u64::from(number)) * mean_s,
            Service::Affine { base_s, per_item_s } => base_s + per_item_s * f64::from(items),
        };
        self.places[s].running.push(Running { end: now + seconds, jobs });
    }
}

/// Jobs whose execution ends now, by number.
fn take_finished(place: &mut Place, now: f64) -> Vec<Job> {
    let mut finished = Vec::new();
    place.running.retain(|running| {
        if running.end == now {
            finished.extend(running.jobs.iter().cloned());
        }
        running.end != now
    });
    finished.sort_by_key(|job| job.number);
    finished
}
