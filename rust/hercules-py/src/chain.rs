//! Binding of the search's chain: its table and traffic, and single runs, by which tests hold it to its slow twin.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands extracted arguments over by value

use crate::call::watched_alone;
use crate::error::{CoreError, invalid};
use crate::list::{List, MAX_ENTRIES, check_entries};
use hercules_core::control::Control;
use hercules_core::queue::chain::input::MAX_QUERIES;
use hercules_core::queue::chain::load;
use hercules_core::queue::chain::{
    Config, Detail, Ended, Input, Scratch, Split, StageUse, System, Traffic as CoreTraffic, Watch,
};
use hercules_core::queue::run::check_rate;
use hercules_core::queue::table::MAX_ITEMS;
use hercules_core::queue::{Grid, GridParts, Law, Unit, percentile};
use hercules_core::{Error, Result};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;

/// Most cells of a service table.
const MAX_CELLS: usize = 1 << 28;

/// Columns of a configuration row before the threads of each stage.
pub const CONFIG_COLUMNS: usize = 6;

/// A checked service table: seconds and joules by variant, stage, items and busy threads.
#[pyclass(frozen, module = "hercules_fast._core")]
pub struct ServiceGrid {
    pub inner: Arc<Grid>,
}

#[pymethods]
impl ServiceGrid {
    #[new]
    #[pyo3(signature = (items, busy, seconds, energy_j, units, busy_of, noise_cv=None))]
    fn new(
        items: PyReadonlyArray1<'_, i64>,
        busy: PyReadonlyArray1<'_, i64>,
        seconds: PyReadonlyArrayDyn<'_, f64>,
        energy_j: PyReadonlyArrayDyn<'_, f64>,
        units: List<String>,
        busy_of: List<usize>,
        noise_cv: Option<List<f64>>,
    ) -> PyResult<Self> {
        check_entries("seconds", seconds.len(), MAX_CELLS)?;
        let (items, busy) = (counts("items", &items)?, counts("busy", &busy)?);
        let shape = seconds.shape().to_vec();
        if shape.len() != 4 || shape[1..] != [units.len(), items.len(), busy.len()] {
            let expected = format!("(V, {}, {}, {})", units.len(), items.len(), busy.len());
            return Err(invalid("seconds", format!("has shape {shape:?}, must be {expected}")));
        }
        if energy_j.shape() != &shape[..3] {
            return Err(invalid("energy_j", format!("has shape {:?}, must be {:?}", energy_j.shape(), &shape[..3])));
        }
        let units = units.iter().map(|unit| Unit::parse(unit)).collect::<Result<Vec<_>>>().map_err(CoreError)?;
        let (seconds, energy_j) =
            (seconds.as_array().iter().copied().collect(), energy_j.as_array().iter().copied().collect());
        let noise_cv = noise_cv.map_or_else(|| vec![0.0; units.len()], Into::into);
        let grid = Grid::new(GridParts { items, busy, seconds, energy_j, units, busy_of: busy_of.into(), noise_cv })
            .map_err(CoreError)?;
        Ok(Self { inner: Arc::new(grid) })
    }

    #[getter]
    fn stages(&self) -> usize {
        self.inner.stages()
    }

    #[getter]
    fn variants(&self) -> usize {
        self.inner.variants()
    }

    #[getter]
    fn max_items(&self) -> u32 {
        self.inner.max_items()
    }
}

/// Arrival law, size law and seed.
#[pyclass(frozen, module = "hercules_fast._core")]
pub struct Traffic {
    pub inner: Arc<CoreTraffic>,
}

#[pymethods]
impl Traffic {
    #[new]
    #[pyo3(signature = (arrivals, arrival_params, size_pmf, seed))]
    fn new(
        arrivals: &str,
        arrival_params: List<f64>,
        size_pmf: PyReadonlyArray1<'_, f64>,
        seed: u64,
    ) -> PyResult<Self> {
        let law = Law::parse("arrivals", arrivals, &arrival_params).map_err(CoreError)?;
        check_entries("size_pmf", size_pmf.len(), MAX_ITEMS as usize)?;
        let pmf: Vec<f64> = size_pmf.as_array().to_vec();
        Ok(Self { inner: Arc::new(CoreTraffic::new(law, &pmf, seed).map_err(CoreError)?) })
    }

    #[getter]
    fn max_size(&self) -> u32 {
        self.inner.max_size()
    }

    #[getter]
    fn mean_size(&self) -> f64 {
        self.inner.mean_size()
    }

    #[getter]
    fn seed(&self) -> u64 {
        self.inner.seed()
    }
}

fn counts(field: &str, values: &PyReadonlyArray1<'_, i64>) -> PyResult<Vec<u32>> {
    check_entries(field, values.len(), MAX_QUERIES)?;
    let named = |(i, value): (usize, &i64)| {
        // The name is only made for the message: this runs once for each query of a trace.
        u32::try_from(*value).or_else(|_| count(&format!("{field}[{i}]"), *value))
    };
    values.as_array().iter().enumerate().map(named).collect()
}

fn count(field: &str, value: i64) -> PyResult<u32> {
    u32::try_from(value).map_err(|_| invalid(field, format!("is {value}; allowed are 0 to {}", u32::MAX)))
}

/// The configuration in one row `[variant, batch, fuse_items, max_wait_us, buffer, offload_items, threads...]`, a buffer of
/// -1 being none; `prefix` leads its field names.
pub fn config(prefix: &str, row: &[i64], stages: usize) -> PyResult<Config> {
    if row.len() != CONFIG_COLUMNS + stages {
        let message = format!("has {} entries, must be {CONFIG_COLUMNS} + {stages} stages", row.len());
        return Err(invalid(format!("{prefix}config"), message));
    }
    let field = |name: &str, value: i64| count(&format!("{prefix}{name}"), value);
    Ok(Config {
        variant: field("variant", row[0])? as usize,
        batch: field("batch", row[1])?,
        fuse_items: field("fuse_items", row[2])?,
        max_wait_s: f64::from(field("max_wait_us", row[3])?) * 1e-6,
        buffer: if row[4] == -1 { None } else { Some(field("buffer", row[4])?) },
        offload_items: field("offload_items", row[5])?,
        threads: row[CONFIG_COLUMNS..]
            .iter()
            .enumerate()
            .map(|(s, threads)| field(&format!("threads[{s}]"), *threads))
            .collect::<PyResult<_>>()?,
    })
}

/// One complete run, left in the scratch memory.
fn run(system: &System, input: &Input, rate: f64, control: &Control) -> Result<Scratch> {
    let split = Split::of(system, input)?;
    let mut scratch = Scratch::new();
    let mut watch = Watch::new(&[], 0, Some(control));
    match system.run(input, &split, rate, &mut scratch, &mut watch, Detail::Energy) {
        Ended::Cancelled => Err(Error::Cancelled),
        _ => Ok(scratch),
    }
}

fn check_percentiles(ps: &[f64]) -> Result<()> {
    ps.iter().enumerate().try_for_each(|(i, p)| percentile::check(&format!("percentiles[{i}]"), *p))
}

/// Put the per-stage figures into `dict`, one array for each.
pub fn set_uses(dict: &Bound<'_, PyDict>, uses: &[StageUse]) -> PyResult<()> {
    let py = dict.py();
    let column = |field: fn(&StageUse) -> f64| uses.iter().map(field).collect::<Vec<_>>().into_pyarray(py);
    dict.set_item("utilisation", column(|u| u.utilisation))?;
    dict.set_item("executions_per_query", column(|u| u.executions_per_query))?;
    dict.set_item("items_per_execution", column(|u| u.items_per_execution))?;
    dict.set_item("energy_j_per_query", column(|u| u.energy_j_per_query))
}

/// One run at `qps`. Percentiles over the queries after `warmup`, whose latencies are given too.
#[pyfunction]
#[pyo3(signature = (grid, traffic, config, qps, queries, warmup, percentiles))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn simulate<'py>(
    py: Python<'py>,
    grid: &ServiceGrid,
    traffic: &Traffic,
    config: PyReadonlyArray1<'py, i64>,
    qps: f64,
    queries: usize,
    warmup: usize,
    percentiles: List<f64>,
) -> PyResult<Bound<'py, PyDict>> {
    let config = one_config(&config, grid)?;
    load::check_run(queries, warmup).and(check_percentiles(&percentiles)).map_err(CoreError)?;
    let rate = check_rate("qps", qps).map_err(CoreError)?;
    let system = System::from_grid(&grid.inner, &config, traffic.inner.max_size()).map_err(CoreError)?;
    let core = &traffic.inner;
    let scratch =
        watched_alone(py, |control| run(&system, &Input::draw(core, queries, 0, Some(control))?, rate, control))?;
    let mut latencies = scratch.latencies(warmup);
    let dict = PyDict::new(py);
    dict.set_item("latencies_s", latencies.clone().into_pyarray(py))?;
    dict.set_item("percentiles_s", percentile::percentiles(&mut latencies, &percentiles).into_pyarray(py))?;
    dict.set_item("throughput_qps", queries as f64 / scratch.span_s())?;
    dict.set_item("falls_behind", scratch.backlog_growth() > load::BACKLOG_GROWTH_LIMIT)?;
    set_uses(&dict, &system.stage_use(&scratch))?;
    Ok(dict)
}

/// Rate at which the busiest stage of a configuration never rests: an upper bound of its throughput.
#[pyfunction]
#[pyo3(signature = (grid, traffic, config))]
pub fn bottleneck_qps(grid: &ServiceGrid, traffic: &Traffic, config: PyReadonlyArray1<'_, i64>) -> PyResult<f64> {
    let config = one_config(&config, grid)?;
    let system = System::from_grid(&grid.inner, &config, traffic.inner.max_size()).map_err(CoreError)?;
    Ok(system.bottleneck_qps(&traffic.inner))
}

/// Latency of every query of a recorded run. `seed` is that of the services' noise.
#[pyfunction]
#[pyo3(signature = (grid, config, arrival_s, sizes, seed=0))]
pub fn simulate_trace<'py>(
    py: Python<'py>,
    grid: &ServiceGrid,
    config: PyReadonlyArray1<'py, i64>,
    arrival_s: PyReadonlyArray1<'py, f64>,
    sizes: PyReadonlyArray1<'py, i64>,
    seed: u64,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let config = one_config(&config, grid)?;
    check_entries("arrival_s", arrival_s.len(), MAX_QUERIES)?;
    let input = Input::trace(arrival_s.as_array().to_vec(), counts("sizes", &sizes)?, seed).map_err(CoreError)?;
    let system = System::from_grid(&grid.inner, &config, input.max_size()).map_err(CoreError)?;
    let scratch = watched_alone(py, |control| run(&system, &input, 1.0, control))?;
    Ok(scratch.latencies(0).into_pyarray(py))
}

/// `limit` by name and `limit_target`, the index of the target or None.
pub fn set_limit(dict: &Bound<'_, PyDict>, limit: load::Limit) -> PyResult<()> {
    let (name, target) = limit.name();
    dict.set_item("limit", name)?;
    dict.set_item("limit_target", target)
}

/// The configuration in an array of one row.
fn one_config(row: &PyReadonlyArray1<'_, i64>, grid: &ServiceGrid) -> PyResult<Config> {
    check_entries("config", row.len(), MAX_ENTRIES)?;
    config("", &row.as_array().to_vec(), grid.inner.stages())
}

/// Rows of a two-dimensional array of configurations.
pub fn configs(field: &str, rows: &PyReadonlyArray2<'_, i64>, stages: usize) -> PyResult<Vec<Config>> {
    check_entries(field, rows.len(), MAX_ENTRIES)?;
    check_entries(field, rows.shape()[0], MAX_ENTRIES)?; // rows may be many and empty
    rows.as_array()
        .outer_iter()
        .enumerate()
        .map(|(i, row)| config(&format!("{field}[{i}]."), &row.to_vec(), stages))
        .collect()
}
