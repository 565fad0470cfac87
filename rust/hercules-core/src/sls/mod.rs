//! Placeholder for the room `sls`.
