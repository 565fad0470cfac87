//! The data of a provisioning problem: what machines can do, and what one interval asks of them.

use crate::error::{Error, Result};

/// Values that are allowed. Far wider than any fleet's, and such that no product or quotient of the solvers overflows.
pub(super) struct Range {
    least: f64,
    most: f64,
    zero: bool,
}

const RATES: Range = Range { least: 1e-9, most: 1e15, zero: true };
const POWERS: Range = Range { least: 0.0, most: 1e15, zero: true };
pub(super) const DEMANDS: Range = Range { least: 1e-12, most: 1e18, zero: true };
pub(super) const COSTS: Range = Range { least: 0.0, most: 1e15, zero: true };
pub(super) const PENALTIES: Range = Range { least: 1e-60, most: 1e60, zero: false };

/// Most types and workloads together: columns of the program are numbered by 32 bits.
const MOST_NODES: usize = 1 << 29;

impl Range {
    /// Whether all of `values`, a matrix of that many columns, are allowed.
    pub(super) fn check(&self, field: &str, values: &[f64], columns: usize) -> Result<()> {
        let good = |x: f64| (x >= self.least && x <= self.most) || (self.zero && x == 0.0);
        // Without an early end, so that it is done by vectors: there are millions.
        if values.iter().fold(true, |all, &x| all & good(x)) {
            return Ok(());
        }
        let Some(i) = values.iter().position(|&x| !good(x)) else { return Ok(()) };
        let zero = if self.zero && self.least > 0.0 { "0, or " } else { "" };
        let allowed = format!("{zero}from {:e} to {:e}", self.least, self.most);
        Err(Error::invalid(field, format!("[{}, {}] is {}; must be {allowed}", i / columns, i % columns, values[i])))
    }
}

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
        if types.saturating_add(workloads) > MOST_NODES {
            let message = format!("are {types}, with {workloads} workloads; at most {MOST_NODES} together");
            return Err(Error::invalid("types", message));
        }
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
        RATES.check("qps", qps, workloads)?;
        POWERS.check("power_w", power_w, workloads)?;
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

/// What one interval asks for and what it may use; borrowed from a checked [`super::timeline::Timeline`].
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
