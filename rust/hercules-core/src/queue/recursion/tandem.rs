//! One pool after the other, whole queries.
//!
//! Each station is a pass over a block. A pool lets one query go for each that it takes, in order of departure, so all
//! lanes go in step through all stations. With several threads queries may overtake each other: then their numbers go
//! with them, for what they draw at later stations is theirs.

use super::kernels::{Departures, Jobs, LANES, Passing, Row};
use super::{Account, Block, ROWS, unused};
use crate::error::Result;
use crate::queue::engine::{self, Segment, Use};
use crate::queue::network::{Service, Station};
use crate::queue::record::{Counts, InOrder};
use crate::queue::source::Queries;
use crate::rng::Stream;

/// Queries on their way to a station, in the order in which they get there.
#[derive(Default)]
struct Flow {
    /// Since the one before.
    gaps: Vec<Row>,
    /// Since it arrived at the first station.
    ages: Vec<Row>,
    /// Number in its segment: whole, and exact in f64.
    ids: Vec<Row>,
    /// Number of the first where the others follow in order.
    first: Option<u64>,
}

impl Flow {
    fn resize(&mut self, rows: usize) {
        for column in [&mut self.gaps, &mut self.ages, &mut self.ids] {
            column.resize(rows, [0.0; LANES]);
        }
    }

    fn rows(&self) -> usize {
        self.gaps.len()
    }

    fn id(&self, row: usize, lane: usize) -> u64 {
        self.first.map_or_else(|| self.ids[row][lane] as u64, |first| first + row as u64)
    }
}

/// A pool with its threads and its account.
struct Stage<'s> {
    station: &'s Station,
    streams: [Stream; LANES],
    state: Passing,
    services: Vec<Row>,
    sojourns: Vec<Row>,
    /// Threads that were never used: their first departures mean nothing.
    fresh: usize,
    /// Queries that have left.
    left: u64,
    /// Account of the jobs so far, and of those before the warm-up was over.
    account: Account,
    jobs: u64,
    warm: (Account, u64),
    waits: Vec<Counts>,
}

impl<'s> Stage<'s> {
    fn new(station: &'s Station, streams: [Stream; LANES], waits: usize) -> Self {
        let free = unused(station.threads);
        let none = vec![[0.0; LANES]; free.len()];
        Self {
            station,
            streams,
            state: Passing { free, ages: none.clone(), ids: none, last: [0.0; LANES] },
            services: Vec::new(),
            sojourns: Vec::new(),
            fresh: station.threads as usize,
            left: 0,
            account: Account::NONE,
            jobs: 0,
            warm: (Account::NONE, 0),
            waits: (0..waits).map(|_| Counts::default()).collect(),
        }
    }

    /// How long the queries of `flow` will be in service.
    fn draw(&mut self, flow: &Flow, block: &Block<'_, '_>, queries: &[Queries<'_, '_>]) {
        self.services.resize(flow.rows(), [0.0; LANES]);
        self.sojourns.resize(flow.rows(), [0.0; LANES]);
        let (scale, by_size) = match &self.station.service {
            Service::Law { mean_s, .. } => (*mean_s, None),
            service => (1.0, Some(service)),
        };
        match (self.station.service.law(), flow.first) {
            (None, _) => self.services.fill([1.0; LANES]),
            (Some(law), Some(first)) => block.kernels.fill_rows(law, scale, &self.streams, first, &mut self.services),
            (Some(law), None) => {
                for (services, ids) in self.services.chunks_mut(ROWS).zip(flow.ids.chunks(ROWS)) {
                    block.kernels.fill_each(law, scale, &self.streams, ids, services);
                }
            }
        }
        if let Some(service) = by_size {
            for (at, row) in self.services.iter_mut().enumerate() {
                for (lane, x) in row.iter_mut().enumerate() {
                    *x *= service.mean_s(queries[lane].size(flow.id(at, lane)), 1);
                }
            }
        }
    }

    /// Serve the queries of the flow to the last station.
    fn serve(&mut self, flow: &Flow, block: &Block<'_, '_>) {
        // SAFETY: the kernels are those of this CPU.
        unsafe { (block.kernels.pool)(&mut self.state.free, &flow.gaps, &self.services, &mut self.sojourns) };
        self.note(flow, block);
    }

    /// Serve the queries of `flow` and let `next` be those that leave; with `last`, all.
    fn pass_on(&mut self, flow: &Flow, next: &mut Flow, last: bool, block: &Block<'_, '_>) {
        let rows = flow.rows();
        next.resize(rows);
        let in_order = flow.first.is_some();
        let jobs = Jobs { gaps: &flow.gaps, services: &self.services, ages: &flow.ages, ids: &flow.ids, in_order };
        let mut out = Departures { gaps: &mut next.gaps, ages: &mut next.ages, ids: &mut next.ids };
        // SAFETY: the kernels are those of this CPU.
        unsafe { (block.kernels.pool_passing_on)(&mut self.state, jobs, &mut self.sojourns, &mut out) };
        self.note(flow, block);
        if last {
            // Who is still there leaves in order of `free`; threads that do not exist are never free.
            for thread in 0..self.station.threads as usize {
                let free = self.state.free[thread];
                next.gaps.push(std::array::from_fn(|lane| free[lane] - self.state.last[lane]));
                next.ages.push(self.state.ages[thread]);
                next.ids.push(self.state.ids[thread]);
                self.state.last = free;
            }
        }
        let nothing = self.fresh.min(next.rows());
        if self.left == 0 {
            self.fresh -= nothing;
            if let Some(gap) = next.gaps.get_mut(nothing) {
                *gap = [0.0; LANES]; // nobody was before
            }
            for column in [&mut next.gaps, &mut next.ages, &mut next.ids] {
                column.drain(..nothing);
            }
        }
        // One thread lets queries go in the order in which they came.
        next.first = flow.first.filter(|_| self.station.threads == 1).map(|_| self.left);
        self.left += next.rows() as u64;
    }

    fn note(&mut self, flow: &Flow, block: &Block<'_, '_>) {
        // SAFETY: the kernels are those of this CPU.
        unsafe { (block.kernels.account)(&mut self.account, &self.services, &self.sojourns) };
        self.jobs += flow.rows() as u64;
        for (lane, waits) in self.waits.iter_mut().enumerate() {
            let warmup = block.plan.cuts[block.segment(lane)].warmup;
            for row in 0..flow.rows() {
                if flow.id(row, lane) >= warmup {
                    waits.add(f64::max(0.0, self.sojourns[row][lane] - self.services[row][lane]));
                }
            }
        }
    }
}

pub(super) fn run(mut block: Block<'_, '_>) -> Result<Vec<Segment>> {
    let plan = block.plan;
    let stations = &plan.network.routes[0].stations;
    let lanes = 0..LANES;
    let mut queries: Vec<_> =
        lanes.map(|lane| plan.source.queries(plan.qps, block.segment(lane), plan.cuts.len())).collect();
    let waits = if plan.waits { block.lanes() } else { 0 };
    let stage = |(s, station)| Stage::new(station, block.service_streams(s), waits);
    let mut stages: Vec<Stage<'_>> = stations.iter().enumerate().map(stage).collect();
    let total = plan.cuts[block.segments.start].queries;
    let warmup = plan.cuts[block.segments.start].warmup;
    let streams = block.gap_streams();
    let mut time = [0.0; LANES];
    let mut first_s = time;
    let mut warm: Option<(u64, Row)> = None;
    let (mut flow, mut next) = (Flow::default(), Flow::default());
    let mut ordered: Vec<InOrder> = (0..block.lanes()).map(|_| InOrder::default()).collect();
    let mut done = 0;
    while done < total {
        block.poll()?;
        let rows = ROWS.min((total - done) as usize);
        flow.resize(rows);
        flow.first = Some(done);
        if stations.len() > 1 {
            flow.ages.fill([0.0; LANES]);
            for (id, row) in (done..).zip(&mut flow.ids) {
                *row = [id as f64; LANES];
            }
        }
        if let Some(law) = plan.source.gaps() {
            block.kernels.fill_rows(law, 1.0, &streams, done, &mut flow.gaps);
            // SAFETY: the kernels are those of this CPU.
            unsafe { (block.kernels.clock)(&mut time, 1.0 / plan.qps, &mut flow.gaps) };
        } else {
            for gap in &mut flow.gaps {
                for lane in 0..LANES {
                    let next = queries[lane].next_time();
                    gap[lane] = next - time[lane];
                    time[lane] = next;
                }
            }
        }
        if done == 0 {
            first_s = flow.gaps[0];
        }
        done += rows as u64;
        let (last, before) = stages.split_last_mut().expect("checked: a route has a station");
        for stage in before {
            stage.draw(&flow, &block, &queries);
            stage.pass_on(&flow, &mut next, done == total, &block);
            std::mem::swap(&mut flow, &mut next);
        }
        last.draw(&flow, &block, &queries);
        last.serve(&flow, &block);
        if stations.len() > 1 {
            for (age, sojourn) in flow.ages.iter_mut().zip(&last.sojourns) {
                for lane in 0..LANES {
                    age[lane] += sojourn[lane];
                }
            }
        }
        let latencies = if stations.len() > 1 { &flow.ages } else { &last.sojourns };
        if plan.keep && flow.first.is_none() {
            for (lane, ordered) in ordered.iter_mut().enumerate() {
                for (row, latency) in latencies.iter().enumerate() {
                    ordered.put(flow.id(row, lane), latency[lane], &mut block.records[lane]);
                }
            }
        } else {
            // Without the latencies themselves, batches are of neighbours at the last station.
            block.record(latencies);
        }
        // A run without a block after its warm-up counts as a whole.
        if warm.is_none() && warmup > 0 && done > warmup && done < total {
            warm = Some((done, time));
            for stage in &mut stages {
                stage.warm = (stage.account, stage.jobs);
            }
        }
    }
    let (from, from_s) = warm.unwrap_or((0, first_s));
    // The latest arrival at each station, and then the latest end of service.
    let (last, before) = stages.split_last().expect("checked: a route has a station");
    let end_s: Row = std::array::from_fn(|lane| {
        let came = before.iter().fold(time[lane], |time, stage| time + stage.state.last[lane]);
        let free = last.state.free[..last.station.threads as usize].iter().map(|free| free[lane]);
        came + free.fold(0.0, f64::max)
    });
    let mean_items: f64 = plan.sizes.iter().map(|(size, p)| f64::from(*size) * p).sum();
    let segment = |(lane, record)| {
        let uses = stages.iter().map(|stage| {
            let (all, (before, jobs_before)) = (&stage.account, &stage.warm);
            let jobs = stage.jobs - jobs_before;
            let busy_s = all.busy_s[lane] - before.busy_s[lane];
            let wait_s = all.sojourn_s[lane] - before.sojourn_s[lane] - busy_s;
            let items = (jobs as f64 * mean_items).round() as u64;
            Use { busy_s, wait_s, jobs, executions: jobs, items, ..Use::default() }
        });
        Segment {
            record,
            uses: uses.collect(),
            queries: total - from,
            seconds: engine::seconds(from_s[lane], time[lane], end_s[lane]),
            inside_query_s: f64::NAN,
            waits: Vec::new(),
        }
    };
    let records = std::mem::take(&mut block.records);
    let mut segments: Vec<Segment> = records.into_iter().enumerate().map(segment).collect();
    for stage in &mut stages {
        for (segment, waits) in segments.iter_mut().zip(&mut stage.waits) {
            segment.waits.push(waits.take());
        }
    }
    Ok(segments)
}
