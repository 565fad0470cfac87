//! One error enum for the whole core; the binding crate turns it into Python exceptions in one place.

use std::fmt;

/// What can go wrong in the core. Messages name the field, the value and what is allowed.
#[derive(Debug, Clone, PartialEq)]
pub enum Error {
    /// An argument is outside what is allowed.
    Invalid { field: String, message: String },
    /// A lookup index is outside its table, which is numbered where there are several.
    Index { position: usize, value: i64, rows: usize, table: Option<usize> },
    /// A product of sizes does not fit in the address space.
    Size(String),
    /// Memory could not be had.
    Memory { bytes: usize },
    /// The caller asked to stop; what was finished is in the result.
    Cancelled,
    /// A solver ended at something that is not an answer.
    Unsolved(String),
    /// A promise of this library was broken.
    Internal(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Invalid`] for `field`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { field, message } => write!(f, "{field}: {message}"),
            Self::Index { position, value, rows, table } => {
                let table = table.map_or_else(|| "the table".to_owned(), |number| format!("tables[{number}]"));
                write!(f, "indices[{position}] is {value}, outside {table}'s rows 0 <= index < {rows}")
            }
            Self::Size(message) | Self::Unsolved(message) | Self::Internal(message) => f.write_str(message),
            Self::Memory { bytes } => write!(f, "cannot allocate {bytes} bytes"),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for Error {}
