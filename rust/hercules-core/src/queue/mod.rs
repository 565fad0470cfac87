//! Placeholder for the room `queue`.
