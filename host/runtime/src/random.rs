//! The system's randomness: for keys, secrets and whatever else nobody may guess.

use rand::TryRng as _;
use rand::rngs::SysRng;

/// Fills bytes with it.
///
/// # Panics
/// When the system has none: then nothing here is safe.
pub fn fill(bytes: &mut [u8]) {
    SysRng.try_fill_bytes(bytes).expect("the system has randomness");
}
