//! The row of a recipient's deliveries of a batch that are over.

use super::{Error, body, read, versioned};
use crate::StoredState;

/// The end of a delivery, in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The event's place in the batch.
    pub(crate) index: u32,
    /// A final state.
    pub(crate) state: StoredState,
    /// Whether policy has ever let its user see the event.
    pub(crate) was_allowed: bool,
}

/// The bit of [`Ended::was_allowed`] beside the state.
const ALLOWED_BIT: u8 = 0x80;
/// The final states, by their numbers in a row.
pub(crate) const FINAL: [StoredState; 4] =
    [StoredState::Delivered, StoredState::Denied, StoredState::Skipped, StoredState::Dead];

/// Writes a row of ended deliveries.
pub(crate) fn encode_ended(row: &[Ended]) -> Vec<u8> {
    let packed: Vec<(u32, u8)> = row.iter().map(|ended| (ended.index, code(ended))).collect();
    versioned(&packed)
}

fn code(ended: &Ended) -> u8 {
    let state = final_code(ended.state);
    if ended.was_allowed { state | ALLOWED_BIT } else { state }
}

/// Returns the number of a final state in keys and rows.
pub(crate) fn final_code(state: StoredState) -> u8 {
    (state as u8).saturating_sub(StoredState::Delivered as u8)
}

/// Reads a row of ended deliveries.
pub(crate) fn decode_ended(row: &[u8]) -> Result<Vec<Ended>, Error> {
    let packed: Vec<(u32, u8)> = read(body(row)?)?;
    let ended = |(index, code): (u32, u8)| {
        let state = FINAL.get(usize::from(code & !ALLOWED_BIT)).ok_or(Error::Value("an unknown state"))?;
        Ok(Ended { index, state: *state, was_allowed: code & ALLOWED_BIT != 0 })
    };
    packed.into_iter().map(ended).collect()
}
