//! Placeholder for the room `search`.
