//! Binding of the load generator: workers are functions of Python or spin in the core.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands extracted arguments over by value

use crate::call::watched;
use crate::error::{CoreError, invalid};
use crate::list::{List, check_entries};
use hercules_core::load::{self, MAX_SERVICES, NEVER, Outcome, Report, Schedule, Served, Service};
use numpy::{IntoPyArray, PyArray1, PyArrayMethods, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What serves a thread's jobs.
enum Work {
    Spin(load::Spin),
    Call(Py<PyAny>),
}

/// A worker, and what is told when the last part of a query has ended.
struct Worker {
    work: Work,
    /// Whether another pool takes what a service returns.
    hands_on: bool,
    done: Option<Arc<Py<PyAny>>>,
    /// Set when nobody waits for this thread any more.
    over: Arc<AtomicBool>,
}

impl Worker {
    fn attached<R>(run: impl FnOnce(Python<'_>) -> PyResult<R>) -> PyResult<R> {
        // A thread that was left behind may come back when the interpreter is gone.
        Python::try_attach(run).unwrap_or_else(|| Err(PyRuntimeError::new_err("the interpreter has gone")))
    }
}

impl Service for Worker {
    type Payload = Py<PyAny>;
    type Failure = PyErr;

    /// A thread that calls Python keeps one thread state for its life: making one for each call would cost more than
    /// the call, and lose what a worker keeps by thread.
    fn around(mut self, work: impl FnOnce(&mut Self) + Send) {
        if matches!(self.work, Work::Spin(_)) && self.done.is_none() {
            work(&mut self);
        } else {
            let _ = Self::attached(|py| {
                py.detach(|| work(&mut self));
                drop(self);
                Ok(())
            });
        }
    }

    fn serve(&mut self, query: u64, items: u32, payload: Option<Py<PyAny>>) -> PyResult<Option<Py<PyAny>>> {
        match &self.work {
            Work::Spin(spin) => {
                spin.run(items, || self.over.load(Ordering::Relaxed));
                Ok(None)
            }
            Work::Call(function) => Self::attached(|py| {
                let returned = function.call1(py, (query, items, payload))?;
                Ok(self.hands_on.then_some(returned))
            }),
        }
    }

    fn finished(&mut self, query: u64) -> PyResult<()> {
        match &self.done {
            Some(done) => Self::attached(|py| done.call1(py, (query,)).map(|_| ())),
            None => Ok(()),
        }
    }
}

/// Workers (pairs of seconds to spin, or functions), their CPUs (none: not pinned), waiting places.
type PoolParts<'py> = (List<Bound<'py, PyAny>>, Option<List<Option<List<usize>>>>, Option<usize>);

fn pools(
    parts: &List<PoolParts<'_>>,
    done: Option<Arc<Py<PyAny>>>,
    over: &Arc<AtomicBool>,
    polls: bool,
) -> PyResult<Vec<load::Pool<Worker>>> {
    check_entries("pools", parts.len(), load::MAX_POOLS)?;
    let last = parts.len().saturating_sub(1);
    let pool = |(k, (workers, cpus, buffer)): (usize, &PoolParts<'_>)| {
        check_entries(&format!("pools[{k}].workers"), workers.len(), load::MAX_WORKERS)?;
        let worker = |(i, any): (usize, &Bound<'_, PyAny>)| {
            let work = if any.is_callable() {
                Work::Call(any.clone().unbind())
            } else {
                let field = format!("pools[{k}].workers[{i}]");
                let allowed = "must be a function, or a pair of seconds: of its own, and per item";
                let (base_s, per_item_s) = any.extract().map_err(|_| invalid(field, allowed))?;
                Work::Spin(load::Spin::new(base_s, per_item_s).map_err(CoreError)?)
            };
            let done = if k == last { done.clone() } else { None };
            Ok(Worker { work, hands_on: k < last, done, over: Arc::clone(over) })
        };
        let workers = workers.iter().enumerate().map(worker).collect::<PyResult<_>>()?;
        let cpus = cpus.as_ref().map_or_else(Vec::new, |cpus| {
            cpus.iter().map(|one| one.as_ref().map_or_else(Vec::new, |one| one.to_vec())).collect()
        });
        Ok(load::Pool { workers, cpus, buffer: *buffer, polls })
    };
    parts.iter().enumerate().map(pool).collect()
}

/// Seconds of nanoseconds; NaN where the time has not come.
fn seconds(times: Vec<i64>) -> Vec<f64> {
    times.into_iter().map(|ns| if ns == NEVER { f64::NAN } else { ns as f64 * 1e-9 }).collect()
}

/// One array of all pools: [pools, parts].
fn stacked<'py, T: numpy::Element + Copy>(
    py: Python<'py>,
    pools: &mut [Served],
    of: impl Fn(&mut Served) -> Vec<T>,
) -> PyResult<Bound<'py, PyAny>> {
    let rows = pools.len();
    let all: Vec<T> = pools.iter_mut().flat_map(of).collect();
    let columns = all.len() / rows.max(1);
    Ok(all.into_pyarray(py).reshape([rows, columns])?.into_any())
}

fn told(py: Python<'_>, report: Report) -> PyResult<Bound<'_, PyDict>> {
    let Report { arrival_ns, lag_ns, latency_ns, jobs, mut pools, duration_ns, generator_lost_share, notes } = report;
    let out = PyDict::new(py);
    out.set_item("arrival_s", seconds(arrival_ns).into_pyarray(py))?;
    out.set_item("dispatch_lag_s", seconds(lag_ns).into_pyarray(py))?;
    out.set_item("latency_s", seconds(latency_ns).into_pyarray(py))?;
    let column = |of: fn(&load::Job) -> i64| PyArray1::from_iter(py, jobs.iter().map(of));
    out.set_item("part_query", column(|job| i64::from(job.query)))?;
    out.set_item("part_items", column(|job| i64::from(job.items)))?;
    out.set_item("start_s", stacked(py, &mut pools, |pool| seconds(std::mem::take(&mut pool.start_ns)))?)?;
    out.set_item("end_s", stacked(py, &mut pools, |pool| seconds(std::mem::take(&mut pool.end_ns)))?)?;
    out.set_item("cpu_s", stacked(py, &mut pools, |pool| seconds(std::mem::take(&mut pool.cpu_ns)))?)?;
    out.set_item("thread", stacked(py, &mut pools, |pool| std::mem::take(&mut pool.thread))?)?;
    out.set_item("preempted", stacked(py, &mut pools, |pool| std::mem::take(&mut pool.preempted))?)?;
    out.set_item("duration_s", duration_ns as f64 * 1e-9)?;
    out.set_item("generator_lost_share", generator_lost_share)?;
    out.set_item("notes", notes)?;
    Ok(out)
}

/// The figures, the threads that were left behind (pool, thread), and whether Ctrl-C ended the run.
type Ended<'py> = (Bound<'py, PyDict>, Vec<(usize, usize)>, bool);

fn ended(py: Python<'_>, outcome: Outcome<PyErr>, interrupted: bool) -> PyResult<Ended<'_>> {
    if let Some(failure) = outcome.failure {
        return Err(failure);
    }
    let stuck = outcome.stuck.iter().map(|stuck| (stuck.pool, stuck.thread)).collect();
    Ok((told(py, outcome.report)?, stuck, interrupted))
}

/// Play arrivals on pools; see `hercules_fast.measure.run_load`.
#[pyfunction]
#[pyo3(signature = (pools, arrival_s, sizes, batch=None, generator_cpu=None, drain_s=5.0, progress=None, polls=false))]
#[allow(clippy::too_many_arguments)]
pub fn run_load<'py>(
    py: Python<'py>,
    pools: List<PoolParts<'py>>,
    arrival_s: PyReadonlyArray1<'py, f64>,
    sizes: PyReadonlyArray1<'py, i64>,
    batch: Option<u32>,
    generator_cpu: Option<usize>,
    drain_s: f64,
    progress: Option<Py<PyAny>>,
    polls: bool,
) -> PyResult<Ended<'py>> {
    check_entries("arrival_s", arrival_s.len(), MAX_SERVICES)?;
    check_entries("sizes", sizes.len(), MAX_SERVICES)?;
    let (arrivals, sizes) = (arrival_s.as_array().to_vec(), sizes.as_array().to_vec());
    let over = Arc::new(AtomicBool::new(false));
    let pools = self::pools(&pools, None, &over, polls)?;
    let queries = arrivals.len();
    let done = watched(py, progress.as_ref(), queries, |control| {
        let schedule = Schedule::new(&arrivals, &sizes, batch)?;
        load::run(pools, schedule, generator_cpu, drain_s, control)
    });
    over.store(true, Ordering::Relaxed);
    let done = done?;
    ended(py, done.result.map_err(CoreError)?, done.interrupted)
}

/// Pools that serve what somebody else hands in; see `hercules_fast.measure.Server`.
#[pyclass(frozen, module = "hercules_fast._core")]
pub struct LoadServer {
    server: std::sync::RwLock<Option<load::Server<Worker>>>,
    over: Arc<AtomicBool>,
}

#[pymethods]
impl LoadServer {
    #[new]
    #[pyo3(signature = (pools, capacity, batch=None, done=None))]
    fn new(
        py: Python<'_>,
        pools: List<PoolParts<'_>>,
        capacity: usize,
        batch: Option<u32>,
        done: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        check_entries("capacity", capacity, MAX_SERVICES)?;
        let over = Arc::new(AtomicBool::new(false));
        let pools = self::pools(&pools, done.map(Arc::new), &over, false)?;
        let server = py.detach(|| load::Server::start(pools, batch, capacity)).map_err(CoreError)?;
        Ok(Self { server: std::sync::RwLock::new(Some(server)), over })
    }

    /// Put a query in line, as arrived now.
    fn submit(&self, query: u64, items: i64) -> PyResult<()> {
        let server = self.server.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let server = server.as_ref().ok_or_else(closed)?;
        Ok(server.submit(query, items).map_err(CoreError)?)
    }

    /// Wait for what was handed in, `drain_s` at most, and answer what was recorded.
    fn finish<'py>(&self, py: Python<'py>, drain_s: f64) -> PyResult<Ended<'py>> {
        let server = py.detach(|| self.server.write().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        let server = server.ok_or_else(closed)?;
        let done = watched(py, None, 1, |control| server.finish(drain_s, control));
        self.over.store(true, Ordering::Relaxed);
        let done = done?;
        ended(py, done.result.map_err(CoreError)?, done.interrupted)
    }
}

fn closed() -> PyErr {
    invalid("server", "is closed")
}
