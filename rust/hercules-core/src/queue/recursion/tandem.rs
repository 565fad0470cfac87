//! One pool after the other, whole queries.
//!
//! Each station is a pass over a block. One thread lets queries go in the order in which they came; several may not, and
//! then the queries of each lane are put in order of departure before the next station takes them.

use super::kernels::{LANES, Row};
use super::{Account, Block, ROWS, unused};
use crate::error::Result;
use crate::queue::engine::{Segment, Use};
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
    /// Number in its segment.
    ids: Vec<[u64; LANES]>,
    /// Rows of each lane that mean something; the others come after them.
    valid: [usize; LANES],
}

impl Flow {
    fn resize(&mut self, rows: usize) {
        self.gaps.resize(rows, [0.0; LANES]);
        self.ages.resize(rows, [0.0; LANES]);
        self.ids.resize(rows, [0; LANES]);
        self.valid = [rows; LANES];
    }
}

/// A pool with its threads and its account.
struct Stage<'s> {
    station: &'s Station,
    streams: Vec<Stream>,
    free: Vec<Row>,
    services: Vec<Row>,
    sojourns: Vec<Row>,
    /// Whether queries reach it in order of their numbers.
    in_order: bool,
    last_sojourn: Row,
    leaving: [Leaving; LANES],
    /// Account of the jobs so far, and of those before the warm-up was over.
    account: Account,
    jobs: [u64; LANES],
    warm: (Account, [u64; LANES]),
    waits: Vec<Counts>,
}

/// Queries of one lane that have a departure time, in order of it.
#[derive(Default)]
struct Leaving {
    /// (departure on the lane's clock, age at departure, number)
    waiting: Vec<(f64, f64, u64)>,
    ready: std::collections::VecDeque<(f64, f64, u64)>,
    /// Clock of the latest query at the station, and the last departure handed on.
    now: f64,
    last: f64,
}

impl<'s> Stage<'s> {
    fn new(station: &'s Station, streams: [Stream; LANES], in_order: bool, waits: usize) -> Self {
        Self {
            station,
            streams: streams.into_iter().cycle().take(ROWS * LANES).collect(),
            free: unused(station.threads),
            services: Vec::new(),
            sojourns: Vec::new(),
            in_order,
            last_sojourn: [0.0; LANES],
            leaving: Default::default(),
            account: Account::NONE,
            jobs: [0; LANES],
            warm: (Account::NONE, [0; LANES]),
            waits: (0..waits).map(|_| Counts::default()).collect(),
        }
    }

    /// Serve the queries of `flow`.
    fn serve(&mut self, flow: &Flow, block: &Block<'_, '_>, queries: &[Queries<'_, '_>]) {
        let rows = flow.gaps.len();
        self.services.resize(rows, [0.0; LANES]);
        self.sojourns.resize(rows, [0.0; LANES]);
        let (scale, by_size) = match &self.station.service {
            Service::Law { mean_s, .. } => (*mean_s, None),
            service => (1.0, Some(service)),
        };
        for at in (0..rows).step_by(ROWS) {
            let these = at..rows.min(at + ROWS);
            let ids = flow.ids[these.clone()].as_flattened();
            let out = self.services[these].as_flattened_mut();
            match self.station.service.law() {
                Some(law) => block.kernels.fill(law, scale, &self.streams[..ids.len()], ids, out),
                None => out.fill(1.0),
            }
        }
        if let Some(service) = by_size {
            for (row, ids) in self.services.iter_mut().zip(&flow.ids) {
                for ((x, id), queries) in row.iter_mut().zip(ids).zip(queries) {
                    *x *= service.mean_s(queries.size(*id), 1);
                }
            }
        }
        // SAFETY: the kernels are those of this CPU.
        unsafe { (block.kernels.pool)(&mut self.free, &flow.gaps, &self.services, &mut self.sojourns) };
        self.account(flow, block);
    }

    fn account(&mut self, flow: &Flow, block: &Block<'_, '_>) {
        let rows = flow.valid.iter().copied().min().unwrap_or(0);
        // SAFETY: the kernels are those of this CPU.
        unsafe { (block.kernels.account)(&mut self.account, &flow.gaps[..rows], &self.services, &self.sojourns) };
        for lane in 0..LANES {
            for row in rows..flow.valid[lane] {
                self.account.add_one(lane, flow.gaps[row][lane], self.services[row][lane], self.sojourns[row][lane]);
            }
            self.jobs[lane] += flow.valid[lane] as u64;
        }
        for (lane, waits) in self.waits.iter_mut().enumerate() {
            let warmup = block.plan.cuts[block.segment(lane)].warmup;
            for row in 0..flow.valid[lane] {
                if flow.ids[row][lane] >= warmup {
                    waits.add(f64::max(0.0, self.sojourns[row][lane] - self.services[row][lane]));
                }
            }
        }
    }

    /// Turn the queries that were served into the flow to the next station. `last`: no more will come.
    fn pass_on(&mut self, flow: &mut Flow, last: bool) {
        if self.station.threads == 1 {
            for ((gap, age), sojourn) in flow.gaps.iter_mut().zip(&mut flow.ages).zip(&self.sojourns) {
                for lane in 0..LANES {
                    gap[lane] += sojourn[lane] - self.last_sojourn[lane];
                    age[lane] += sojourn[lane];
                }
                self.last_sojourn = *sojourn;
            }
            return;
        }
        for (lane, leaving) in self.leaving.iter_mut().enumerate() {
            for row in 0..flow.valid[lane] {
                leaving.now += flow.gaps[row][lane];
                let sojourn = self.sojourns[row][lane];
                leaving.put(leaving.now + sojourn, flow.ages[row][lane] + sojourn, flow.ids[row][lane]);
            }
            // Whoever comes later leaves later than now.
            leaving.release(if last { f64::INFINITY } else { leaving.now });
        }
        let ready = self.leaving.iter().map(|leaving| leaving.ready.len());
        let rows = if last { ready.max() } else { ready.min() }.unwrap_or(0);
        flow.resize(rows);
        for (lane, leaving) in self.leaving.iter_mut().enumerate() {
            let valid = rows.min(leaving.ready.len());
            for (row, (gap, age, id)) in leaving.ready.drain(..valid).enumerate() {
                flow.gaps[row][lane] = gap;
                flow.ages[row][lane] = age;
                flow.ids[row][lane] = id;
            }
            for row in valid..rows {
                flow.gaps[row][lane] = 0.0;
                flow.ages[row][lane] = 0.0;
            }
            flow.valid[lane] = valid;
        }
    }
}

impl Leaving {
    #[inline]
    fn put(&mut self, departure: f64, age: f64, id: u64) {
        let mut at = self.waiting.len();
        self.waiting.push((departure, age, id));
        // At the same instant, in order of number.
        while at > 0 && (self.waiting[at - 1].0, self.waiting[at - 1].2) > (departure, id) {
            self.waiting.swap(at - 1, at);
            at -= 1;
        }
    }

    /// Hand on whoever leaves by `time`, and begin the clock anew: it stays small however long the run is.
    fn release(&mut self, time: f64) {
        let count = self.waiting.partition_point(|job| job.0 <= time);
        for (departure, age, id) in self.waiting.drain(..count) {
            self.ready.push_back((departure - self.last, age, id));
            self.last = departure;
        }
        for job in &mut self.waiting {
            job.0 -= self.now;
        }
        self.last -= self.now;
        self.now = 0.0;
    }
}

pub(super) fn run(mut block: Block<'_, '_>) -> Result<Vec<Segment>> {
    let plan = block.plan;
    let stations = &plan.network.routes[0].stations;
    let mut queries: Vec<_> =
        (0..LANES).map(|lane| plan.source.queries(plan.qps, block.segment(lane), plan.cuts.len())).collect();
    let waits = if plan.waits { block.lanes() } else { 0 };
    let mut stages: Vec<Stage<'_>> = Vec::with_capacity(stations.len());
    for (s, station) in stations.iter().enumerate() {
        let in_order = s == 0 || (stages[s - 1].in_order && stations[s - 1].threads == 1);
        stages.push(Stage::new(station, block.service_streams(s), in_order, waits));
    }
    let total = plan.cuts[block.segments.start].queries;
    let warmup = plan.cuts[block.segments.start].warmup;
    let streams: Vec<Stream> = (0..ROWS * LANES).map(|i| plan.source.gap_stream(block.segment(i % LANES))).collect();
    let mut time = [0.0; LANES];
    let mut warm: Option<(u64, Row)> = None;
    let mut flow = Flow::default();
    let mut ordered: Vec<InOrder> = (0..block.lanes()).map(|_| InOrder::default()).collect();
    let mut done = 0;
    while done < total {
        block.poll()?;
        let rows = ROWS.min((total - done) as usize);
        flow.resize(rows);
        for (row, ids) in flow.ids.iter_mut().enumerate() {
            *ids = [done + row as u64; LANES];
        }
        if stations.len() > 1 {
            flow.ages.fill([0.0; LANES]);
        }
        if let Some(law) = plan.source.gaps() {
            let ids = flow.ids.as_flattened();
            block.kernels.fill(law, 1.0, &streams[..ids.len()], ids, flow.gaps.as_flattened_mut());
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
        done += rows as u64;
        for s in 0..stages.len() {
            stages[s].serve(&flow, &block, &queries);
            if s + 1 < stages.len() {
                stages[s].pass_on(&mut flow, done == total);
            }
        }
        let last = &stages[stations.len() - 1];
        if stations.len() == 1 {
            block.record(&last.sojourns);
        } else {
            for (age, sojourn) in flow.ages.iter_mut().zip(&last.sojourns) {
                for lane in 0..LANES {
                    age[lane] += sojourn[lane];
                }
            }
            if last.in_order {
                block.record(&flow.ages);
            } else {
                for (lane, ordered) in ordered.iter_mut().enumerate() {
                    for row in 0..flow.valid[lane] {
                        ordered.put(flow.ids[row][lane], flow.ages[row][lane], &mut block.records[lane]);
                    }
                }
            }
        }
        // A run without a block after its warm-up counts as a whole.
        if warm.is_none() && warmup > 0 && done > warmup && done < total {
            warm = Some((done, time));
            for stage in &mut stages {
                stage.warm = (stage.account, stage.jobs);
            }
        }
    }
    let (from, from_s) = warm.unwrap_or((0, [0.0; LANES]));
    let mean_items = plan.mean_items();
    let segment = |(lane, record)| {
        let uses = stages.iter().map(|stage| {
            let (all, (before, jobs_before)) = (&stage.account, &stage.warm);
            let jobs = stage.jobs[lane] - jobs_before[lane];
            let busy_s = all.busy_s[lane] - before.busy_s[lane];
            let wait_s = all.sojourn_s[lane] - before.sojourn_s[lane] - busy_s;
            let items = (jobs as f64 * mean_items).round() as u64;
            Use { busy_s, wait_s, jobs, executions: jobs, items, ..Use::default() }
        });
        Segment {
            record,
            uses: uses.collect(),
            queries: total - from,
            seconds: stages[stages.len() - 1].account.end_s[lane] - from_s[lane],
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
