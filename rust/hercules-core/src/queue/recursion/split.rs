//! One pool whose queries come in parts.
//!
//! Queries of different segments have different numbers of parts, so each lane goes through its queries at its own pace;
//! a row is one part of each. The latest end of a query's parts is kept beside the pool.

use super::kernels::{LANES, Row};
use super::{Account, Block, ROWS, unused};
use crate::error::Result;
use crate::queue::engine::{Segment, Use, query_of, service_index};
use crate::queue::network::Service;
use crate::queue::record::Counts;
use crate::queue::source::Queries;
use crate::rng::Stream;

/// A gap so long that every thread is free again: what a lane waits that has no queries left.
const IDLE_S: f64 = 1e300;

/// Queries of one lane, drawn some at a time, and the one that is being cut up.
struct Cutter<'p, 's> {
    queries: Queries<'p, 's>,
    stream: Stream,
    gaps: Vec<f64>,
    /// The next of `gaps`.
    at: usize,
    /// Number of the query at hand in the segment, and queries that were not begun.
    query: u64,
    rest: u64,
    /// Items of it that are not cut off yet, and its next part.
    left: u32,
    part: u64,
    /// Arrival of the latest query drawn, and of the one at hand.
    time_s: f64,
    now_s: f64,
    /// Parts and their items so far.
    parts: u64,
    items: u64,
    warm: Option<Before>,
}

/// Where a lane stood when its warm-up was over.
#[derive(Clone, Copy, Default)]
struct Before {
    query: u64,
    now_s: f64,
    parts: u64,
    items: u64,
    busy_s: f64,
    sojourn_s: f64,
}

/// A block of parts.
struct Parts {
    gaps: Vec<Row>,
    before: Vec<Row>,
    items: Vec<[u32; LANES]>,
    ids: Vec<[u64; LANES]>,
    /// Lanes in which the row ends a query, one bit for each.
    ends: Vec<u8>,
}

impl Cutter<'_, '_> {
    /// Draw more queries.
    fn refill(&mut self, block: &Block<'_, '_>) {
        let count = self.rest.min(ROWS as u64) as usize;
        self.gaps.resize(count, 0.0);
        self.at = 0;
        if let Some(law) = block.plan.source.gaps() {
            let indices: [u64; ROWS] = std::array::from_fn(|i| self.query + i as u64);
            block.kernels.fill(law, 1.0, &[self.stream; ROWS][..count], &indices[..count], &mut self.gaps);
            let scale_s = 1.0 / block.plan.qps;
            for gap in &mut self.gaps {
                let next = self.time_s + *gap * scale_s;
                *gap = next - self.time_s;
                self.time_s = next;
            }
        } else {
            for gap in &mut self.gaps {
                let next = self.queries.next_time();
                *gap = next - self.time_s;
                self.time_s = next;
            }
        }
    }

    /// Write the next rows of `lane`. A lane whose queries are all cut up idles.
    fn write(&mut self, lane: usize, batch: u32, parts: &mut Parts, block: &Block<'_, '_>) {
        for row in 0..ROWS {
            let (mut gap, mut before) = (0.0, 0.0);
            if self.left == 0 {
                if self.at == self.gaps.len() {
                    if self.rest == 0 {
                        parts.gaps[row][lane] = IDLE_S;
                        parts.before[row][lane] = f64::NEG_INFINITY;
                        parts.items[row][lane] = 0;
                        continue;
                    }
                    self.refill(block);
                }
                gap = self.gaps[self.at];
                self.now_s += gap;
                before = f64::NEG_INFINITY;
                self.left = self.queries.size(self.query);
                self.items += u64::from(self.left);
                self.part = 0;
                self.at += 1;
                self.query += 1;
                self.rest -= 1;
            }
            let items = self.left.min(batch);
            self.left -= items;
            parts.gaps[row][lane] = gap;
            parts.before[row][lane] = before;
            parts.items[row][lane] = items;
            parts.ids[row][lane] = service_index(self.query - 1, self.part);
            parts.ends[row] |= u8::from(self.left == 0) << lane;
            self.part += 1;
            self.parts += 1;
        }
    }

    fn is_done(&self) -> bool {
        self.rest == 0 && self.left == 0
    }
}

pub(super) fn run(mut block: Block<'_, '_>) -> Result<Vec<Segment>> {
    let plan = block.plan;
    let route = &plan.network.routes[0];
    let station = &route.stations[0];
    let mut cutters: Vec<_> = (0..block.lanes())
        .map(|lane| {
            let segment = block.segment(lane);
            Cutter {
                queries: plan.source.queries(plan.qps, segment, plan.cuts.len()),
                stream: plan.source.gap_stream(segment),
                gaps: Vec::new(),
                at: 0,
                query: 0,
                rest: plan.cuts[segment].queries,
                left: 0,
                part: 0,
                time_s: 0.0,
                now_s: 0.0,
                parts: 0,
                items: 0,
                warm: None,
            }
        })
        .collect();
    let mut parts = Parts {
        gaps: vec![[IDLE_S; LANES]; ROWS],
        before: vec![[f64::NEG_INFINITY; LANES]; ROWS],
        items: vec![[0; LANES]; ROWS],
        ids: vec![[0; LANES]; ROWS],
        ends: vec![0; ROWS],
    };
    let streams: Vec<Stream> = block.service_streams(0).into_iter().cycle().take(ROWS * LANES).collect();
    let mut services = vec![[1.0; LANES]; ROWS];
    let (mut sojourns, mut ends) = (vec![[0.0; LANES]; ROWS], vec![[0.0; LANES]; ROWS]);
    let mut free = unused(station.threads);
    let mut latest = [f64::NEG_INFINITY; LANES];
    let mut account = Account::NONE;
    let mut waits: Vec<Counts> = (0..if plan.waits { block.lanes() } else { 0 }).map(|_| Counts::default()).collect();
    while !cutters.iter().all(Cutter::is_done) {
        block.poll()?;
        parts.ends.fill(0);
        for (lane, cutter) in cutters.iter_mut().enumerate() {
            cutter.write(lane, route.batch, &mut parts, &block);
        }
        let draws = services.as_flattened_mut();
        match station.service.law() {
            Some(law) => block.kernels.fill(law, 1.0, &streams, parts.ids.as_flattened(), draws),
            None => draws.fill(1.0),
        }
        for (row, items) in services.iter_mut().zip(&parts.items) {
            for (x, items) in row.iter_mut().zip(items) {
                *x = match &station.service {
                    _ if *items == 0 => 0.0,
                    Service::Linear { base_s, per_item_s, .. } => *x * (base_s + per_item_s * f64::from(*items)),
                    service => *x * service.mean_s(*items, 1),
                };
            }
        }
        // SAFETY: the kernels are those of this CPU.
        unsafe {
            let kernel = block.kernels.pool_of_parts;
            kernel(&mut free, &mut latest, &parts.gaps, &services, &parts.before, &mut sojourns, &mut ends);
        }
        for (lanes, row) in parts.ends.iter().zip(&ends) {
            let mut lanes = *lanes;
            while lanes != 0 {
                let lane = lanes.trailing_zeros() as usize;
                block.records[lane].push(row[lane]);
                lanes &= lanes - 1;
            }
        }
        let before = account;
        // SAFETY: the kernels are those of this CPU.
        unsafe { (block.kernels.account)(&mut account, &parts.gaps, &services, &sojourns) };
        for lane in (0..LANES).filter(|lane| parts.items[ROWS - 1][*lane] == 0) {
            // Idle rows took no time at the station, but moved its clock to the end of days.
            (account.clock_s[lane], account.end_s[lane]) = (before.clock_s[lane], before.end_s[lane]);
            for row in (0..ROWS).take_while(|row| parts.items[*row][lane] > 0) {
                account.clock_s[lane] += parts.gaps[row][lane];
                account.end_s[lane] = account.end_s[lane].max(account.clock_s[lane] + sojourns[row][lane]);
            }
        }
        for (lane, waits) in waits.iter_mut().enumerate() {
            let warmup = plan.cuts[block.segment(lane)].warmup;
            for row in 0..ROWS {
                if parts.items[row][lane] > 0 && query_of(parts.ids[row][lane]) >= warmup {
                    waits.add(f64::max(0.0, sojourns[row][lane] - services[row][lane]));
                }
            }
        }
        for (lane, cutter) in cutters.iter_mut().enumerate() {
            let warmup = plan.cuts[block.segment(lane)].warmup;
            if cutter.warm.is_none() && warmup > 0 && cutter.query > warmup && cutter.rest > 0 {
                cutter.warm = Some(Before {
                    query: cutter.query,
                    now_s: cutter.now_s,
                    parts: cutter.parts,
                    items: cutter.items,
                    busy_s: account.busy_s[lane],
                    sojourn_s: account.sojourn_s[lane],
                });
            }
        }
    }
    let records = std::mem::take(&mut block.records);
    let segments = records.into_iter().zip(cutters).enumerate().map(|(lane, (record, cutter))| {
        let before = cutter.warm.unwrap_or_default();
        let busy_s = account.busy_s[lane] - before.busy_s;
        let jobs = cutter.parts - before.parts;
        let wait_s = account.sojourn_s[lane] - before.sojourn_s - busy_s;
        Segment {
            record,
            uses: vec![Use {
                busy_s,
                wait_s,
                jobs,
                executions: jobs,
                items: cutter.items - before.items,
                ..Use::default()
            }],
            queries: cutter.query - before.query,
            seconds: account.end_s[lane] - before.now_s,
            inside_query_s: f64::NAN,
            waits: waits.get_mut(lane).map(Counts::take).into_iter().collect(),
        }
    });
    Ok(segments.collect())
}
