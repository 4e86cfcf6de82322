//! Runs of the example's event: the outputs, the refusals, and the same with Python.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends there")]
#![expect(clippy::print_stderr, reason = "a test says why it tests nothing")]

mod example;
mod hostile;
mod native;
mod running;
