//! Binding of provisioning: matrices of a fleet and a timeline in, sparse machines, prices and bounds out.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands extracted arguments over by value

use crate::call::watched_unless;
use crate::error::{CoreError, invalid};
use hercules_core::pool;
use hercules_core::provision::fleet::{Assignment, Fleet};
use hercules_core::provision::solver::Answer;
use hercules_core::provision::timeline::{Timeline, solve};
use numpy::{IntoPyArray, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Most entries of an array.
const MAX_CELLS: usize = 1 << 31;

/// Most pairs of a fleet of which an interval takes no more than a few milliseconds.
const BRIEF: usize = 1 << 14;

/// Whole numbers of `values` as u32.
pub fn counts(field: &str, values: &[i64]) -> PyResult<Vec<u32>> {
    values
        .iter()
        .enumerate()
        .map(|(i, &value)| {
            u32::try_from(value)
                .map_err(|_| invalid(field, format!("entry {i} is {value}; must be from 0 to {}", u32::MAX)))
        })
        .collect()
}

/// The entries of a C-ordered array.
pub fn entries<'a, T: numpy::Element, D: numpy::ndarray::Dimension>(
    field: &str,
    array: &'a numpy::PyReadonlyArray<'_, T, D>,
) -> PyResult<&'a [T]> {
    if array.len() > MAX_CELLS {
        return Err(invalid(field, format!("has {} entries; at most {MAX_CELLS} are allowed", array.len())));
    }
    if !array.is_c_contiguous() {
        return Err(invalid(field, "must be C-ordered")); // `as_slice` takes Fortran's order too, as it lies
    }
    array.as_slice().map_err(|_| invalid(field, "must be C-ordered"))
}

/// The entries of a matrix of that many columns.
pub fn matrix<'a, T: numpy::Element>(
    field: &str,
    array: &'a PyReadonlyArray2<'_, T>,
    columns: usize,
) -> PyResult<&'a [T]> {
    if array.shape()[1] != columns {
        return Err(invalid(field, format!("has {} columns; must have {columns}", array.shape()[1])));
    }
    entries(field, array)
}

/// Whether one interval of `fleet` is so little work that Ctrl-C may wait for it.
pub fn is_brief(fleet: &Fleet<'_>, intervals: usize) -> bool {
    intervals == 1 && fleet.rows() * fleet.workloads() <= BRIEF
}

/// The optimum of every interval: `(columns of the result, interrupted)`.
///
/// `qps`, `power_w` [R, W]; `row_type` [R]; `types` H; `demand` [T, W]; `stock` [T or 1, H]; `penalty` [T, W];
/// `watt_cost`, `machine_cost` [T, H]. The result has entries for the intervals in `solved` only.
#[pyfunction]
#[pyo3(signature = (qps, power_w, row_type, types, demand, stock, penalty=None, watt_cost=None, machine_cost=None, threads=None, progress=None))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn provision_linear<'py>(
    py: Python<'py>,
    qps: PyReadonlyArray2<'py, f64>,
    power_w: PyReadonlyArray2<'py, f64>,
    row_type: PyReadonlyArray1<'py, i64>,
    types: usize,
    demand: PyReadonlyArray2<'py, f64>,
    stock: PyReadonlyArray2<'py, i64>,
    penalty: Option<PyReadonlyArray2<'py, f64>>,
    watt_cost: Option<PyReadonlyArray2<'py, f64>>,
    machine_cost: Option<PyReadonlyArray2<'py, f64>>,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyDict>, bool)> {
    let workloads = qps.shape()[1];
    let rows = counts("row_type", entries("row_type", &row_type)?)?;
    let (rates, powers) = (entries("qps", &qps)?, matrix("power_w", &power_w, workloads)?);
    let fleet = Fleet::new(workloads, types, rates, powers, &rows, None).map_err(CoreError)?;
    let stock = counts("stock", matrix("stock", &stock, types)?)?;
    let [penalty, watt_cost, machine_cost] =
        [("penalty", &penalty, workloads), ("watt_cost", &watt_cost, types), ("machine_cost", &machine_cost, types)]
            .map(|(field, array, columns)| array.as_ref().map(|array| matrix(field, array, columns)).transpose());
    let demand = matrix("demand", &demand, workloads)?;
    let timeline =
        Timeline { demand, stock: &stock, penalty: penalty?, watt_cost: watt_cost?, machine_cost: machine_cost? };
    let threads = pool::resolve_threads(threads).map_err(CoreError)?;
    let intervals = demand.len() / workloads;
    let brief = is_brief(&fleet, intervals);
    let watched = watched_unless(brief, py, progress.as_ref(), intervals, |control| {
        let work = || solve(fleet, &timeline, control);
        if brief { Ok(work()) } else { pool::install(threads, work) }
    })?;
    let answers = watched.result.and_then(|answers| answers).map_err(CoreError)?;
    Ok((result(py, &answers, types, workloads)?, watched.interrupted))
}

/// The machines of those intervals that have an answer, as columns; `solved` says which these are.
pub fn table<'py, A, T: Copy, N: numpy::Element>(
    py: Python<'py>,
    answers: &[Option<A>],
    machines: impl Fn(&A) -> &Assignment<T>,
    number: impl Fn(T) -> N,
) -> PyResult<Bound<'py, PyDict>> {
    let places: Vec<i64> = (0_i64..).zip(answers).filter(|(_, answer)| answer.is_some()).map(|(t, _)| t).collect();
    let solved: Vec<&Assignment<T>> = answers.iter().flatten().map(machines).collect();
    let mut starts = vec![0_i64];
    for answer in &solved {
        starts.push(starts[starts.len() - 1] + answer.row.len() as i64);
    }
    let index = |part: fn(&Assignment<T>) -> &Vec<u32>| -> Vec<i32> {
        solved.iter().flat_map(|answer| part(answer).iter().map(|&i| i as i32)).collect()
    };
    let numbers: Vec<N> = solved.iter().flat_map(|answer| answer.machines.iter().map(|&n| number(n))).collect();
    let dict = PyDict::new(py);
    dict.set_item("solved", places.into_pyarray(py))?;
    dict.set_item("starts", starts.into_pyarray(py))?;
    dict.set_item("row", index(|answer| &answer.row).into_pyarray(py))?;
    dict.set_item("workload", index(|answer| &answer.workload).into_pyarray(py))?;
    dict.set_item("machines", numbers.into_pyarray(py))?;
    Ok(dict)
}

fn result<'py>(
    py: Python<'py>,
    answers: &[Option<Answer>],
    types: usize,
    workloads: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let solved: Vec<&Answer> = answers.iter().flatten().collect();
    let matrix = |width: usize, part: fn(&Answer) -> &Vec<f64>| {
        let flat: Vec<f64> = solved.iter().flat_map(|answer| part(answer).iter().copied()).collect();
        flat.into_pyarray(py).reshape([solved.len(), width])
    };
    let vector = |part: fn(&Answer) -> f64| solved.iter().map(|answer| part(answer)).collect::<Vec<_>>();
    let dict = table(py, answers, |answer| &answer.machines, |machines| machines)?;
    dict.set_item("shed", matrix(workloads, |answer| &answer.shed)?)?;
    dict.set_item("stock_price", matrix(types, |answer| &answer.stock_price)?)?;
    dict.set_item("load_price", matrix(workloads, |answer| &answer.load_price)?)?;
    dict.set_item("penalty", matrix(workloads, |answer| &answer.penalty)?)?;
    dict.set_item("objective", vector(|answer| answer.objective).into_pyarray(py))?;
    dict.set_item("bound", vector(|answer| answer.bound).into_pyarray(py))?;
    let steps: Vec<i64> = solved.iter().map(|answer| answer.steps as i64).collect();
    dict.set_item("steps", steps.into_pyarray(py))?;
    Ok(dict)
}
