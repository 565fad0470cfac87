//! Embedding bags on NumPy arrays: arguments become views of the arrays' memory, checked before any work.
//!
//! Arrays are taken by pointer, not through borrow guards: guards would refuse two threads that read one table while
//! a third one trains it, and cannot see writers in Python anyway. What a concurrent writer can do is bounded by the
//! core: indices, offsets and lengths are read once and checked; table values may mix old and new.

use crate::call::watched;
use crate::error::{CoreError, DTypeError, InternalError, invalid};
use crate::table::TableRows;
use hercules_core::Error;
use hercules_core::control::Control;
use hercules_core::cpu::Isa;
use hercules_core::sls::{Bags, Call, Ints, Length, LookupWeights, Mode, Output, Plan, RowFormat, Skip, Table, Tables};
use numpy::npyffi::{self, NPY_ARRAY_WRITEABLE, PY_ARRAY_API, npy_intp};
use numpy::{PyArrayDescr, PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods, dtype};
use pyo3::exceptions::{PyKeyboardInterrupt, PyOverflowError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::ffi::c_int;
use std::fmt;
use std::ops::Range;

/// `hercules_fast.embedding_bag`, with `isa` to cap the instruction set (for tests).
#[pyfunction]
#[pyo3(signature = (weight, indices, offsets, mode, per_sample_weights, include_last_offset, padding_idx, out, threads, exact, isa=None))]
#[allow(clippy::too_many_arguments)] // the arguments of the public function
pub fn embedding_bag<'py>(
    weight: &Bound<'py, PyAny>,
    indices: &Bound<'py, PyAny>,
    offsets: Option<&Bound<'py, PyAny>>,
    mode: &Bound<'py, PyAny>,
    per_sample_weights: Option<&Bound<'py, PyAny>>,
    include_last_offset: &Bound<'py, PyAny>,
    padding_idx: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
    exact: &Bound<'py, PyAny>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let weight = Weight::of("weight", weight)?;
    let table = weight.table()?;
    let indices = Input::of("indices", indices)?;
    let include_last_offset = flag("include_last_offset", include_last_offset)?;
    let offsets = offsets.map(|any| Input::of("offsets", any)).transpose()?;
    let lookup_weights = per_sample_weights.map(|any| Input::of("per_sample_weights", any)).transpose()?;
    let bags = match (indices.shape(), &offsets) {
        (&[bags, lookups], None) if !include_last_offset => Bags::Fixed { bags, lookups },
        (&[_, _], None) => {
            return Err(invalid("include_last_offset", "must be False for 2-D indices, which need no offsets"));
        }
        (&[_, _], Some(_)) => return Err(invalid("offsets", "must be None for 2-D indices, where each row is a bag")),
        (&[_], None) => return Err(invalid("offsets", "are needed for 1-D indices: where each bag starts")),
        (&[_], Some(offsets)) => {
            offsets.require_ndim(1)?;
            Bags::Offsets { offsets: offsets.ints()?, include_last: include_last_offset }
        }
        (shape, _) => return Err(invalid("indices", format!("must be 1-D or 2-D, not of shape {}", tuple(shape)))),
    };
    if let Some(given) = &lookup_weights {
        given.require_shape_of_indices(&indices)?;
    }
    let call = Call {
        tables: table.into(),
        indices: indices.ints()?,
        bags,
        mode: pooling_mode(mode)?,
        lookup_weights: lookup_weights.as_ref().map(|given| given.lookup_weights(&weight)).transpose()?,
        exact: flag("exact", exact)?,
        skip: match padding_idx {
            Some(any) => Skip::Padding(integer("padding_idx", any)?),
            None => Skip::Nothing,
        },
        threads: threads.map(thread_count).transpose()?,
        isa: isa.map(Isa::parse).transpose().map_err(CoreError)?,
    };
    let inputs = [weight.input(), Some(&indices), offsets.as_ref(), lookup_weights.as_ref()];
    run(indices.array.py(), call, out, &inputs)
}

/// `hercules_fast.sparse_lengths_sum`, with `isa` to cap the instruction set (for tests).
#[pyfunction]
#[pyo3(signature = (weight, indices, lengths, weights, out, threads, exact, isa=None))]
#[allow(clippy::too_many_arguments)] // as above
pub fn sparse_lengths_sum<'py>(
    weight: &Bound<'py, PyAny>,
    indices: &Bound<'py, PyAny>,
    lengths: &Bound<'py, PyAny>,
    weights: Option<&Bound<'py, PyAny>>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
    exact: &Bound<'py, PyAny>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let weight = Weight::of("weight", weight)?;
    let table = weight.table()?;
    let indices = Input::of("indices", indices)?;
    let lengths = Input::of("lengths", lengths)?;
    let weights = weights.map(|any| Input::of("weights", any)).transpose()?;
    indices.require_ndim(1)?;
    lengths.require_ndim(1)?;
    if let Some(given) = &weights {
        given.require_shape_of_indices(&indices)?;
    }
    let call = Call {
        tables: table.into(),
        indices: indices.ints()?,
        bags: Bags::Lengths(lengths.ints()?),
        mode: Mode::Sum,
        lookup_weights: weights.as_ref().map(|given| given.lookup_weights(&weight)).transpose()?,
        exact: flag("exact", exact)?,
        skip: Skip::Nothing,
        threads: threads.map(thread_count).transpose()?,
        isa: isa.map(Isa::parse).transpose().map_err(CoreError)?,
    };
    let inputs = [weight.input(), Some(&indices), Some(&lengths), weights.as_ref()];
    run(indices.array.py(), call, out, &inputs)
}

/// `hercules_fast.EmbeddingBagCollection.__call__`, with `isa` to cap the instruction set (for tests).
#[pyfunction]
#[pyo3(signature = (tables, indices, offsets, mode, per_sample_weights, skip_pruned, out, threads, exact, isa=None))]
#[allow(clippy::too_many_arguments)] // as above
pub fn embedding_bag_collection<'py>(
    tables: &Bound<'py, PyTuple>,
    indices: &Bound<'py, PyAny>,
    offsets: &Bound<'py, PyAny>,
    mode: &Bound<'py, PyAny>,
    per_sample_weights: Option<&Bound<'py, PyAny>>,
    skip_pruned: &Bound<'py, PyAny>,
    out: Option<&Bound<'py, PyAny>>,
    threads: Option<&Bound<'py, PyAny>>,
    exact: &Bound<'py, PyAny>,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyAny>> {
    let named = |entry| Name { argument: "tables", entry: Some(entry) };
    let weights: Vec<_> =
        tables.iter().enumerate().map(|(t, any)| Weight::of(named(t), &any)).collect::<PyResult<_>>()?;
    let indices = Input::of("indices", indices)?;
    let offsets = Input::of("offsets", offsets)?;
    let lookup_weights = per_sample_weights.map(|any| Input::of("per_sample_weights", any)).transpose()?;
    indices.require_ndim(1)?;
    offsets.require_ndim(1)?;
    if let Some(given) = &lookup_weights {
        given.require_shape_of_indices(&indices)?;
    }
    let views = weights.iter().map(Weight::table).collect::<PyResult<Vec<_>>>()?;
    let call = Call {
        tables: Tables::Many(&views),
        indices: indices.ints()?,
        bags: Bags::Offsets { offsets: offsets.ints()?, include_last: true },
        mode: pooling_mode(mode)?,
        lookup_weights: match (&lookup_weights, weights.first()) {
            (Some(given), Some(first)) => Some(given.lookup_weights(first)?),
            _ => None,
        },
        exact: flag("exact", exact)?,
        skip: if flag("skip_pruned", skip_pruned)? { Skip::Pruned } else { Skip::Nothing },
        threads: threads.map(thread_count).transpose()?,
        isa: isa.map(Isa::parse).transpose().map_err(CoreError)?,
    };
    let inputs: Vec<_> =
        weights.iter().map(Weight::input).chain([Some(&indices), Some(&offsets), lookup_weights.as_ref()]).collect();
    run(indices.array.py(), call, out, &inputs)
}

/// Plan `call`, make or check the result array, and run: here, detached, or watched for Ctrl-C.
fn run<'py>(
    py: Python<'py>,
    call: Call,
    out: Option<&Bound<'py, PyAny>>,
    inputs: &[Option<&Input<'py>>],
) -> PyResult<Bound<'py, PyAny>> {
    let plan = Plan::new(call).map_err(CoreError)?;
    let out = match out {
        Some(out) => checked_out(out, &plan, inputs)?,
        None if plan.is_f64() => empty(py, plan.bags(), plan.columns(), dtype::<f64>(py))?,
        None => empty(py, plan.bags(), plan.columns(), dtype::<f32>(py))?,
    };
    let (item_bytes, is_brain) = (out.item_bytes, out.is_brain);
    // An address, not a pointer, so that the closures below may cross threads; its provenance is exposed here.
    let address = out.data.expose_provenance();
    let work = |control: &Control| {
        let output = match item_bytes {
            2 if is_brain => Output::Bf16(std::ptr::with_exposed_provenance_mut(address)),
            2 => Output::F16(std::ptr::with_exposed_provenance_mut(address)),
            8 => Output::F64(std::ptr::with_exposed_provenance_mut(address)),
            _ => Output::F32(std::ptr::with_exposed_provenance_mut(address)),
        };
        // SAFETY: `out` holds floats of that size, C-contiguous, aligned, writable, of shape (bags, columns), apart from the
        // inputs: checked above or just made. It and the inputs stay alive: this function's caller holds references.
        unsafe { plan.run(output, control) }
    };
    match plan.length() {
        Length::Short => work(&Control::new()).map_err(CoreError)?,
        Length::Medium => py.detach(|| work(&Control::new())).map_err(CoreError)?,
        Length::Long => {
            let done = watched(py, None, 1, work)?;
            if done.interrupted {
                return Err(PyKeyboardInterrupt::new_err(()));
            }
            done.result.map_err(CoreError)?;
        }
    }
    Ok(out.object)
}

/// A table to look rows up in: somebody's array, or our own.
enum Weight<'py> {
    Array(Input<'py>),
    Rows(Bound<'py, TableRows>),
}

impl<'py> Weight<'py> {
    fn of(name: impl Into<Name>, any: &Bound<'py, PyAny>) -> PyResult<Self> {
        let name = name.into();
        if let Ok(array) = any.cast::<PyUntypedArray>() {
            return Input::of_array(name, array).map(Self::Array);
        }
        let rows = any.cast::<TableRows>();
        let rows = rows.map_err(|_| not_a(name, "a NumPy array or an EmbeddingTable", any))?;
        Ok(Self::Rows(rows.clone()))
    }

    fn table(&self) -> PyResult<Table<'_>> {
        match self {
            Self::Array(array) => array.table(),
            Self::Rows(rows) => Ok(rows.get().table()),
        }
    }

    fn is_f64(&self) -> bool {
        matches!(self, Self::Array(array) if array.item_bytes == 8)
    }

    /// The array whose memory a result must not share; nobody else can write a table of our own.
    fn input(&self) -> Option<&Input<'py>> {
        match self {
            Self::Array(array) => Some(array),
            Self::Rows(_) => None,
        }
    }
}

/// An argument, or an entry of one, in messages.
#[derive(Clone, Copy)]
pub struct Name {
    argument: &'static str,
    entry: Option<usize>,
}

impl From<&'static str> for Name {
    fn from(argument: &'static str) -> Self {
        Self { argument, entry: None }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.argument)?;
        self.entry.map_or(Ok(()), |entry| write!(f, "[{entry}]"))
    }
}

/// A NumPy array whose memory can be read as it is: C-contiguous, aligned, native byte order.
pub struct Input<'py> {
    name: Name,
    array: Bound<'py, PyUntypedArray>,
    kind: u8,
    item_bytes: usize,
}

impl<'py> Input<'py> {
    pub fn of(name: impl Into<Name>, any: &Bound<'py, PyAny>) -> PyResult<Self> {
        let name = name.into();
        let array = any.cast::<PyUntypedArray>().map_err(|_| not_a(name, "a NumPy array", any))?;
        Self::of_array(name, array)
    }

    fn of_array(name: Name, array: &Bound<'py, PyUntypedArray>) -> PyResult<Self> {
        let array = array.clone();
        let dtype = array.dtype();
        if dtype.is_native_byteorder() == Some(false) {
            let message = format!(
                "{name}: has dtype {dtype} in foreign byte order; convert it with .astype({name}.dtype.newbyteorder('='))"
            );
            return Err(DTypeError::new_err(message));
        }
        let (kind, item_bytes) = (dtype.kind(), dtype.itemsize());
        Ok(Self { name, array, kind, item_bytes })
    }

    fn shape(&self) -> &[usize] {
        self.array.shape()
    }

    fn require_ndim(&self, ndim: usize) -> PyResult<()> {
        if self.shape().len() == ndim {
            return Ok(());
        }
        Err(invalid(self.name, format!("must be {ndim}-D, not of shape {}", tuple(self.shape()))))
    }

    /// Kind of the dtype (`b'f'`, `b'i'`, `b'u'`, ...) and bytes per item.
    pub fn kind_and_bytes(&self) -> (u8, usize) {
        (self.kind, self.item_bytes)
    }

    /// The shape of a 2-D array.
    pub fn rows_and_columns(&self) -> PyResult<(usize, usize)> {
        let &[rows, columns] = self.shape() else {
            let message = format!("must be 2-D (rows, columns), not of shape {}", tuple(self.shape()));
            return Err(invalid(self.name, message));
        };
        Ok((rows, columns))
    }

    pub fn dtype_error(&self, accepted: &str) -> PyErr {
        DTypeError::new_err(format!("{}: has dtype {}; accepted: {accepted}", self.name, self.array.dtype()))
    }

    /// The first element, of a type that the caller has checked, in memory that needs no striding.
    pub fn data(&self) -> PyResult<*mut u8> {
        if !self.array.is_c_contiguous() {
            return Err(invalid(self.name, "must be C-contiguous; pass np.ascontiguousarray(...), which copies"));
        }
        if !self.array.is_aligned() {
            return Err(invalid(self.name, "must be aligned to its items; pass a copy (.copy())"));
        }
        Ok(data_pointer(&self.array))
    }

    fn table(&self) -> PyResult<Table<'_>> {
        let format = match self.kind_and_bytes() {
            (b'f', 2) => RowFormat::F16,
            (b'f', 4) => RowFormat::F32,
            (b'f', 8) => RowFormat::F64,
            _ => return Err(self.dtype_error("float32, float16, float64, or an EmbeddingTable")),
        };
        let (rows, dim) = self.rows_and_columns()?;
        // SAFETY: a C-contiguous, aligned array of rows x dim floats; `self` keeps it alive.
        unsafe { Table::from_raw(self.data()?, format, rows, dim) }.map_err(|e| CoreError(e).into())
    }

    fn ints(&self) -> PyResult<Ints<'_>> {
        let (data, len) = (self.data(), self.array.len());
        match (self.kind, self.item_bytes) {
            // SAFETY: a C-contiguous, aligned int32 array of `len` items; `self` keeps it alive.
            (b'i', 4) => Ok(unsafe { Ints::from_raw_i32(data?.cast(), len) }),
            // SAFETY: as above, int64.
            (b'i', 8) => Ok(unsafe { Ints::from_raw_i64(data?.cast(), len) }),
            _ => Err(self.dtype_error("int32, int64")),
        }
    }

    fn require_shape_of_indices(&self, indices: &Input) -> PyResult<()> {
        if self.shape() == indices.shape() {
            return Ok(());
        }
        let (given, needed) = (tuple(self.shape()), tuple(indices.shape()));
        Err(invalid(self.name, format!("has shape {given}; indices have {needed}, it must be the same")))
    }

    /// One factor per lookup, in the type that sums over `table` are kept in.
    fn lookup_weights(&self, table: &Weight) -> PyResult<LookupWeights<'_>> {
        match (self.kind, self.item_bytes, table.is_f64()) {
            // SAFETY: a C-contiguous, aligned float32 array of `len` items; `self` keeps it alive.
            (b'f', 4, false) => Ok(unsafe { LookupWeights::from_raw_f32(self.data()?.cast(), self.array.len()) }),
            // SAFETY: as above, float64.
            (b'f', 8, true) => Ok(unsafe { LookupWeights::from_raw_f64(self.data()?.cast(), self.array.len()) }),
            (_, _, false) => Err(self.dtype_error("float32")),
            (_, _, true) => Err(self.dtype_error("float64, as the table is")),
        }
    }

    /// Addresses that the array's items occupy; it is contiguous.
    fn addresses(&self) -> Range<usize> {
        let start = data_pointer(&self.array).addr();
        start..start + self.array.len() * self.item_bytes
    }
}

fn data_pointer(array: &Bound<'_, PyUntypedArray>) -> *mut u8 {
    // SAFETY: the pointer is to a live array object, whose fields may be read while attached.
    unsafe { (*npyffi::_PyArray_GET_ITEM_DATA(array.as_array_ptr())).data.cast() }
}

/// The array that a call writes, and its memory.
pub struct Out<'py> {
    pub object: Bound<'py, PyAny>,
    data: *mut u8,
    item_bytes: usize,
    is_brain: bool,
}

pub fn out_memory(out: &Out) -> *mut u8 {
    out.data
}

/// Refuse an `out` that cannot take the result as it is, or that shares memory with an input.
fn checked_out<'py>(any: &Bound<'py, PyAny>, plan: &Plan, inputs: &[Option<&Input<'py>>]) -> PyResult<Out<'py>> {
    let out = Input::of("out", any)?;
    // NumPy has no bfloat16 of its own; packages that add one (ml_dtypes) agree on this much.
    let is_brain = out.kind == b'V' && out.item_bytes == 2 && out.array.dtype().to_string() == "bfloat16";
    match (out.kind, out.item_bytes, plan.is_f64()) {
        (b'f', 2 | 4, false) | (b'f', 8, true) => {}
        (_, _, false) if is_brain => {}
        (_, _, false) => return Err(out.dtype_error("float32, float16, bfloat16 (as of ml_dtypes)")),
        (_, _, true) => return Err(out.dtype_error("float64, as the table is")),
    }
    if out.shape() != [plan.bags(), plan.columns()] {
        let needed = tuple(&[plan.bags(), plan.columns()]);
        return Err(invalid("out", format!("has shape {}; the result has {needed}", tuple(out.shape()))));
    }
    let data = out.data()?;
    // SAFETY: as in `data_pointer`.
    let flags = unsafe { (*npyffi::_PyArray_GET_ITEM_DATA(out.array.as_array_ptr())).flags };
    if flags & NPY_ARRAY_WRITEABLE == 0 {
        return Err(invalid("out", "is read-only"));
    }
    let mine = out.addresses();
    for input in inputs.iter().flatten() {
        let other = input.addresses();
        if mine.start < other.end && other.start < mine.end {
            return Err(invalid("out", format!("shares memory with {}", input.name)));
        }
    }
    Ok(Out { object: any.clone(), data, item_bytes: out.item_bytes, is_brain })
}

/// A new 2-D array whose values are not set yet. Out of memory is NumPy's MemoryError.
pub fn empty<'py>(py: Python<'py>, rows: usize, columns: usize, dtype: Bound<'py, PyArrayDescr>) -> PyResult<Out<'py>> {
    let mut shape = [rows as npy_intp, columns as npy_intp];
    let item_bytes = dtype.itemsize();
    // SAFETY: the API takes over the reference to the dtype, and returns a new reference or null with an exception set.
    let object = unsafe {
        let array = PY_ARRAY_API.PyArray_Empty(py, 2, shape.as_mut_ptr(), dtype.into_dtype_ptr(), 0 as c_int);
        Bound::from_owned_ptr_or_err(py, array)?
    };
    let data = object
        .cast::<PyUntypedArray>()
        .map(data_pointer)
        .map_err(|_| InternalError::new_err("numpy.empty gave no array"))?;
    Ok(Out { object, data, item_bytes, is_brain: false })
}

/// A whole number that fits 64 bits.
pub fn integer(name: &'static str, any: &Bound<'_, PyAny>) -> PyResult<i64> {
    any.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(any.py()) {
            invalid(name, format!("is {any}, beyond 64 bits"))
        } else {
            not_a(name, "a whole number", any)
        }
    })
}

fn flag(name: &'static str, any: &Bound<'_, PyAny>) -> PyResult<bool> {
    any.extract().map_err(|_| not_a(name, "True or False", any))
}

pub fn thread_count(any: &Bound<'_, PyAny>) -> PyResult<usize> {
    let n = integer("threads", any)?;
    // A negative number becomes one that the core refuses too; here its message shows what was given.
    usize::try_from(n).map_err(|_| CoreError(Error::invalid("threads", format!("is {n}; allowed is 1 or more"))).into())
}

fn pooling_mode(any: &Bound<'_, PyAny>) -> PyResult<Mode> {
    let name: String = any.extract().map_err(|_| not_a("mode", "'sum', 'mean' or 'max'", any))?;
    Mode::parse(&name).map_err(|e| CoreError(e).into())
}

fn not_a(name: impl fmt::Display, what: &str, any: &Bound<'_, PyAny>) -> PyErr {
    let given = any.get_type().name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
    DTypeError::new_err(format!("{name}: must be {what}, not {given}"))
}

/// A shape as Python prints it.
pub fn tuple(shape: &[usize]) -> String {
    match shape {
        [n] => format!("({n},)"),
        _ => format!("({})", shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}
