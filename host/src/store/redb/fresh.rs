//! Rows of first attempts: which places of a batch a subscription has not been tried for.

use std::collections::{BTreeMap, btree_map};

use redb::{ReadableTable, Table};

use super::handle::Fault;
use super::record;

/// The rows of first attempts that one commit changes: each is read once and written once.
#[derive(Default)]
pub(super) struct FreshRows(BTreeMap<(u128, u128), Vec<u32>>);

impl FreshRows {
    /// Removes a place from a row; returns whether it was there.
    pub(super) fn take(
        &mut self,
        table: &impl ReadableTable<(u128, u128), &'static [u8]>,
        row: (u128, u128),
        index: u32,
    ) -> Result<bool, Fault> {
        let places = match self.0.entry(row) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => new.insert(places(table, row)?),
        };
        let at = places.iter().position(|place| *place == index);
        Ok(at.map(|at| places.remove(at)).is_some())
    }

    /// Writes what is left of each row.
    pub(super) fn write(self, table: &mut Table<'_, (u128, u128), &'static [u8]>) -> Result<(), Fault> {
        for (row, left) in self.0 {
            if left.is_empty() {
                table.remove(row)?;
            } else {
                table.insert(row, record::encode_places(&left).as_slice())?;
            }
        }
        Ok(())
    }
}

/// Reads a row of first attempts; one that is not there has no places.
pub(super) fn places(
    table: &impl ReadableTable<(u128, u128), &'static [u8]>,
    row: (u128, u128),
) -> Result<Vec<u32>, Fault> {
    let Some(row) = table.get(row)? else { return Ok(Vec::new()) };
    record::decode_places(row.value()).map_err(Fault::damaged("fresh"))
}
