//! One random run of queries: when they come (in mean gaps) and how many items each asks for.

use crate::control::Control;
use crate::error::{Error, Result};
use crate::queue::engine::service_index;
use crate::queue::law::{Law, cumulative, pick};
use crate::queue::table::MAX_ITEMS;
use crate::rng::{Purpose, Stream};

/// Largest number of queries in one run: jobs are numbered with 32 bits.
pub const MAX_QUERIES: usize = 1 << 28;

/// Latest time in a recorded run: f64 resolves 2 microseconds there. Unix seconds fit; milliseconds are a mistake.
const MAX_ARRIVAL_S: f64 = 1e10;

/// Queries drawn between two looks at the cancel flag.
const POLL_QUERIES: u64 = 1 << 14;

/// How queries come and how large they are.
#[derive(Debug, Clone)]
pub struct Traffic {
    arrivals: Law,
    cumulative: Vec<f64>,
    /// (size, probability) of every size that occurs, ascending.
    sizes: Vec<(u32, f64)>,
    seed: u64,
}

impl Traffic {
    /// `size_pmf[k]` is the probability of k+1 items; it must sum to 1 within 1e-6.
    pub fn new(arrivals: Law, size_pmf: &[f64], seed: u64) -> Result<Self> {
        if size_pmf.is_empty() || size_pmf.len() > MAX_ITEMS as usize {
            return Err(Error::invalid(
                "size_pmf",
                format!("has {} entries; allowed are 1 to {MAX_ITEMS}", size_pmf.len()),
            ));
        }
        if let Some(i) = size_pmf.iter().position(|p| !p.is_finite() || *p < 0.0) {
            return Err(Error::invalid(
                format!("size_pmf[{i}]"),
                format!("is {}; must be finite and from 0", size_pmf[i]),
            ));
        }
        let total: f64 = size_pmf.iter().sum();
        if (total - 1.0).abs() > 1e-6 {
            return Err(Error::invalid("size_pmf", format!("sums to {total}, must be 1")));
        }
        let sizes = (1..).zip(size_pmf).filter(|(_, p)| **p > 0.0).map(|(size, p)| (size, p / total)).collect();
        Ok(Self { arrivals, cumulative: cumulative(size_pmf), sizes, seed })
    }

    /// (size, probability) of every size that occurs, ascending.
    pub fn sizes(&self) -> impl Iterator<Item = (u32, f64)> {
        self.sizes.iter().copied()
    }

    pub fn max_size(&self) -> u32 {
        self.sizes.last().map_or(1, |(size, _)| *size)
    }

    /// The least size that is at least as large as the share `p` of all queries.
    pub fn size_at(&self, p: f64) -> u32 {
        let mut left = p;
        let reached = |(_, share): &(u32, f64)| {
            left -= share;
            left <= 0.0
        };
        self.sizes().find(reached).map_or(self.max_size(), |(size, _)| size)
    }

    pub fn mean_size(&self) -> f64 {
        self.sizes().map(|(size, p)| f64::from(size) * p).sum()
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// A fixed run of queries. The same run is used at every rate and for every configuration (common random numbers):
/// arrival times are unit times divided by the rate.
#[derive(Debug, Clone)]
pub struct Input {
    pub(crate) unit_time: Vec<f64>,
    pub(crate) size: Vec<u32>,
    pub(crate) noise: Noise,
}

/// Where the noise of a run's services comes from. A draw belongs to a part of a query at a stage, so all rates and all
/// configurations that cut queries alike see the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noise {
    pub(crate) seed: u64,
    pub(crate) replication: u64,
    /// Number of the first query.
    pub(crate) first: u64,
}

impl Noise {
    /// Factors of the services at `stage`, by query and part.
    pub(crate) fn factors(self, law: &Law, stage: usize) -> impl Fn(u32, u32) -> f64 {
        let stream = Stream::new(self.seed, Purpose::Service, (self.replication << 16) + stage as u64);
        move |query, part| law.draw(stream, service_index(self.first + u64::from(query), u64::from(part)))
    }
}

impl Input {
    /// `queries` queries of `traffic`; `replication` numbers independent runs. `control` may ask to stop.
    pub fn draw(traffic: &Traffic, queries: usize, replication: u64, control: Option<&Control>) -> Result<Self> {
        if queries == 0 || queries > MAX_QUERIES {
            return Err(Error::invalid("queries", format!("is {queries}; allowed are 1 to {MAX_QUERIES}")));
        }
        let gaps = Stream::new(traffic.seed, Purpose::Arrivals, replication);
        let sizes = Stream::new(traffic.seed, Purpose::Sizes, replication);
        let (mut unit_time, mut size) = (Vec::new(), Vec::new());
        let refused = |_| Error::Memory { bytes: queries * size_of::<(f64, u32)>() };
        unit_time.try_reserve_exact(queries).map_err(refused)?;
        size.try_reserve_exact(queries).map_err(refused)?;
        let mut clock = 0.0;
        for i in 0..queries as u64 {
            if i % POLL_QUERIES == 0 && control.is_some_and(Control::cancelled) {
                return Err(Error::Cancelled);
            }
            clock += traffic.arrivals.draw(gaps, i);
            unit_time.push(clock);
            size.push(pick(&traffic.cumulative, sizes.uniform(i)) as u32 + 1);
        }
        Ok(Self { unit_time, size, noise: Noise { seed: traffic.seed, replication, first: 0 } })
    }

    /// A recorded run: arrival times in seconds (run it at rate 1) and sizes. `seed` is that of the services' noise.
    pub fn trace(arrival_s: Vec<f64>, sizes: Vec<u32>, seed: u64) -> Result<Self> {
        if arrival_s.len() != sizes.len() || sizes.is_empty() || sizes.len() > MAX_QUERIES {
            let message = format!(
                "has {} entries for {} arrivals; need as many, 1 to {MAX_QUERIES}",
                sizes.len(),
                arrival_s.len()
            );
            return Err(Error::invalid("sizes", message));
        }
        for (i, time) in arrival_s.iter().enumerate() {
            if !(0.0..=MAX_ARRIVAL_S).contains(time) {
                let message = format!("is {time}; allowed are 0 to {MAX_ARRIVAL_S:e} seconds");
                return Err(Error::invalid(format!("arrival_s[{i}]"), message));
            }
            if i > 0 && *time < arrival_s[i - 1] {
                let message = format!("is {time} after {}; times must not decrease", arrival_s[i - 1]);
                return Err(Error::invalid(format!("arrival_s[{i}]"), message));
            }
        }
        if let Some(i) = sizes.iter().position(|size| !(1..=MAX_ITEMS).contains(size)) {
            let message = format!("is {}; a query asks for 1 to {MAX_ITEMS} items", sizes[i]);
            return Err(Error::invalid(format!("sizes[{i}]"), message));
        }
        Ok(Self { unit_time: arrival_s, size: sizes, noise: Noise { seed, replication: 0, first: 0 } })
    }

    pub fn len(&self) -> usize {
        self.size.len()
    }

    pub fn is_empty(&self) -> bool {
        self.size.is_empty()
    }

    pub fn max_size(&self) -> u32 {
        self.size.iter().copied().max().unwrap_or(1)
    }
}
