//! Lists as arguments, of a length that is looked at before memory is taken for it.

use crate::error::invalid;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::prelude::*;
use std::ops::Deref;

/// Most entries of a list, and of an array that describes candidates.
pub const MAX_ENTRIES: usize = 1 << 24;

/// A `Vec` made from a Python sequence. The plain conversion reserves what `len()` says, and where that cannot be had
/// (`range(2**60)`, an array of shape (2**40, 0)) Rust ends the process.
pub struct List<T>(Vec<T>);

impl<'a, 'py, T: FromPyObjectOwned<'py>> FromPyObject<'a, 'py> for List<T> {
    type Error = PyErr;

    fn extract(any: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let entries = any.len()?;
        check_entries("a list", entries, MAX_ENTRIES)?;
        any.extract().map(Self)
    }
}

impl<T> Deref for List<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> From<List<T>> for Vec<T> {
    fn from(list: List<T>) -> Self {
        list.0
    }
}

/// Refuse `entries` above `most` before they are copied: an array may claim any number of them in no memory at all
/// (`numpy.broadcast_to`).
pub fn check_entries(field: &str, entries: usize, most: usize) -> PyResult<()> {
    if entries > most {
        return Err(invalid(field, format!("has {entries} entries; the limit is {most}")));
    }
    Ok(())
}
