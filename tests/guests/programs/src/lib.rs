//! Nothing of its own: see `examples`.
