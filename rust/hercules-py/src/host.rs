//! This machine: timed reads of a block of memory, and what spinning threads see of their CPUs.

use crate::call::{watched, watched_alone};
use crate::error::{CoreError, DTypeError, invalid};
use crate::list::List;
use crate::sls::thread_count;
use hercules_core::host::{self, Level, Memory, Prefetch};
use numpy::{PyArray1, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

/// Seconds in which every cache line of `rows` of `memory` is read, in order, one pass, nothing made of them.
#[pyfunction]
#[pyo3(signature = (memory, row_bytes, rows, rows_ahead, burst, level, threads=None))]
#[allow(clippy::too_many_arguments)]
pub fn read_seconds(
    py: Python<'_>,
    memory: &Bound<'_, PyAny>,
    row_bytes: usize,
    rows: &Bound<'_, PyAny>,
    rows_ahead: usize,
    burst: usize,
    level: &str,
    threads: Option<&Bound<'_, PyAny>>,
) -> PyResult<f64> {
    let memory = contiguous::<u8>("memory", "uint8", memory)?;
    let rows = contiguous::<i64>("rows", "int64", rows)?;
    let level = match level {
        "L1" => Level::L1,
        "L2" => Level::L2,
        other => return Err(invalid("level", format!("is {other:?}; allowed are L1, L2"))),
    };
    let prefetch = Prefetch { rows_ahead, burst, level };
    let threads = threads.map(thread_count).transpose()?;
    // SAFETY: the array's memory, which `memory` keeps alive until the call has returned.
    let block = unsafe { Memory::new(memory.data(), memory.len()) };
    let (first_row, count) = (rows.data().expose_provenance(), rows.len());
    let done = watched(py, None, 1, |control| {
        let first_row = std::ptr::with_exposed_provenance::<i64>(first_row);
        // SAFETY: `count` aligned numbers of the array, which `rows` keeps alive. Another thread may write them
        // meanwhile: each is read once, and checked as it was read.
        let rows = (0..count).map(|i| unsafe { first_row.add(i).read_volatile() });
        host::read_seconds(block, row_bytes, rows, prefetch, threads, control)
    })?;
    if done.interrupted {
        return Err(PyKeyboardInterrupt::new_err(()));
    }
    Ok(done.result.map_err(CoreError)?)
}

/// Spin on all of `cpus` at once; for each (share of time lost in gaps over `least_gap_s`, longest gap [s], pinned).
#[pyfunction]
pub fn spin_gaps(py: Python<'_>, cpus: List<usize>, seconds: f64, least_gap_s: f64) -> PyResult<Vec<(f64, f64, bool)>> {
    let cpus: Vec<usize> = cpus.into();
    let found = watched_alone(py, |control| host::spin_gaps(&cpus, seconds, least_gap_s, control))?;
    Ok(found.into_iter().map(|gaps| (gaps.lost_share, gaps.longest_s, gaps.pinned)).collect())
}

/// GHz of a core by dependent additions, at the best of `seconds`; None where it cannot be measured.
#[pyfunction]
pub fn clock_ghz(py: Python<'_>, seconds: f64) -> PyResult<Option<f64>> {
    watched_alone(py, |control| host::clock_ghz(seconds, control))
}

fn contiguous<'a, 'py, T: numpy::Element>(
    name: &str,
    dtype: &str,
    any: &'a Bound<'py, PyAny>,
) -> PyResult<&'a Bound<'py, PyArray1<T>>> {
    let array = any.cast::<PyArray1<T>>().map_err(|_| {
        DTypeError::new_err(format!("{name}: must be a 1-D NumPy array of {dtype} in native byte order"))
    })?;
    let aligned = array.data().addr().is_multiple_of(align_of::<T>());
    if array.is_c_contiguous() && aligned { Ok(array) } else { Err(invalid(name, "must be contiguous and aligned")) }
}
