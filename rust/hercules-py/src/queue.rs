//! Binding of the queue simulator: arrays in, dictionaries out.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands extracted arguments over by value

use crate::call::watched;
use crate::error::{CoreError, invalid};
use crate::list::{List, MAX_ENTRIES, check_entries};
use hercules_core::control::Control;
use hercules_core::queue::fusion::Limits;
use hercules_core::queue::input::MAX_QUERIES;
use hercules_core::queue::load::{self, Summary, Target};
use hercules_core::queue::system::{Detail, Ended, Service, SlowedBy, Split, StageUse, Station, Watch};
use hercules_core::queue::table::{MAX_ITEMS, SECONDS};
use hercules_core::queue::{
    Config, Grid, GridParts, Input, Law, Rules, Scratch, System, Traffic as CoreTraffic, Unit, percentile,
};
use hercules_core::rng::{Purpose, Stream};
use hercules_core::{Error, Result};
use numpy::{
    IntoPyArray, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArrayDyn, PyUntypedArrayMethods,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;

/// Most cells of a service table.
const MAX_CELLS: usize = 1 << 28;

/// Columns of a configuration row before the threads of each stage.
pub const CONFIG_COLUMNS: usize = 4;

/// A checked service table: seconds and joules by variant, stage, items and busy threads.
#[pyclass(frozen, module = "hercules_fast._core")]
pub struct ServiceGrid {
    pub inner: Arc<Grid>,
}

#[pymethods]
impl ServiceGrid {
    #[new]
    #[pyo3(signature = (items, busy, seconds, energy_j, units, busy_of))]
    fn new(
        items: PyReadonlyArray1<'_, i64>,
        busy: PyReadonlyArray1<'_, i64>,
        seconds: PyReadonlyArrayDyn<'_, f64>,
        energy_j: PyReadonlyArrayDyn<'_, f64>,
        units: List<String>,
        busy_of: List<usize>,
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
        let grid = Grid::new(GridParts { items, busy, seconds, energy_j, units, busy_of: busy_of.into() })
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

/// The configuration in one row `[variant, batch, fuse_items, max_wait_us, threads...]`; `prefix` leads its field names.
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
        threads: row[CONFIG_COLUMNS..]
            .iter()
            .enumerate()
            .map(|(s, threads)| field(&format!("threads[{s}]"), *threads))
            .collect::<PyResult<_>>()?,
    })
}

fn seconds(field: &str, value: f64) -> Result<f64> {
    let (least, most) = (SECONDS.start(), SECONDS.end());
    let refused = || Error::invalid(field, format!("is {value}; allowed are {least:e} to {most:e} seconds"));
    if SECONDS.contains(&value) { Ok(value) } else { Err(refused()) }
}

/// What one simulation hands to Python.
struct Report {
    summary: Summary,
    waits: Vec<(f64, Vec<f64>)>,
    latencies_s: Option<Vec<f64>>,
    counted: usize,
}

struct Run<'a> {
    system: &'a System,
    rate: f64,
    warmup: usize,
    ps: &'a [f64],
    detail: Detail,
    keep_latencies: bool,
}

impl Run<'_> {
    fn go(&self, input: &Input, control: &Control) -> Result<Report> {
        let split = Split::of(self.system, input)?;
        let mut scratch = Scratch::new();
        let mut watch = Watch::new(&[], self.warmup, Some(control));
        if self.system.run(input, &split, self.rate, &mut scratch, &mut watch, self.detail) == Ended::Cancelled {
            return Err(Error::Cancelled);
        }
        Ok(Report {
            summary: Summary::of(self.system, &scratch, self.warmup, self.ps),
            waits: scratch.wait_statistics(self.ps),
            latencies_s: self.keep_latencies.then(|| scratch.latencies(self.warmup)),
            counted: input.len() - self.warmup,
        })
    }
}

fn check_percentiles(ps: &[f64]) -> Result<()> {
    ps.iter().enumerate().try_for_each(|(i, p)| percentile::check(&format!("percentiles[{i}]"), *p))
}

/// Run `work` watched; Ctrl-C raises `KeyboardInterrupt`, for a single run has no part that is worth keeping.
fn watched_alone<R: Send>(py: Python<'_>, work: impl FnOnce(&Control) -> Result<R> + Send) -> PyResult<R> {
    let watched = watched(py, None, 1, work)?;
    if watched.interrupted {
        return Err(pyo3::exceptions::PyKeyboardInterrupt::new_err(()));
    }
    Ok(watched.result.map_err(CoreError)?)
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

fn set_summary(dict: &Bound<'_, PyDict>, summary: Summary) -> PyResult<()> {
    dict.set_item("percentiles_s", summary.percentiles_s.into_pyarray(dict.py()))?;
    dict.set_item("mean_latency_s", summary.mean_latency_s)?;
    dict.set_item("throughput_qps", summary.throughput_qps)?;
    dict.set_item("backlog_growth", summary.backlog_growth)?;
    dict.set_item("falls_behind", summary.backlog_growth > load::BACKLOG_GROWTH_LIMIT)?;
    set_uses(dict, &summary.uses)
}

fn report_dict(py: Python<'_>, report: Report) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    set_summary(&dict, report.summary)?;
    dict.set_item("counted_queries", report.counted)?;
    if let Some(latencies) = report.latencies_s {
        dict.set_item("latencies_s", latencies.into_pyarray(py))?;
    }
    Ok(dict)
}

/// One run at `qps`. Percentiles over the queries after `warmup`.
#[pyfunction]
#[pyo3(signature = (grid, traffic, config, qps, queries, warmup, percentiles, replication=0, keep_latencies=false))]
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
    replication: u64,
    keep_latencies: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let config = one_config(&config, grid)?;
    load::check_run(queries, warmup).and(check_percentiles(&percentiles)).map_err(CoreError)?;
    let rate = load::check_rate("qps", qps).map_err(CoreError)?;
    let system = System::from_grid(&grid.inner, &config, traffic.inner.max_size()).map_err(CoreError)?;
    let bottleneck_qps = system.bottleneck_qps(&traffic.inner);
    let run = Run { system: &system, rate, warmup, ps: &percentiles, detail: Detail::Energy, keep_latencies };
    let core = &traffic.inner;
    let report =
        watched_alone(py, |control| run.go(&Input::draw(core, queries, replication, Some(control))?, control))?;
    let dict = report_dict(py, report)?;
    dict.set_item("bottleneck_qps", bottleneck_qps)?;
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

/// Latency of every query of a recorded run.
#[pyfunction]
#[pyo3(signature = (grid, config, arrival_s, sizes))]
pub fn simulate_trace<'py>(
    py: Python<'py>,
    grid: &ServiceGrid,
    config: PyReadonlyArray1<'py, i64>,
    arrival_s: PyReadonlyArray1<'py, f64>,
    sizes: PyReadonlyArray1<'py, i64>,
) -> PyResult<Bound<'py, PyDict>> {
    let config = one_config(&config, grid)?;
    check_entries("arrival_s", arrival_s.len(), MAX_QUERIES)?;
    let input = Input::trace(arrival_s.as_array().to_vec(), counts("sizes", &sizes)?).map_err(CoreError)?;
    let system = System::from_grid(&grid.inner, &config, input.max_size()).map_err(CoreError)?;
    let run = Run { system: &system, rate: 1.0, warmup: 0, ps: &[], detail: Detail::Energy, keep_latencies: true };
    let mut report = watched_alone(py, |control| run.go(&input, control))?;
    let latencies = report.latencies_s.take().unwrap_or_default();
    let dict = report_dict(py, report)?;
    dict.set_item("latency_s", latencies.into_pyarray(py))?;
    Ok(dict)
}

/// `(unit, servers, law, params, mean_s, fuse_queries, max_wait_s)`; law `affine` takes `[base_s, per_item_s]`.
type StationRow = (String, u32, String, List<f64>, f64, u32, f64);

fn station(index: usize, row: &StationRow, seed: u64, replication: u64) -> Result<Station> {
    let (unit, threads, law, params, mean_s, fuse_queries, max_wait_s) = row;
    let params: &[f64] = params;
    let field = format!("stations[{index}].service");
    let service = if law == "affine" {
        let [base_s, per_item_s] = *params else {
            return Err(Error::invalid(
                format!("{field}_params"),
                format!("affine: needs [base_s, per_item_s], got {params:?}"),
            ));
        };
        if !(base_s >= 0.0 && per_item_s >= 0.0) {
            return Err(Error::invalid(format!("{field}_params"), format!("affine: must be from 0, got {params:?}")));
        }
        seconds(&format!("{field}_params: one item"), base_s + per_item_s)?;
        Service::Affine { base_s, per_item_s }
    } else {
        let law = Law::parse(&field, law, params)?;
        // One independent stream for each station.
        let stream = Stream::new(seed, Purpose::Service, replication.wrapping_mul(1 << 16).wrapping_add(index as u64));
        Service::Law { law, stream, mean_s: seconds(&format!("{field}_mean_s"), *mean_s)? }
    };
    let limits = Limits { items: u32::MAX, queries: *fuse_queries, max_wait_s: *max_wait_s };
    Ok(Station {
        stage: index,
        unit: Unit::parse(unit)?,
        threads: *threads,
        service,
        slowed_by: SlowedBy::Nobody,
        limits,
    })
}

/// A chain of stations with laws of service: the queueing systems of textbooks.
///
/// Sizes of queries come from `size_pmf`; at stations of unit `sub_batch` they are cut into pieces of `batch` items.
#[pyfunction]
#[pyo3(signature = (stations, arrivals, arrival_params, rate, size_pmf, batch, queries, warmup, percentiles, seed, replication=0, keep_latencies=false))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn simulate_stations<'py>(
    py: Python<'py>,
    stations: List<StationRow>,
    arrivals: &str,
    arrival_params: List<f64>,
    rate: f64,
    size_pmf: List<f64>,
    batch: u32,
    queries: usize,
    warmup: usize,
    percentiles: List<f64>,
    seed: u64,
    replication: u64,
    keep_latencies: bool,
) -> PyResult<Bound<'py, PyDict>> {
    load::check_run(queries, warmup).and(check_percentiles(&percentiles)).map_err(CoreError)?;
    let rate = load::check_rate("rate", rate).map_err(CoreError)?;
    let law = Law::parse("arrivals", arrivals, &arrival_params).map_err(CoreError)?;
    let traffic = CoreTraffic::new(law, &size_pmf, seed).map_err(CoreError)?;
    let chain = stations.iter().enumerate().map(|(i, row)| station(i, row, seed, replication));
    let chain = chain.collect::<Result<Vec<_>>>().map_err(CoreError)?;
    let system = System::from_stations(chain, batch).map_err(CoreError)?;
    let run = Run { system: &system, rate, warmup, ps: &percentiles, detail: Detail::Waits, keep_latencies };
    let mut report =
        watched_alone(py, |control| run.go(&Input::draw(&traffic, queries, replication, Some(control))?, control))?;
    let waits = std::mem::take(&mut report.waits);
    let dict = report_dict(py, report)?;
    dict.set_item("mean_wait_s", waits.iter().map(|wait| wait.0).collect::<Vec<_>>().into_pyarray(py))?;
    let flat: Vec<f64> = waits.into_iter().flat_map(|wait| wait.1).collect();
    let table = flat.into_pyarray(py).reshape([stations.len(), percentiles.len()])?;
    dict.set_item("wait_percentiles_s", table)?;
    Ok(dict)
}

/// Highest load under the targets on one fixed run of queries.
#[pyfunction]
#[pyo3(signature = (grid, traffic, config, slas, queries, warmup, cap=0.95, tolerance=0.005, replication=0))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn max_load<'py>(
    py: Python<'py>,
    grid: &ServiceGrid,
    traffic: &Traffic,
    config: PyReadonlyArray1<'py, i64>,
    slas: List<Target>,
    queries: usize,
    warmup: usize,
    cap: f64,
    tolerance: f64,
    replication: u64,
) -> PyResult<Bound<'py, PyDict>> {
    let config = one_config(&config, grid)?;
    let rules = Rules { targets: slas.into(), queries, warmup, cap, tolerance };
    rules.check().map_err(CoreError)?;
    let system = System::from_grid(&grid.inner, &config, traffic.inner.max_size()).map_err(CoreError)?;
    let core = &traffic.inner;
    let answer = watched_alone(py, |control| {
        let input = Input::draw(core, queries, replication, Some(control))?;
        load::max_load(&system, core, &input, &rules, &mut Scratch::new(), Some(control))
    })?;
    let dict = PyDict::new(py);
    dict.set_item("qps", answer.qps)?;
    set_limit(&dict, answer.limit)?;
    dict.set_item("bound_qps", answer.bound_qps)?;
    dict.set_item("unloaded_s", answer.unloaded_s.into_pyarray(py))?;
    dict.set_item("probes", answer.probes)?;
    dict.set_item("simulated_queries", answer.simulated_queries)?;
    let nothing = || Summary {
        percentiles_s: vec![f64::NAN; rules.targets.len()],
        mean_latency_s: f64::NAN,
        throughput_qps: 0.0,
        backlog_growth: f64::NAN,
        uses: vec![StageUse::UNUSED; system.stages()],
    };
    set_summary(&dict, answer.summary.unwrap_or_else(nothing))?;
    Ok(dict)
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
