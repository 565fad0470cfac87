//! The only place where the core's errors become Python's. The classes live in `hercules_fast.errors`, so that one
//! class can be ours and a `ValueError` at once.

use hercules_core::Error;
use pyo3::exceptions::PyMemoryError;
use pyo3::{PyErr, import_exception};

import_exception!(hercules_fast.errors, IndexRangeError);
import_exception!(hercules_fast.errors, InputError);
import_exception!(hercules_fast.errors, InternalError);
import_exception!(hercules_fast.errors, SizeError);
import_exception!(hercules_fast.errors, DTypeError);
import_exception!(hercules_fast.errors, SolverError);

/// Carrier that lets `?` turn a core error into a Python exception (neither type is ours in this crate).
pub struct CoreError(pub Error);

impl From<Error> for CoreError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<CoreError> for PyErr {
    fn from(CoreError(error): CoreError) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid { .. } => InputError::new_err(message),
            Error::Index { .. } => IndexRangeError::new_err(message),
            Error::Size(_) => SizeError::new_err(message),
            Error::Memory { .. } => PyMemoryError::new_err(message),
            Error::Cancelled => InternalError::new_err("a cancelled call returned without a result"),
            Error::Unsolved(_) => SolverError::new_err(message),
            Error::Internal(_) => InternalError::new_err(message),
        }
    }
}

/// An [`InputError`] for one argument of a binding.
pub fn invalid(field: impl std::fmt::Display, message: impl std::fmt::Display) -> PyErr {
    InputError::new_err(format!("{field}: {message}"))
}
