//! Binding of the configuration search: problems in, one dictionary for each out.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands extracted arguments over by value

use crate::call::{watched, watched_with};
use crate::chain::{ServiceGrid, Traffic, configs, set_limit, set_uses};
use crate::error::CoreError;
use crate::list::{List, MAX_ENTRIES, check_entries};
use hercules_core::control::Control;
use hercules_core::pool;
use hercules_core::queue::chain::Target;
use hercules_core::search::{Method, Outcome, Problem, Settings, Step, rates, run};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One (server, workload) pair: table, traffic, candidates with lattice coordinates, starts, targets.
#[pyclass(frozen, module = "hercules_fast._core")]
pub struct SearchProblem {
    inner: Arc<Problem>,
}

#[pymethods]
impl SearchProblem {
    #[new]
    #[pyo3(signature = (grid, traffic, candidates, coords, starts, slas, lines=None))]
    #[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
    fn new(
        py: Python<'_>,
        grid: &ServiceGrid,
        traffic: &Traffic,
        candidates: PyReadonlyArray2<'_, i64>,
        coords: PyReadonlyArray2<'_, i64>,
        starts: PyReadonlyArray1<'_, i64>,
        slas: List<Target>,
        lines: Option<List<List<usize>>>,
    ) -> PyResult<Self> {
        let configs = configs("candidates", &candidates, grid.inner.stages())?;
        if coords.shape()[0] != configs.len() {
            let message = format!("has {} rows for {} candidates", coords.shape()[0], configs.len());
            return Err(crate::error::invalid("coords", message));
        }
        check_entries("coords", coords.len(), MAX_ENTRIES)?;
        check_entries("starts", starts.len(), MAX_ENTRIES)?;
        let starts = starts
            .as_array()
            .iter()
            .enumerate()
            .map(|(i, start)| {
                usize::try_from(*start)
                    .map_err(|_| crate::error::invalid(format!("starts[{i}]"), format!("is {start}; must be from 0")))
            })
            .collect::<PyResult<Vec<_>>>()?;
        let coords: Vec<i64> = coords.as_array().iter().copied().collect();
        let lines = lines.map_or_else(Vec::new, |lines| Vec::from(lines).into_iter().map(Vec::from).collect());
        let (grid, traffic) = (Arc::clone(&grid.inner), Arc::clone(&traffic.inner));
        let inner = py
            .detach(|| Problem::new(grid, traffic, configs, coords, starts, lines, slas.into()))
            .map_err(CoreError)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    #[getter]
    fn candidates(&self) -> usize {
        self.inner.candidates()
    }
}

/// Search all problems; `(results, interrupted)`. A result is None for a problem that Ctrl-C, or the end of `deadline_s`
/// seconds, left unfinished; its `best` is the candidate found, or -1 if none meets the targets. `finished(index,
/// result)` is called on this thread soon after each is found, also for the last ones before Ctrl-C.
#[pyfunction]
#[pyo3(signature = (problems, method="gradient", queries=4096, final_queries=16384, replications=5, cap=0.95, tolerance=0.0025, evaluations=None, threads=None, progress=None, finished=None, deadline_s=None))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn search<'py>(
    py: Python<'py>,
    problems: List<Py<SearchProblem>>,
    method: &str,
    queries: usize,
    final_queries: usize,
    replications: usize,
    cap: f64,
    tolerance: f64,
    evaluations: Option<u64>,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
    finished: Option<Py<PyAny>>,
    deadline_s: Option<f64>,
) -> PyResult<(Bound<'py, PyList>, bool)> {
    let method = Method::parse(method).map_err(CoreError)?;
    let settings = Settings { method, queries, final_queries, replications, cap, tolerance, evaluations };
    let threads = pool::resolve_threads(threads).map_err(CoreError)?;
    let problems: Vec<Arc<Problem>> = problems.iter().map(|problem| Arc::clone(&problem.get().inner)).collect();
    let deadline = deadline(deadline_s)?;
    let fresh = Mutex::new(Vec::new());
    let keep = |index: usize, outcome: &Outcome| {
        if finished.is_some() {
            fresh.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome.clone()));
        }
    };
    let look = |py: Python<'_>, control: &Control| {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            control.cancel();
        }
        let found = std::mem::take(&mut *fresh.lock().unwrap_or_else(PoisonError::into_inner));
        for (index, outcome) in found {
            if let Some(callback) = &finished {
                callback.call1(py, (index, outcome_dict(py, outcome)?))?;
            }
        }
        Ok(())
    };
    let watched = watched_with(py, progress.as_ref(), problems.len(), look, |control| {
        run(&problems, &settings, threads, &keep, control)
    })?;
    let outcomes = watched.result.map_err(CoreError)?;
    let list = PyList::empty(py);
    for outcome in outcomes {
        list.append(outcome.map(|outcome| outcome_dict(py, outcome)).transpose()?)?;
    }
    Ok((list, watched.interrupted))
}

/// Highest load of `candidates`, f64[len], by default of all; 0 where one carries none. What the methods of [`search`] choose
/// from.
#[pyfunction]
#[pyo3(signature = (problem, candidates=None, queries=4096, cap=0.95, threads=None, progress=None))]
pub fn candidate_rates<'py>(
    py: Python<'py>,
    problem: &SearchProblem,
    candidates: Option<List<usize>>,
    queries: usize,
    cap: f64,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let threads = pool::resolve_threads(threads).map_err(CoreError)?;
    let settings = Settings { queries, cap, ..Settings::default() };
    let candidates = candidates.map_or_else(|| (0..problem.inner.candidates()).collect(), Vec::from);
    let found = watched(py, progress.as_ref(), candidates.len(), |control| {
        rates(&problem.inner, &candidates, &settings, threads, control)
    })?;
    if found.interrupted {
        return Err(PyKeyboardInterrupt::new_err(()));
    }
    Ok(found.result.map_err(CoreError)?.into_pyarray(py))
}

/// The instant that lies `seconds` ahead; none where that is beyond what a clock can say.
fn deadline(seconds: Option<f64>) -> PyResult<Option<Instant>> {
    match seconds {
        None => Ok(None),
        Some(seconds) if seconds >= 0.0 => {
            Ok(Duration::try_from_secs_f64(seconds).ok().and_then(|wait| Instant::now().checked_add(wait)))
        }
        Some(seconds) => Err(crate::error::invalid("deadline_s", format!("is {seconds}; allowed is >= 0 seconds"))),
    }
}

fn outcome_dict(py: Python<'_>, outcome: Outcome) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    match outcome.verdict {
        Ok(answer) => {
            dict.set_item("best", answer.candidate)?;
            dict.set_item("search_qps", answer.search_qps)?;
            dict.set_item("qps", answer.qps)?;
            dict.set_item("qps_lo", answer.qps_lo)?;
            dict.set_item("qps_hi", answer.qps_hi)?;
            dict.set_item("achieved_s", answer.achieved_s.into_pyarray(py))?;
            dict.set_item("mean_latency_s", answer.mean_latency_s)?;
            set_uses(&dict, &answer.uses)?;
            set_limit(&dict, answer.limit)?;
        }
        Err(infeasible) => {
            dict.set_item("best", -1)?;
            dict.set_item("unloaded_s", infeasible.best_unloaded_s.into_pyarray(py))?;
            dict.set_item("unloaded_candidates", infeasible.candidates)?;
        }
    }
    let counts = outcome.counts;
    dict.set_item("evaluations", counts.evaluations)?;
    dict.set_item("full_evaluations", counts.full_evaluations)?;
    dict.set_item("probes", counts.probes)?;
    dict.set_item("simulated_queries", counts.simulated_queries)?;
    dict.set_item("pruned_by_bound", counts.pruned_by_bound)?;
    dict.set_item("pruned_by_unloaded", counts.pruned_by_unloaded)?;
    dict.set_item("lost_race", counts.lost_race)?;
    let path: Vec<_> = outcome.path.iter().map(|point| (point.candidate, point.qps, step_name(point.step))).collect();
    dict.set_item("path", path)?;
    Ok(dict)
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::Start => "start",
        Step::Axis => "axis",
        Step::Diagonal => "diagonal",
        Step::Far => "far",
        Step::Polish => "polish",
        Step::Feasibility => "feasibility",
        Step::Race => "race",
        Step::Bound => "bound",
    }
}
