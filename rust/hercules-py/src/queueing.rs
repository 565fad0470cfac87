//! Binding of the simulator of described systems: plain dictionaries in, one dictionary out.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands extracted arguments over by value

use crate::call::{watched, watched_alone};
use crate::error::{CoreError, InputError, invalid};
use crate::list::{List, check_entries};
use hercules_core::cpu::Isa;
use hercules_core::queue::engine::{MAX_PARTS, MAX_SERVICES, service_index};
use hercules_core::queue::fusion::Limits;
use hercules_core::queue::max_load::{self, Question};
use hercules_core::queue::network::{Interference, MAX_STATIONS, Network, Route, Service, Station};
use hercules_core::queue::recursion;
use hercules_core::queue::run::{self, Engine, Job, Order, Report, Sweep};
use hercules_core::queue::source::{Modulated, Process, Profile, Source, Trace};
use hercules_core::queue::table::{MAX_ITEMS, MAX_THREADS, StageTable};
use hercules_core::queue::{Law, Unit};
use hercules_core::rng::{Purpose, Stream};
use hercules_core::{Error, pool};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::conversion::FromPyObjectOwned;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::borrow::Cow;

/// Most draws that one call gives, and draws between two looks at the cancel flag.
const MAX_DRAWS: usize = 1 << 28;
const POLL_DRAWS: usize = 4096;

/// Fewest changes per second from one phase to another, if there are any.
const LEAST_SWITCH: f64 = 1e-12;

/// Most numbers in the rows of a description.
const MAX_CELLS: usize = 1 << 24;

/// A dictionary and where it stands in the description.
struct Part<'py> {
    dict: Bound<'py, PyDict>,
    path: String,
}

impl<'py> Part<'py> {
    fn of(value: &Bound<'py, PyAny>, path: String) -> PyResult<Self> {
        match value.cast::<PyDict>() {
            Ok(dict) => Ok(Self { dict: dict.clone(), path }),
            Err(_) => Err(invalid(&path, "must be a dictionary")),
        }
    }

    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// What stands at `key`; missing is None.
    fn any(&self, key: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.dict.get_item(key)?.filter(|value| !value.is_none()))
    }

    fn optional<T: FromPyObjectOwned<'py>>(&self, key: &str) -> PyResult<Option<T>> {
        let Some(value) = self.any(key)? else { return Ok(None) };
        let refused = |error: T::Error| -> PyErr {
            let error: PyErr = error.into();
            InputError::new_err(format!("{}: {}", self.name(key), error.value(value.py())))
        };
        value.extract().map(Some).map_err(refused)
    }

    fn get<T: FromPyObjectOwned<'py>>(&self, key: &str) -> PyResult<T> {
        self.optional(key)?.ok_or_else(|| invalid(self.name(key), "is missing"))
    }

    fn part(&self, key: &str) -> PyResult<Self> {
        let value = self.any(key)?.ok_or_else(|| invalid(self.name(key), "is missing"))?;
        Self::of(&value, self.name(key))
    }

    fn parts(&self, key: &str) -> PyResult<Vec<Self>> {
        let list = self.list(key, MAX_STATIONS)?;
        list.iter().enumerate().map(|(i, value)| Self::of(value, format!("{}[{i}]", self.name(key)))).collect()
    }

    /// The entries of a list as they are: what they hold is looked at once their number is known.
    fn list(&self, key: &str, most: usize) -> PyResult<List<Bound<'py, PyAny>>> {
        let list: List<Bound<'py, PyAny>> = self.get(key)?;
        check_entries(&self.name(key), list.len(), most)?;
        Ok(list)
    }

    /// Rows of numbers, `rows` of `columns`.
    fn rows(&self, key: &str, rows: usize, columns: usize) -> PyResult<Vec<Vec<f64>>> {
        check_entries(&self.name(key), rows.saturating_mul(columns), MAX_CELLS)?;
        let list = self.list(key, MAX_CELLS)?;
        let refused = || invalid(self.name(key), format!("must have {rows} rows of {columns} numbers"));
        if list.len() != rows {
            return Err(refused());
        }
        let row = |row: &Bound<'py, PyAny>| match row.len() {
            Ok(entries) if entries == columns => row.extract().map_err(|_| refused()),
            _ => Err(refused()),
        };
        list.iter().map(row).collect()
    }

    fn numbers(&self, key: &str) -> PyResult<Vec<f64>> {
        Ok(self.get::<List<f64>>(key)?.into())
    }

    fn law(&self) -> PyResult<Law> {
        let name: String = self.get("law")?;
        Ok(Law::parse(&self.name("law"), &name, &self.numbers("params")?).map_err(CoreError)?)
    }
}

fn network(system: &Bound<'_, PyAny>) -> PyResult<Network> {
    let system = Part::of(system, String::new())?;
    let routes = system.parts("routes")?.iter().map(route).collect::<PyResult<_>>()?;
    let network = Network::new(routes, system.optional("capacity")?, system.optional("drop_after_s")?);
    Ok(network.map_err(CoreError)?)
}

fn route(part: &Part<'_>) -> PyResult<Route> {
    let stations = part.parts("stations")?;
    let threads: Vec<u32> = stations.iter().map(|station| station.get("threads")).collect::<PyResult<_>>()?;
    let batch: Option<u32> = part.optional("batch")?;
    Ok(Route {
        min_size: part.get("min_size")?,
        batch: batch.unwrap_or(u32::MAX),
        stations: stations.iter().map(|part| station(part, &threads)).collect::<PyResult<_>>()?,
    })
}

fn station(part: &Part<'_>, threads: &[u32]) -> PyResult<Station> {
    let interference: String = part.get("interference")?;
    let interference = Interference::parse(&part.name("interference"), &interference).map_err(CoreError)?;
    let slowed_by: usize = part.get("slowed_by")?;
    let columns = threads.get(slowed_by).copied().unwrap_or(1).min(MAX_THREADS);
    let unit: String = part.get("unit")?;
    Ok(Station {
        unit: Unit::parse(&unit)
            .map_err(|_| invalid(part.name("unit"), format!("is {unit:?}; allowed are sub_batch, query, fused")))?,
        threads: part.get("threads")?,
        service: service(&part.part("service")?, if interference == Interference::None { 1 } else { columns })?,
        buffer: part.optional("buffer")?,
        interference,
        slowed_by,
        speed: part.numbers("speed")?,
        limits: Limits {
            items: part.optional("max_items")?.unwrap_or(u32::MAX),
            queries: part.optional("max_queries")?.unwrap_or(u32::MAX),
            max_wait_s: part.get("max_wait_s")?,
        },
    })
}

fn service(part: &Part<'_>, columns: u32) -> PyResult<Service> {
    let kind: String = part.get("kind")?;
    let noise = || part.any("noise")?.map(|_| part.part("noise")?.law()).transpose();
    match &*kind {
        "law" => Ok(Service::Law { law: part.law()?, mean_s: part.get("mean_s")? }),
        "linear" => {
            Ok(Service::Linear { base_s: part.get("base_s")?, per_item_s: part.get("per_item_s")?, noise: noise()? })
        }
        "table" => {
            let (items, busy): (List<u32>, List<u32>) = (part.get("items")?, part.get("busy")?);
            let seconds = part.rows("seconds", items.len(), busy.len())?.concat();
            let table = StageTable::of(items.into(), busy.into(), seconds, columns).map_err(CoreError)?;
            Ok(Service::Table { table, noise: noise()? })
        }
        _ => Err(invalid(part.name("kind"), format!("is {kind:?}; allowed are law, linear, table"))),
    }
}

/// A source whose arrays stay where Python has them.
struct Arrays<'py> {
    part: Part<'py>,
    arrival_s: Option<PyReadonlyArray1<'py, f64>>,
    sizes: Option<PyReadonlyArray1<'py, i64>>,
    pmf: Vec<f64>,
    seed: u64,
}

/// Contiguous numbers: the arrays' own where they are, else copies.
struct Slices<'a> {
    arrival_s: Cow<'a, [f64]>,
    sizes: Option<Cow<'a, [i64]>>,
}

fn contiguous<'a, T: numpy::Element + Copy>(field: &str, array: &'a PyReadonlyArray1<'_, T>) -> PyResult<Cow<'a, [T]>> {
    if let Ok(slice) = array.as_slice() {
        return Ok(Cow::Borrowed(slice));
    }
    check_entries(field, array.len(), MAX_DRAWS)?;
    Ok(Cow::Owned(array.as_array().iter().copied().collect()))
}

impl<'py> Arrays<'py> {
    fn new(source: &Bound<'py, PyAny>, size_pmf: &PyReadonlyArray1<'py, f64>, seed: u64) -> PyResult<Self> {
        let part = Part::of(source, String::new())?;
        check_entries("size_pmf", size_pmf.len(), MAX_ITEMS as usize)?;
        let mut arrays = Self { part, arrival_s: None, sizes: None, pmf: size_pmf.as_array().to_vec(), seed };
        if arrays.part.get::<String>("kind")? == "trace" {
            let times = arrays.part.any("arrival_s")?.ok_or_else(|| invalid("arrival_s", "is missing"))?;
            let float = |_| invalid("arrival_s", "must be a one-dimensional float64 array");
            let whole = |_| invalid("sizes", "must be a one-dimensional int64 array");
            arrays.arrival_s = Some(times.extract().map_err(float)?);
            arrays.sizes = arrays.part.any("sizes")?.map(|sizes| sizes.extract().map_err(whole)).transpose()?;
        }
        Ok(arrays)
    }

    fn slices(&self) -> PyResult<Slices<'_>> {
        let arrival_s = match &self.arrival_s {
            Some(array) => contiguous("arrival_s", array)?,
            None => Cow::Borrowed(&[][..]),
        };
        let sizes = self.sizes.as_ref().map(|array| contiguous("sizes", array)).transpose()?;
        Ok(Slices { arrival_s, sizes })
    }

    fn process<'a>(&self, slices: &'a Slices<'_>) -> PyResult<Process<'a>> {
        let part = &self.part;
        let kind: String = part.get("kind")?;
        let process = match &*kind {
            "law" => return Ok(Process::Renewal(part.law()?)),
            "mmpp" => {
                let rates = part.numbers("rates")?;
                let switch = part.rows("switch", rates.len(), rates.len())?;
                // Shares of phases that are as good as never left are not numbers.
                let slow = |row: &Vec<f64>| row.iter().position(|x| *x > 0.0 && *x < LEAST_SWITCH);
                if let Some((i, j)) = switch.iter().enumerate().find_map(|(i, row)| Some((i, slow(row)?))) {
                    let message = format!("is {:e}; allowed are 0 and {LEAST_SWITCH:e} to 1e12", switch[i][j]);
                    return Err(invalid(part.name(&format!("switch[{i}][{j}]")), message));
                }
                Modulated::new(&rates, &switch).map(Process::Modulated)
            }
            "rates" => Profile::new(&part.numbers("durations_s")?, &part.numbers("from")?, &part.numbers("to")?)
                .map(Process::Profile),
            "diurnal" => Profile::sinusoid(part.get("amplitude")?, part.get("period_s")?).map(Process::Profile),
            "trace" => {
                let starts: Option<List<usize>> = part.optional("starts")?;
                let starts = starts.map_or_else(|| vec![0], Into::into);
                let (scale, cycles): (Option<f64>, Option<usize>) =
                    (part.optional("rate_scale")?, part.optional("cycles")?);
                let (times, sizes) = (&slices.arrival_s, slices.sizes.as_deref());
                let cycle_s = part.optional("cycle_s")?;
                Trace::new(times, sizes, starts, scale.unwrap_or(1.0), cycles.unwrap_or(1), cycle_s).map(Process::Trace)
            }
            _ => {
                let message = format!("is {kind:?}; allowed are law, mmpp, rates, diurnal, trace");
                return Err(invalid(part.name("kind"), message));
            }
        };
        Ok(process.map_err(CoreError)?)
    }

    fn source<'a>(&self, slices: &'a Slices<'_>) -> PyResult<Source<'a>> {
        let group: Option<List<f64>> = self.part.optional("group")?;
        let group = group.as_ref().map(|group| &group[..]);
        Ok(Source::new(self.process(slices)?, group, &self.pmf, self.seed).map_err(CoreError)?)
    }
}

/// One run as Python describes it.
struct Call<'py> {
    network: Network,
    arrays: Arrays<'py>,
    qps: Option<f64>,
    order: Order,
}

/// Positional arguments of [`simulate_system`] from `system` to `seed`.
type CallRow<'py> = (
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    PyReadonlyArray1<'py, f64>,
    Option<f64>,
    u64,
    Option<u64>,
    Option<usize>,
    List<f64>,
    u64,
);

impl<'py> Call<'py> {
    fn new(row: CallRow<'py>, engine: &str, keep: bool, waits: bool, isa: Option<&str>) -> PyResult<Self> {
        let (system, source, size_pmf, qps, queries, warmup, segments, percentiles, seed) = row;
        let order = Order {
            queries,
            warmup,
            segments,
            percentiles: percentiles.into(),
            limits_s: Vec::new(),
            engine: Engine::parse(engine).map_err(CoreError)?,
            keep,
            waits,
            isa: isa.map(Isa::parse).transpose().map_err(CoreError)?,
        };
        Ok(Self { network: network(&system)?, arrays: Arrays::new(&source, &size_pmf, seed)?, qps, order })
    }
}

/// Run all calls beside each other.
fn run_calls(
    py: Python<'_>,
    calls: &[Call<'_>],
    threads: Option<usize>,
    progress: Option<&Py<PyAny>>,
) -> PyResult<Vec<Report>> {
    let threads = pool::resolve_threads(threads).map_err(CoreError)?;
    let slices = calls.iter().map(|call| call.arrays.slices()).collect::<PyResult<Vec<_>>>()?;
    let pairs = calls.iter().zip(&slices);
    let sources = pairs.map(|(call, slices)| call.arrays.source(slices)).collect::<PyResult<Vec<_>>>()?;
    let runs = calls.iter().zip(&sources);
    let jobs: Vec<_> =
        runs.map(|(call, source)| Job { network: &call.network, source, qps: call.qps, order: &call.order }).collect();
    let sweep = py.detach(|| Sweep::new(&jobs)).map_err(CoreError)?;
    let watched = watched(py, progress, sweep.blocks(), |control| sweep.run(threads, control))?;
    if watched.interrupted {
        return Err(pyo3::exceptions::PyKeyboardInterrupt::new_err(()));
    }
    Ok(watched.result.map_err(CoreError)?)
}

/// Simulate a described system; see `hercules_fast.queueing`.
#[pyfunction]
#[pyo3(signature = (system, source, size_pmf, qps, queries, warmup, segments, percentiles, seed, threads=None, engine="auto", keep_latencies=false, waits=false, isa=None))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn simulate_system<'py>(
    py: Python<'py>,
    system: Bound<'py, PyAny>,
    source: Bound<'py, PyAny>,
    size_pmf: PyReadonlyArray1<'py, f64>,
    qps: Option<f64>,
    queries: u64,
    warmup: Option<u64>,
    segments: Option<usize>,
    percentiles: List<f64>,
    seed: u64,
    threads: Option<usize>,
    engine: &str,
    keep_latencies: bool,
    waits: bool,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let row = (system, source, size_pmf, qps, queries, warmup, segments, percentiles, seed);
    let call = Call::new(row, engine, keep_latencies, waits, isa)?;
    let mut reports = run_calls(py, &[call], threads, None)?;
    report_dict(py, reports.remove(0))
}

/// Simulate several systems at once: one tuple of the arguments of `simulate_system`, `system` to `seed`, for each.
#[pyfunction]
#[pyo3(signature = (calls, threads=None, engine="auto", waits=false, progress=None))]
pub fn sweep_systems<'py>(
    py: Python<'py>,
    calls: List<CallRow<'py>>,
    threads: Option<usize>,
    engine: &str,
    waits: bool,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    let rows = Vec::from(calls).into_iter();
    let calls = rows.map(|row| Call::new(row, engine, false, waits, None)).collect::<PyResult<Vec<_>>>()?;
    let list = PyList::empty(py);
    if calls.is_empty() {
        return Ok(list);
    }
    for report in run_calls(py, &calls, threads, progress.as_ref())? {
        list.append(report_dict(py, report)?)?;
    }
    Ok(list)
}

/// Highest load of a described system under latency targets.
#[pyfunction]
#[pyo3(signature = (system, source, size_pmf, targets, cap, precision, seed, threads=None, max_queries=1_073_741_824, loss=0.0, engine="auto"))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn max_load_system<'py>(
    py: Python<'py>,
    system: Bound<'py, PyAny>,
    source: Bound<'py, PyAny>,
    size_pmf: PyReadonlyArray1<'py, f64>,
    targets: List<(f64, f64)>,
    cap: f64,
    precision: f64,
    seed: u64,
    threads: Option<usize>,
    max_queries: u64,
    loss: f64,
    engine: &str,
) -> PyResult<Bound<'py, PyDict>> {
    let network = network(&system)?;
    let threads = pool::resolve_threads(threads).map_err(CoreError)?;
    let engine = Engine::parse(engine).map_err(CoreError)?;
    let arrays = Arrays::new(&source, &size_pmf, seed)?;
    let slices = arrays.slices()?;
    let source = arrays.source(&slices)?;
    let question = Question { targets: targets.into(), cap, precision, max_queries, loss };
    let answer = watched_alone(py, |control| max_load::find(&network, &source, &question, engine, threads, control))?;
    let dict = PyDict::new(py);
    dict.set_item("qps", answer.qps)?;
    dict.set_item("qps_low", answer.low_qps)?;
    dict.set_item("qps_high", answer.high_qps)?;
    dict.set_item("bound_qps", answer.bound_qps)?;
    dict.set_item("collapse_qps", answer.collapse_qps)?;
    let (limit, target) = answer.limit.name();
    dict.set_item("limit", limit)?;
    dict.set_item("limit_target", target)?;
    dict.set_item("unloaded_s", answer.unloaded_s.into_pyarray(py))?;
    dict.set_item("probes", answer.probes)?;
    dict.set_item("simulated_queries", answer.simulated_queries)?;
    dict.set_item("run", answer.report.map(|report| report_dict(py, report)).transpose()?)?;
    Ok(dict)
}

fn report_dict(py: Python<'_>, report: Report) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    let of = |figure: fn(&hercules_core::queue::statistics::Estimate) -> f64| {
        report.percentiles.iter().map(figure).collect::<Vec<_>>().into_pyarray(py)
    };
    dict.set_item("percentiles_s", of(|estimate| estimate.value))?;
    dict.set_item("half_width_s", of(|estimate| estimate.half_width))?;
    dict.set_item("effective_samples", of(|estimate| estimate.effective))?;
    dict.set_item("mean_latency_s", report.mean.value)?;
    dict.set_item("mean_half_width_s", report.mean.half_width)?;
    dict.set_item("engine", report.engine.name())?;
    dict.set_item("offered_qps", report.qps)?;
    dict.set_item("throughput_qps", report.throughput_qps)?;
    dict.set_item("queries", report.queries)?;
    dict.set_item("warmup", report.warmup)?;
    dict.set_item("counted", report.counted)?;
    dict.set_item("refused", report.refused)?;
    dict.set_item("dropped", report.dropped)?;
    dict.set_item("segments", report.segments)?;
    dict.set_item("batches", report.batches)?;
    dict.set_item("interval_queries", report.interval_queries)?;
    dict.set_item("warmup_cut", report.warmup_cut)?;
    dict.set_item("growth", report.growth)?;
    dict.set_item("falls_behind", report.falls_behind)?;
    dict.set_item("mean_in_system", report.mean_in_system)?;
    let stations = PyList::empty(py);
    for station in report.stations {
        let figures = PyDict::new(py);
        figures.set_item("utilisation", station.utilisation)?;
        figures.set_item("blocked_share", station.blocked_share)?;
        figures.set_item("mean_busy", station.mean_busy)?;
        figures.set_item("mean_queue", station.mean_queue)?;
        figures.set_item("mean_wait_s", station.mean_wait_s)?;
        figures.set_item("wait_percentiles_s", station.wait_percentiles_s.into_pyarray(py))?;
        figures.set_item("executions_per_query", station.executions_per_query)?;
        figures.set_item("items_per_execution", station.items_per_execution)?;
        stations.append(figures)?;
    }
    dict.set_item("stations", stations)?;
    if let Some(latencies) = report.latencies_s {
        dict.set_item("latencies_s", latencies.into_pyarray(py))?;
    }
    Ok(dict)
}

/// Draws of a law as the services of a station take them.
#[pyfunction]
#[pyo3(signature = (law, params, seed, segment, station, queries, parts))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn service_draws<'py>(
    py: Python<'py>,
    law: &str,
    params: List<f64>,
    seed: u64,
    segment: u32,
    station: u16,
    queries: PyReadonlyArray1<'py, i64>,
    parts: PyReadonlyArray1<'py, i64>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    check_entries("queries", queries.len(), MAX_DRAWS)?;
    if queries.len() != parts.len() {
        return Err(invalid("parts", format!("has {} entries for {} queries", parts.len(), queries.len())));
    }
    let law = Law::parse("law", law, &params).map_err(CoreError)?;
    let stream = Stream::new(seed, Purpose::Service, (u64::from(segment) << 16) + u64::from(station));
    let (queries, parts) = (contiguous("queries", &queries)?, contiguous("parts", &parts)?);
    for (field, values, most) in [("queries", &queries, MAX_SERVICES), ("parts", &parts, MAX_PARTS)] {
        if let Some(i) = values.iter().position(|x| !(0..most as i64).contains(x)) {
            return Err(invalid(format!("{field}[{i}]"), format!("is {}; allowed are 0 to {}", values[i], most - 1)));
        }
    }
    let index = |(query, part): (&i64, &i64)| service_index(query.cast_unsigned(), part.cast_unsigned());
    let isa = Isa::chosen(None).map_err(CoreError)?;
    let draws = watched_alone(py, |control| {
        let mut draws = Vec::new();
        let bytes = queries.len() * size_of::<f64>();
        draws.try_reserve_exact(queries.len()).map_err(|_| Error::Memory { bytes })?;
        for (queries, parts) in queries.chunks(POLL_DRAWS).zip(parts.chunks(POLL_DRAWS)) {
            if control.cancelled() {
                return Err(Error::Cancelled);
            }
            let indices: Vec<u64> = queries.iter().zip(parts).map(index).collect();
            draws.extend(recursion::draws(&law, stream, &indices, isa));
        }
        Ok(draws)
    })?;
    Ok(draws.into_pyarray(py))
}

/// Arrival times and sizes.
type Drawn<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<i64>>);

/// Arrival times and sizes of the first queries of a segment.
#[pyfunction]
#[pyo3(signature = (source, size_pmf, qps, queries, seed, segment=0, segments=1))]
#[allow(clippy::too_many_arguments, clippy::type_complexity)] // keyword arguments and result of a Python function
pub fn draw_queries<'py>(
    py: Python<'py>,
    source: &Bound<'py, PyAny>,
    size_pmf: PyReadonlyArray1<'py, f64>,
    qps: Option<f64>,
    queries: usize,
    seed: u64,
    segment: usize,
    segments: usize,
) -> PyResult<Drawn<'py>> {
    check_entries("queries", queries, MAX_DRAWS)?;
    let arrays = Arrays::new(source, &size_pmf, seed)?;
    let slices = arrays.slices()?;
    let source = arrays.source(&slices)?;
    let (times, sizes) = watched_alone(py, |control| run::draw(&source, qps, queries, segment, segments, control))?;
    Ok((times.into_pyarray(py), sizes.into_pyarray(py)))
}

/// Queries per second that each station can work off.
#[pyfunction]
#[pyo3(signature = (system, size_pmf))]
pub fn station_capacities<'py>(
    py: Python<'py>,
    system: &Bound<'py, PyAny>,
    size_pmf: PyReadonlyArray1<'py, f64>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let network = network(system)?;
    check_entries("size_pmf", size_pmf.len(), MAX_ITEMS as usize)?;
    let process = Process::Renewal(Law::Exponential);
    let source = Source::new(process, None, &size_pmf.as_array().to_vec(), 0).map_err(CoreError)?;
    let sizes = source.sizes();
    network.check_sizes(sizes.last().map_or(1, |(size, _)| *size)).map_err(CoreError)?;
    Ok(network.capacities(&sizes).into_pyarray(py))
}
