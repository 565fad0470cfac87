//! Service table: seconds and joules of a stage as a function of variant, items and busy threads.

use crate::error::{Error, Result};
use crate::queue::law::Law;
use crate::rng::ln;
use std::sync::Arc;

/// Largest number of items in one execution: the look-up keeps one entry per item count.
pub const MAX_ITEMS: u32 = 1 << 20;

/// Largest number of threads (or devices) of one station.
pub const MAX_THREADS: u32 = 4096;

/// Most cells of one stage with its busy axis spread out: half a gibibyte.
const MAX_SPREAD: usize = 1 << 26;

/// Seconds of one execution that a table may hold. No server is near either end; beyond them rates, their inverses and
/// sums of times could leave the range of f64, and a search for a rate would have nothing to divide.
pub const SECONDS: std::ops::RangeInclusive<f64> = 1e-12..=1e9;

/// Largest energy of one execution.
const MAX_ENERGY_J: f64 = 1e15;

/// Largest coefficient of variation of a service.
const MAX_NOISE_CV: f64 = 100.0;

/// What one execution of a stage works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// At most `batch` items of one query, on one of the stage's threads.
    SubBatch,
    /// A whole query, on one of the stage's threads.
    Query,
    /// Several queries together, on one of the stage's devices.
    Fused,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Self::SubBatch => "sub_batch",
            Self::Query => "query",
            Self::Fused => "fused",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        [Self::SubBatch, Self::Query, Self::Fused]
            .into_iter()
            .find(|unit| unit.name() == text)
            .ok_or_else(|| Error::invalid("unit", format!("is {text:?}; allowed are sub_batch, query, fused")))
    }
}

/// Plain data from which a [`Grid`] is built; arrays are row-major.
#[derive(Debug, Clone)]
pub struct GridParts {
    /// I item counts, from 1, increasing.
    pub items: Vec<u32>,
    /// B busy-thread counts, from 1, increasing.
    pub busy: Vec<u32>,
    /// `[V, S, I, B]`; NaN = this stage does not exist in this variant.
    pub seconds: Vec<f64>,
    /// `[V, S, I]`, dynamic energy of one execution; NaN = unknown.
    pub energy_j: Vec<f64>,
    /// S units.
    pub units: Vec<Unit>,
    /// S stage indices: whose busy threads index the B axis of this stage (itself or an earlier stage).
    pub busy_of: Vec<usize>,
    /// S coefficients of variation of a service around the table.
    pub noise_cv: Vec<f64>,
}

/// Where an item count lies between the grid's points: `value = row + fraction * (next row - row)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    row: u32,
    fraction: f64,
}

/// A checked service table.
///
/// Linear in items between grid points, never beyond the last. Linear in busy threads between grid points, constant
/// beyond the last.
#[derive(Debug)]
pub struct Grid {
    parts: GridParts,
    variants: usize,
    positions: Arc<[Position]>,
}

impl Grid {
    pub fn new(parts: GridParts) -> Result<Self> {
        check_axis("items", &parts.items, MAX_ITEMS)?;
        check_axis("busy", &parts.busy, u32::MAX)?;
        let (stages, rows, columns) = (parts.units.len(), parts.items.len(), parts.busy.len());
        if stages == 0 {
            return Err(Error::invalid("units", "is empty; at least one stage is needed"));
        }
        if parts.busy_of.len() != stages {
            return Err(Error::invalid("busy_of", format!("has {} entries for {stages} stages", parts.busy_of.len())));
        }
        if parts.noise_cv.len() != stages {
            return Err(Error::invalid(
                "noise_cv",
                format!("has {} entries for {stages} stages", parts.noise_cv.len()),
            ));
        }
        if let Some((s, cv)) = parts.noise_cv.iter().enumerate().find(|(_, cv)| !(0.0..=MAX_NOISE_CV).contains(*cv)) {
            return Err(Error::invalid(format!("noise_cv[{s}]"), format!("is {cv}; allowed are 0 to {MAX_NOISE_CV}")));
        }
        if let Some((s, r)) = parts.busy_of.iter().enumerate().find(|(s, r)| *r > s) {
            return Err(Error::invalid(
                format!("busy_of[{s}]"),
                format!("is {r}; allowed are 0..={s} (itself or earlier)"),
            ));
        }
        let cell = stages * rows * columns;
        if parts.seconds.is_empty() || !parts.seconds.len().is_multiple_of(cell) {
            let message = format!("has {} entries, not a multiple of S*I*B = {cell}", parts.seconds.len());
            return Err(Error::invalid("seconds", message));
        }
        let variants = parts.seconds.len() / cell;
        if parts.energy_j.len() != variants * stages * rows {
            let expected = variants * stages * rows;
            return Err(Error::invalid(
                "energy_j",
                format!("has {} entries, not V*S*I = {expected}", parts.energy_j.len()),
            ));
        }
        if let Some(i) = parts.seconds.iter().position(|x| !(x.is_nan() || SECONDS.contains(x))) {
            let (value, least, most) = (parts.seconds[i], SECONDS.start(), SECONDS.end());
            let message = format!("is {value:e}; allowed are {least:e} to {most:e} seconds and NaN (no such stage)");
            return Err(Error::invalid(format!("seconds[{i}] (flat)"), message));
        }
        if let Some(i) = parts.energy_j.iter().position(|x| !(x.is_nan() || (0.0..=MAX_ENERGY_J).contains(x))) {
            let message =
                format!("is {:e}; allowed are 0 to {MAX_ENERGY_J:e} joules and NaN (unknown)", parts.energy_j[i]);
            return Err(Error::invalid(format!("energy_j[{i}] (flat)"), message));
        }
        let positions = positions(&parts.items);
        Ok(Self { parts, variants, positions })
    }

    pub fn stages(&self) -> usize {
        self.parts.units.len()
    }

    pub fn variants(&self) -> usize {
        self.variants
    }

    pub fn unit(&self, stage: usize) -> Unit {
        self.parts.units[stage]
    }

    pub fn busy_of(&self, stage: usize) -> usize {
        self.parts.busy_of[stage]
    }

    /// What a service of `stage` is multiplied by: lognormal of mean 1. None where its time is the table's.
    pub fn noise(&self, stage: usize) -> Option<Law> {
        let cv = self.parts.noise_cv[stage];
        let sigma = ln(1.0 + cv * cv).sqrt();
        (sigma > 0.0).then_some(Law::Lognormal { sigma })
    }

    pub fn max_items(&self) -> u32 {
        *self.parts.items.last().expect("checked: items is not empty")
    }

    /// Service times of `stage` in `variant` for 1..=`max_items` items and 1..=`columns` busy threads.
    pub(crate) fn stage_table(&self, variant: usize, stage: usize, columns: u32, max_items: u32) -> Result<StageTable> {
        let (rows, width, columns) = (self.parts.items.len(), self.parts.busy.len(), columns.max(1) as usize);
        let top = self.positions[max_items as usize - 1];
        let last_row = top.row as usize + usize::from(top.fraction > 0.0);
        let cells = (last_row + 2) * columns;
        if cells > MAX_SPREAD {
            let message = format!(
                "has {} item counts for {columns} busy threads: more than {MAX_SPREAD} cells together",
                last_row + 1
            );
            return Err(Error::invalid("seconds", message));
        }
        let mut seconds = Vec::new();
        seconds.try_reserve_exact(cells).map_err(|_| Error::Memory { bytes: cells * size_of::<f64>() })?;
        for row in 0..=last_row {
            let from = ((variant * self.stages() + stage) * rows + row) * width;
            let cells = &self.parts.seconds[from..from + width];
            if cells.iter().any(|x| x.is_nan()) {
                let message = format!(
                    "is NaN for variant {variant}, stage {stage}, items {}: not available there",
                    self.parts.items[row]
                );
                return Err(Error::invalid("seconds", message));
            }
            seconds.extend((1..=columns as u32).map(|n| at_busy(&self.parts.busy, cells, n)));
        }
        // One row more, so that the last point has a neighbour to be multiplied by a fraction of 0.
        seconds.extend_from_within(last_row * columns..);
        let from = (variant * self.stages() + stage) * rows;
        let mut energy_j = self.parts.energy_j[from..=from + last_row].to_vec();
        energy_j.push(energy_j[last_row]);
        let knots = self.parts.items.iter().copied().filter(|n| *n < max_items).chain([max_items]).collect();
        Ok(StageTable { positions: Arc::clone(&self.positions), seconds, energy_j, columns, knots })
    }
}

/// One stage's service times for one configuration, with the busy axis already spread out.
#[derive(Debug, Clone)]
pub struct StageTable {
    positions: Arc<[Position]>,
    seconds: Vec<f64>,
    energy_j: Vec<f64>,
    columns: usize,
    knots: Vec<u32>,
}

impl StageTable {
    /// Seconds for `items` (1 to the table's limit) with `busy` threads (1 to the number of columns).
    #[inline]
    pub fn seconds(&self, items: u32, busy: u32) -> f64 {
        let position = self.positions[items as usize - 1];
        let low = position.row as usize * self.columns + busy as usize - 1;
        let (a, b) = (self.seconds[low], self.seconds[low + self.columns]);
        a + (b - a) * position.fraction
    }

    #[inline]
    pub fn energy_j(&self, items: u32) -> f64 {
        let position = self.positions[items as usize - 1];
        let (a, b) = (self.energy_j[position.row as usize], self.energy_j[position.row as usize + 1]);
        // An unknown neighbour must not spoil an exact grid point.
        if position.fraction == 0.0 { a } else { a + (b - a) * position.fraction }
    }

    /// The whole table of a single stage: `seconds` is `[I, B]` over `items` and `busy`, spread to `columns` threads.
    pub fn of(items: Vec<u32>, busy: Vec<u32>, seconds: Vec<f64>, columns: u32) -> Result<Self> {
        let energy_j = vec![f64::NAN; items.len()];
        let (units, busy_of, noise_cv) = (vec![Unit::Query], vec![0], vec![0.0]);
        let parts = GridParts { items, busy, seconds, energy_j, units, busy_of, noise_cv };
        let grid = Grid::new(parts)?;
        if grid.variants() != 1 {
            return Err(Error::invalid("seconds", "has more rows than items"));
        }
        grid.stage_table(0, 0, columns, grid.max_items())
    }

    /// Most items that it answers for.
    pub fn max_items(&self) -> u32 {
        self.knots[self.knots.len() - 1]
    }

    pub fn columns(&self) -> u32 {
        self.columns as u32
    }

    /// Whether the number of busy threads changes anything.
    pub fn depends_on_busy(&self) -> bool {
        self.seconds.chunks(self.columns).any(|row| row.iter().any(|x| *x != row[0]))
    }

    /// This table with one column, the least that `scale(n)` times the seconds with n busy threads comes to, at each grid
    /// point. Between points it is no more than the least there.
    #[must_use]
    pub fn least_over_busy(&self, scale: impl Fn(u32) -> f64) -> Self {
        let scales: Vec<f64> = (1..=self.columns()).map(scale).collect();
        let least = |row: &[f64]| row.iter().zip(&scales).map(|(x, scale)| x * scale).fold(f64::INFINITY, f64::min);
        Self {
            positions: Arc::clone(&self.positions),
            seconds: self.seconds.chunks(self.columns).map(least).collect(),
            energy_j: self.energy_j.clone(),
            columns: 1,
            knots: self.knots.clone(),
        }
    }

    /// Fewest seconds per item that any execution of at most `most` items (and of the table's limit) can reach. Seconds
    /// are piecewise linear in items, so seconds per item is least at a grid point or at the limit itself.
    pub fn best_seconds_per_item(&self, busy: u32, most: u32) -> f64 {
        let most = most.min(self.max_items());
        let knots = self.knots.iter().copied().filter(|n| *n < most).chain([most]);
        knots.map(|n| self.seconds(n, busy) / f64::from(n)).fold(f64::INFINITY, f64::min)
    }
}

fn check_axis(name: &str, axis: &[u32], limit: u32) -> Result<()> {
    if axis.first() != Some(&1) {
        return Err(Error::invalid(format!("{name}[0]"), format!("is {:?}; the axis must begin at 1", axis.first())));
    }
    if let Some(i) = (1..axis.len()).find(|&i| axis[i] <= axis[i - 1]) {
        return Err(Error::invalid(
            format!("{name}[{i}]"),
            format!("is {} after {}; must increase", axis[i], axis[i - 1]),
        ));
    }
    match axis.last() {
        Some(last) if *last > limit => Err(Error::invalid(name, format!("ends at {last}; the limit is {limit}"))),
        _ => Ok(()),
    }
}

fn positions(items: &[u32]) -> Arc<[Position]> {
    let last = items[items.len() - 1];
    let mut row = 0;
    (1..=last)
        .map(|n| {
            if row + 1 < items.len() && items[row + 1] <= n {
                row += 1;
            }
            let fraction = match items.get(row + 1) {
                Some(next) => f64::from(n - items[row]) / f64::from(next - items[row]),
                None => 0.0,
            };
            Position { row: row as u32, fraction }
        })
        .collect()
}

/// Linear in `n` between the busy axis' points, constant beyond the last.
fn at_busy(axis: &[u32], cells: &[f64], n: u32) -> f64 {
    let right = axis.partition_point(|b| *b <= n);
    let left = right - 1;
    if right == axis.len() || axis[left] == n {
        return cells[left];
    }
    let fraction = f64::from(n - axis[left]) / f64::from(axis[right] - axis[left]);
    cells[left] + (cells[right] - cells[left]) * fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> GridParts {
        GridParts {
            items: vec![1, 3, 7],
            busy: vec![1, 4],
            seconds: vec![1.0, 2.0, 3.0, 6.0, 5.0, f64::NAN],
            energy_j: vec![1.0, 2.0, f64::NAN],
            units: vec![Unit::SubBatch],
            busy_of: vec![0],
            noise_cv: vec![0.0],
        }
    }

    #[test]
    fn interpolates_in_items_and_busy_and_is_constant_beyond_the_last_busy() {
        let grid = Grid::new(parts()).unwrap();
        let table = grid.stage_table(0, 0, 6, 3).unwrap();
        assert_eq!(table.seconds(1, 1), 1.0);
        assert_eq!(table.seconds(2, 1), 2.0);
        assert_eq!(table.seconds(3, 4), 6.0);
        assert_eq!(table.seconds(3, 6), 6.0);
        assert!((table.seconds(1, 2) - 4.0 / 3.0).abs() < 1e-15);
        assert_eq!(table.energy_j(2), 1.5);
        assert!(table.depends_on_busy());
        assert_eq!(table.best_seconds_per_item(1, 3), 1.0);
    }

    #[test]
    fn missing_entries_are_refused_only_where_they_are_used() {
        let grid = Grid::new(parts()).unwrap();
        assert!(grid.stage_table(0, 0, 4, 3).is_ok());
        assert!(grid.stage_table(0, 0, 4, 4).unwrap_err().to_string().contains("items 7"));
    }

    #[test]
    fn faults_name_the_field() {
        let fault = |change: fn(&mut GridParts)| {
            let mut parts = parts();
            change(&mut parts);
            Grid::new(parts).unwrap_err().to_string()
        };
        assert!(fault(|p| p.items[0] = 2).starts_with("items[0]"));
        assert!(fault(|p| p.items[2] = 3).starts_with("items[2]"));
        assert!(fault(|p| p.busy.clear()).starts_with("busy[0]"));
        assert!(fault(|p| p.seconds[1] = -1.0).starts_with("seconds[1]"));
        assert!(fault(|p| p.seconds[1] = f64::INFINITY).starts_with("seconds[1]"));
        // Rates and their inverses must stay finite: such a table made the search for a rate run for ever.
        assert!(fault(|p| p.seconds[1] = 5e-324).starts_with("seconds[1]"));
        assert!(fault(|p| p.seconds[1] = 1e308).starts_with("seconds[1]"));
        assert!(fault(|p| p.energy_j[0] = -1.0).starts_with("energy_j[0]"));
        assert!(fault(|p| p.busy_of[0] = 1).starts_with("busy_of[0]"));
        assert!(fault(|p| p.noise_cv.clear()).starts_with("noise_cv"));
        assert!(fault(|p| p.noise_cv[0] = -0.1).starts_with("noise_cv[0]"));
        assert!(fault(|p| p.noise_cv[0] = f64::NAN).starts_with("noise_cv[0]"));
        assert!(fault(|p| p.seconds.truncate(5)).starts_with("seconds"));
    }
}
