//! Binding of whole machines: linear answers of a timeline in, counts out.
#![allow(clippy::needless_pass_by_value)] // PyO3 hands extracted arguments over by value

use crate::call::watched_unless;
use crate::error::{CoreError, invalid};
use crate::provision::{counts, entries, is_brief, matrix, table};
use hercules_core::pool;
use hercules_core::provision::fleet::Fleet;
use hercules_core::provision::timeline::Timeline;
use hercules_core::provision::whole::{Relaxed, Whole, whole_machines};
use numpy::{IntoPyArray, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Whole machines for every interval: `(columns of the result, interrupted)`.
///
/// `starts` [T + 1], `row`, `workload`, `machines` [K]: the linear answer. `stock_price`, `watt_cost`, `machine_cost`
/// [T, H]; `penalty` [T, W]; `group` [R, W]; the rest as for `provision_linear`. The result has entries for the intervals
/// in `solved` only; its `bound` is None unless asked for.
#[pyfunction]
#[pyo3(signature = (qps, power_w, row_type, types, demand, stock, penalty, starts, row, workload, machines, stock_price, watt_cost=None, machine_cost=None, group=None, bound=false, threads=None, progress=None))]
#[allow(clippy::too_many_arguments)] // keyword arguments of a Python function
pub fn provision_whole<'py>(
    py: Python<'py>,
    qps: PyReadonlyArray2<'py, f64>,
    power_w: PyReadonlyArray2<'py, f64>,
    row_type: PyReadonlyArray1<'py, i64>,
    types: usize,
    demand: PyReadonlyArray2<'py, f64>,
    stock: PyReadonlyArray2<'py, i64>,
    penalty: PyReadonlyArray2<'py, f64>,
    starts: PyReadonlyArray1<'py, i64>,
    row: PyReadonlyArray1<'py, i32>,
    workload: PyReadonlyArray1<'py, i32>,
    machines: PyReadonlyArray1<'py, f64>,
    stock_price: PyReadonlyArray2<'py, f64>,
    watt_cost: Option<PyReadonlyArray2<'py, f64>>,
    machine_cost: Option<PyReadonlyArray2<'py, f64>>,
    group: Option<PyReadonlyArray2<'py, i64>>,
    bound: bool,
    threads: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Bound<'py, PyDict>, bool)> {
    let workloads = qps.shape()[1];
    let row_type = counts("row_type", entries("row_type", &row_type)?)?;
    let group = group.as_ref().map(|group| counts("group", matrix("group", group, workloads)?)).transpose()?;
    let fleet = Fleet::new(
        workloads,
        types,
        entries("qps", &qps)?,
        matrix("power_w", &power_w, workloads)?,
        &row_type,
        group.as_deref(),
    )
    .map_err(CoreError)?;
    let stock = counts("stock", matrix("stock", &stock, types)?)?;
    let [watt_cost, machine_cost] = [("watt_cost", &watt_cost), ("machine_cost", &machine_cost)]
        .map(|(field, array)| array.as_ref().map(|array| matrix(field, array, types)).transpose());
    let demand = matrix("demand", &demand, workloads)?;
    let timeline = Timeline {
        demand,
        stock: &stock,
        penalty: Some(matrix("penalty", &penalty, workloads)?),
        watt_cost: watt_cost?,
        machine_cost: machine_cost?,
    };
    let starts = counts("starts", entries("starts", &starts)?)?;
    let starts: Vec<usize> = starts.iter().map(|&start| start as usize).collect();
    let (row, workload) =
        (indices("row", entries("row", &row)?)?, indices("workload", entries("workload", &workload)?)?);
    let relaxed = Relaxed {
        starts: &starts,
        row: &row,
        workload: &workload,
        machines: entries("machines", &machines)?,
        stock_price: matrix("stock_price", &stock_price, types)?,
    };
    let threads = pool::resolve_threads(threads).map_err(CoreError)?;
    let intervals = demand.len() / workloads;
    let brief = is_brief(&fleet, intervals);
    let watched = watched_unless(brief, py, progress.as_ref(), intervals, |control| {
        let work = || whole_machines(&fleet, &timeline, &relaxed, bound, control);
        if brief { Ok(work()) } else { pool::install(threads, work) }
    })?;
    let answers = watched.result.and_then(|answers| answers).map_err(CoreError)?;
    Ok((result(py, &answers)?, watched.interrupted))
}

fn indices(field: &str, values: &[i32]) -> PyResult<Vec<u32>> {
    let index = |(i, &value): (usize, &i32)| {
        u32::try_from(value).map_err(|_| invalid(field, format!("entry {i} is {value}; must be 0 or more")))
    };
    values.iter().enumerate().map(index).collect()
}

fn result<'py>(py: Python<'py>, answers: &[Option<Whole>]) -> PyResult<Bound<'py, PyDict>> {
    let dict = table(py, answers, |answer| &answer.machines, i64::from)?;
    let bounds: Option<Vec<f64>> = answers.iter().flatten().map(|answer| answer.bound).collect();
    dict.set_item("bound", bounds.map(|bounds| bounds.into_pyarray(py)))?;
    Ok(dict)
}
