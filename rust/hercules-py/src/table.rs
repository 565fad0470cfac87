//! Tables of our own, as a frozen Python object: the memory behind `hercules_fast.EmbeddingTable`.

use crate::call::watched;
use crate::error::{CoreError, DTypeError, InputError, InternalError, invalid};
use crate::sls::{Input, empty, out_memory, thread_count};
use hercules_core::control::Control;
use hercules_core::sls::{Layout, OwnedTable, RowFormat, Source, Table};
use numpy::dtype;
use numpy::npyffi::{self, NPY_TYPES, PY_ARRAY_API, npy_intp};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use std::ffi::c_int;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;

/// Rows of one format, owned: encoded from floats, copied from fused rows, or read or mapped from a file.
#[pyclass(frozen, module = "hercules_fast._core")]
pub struct TableRows {
    table: OwnedTable,
}

impl TableRows {
    pub fn table(&self) -> Table<'_> {
        self.table.table()
    }
}

#[pymethods]
impl TableRows {
    /// Encode a float32 or float16 array.
    #[staticmethod]
    #[pyo3(signature = (array, dtype, threads=None))]
    fn encode(
        py: Python<'_>,
        array: &Bound<'_, PyAny>,
        dtype: &Bound<'_, PyAny>,
        threads: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let array = Input::of("array", array)?;
        let format = row_format(dtype)?;
        let source = match array.kind_and_bytes() {
            (b'f', 4) => array.data().map(|data| Source::F32(data.cast())),
            (b'f', 2) => array.data().map(|data| Source::F16(data.cast())),
            _ => return Err(array.dtype_error("float32, float16")),
        };
        let (rows, dim) = array.rows_and_columns()?;
        let source = source?;
        let threads = threads.map(thread_count).transpose()?;
        long(py, |control| {
            // SAFETY: a C-contiguous, aligned array of rows x dim, which `array` keeps alive.
            unsafe { OwnedTable::encode(source, rows, dim, format, threads, control) }
        })
    }

    /// Copy a uint8 array of fused rows of `dim` columns.
    #[staticmethod]
    fn import_fused(
        py: Python<'_>,
        array: &Bound<'_, PyAny>,
        dtype: &Bound<'_, PyAny>,
        layout: &Bound<'_, PyAny>,
        dim: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let array = Input::of("array", array)?;
        if array.kind_and_bytes() != (b'u', 1) {
            return Err(array.dtype_error("uint8"));
        }
        let (rows, bytes) = array.rows_and_columns()?;
        let format = quantised(row_format(dtype)?, "has no fused rows; allowed are int8, int4, int2")?;
        let layout = parse_layout(layout)?;
        let params = layout.param_bytes(format);
        let codes = bytes.saturating_sub(params);
        if codes == 0 {
            let message = format!(
                "has rows of {bytes} bytes; {} rows of layout {} have {params} and at least one of codes",
                format.name(),
                layout_name(layout)
            );
            return Err(invalid("array", message));
        }
        let most = codes.saturating_mul(8 / format.bits());
        let dim = match dim {
            None => most,
            Some(any) => {
                let least = (codes - 1) * (8 / format.bits()) + 1;
                let dim = crate::sls::integer("dim", any)?;
                usize::try_from(dim).ok().filter(|dim| (least..=most).contains(dim)).ok_or_else(|| {
                    invalid("dim", format!("is {dim}; rows of {bytes} bytes hold {least} to {most} columns"))
                })?
            }
        };
        let from = array.data()?.expose_provenance();
        py.detach(|| {
            let from = std::ptr::with_exposed_provenance(from);
            // SAFETY: a C-contiguous array of `rows` rows of codes and parameters, which `array` keeps alive.
            unsafe { OwnedTable::import(from, layout, rows, dim, format) }
        })
        .map(|table| Self { table })
        .map_err(|e| CoreError(e).into())
    }

    /// A uint8 array of the rows in the given layout.
    fn export_fused<'py>(&self, py: Python<'py>, layout: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let format = self.table.format();
        quantised(format, "has no fused rows; only tables of int8, int4 and int2 have")?;
        let layout = parse_layout(layout)?;
        let bytes = self.table.row_bytes() - format.param_bytes() + layout.param_bytes(format);
        let out = empty(py, self.table.rows(), bytes, dtype::<u8>(py))?;
        let to = out_memory(&out).expose_provenance();
        // SAFETY: the array was just made with that many rows of that many bytes.
        py.detach(|| unsafe { self.table.export(layout, std::ptr::with_exposed_provenance_mut(to)) })
            .map_err(CoreError)?;
        Ok(out.object)
    }

    /// Read (or map) the rows from `offset` to the end of the file behind the descriptor `fd`, which stays open.
    #[staticmethod]
    fn from_file(
        py: Python<'_>,
        fd: i32,
        offset: u64,
        dtype: &Bound<'_, PyAny>,
        rows: usize,
        dim: usize,
        mapped: bool,
    ) -> PyResult<Self> {
        let format = row_format(dtype)?;
        if fd < 0 {
            return Err(invalid("fd", format!("is {fd}; a file's descriptor is 0 or more")));
        }
        // SAFETY: the caller's descriptor, open during this call; not closed here.
        let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
        if mapped {
            let table = OwnedTable::map(&file, offset, rows, dim, format).map_err(CoreError)?;
            return Ok(Self { table });
        }
        long(py, |control| OwnedTable::read(&file, offset, rows, dim, format, control))
    }

    /// The rows' bytes, uint8 `[rows, row_bytes]`, read-only, without a copy.
    fn view<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let table = &slf.get().table;
        let mut shape = [table.rows() as npy_intp, table.row_bytes() as npy_intp];
        // SAFETY: the API returns a new reference or null with an exception set; the array is given its owner below,
        // which keeps the memory alive, and never becomes writable.
        unsafe {
            let array = PY_ARRAY_API.PyArray_New(
                py,
                npyffi::get_type_object(py, npyffi::NpyTypes::PyArray_Type),
                2,
                shape.as_mut_ptr(),
                NPY_TYPES::NPY_UBYTE as c_int,
                std::ptr::null_mut(),
                table.data().cast_mut().cast(),
                0,
                npyffi::NPY_ARRAY_C_CONTIGUOUS | npyffi::NPY_ARRAY_ALIGNED,
                std::ptr::null_mut(),
            );
            let object = Bound::from_owned_ptr_or_err(py, array)?;
            let owner = slf.clone().into_any().into_ptr();
            if PY_ARRAY_API.PyArray_SetBaseObject(py, array.cast(), owner) != 0 {
                return Err(PyErr::take(py).unwrap_or_else(|| InternalError::new_err("an array refused its owner")));
            }
            Ok(object)
        }
    }

    #[getter]
    fn rows(&self) -> usize {
        self.table.rows()
    }

    #[getter]
    fn dim(&self) -> usize {
        self.table.dim()
    }

    #[getter]
    fn row_bytes(&self) -> usize {
        self.table.row_bytes()
    }

    #[getter]
    fn dtype(&self) -> &'static str {
        self.table.format().name()
    }

    #[getter]
    fn mapped(&self) -> bool {
        self.table.is_mapped()
    }

    #[getter]
    fn huge_page_share(&self, py: Python<'_>) -> f64 {
        py.detach(|| self.table.huge_share())
    }
}

/// Run `work` so that Ctrl-C is seen.
fn long(
    py: Python<'_>,
    work: impl FnOnce(&Control) -> hercules_core::Result<OwnedTable> + Send,
) -> PyResult<TableRows> {
    let done = watched(py, None, 1, work)?;
    if done.interrupted {
        return Err(PyKeyboardInterrupt::new_err(()));
    }
    Ok(TableRows { table: done.result.map_err(CoreError)? })
}

fn row_format(any: &Bound<'_, PyAny>) -> PyResult<RowFormat> {
    let name: String = any.extract().map_err(|_| not_a_name("dtype", any))?;
    RowFormat::parse(&name).map_err(|e| CoreError(e).into())
}

fn parse_layout(any: &Bound<'_, PyAny>) -> PyResult<Layout> {
    let name: String = any.extract().map_err(|_| not_a_name("layout", any))?;
    Layout::parse(&name).map_err(|e| CoreError(e).into())
}

fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::ParamsLast => "last",
        Layout::ParamsFirst => "first",
    }
}

fn not_a_name(field: &str, any: &Bound<'_, PyAny>) -> PyErr {
    let given = any.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
    DTypeError::new_err(format!("{field}: must be a name (str), not {given}"))
}

fn quantised(format: RowFormat, otherwise: &str) -> PyResult<RowFormat> {
    if format.is_quantised() {
        return Ok(format);
    }
    Err(InputError::new_err(format!("dtype: {} {otherwise}", format.name())))
}
