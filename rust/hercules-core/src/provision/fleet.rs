//! The data of a provisioning problem: what machines can do, and what one interval asks of them.

use crate::error::{Error, Result};

/// What one machine does and draws, for every row and workload; borrowed, checked once.
///
/// A *row* is a way of using a server type: most fleets have one row per type, a type with several configurations
/// worth mixing has several. Matrices are row-major `[rows, workloads]`.
#[derive(Clone, Copy, Debug)]
pub struct Fleet<'a> {
    rows: usize,
    workloads: usize,
    types: usize,
    qps: &'a [f64],
    power_w: &'a [f64],
    row_type: &'a [u32],
    group: Option<&'a [u32]>,
}

impl<'a> Fleet<'a> {
    /// `qps`, `power_w`: `[rows, workloads]`, of one machine; `qps` 0 = not eligible. `row_type[r]` < `types`.
    /// `group`: machines come in multiples of it where a model is spread over several (rates and powers stay those of
    /// one machine); `None` = single machines.
    pub fn new(
        workloads: usize,
        types: usize,
        qps: &'a [f64],
        power_w: &'a [f64],
        row_type: &'a [u32],
        group: Option<&'a [u32]>,
    ) -> Result<Self> {
        let rows = row_type.len();
        let cells = rows.checked_mul(workloads).filter(|&cells| cells > 0 && types > 0);
        let Some(cells) = cells else {
            return Err(Error::invalid("qps", format!("{rows} rows of {workloads} workloads on {types} types: empty")));
        };
        for (field, len) in
            [("qps", qps.len()), ("power_w", power_w.len()), ("group", group.map_or(cells, <[u32]>::len))]
        {
            if len != cells {
                return Err(Error::invalid(field, format!("has {len} entries; must have {rows} x {workloads}")));
            }
        }
        if let Some(r) = row_type.iter().position(|&h| h as usize >= types) {
            return Err(Error::invalid("row_type", format!("entry {r} is {}; must be below {types}", row_type[r])));
        }
        for (field, values) in [("qps", qps), ("power_w", power_w)] {
            let good = |x: &f64| (0.0..=f64::MAX).contains(x);
            // Without an early end, so that it is done by vectors: there are millions.
            if values.iter().fold(true, |all, x| all & good(x)) {
                continue;
            }
            if let Some(i) = values.iter().position(|x| !good(x)) {
                let (r, w) = (i / workloads, i % workloads);
                return Err(Error::invalid(field, format!("[{r}, {w}] is {}; must be finite, 0 or more", values[i])));
            }
        }
        if let Some(i) = group.and_then(|group| group.iter().position(|&k| k == 0)) {
            let (r, w) = (i / workloads, i % workloads);
            return Err(Error::invalid("group", format!("[{r}, {w}] is 0; must be 1 or more machines")));
        }
        Ok(Self { rows, workloads, types, qps, power_w, row_type, group })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn workloads(&self) -> usize {
        self.workloads
    }

    pub fn types(&self) -> usize {
        self.types
    }

    /// Rates and powers of row `r`, one entry per workload.
    pub fn row(&self, r: usize) -> (&'a [f64], &'a [f64]) {
        let cells = r * self.workloads..(r + 1) * self.workloads;
        (&self.qps[cells.clone()], &self.power_w[cells])
    }

    pub fn row_type(&self) -> &'a [u32] {
        self.row_type
    }

    /// Machines of row `r` on workload `w` come in multiples of this.
    pub fn group(&self, r: usize, w: usize) -> u32 {
        self.group.map_or(1, |group| group[r * self.workloads + w])
    }
}

/// What one interval asks for and what it may use; borrowed, checked once.
#[derive(Clone, Copy, Debug)]
pub struct Interval<'a> {
    /// q/s to cover, `[workloads]`.
    pub demand: &'a [f64],
    /// Machines that may be on, `[types]`.
    pub stock: &'a [u32],
    /// Cost of a q/s that is shed, `[workloads]`, > 0.
    pub penalty: &'a [f64],
    /// Cost of a watt on each type, `[types]`; `None` = 1.
    pub watt_cost: Option<&'a [f64]>,
    /// Cost of a machine that is on, beside its watts, `[types]`; `None` = 0.
    pub machine_cost: Option<&'a [f64]>,
}

impl Interval<'_> {
    /// Whether shapes and values fit `fleet`.
    pub fn check(&self, fleet: &Fleet<'_>) -> Result<()> {
        let (h, w) = (fleet.types(), fleet.workloads());
        let lengths = [
            ("demand", self.demand.len(), w),
            ("stock", self.stock.len(), h),
            ("penalty", self.penalty.len(), w),
            ("watt_cost", self.watt_cost.map_or(h, <[f64]>::len), h),
            ("machine_cost", self.machine_cost.map_or(h, <[f64]>::len), h),
        ];
        for (field, len, wanted) in lengths {
            if len != wanted {
                return Err(Error::invalid(field, format!("has {len} entries; must have {wanted}")));
            }
        }
        let none: &[f64] = &[];
        let (watt, machine) = (self.watt_cost.unwrap_or(none), self.machine_cost.unwrap_or(none));
        for (field, values, least) in [
            ("demand", self.demand, 0.0),
            ("penalty", self.penalty, f64::MIN_POSITIVE),
            ("watt_cost", watt, 0.0),
            ("machine_cost", machine, 0.0),
        ] {
            if let Some(i) = values.iter().position(|x| !(x.is_finite() && *x >= least)) {
                let allowed = if least > 0.0 { "above 0" } else { "0 or more" };
                return Err(Error::invalid(field, format!("[{i}] is {}; must be finite and {allowed}", values[i])));
            }
        }
        Ok(())
    }

    /// Cost of one watt on type `h`.
    pub fn watt_cost(&self, h: usize) -> f64 {
        self.watt_cost.map_or(1.0, |cost| cost[h])
    }

    /// Cost of one machine of type `h`, beside its watts.
    pub fn machine_cost(&self, h: usize) -> f64 {
        self.machine_cost.map_or(0.0, |cost| cost[h])
    }
}

/// Machines on some (row, workload) pairs; sorted by row, then workload, each pair at most once, no zeros.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment<T> {
    pub row: Vec<u32>,
    pub workload: Vec<u32>,
    pub machines: Vec<T>,
}
