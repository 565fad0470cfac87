//! Binding of the configuration search: problems in, one dictionary for each out.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands extracted arguments over by value

use crate::call::{watched, watched_with};
use crate::chain::{self, ServiceGrid, Traffic, configs, set_limit, set_uses};
use crate::error::{CoreError, invalid};
use crate::list::{List, MAX_ENTRIES, check_entries};
use hercules_core::control::Control;
use hercules_core::error::Error;
use hercules_core::pool;
use hercules_core::queue::chain::{StageUse, Target};
use hercules_core::search::answer::Answer;
use hercules_core::search::objective::{self, Goal, Objective};
use hercules_core::search::{Method, Outcome, Problem, Settings, Step, rates, run};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Power of a server from the use of its stages: watts always drawn; watts at rest and span of each component; component
/// and slots of each group (0 slots: its threads share all of it); group of each stage; cores of a thread by variant and
/// stage; the component whose use is the stages' energy.
#[pyclass(frozen, module = "hercules_fast._core")]
pub struct PowerModel {
    inner: objective::PowerModel,
}

#[pymethods]
impl PowerModel {
    #[new]
    #[pyo3(signature = (base_w, idle_w, span_w, component_of, slots, group_of, cores, energy_of=None))]
    #[allow(clippy::too_many_arguments)] // keyword arguments of a Python class
    fn new(
        base_w: f64,
        idle_w: List<f64>,
        span_w: List<f64>,
        component_of: List<usize>,
        slots: List<u32>,
        group_of: List<usize>,
        cores: PyReadonlyArray2<'_, i64>,
        energy_of: Option<usize>,
    ) -> PyResult<Self> {
        check_entries("cores", cores.len(), MAX_ENTRIES)?;
        let [variants, stages] = [cores.shape()[0], cores.shape()[1]];
        let cores = cores
            .as_array()
            .iter()
            .map(|count| u32::try_from(*count).map_err(|_| format!("is {count}; allowed are 0 to {}", u32::MAX)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|message| invalid("cores", message))?;
        let inner = objective::PowerModel {
            base_w,
            idle_w: idle_w.into(),
            span_w: span_w.into(),
            component_of: component_of.into(),
            slots: slots.into(),
            group_of: group_of.into(),
            cores,
            energy_of,
        };
        inner.check(variants, stages).map_err(CoreError)?;
        Ok(Self { inner })
    }

    /// Watts of a server that runs `config` at `qps`, from the use and the energy of each stage.
    fn power_w(
        &self,
        config: PyReadonlyArray1<'_, i64>,
        qps: f64,
        utilisation: List<f64>,
        energy_j_per_query: List<f64>,
    ) -> PyResult<f64> {
        let stages = self.inner.group_of.len();
        check_entries("config", config.len(), MAX_ENTRIES)?;
        let config = chain::config("", &config.as_array().to_vec(), stages)?;
        if (config.variant + 1) * stages > self.inner.cores.len() {
            return Err(invalid("variant", format!("is {}; the model has fewer", config.variant)));
        }
        for (name, values) in [("utilisation", &utilisation), ("energy_j_per_query", &energy_j_per_query)] {
            if values.len() != stages {
                return Err(invalid(name, format!("has {} entries, must be {stages}", values.len())));
            }
        }
        let uses: Vec<StageUse> = utilisation
            .iter()
            .zip(energy_j_per_query.iter())
            .map(|(&utilisation, &energy_j_per_query)| StageUse { utilisation, energy_j_per_query, ..StageUse::UNUSED })
            .collect();
        Ok(self.inner.power_w(&config, qps, &uses))
    }
}

/// One (server, workload) pair: table, traffic, candidates with lattice coordinates, starts, targets.
#[pyclass(frozen, module = "hercules_fast._core")]
pub struct SearchProblem {
    inner: Arc<Problem>,
}

#[pymethods]
impl SearchProblem {
    #[new]
    #[pyo3(signature = (grid, traffic, candidates, coords, starts, slas, lines=None, power=None, objective=None, power_budget_w=None))]
    #[allow(clippy::too_many_arguments)] // keyword arguments of a Python class
    fn new(
        py: Python<'_>,
        grid: &ServiceGrid,
        traffic: &Traffic,
        candidates: PyReadonlyArray2<'_, i64>,
        coords: PyReadonlyArray2<'_, i64>,
        starts: PyReadonlyArray1<'_, i64>,
        slas: List<Target>,
        lines: Option<List<List<usize>>>,
        power: Option<&PowerModel>,
        objective: Option<(f64, f64)>,
        power_budget_w: Option<f64>,
    ) -> PyResult<Self> {
        let configs = configs("candidates", &candidates, grid.inner.stages())?;
        if coords.shape()[0] != configs.len() {
            let message = format!("has {} rows for {} candidates", coords.shape()[0], configs.len());
            return Err(invalid("coords", message));
        }
        check_entries("coords", coords.len(), MAX_ENTRIES)?;
        check_entries("starts", starts.len(), MAX_ENTRIES)?;
        let starts = starts
            .as_array()
            .iter()
            .enumerate()
            .map(|(i, start)| {
                usize::try_from(*start)
                    .map_err(|_| invalid(format!("starts[{i}]"), format!("is {start}; must be from 0")))
            })
            .collect::<PyResult<Vec<_>>>()?;
        let coords: Vec<i64> = coords.as_array().iter().copied().collect();
        let lines = lines.map_or_else(Vec::new, |lines| Vec::from(lines).into_iter().map(Vec::from).collect());
        let (grid, traffic) = (Arc::clone(&grid.inner), Arc::clone(&traffic.inner));
        let (fixed, per_watt) = objective.unwrap_or((1.0, 0.0));
        let goal =
            Goal { objective: Objective { fixed, per_watt }, power_budget_w: power_budget_w.unwrap_or(f64::INFINITY) };
        let power = power.map(|power| power.inner.clone());
        let inner = py
            .detach(|| Problem::new(grid, traffic, configs, coords, starts, lines, slas.into())?.with_goal(power, goal))
            .map_err(CoreError)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    #[getter]
    fn candidates(&self) -> usize {
        self.inner.candidates()
    }
}

/// Search all problems; `(results, interrupted)`. A result is None for a problem that Ctrl-C left unfinished, or that was not
/// begun before `deadline_s`; its `best` is the candidate found, or -1 if none meets the targets. `finished(index, result)`
/// is called on this thread soon after each is found, also for the last ones before Ctrl-C.
#[pyfunction]
#[pyo3(signature = (problems, method="gradient", queries=4096, final_queries=16384, replications=5, cap=0.95, tolerance=0.0025, evaluations=None, threads=None, progress=None, finished=None, deadline_s=None, precision=0.01, most_replications=640, top=1, front=false, polish_queries=32768))]
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
    precision: f64,
    most_replications: usize,
    top: usize,
    front: bool,
    polish_queries: usize,
) -> PyResult<(Bound<'py, PyList>, bool)> {
    let method = Method::parse(method).map_err(CoreError)?;
    let settings = Settings {
        method,
        queries,
        polish_queries,
        final_queries,
        replications,
        cap,
        tolerance,
        precision,
        most_replications,
        evaluations,
        deadline: deadline_s.map(deadline_in).transpose().map_err(CoreError)?.flatten(),
        top,
        front,
    };
    let threads = pool::resolve_threads(threads).map_err(CoreError)?;
    let problems: Vec<Arc<Problem>> = problems.iter().map(|problem| Arc::clone(&problem.get().inner)).collect();
    let fresh = Mutex::new(Vec::new());
    let keep = |index: usize, outcome: &Outcome| {
        if finished.is_some() {
            fresh.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome.clone()));
        }
    };
    let look = |py: Python<'_>, _: &Control| {
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

/// None: later than the clock can tell.
fn deadline_in(seconds: f64) -> Result<Option<Instant>, Error> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(Error::invalid("deadline_s", format!("is {seconds}; must be from 0")));
    }
    Ok(Duration::try_from_secs_f64(seconds).ok().and_then(|wait| Instant::now().checked_add(wait)))
}

fn outcome_dict(py: Python<'_>, outcome: Outcome) -> PyResult<Bound<'_, PyDict>> {
    let dict = match &outcome.verdict {
        Ok(answer) => answer_dict(py, answer)?,
        Err(infeasible) => {
            let dict = PyDict::new(py);
            dict.set_item("best", -1)?;
            dict.set_item("unloaded_s", infeasible.best_unloaded_s.clone().into_pyarray(py))?;
            dict.set_item("unloaded_candidates", &infeasible.candidates)?;
            dict
        }
    };
    for (name, answers) in [("top", &outcome.top), ("front", &outcome.front)] {
        let dicts = answers.iter().map(|answer| answer_dict(py, answer)).collect::<PyResult<Vec<_>>>()?;
        dict.set_item(name, dicts)?;
    }
    dict.set_item("complete", outcome.complete)?;
    let counts = outcome.counts;
    dict.set_item("evaluations", counts.evaluations)?;
    dict.set_item("full_evaluations", counts.full_evaluations)?;
    dict.set_item("probes", counts.probes)?;
    dict.set_item("simulated_queries", counts.simulated_queries)?;
    dict.set_item("pruned_by_bound", counts.pruned_by_bound)?;
    dict.set_item("pruned_by_unloaded", counts.pruned_by_unloaded)?;
    dict.set_item("lost_race", counts.lost_race)?;
    let path: Vec<_> =
        outcome.path.iter().map(|point| (point.candidate, point.qps, step_name(point.step), point.score)).collect();
    dict.set_item("path", path)?;
    Ok(dict)
}

fn answer_dict<'py>(py: Python<'py>, answer: &Answer) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("best", answer.candidate)?;
    dict.set_item("search_qps", answer.search_qps)?;
    dict.set_item("qps", answer.qps)?;
    dict.set_item("qps_lo", answer.qps_lo)?;
    dict.set_item("qps_hi", answer.qps_hi)?;
    dict.set_item("achieved_s", answer.achieved_s.clone().into_pyarray(py))?;
    dict.set_item("mean_latency_s", answer.mean_latency_s)?;
    set_uses(&dict, &answer.uses)?;
    set_limit(&dict, answer.limit)?;
    dict.set_item("power_w", answer.power_w)?;
    dict.set_item("score", answer.score)?;
    dict.set_item("replications", answer.replications)?;
    dict.set_item("precise", answer.precise)?;
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
        Step::Sharpen => "sharpen",
    }
}
