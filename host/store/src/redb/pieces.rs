//! Large records, in pieces.
//!
//! redb gives a value that is larger than a page a run of pages whose number is a power of two: one of 1 MiB and a few
//! bytes takes 2 MiB. So a large record is cut into pieces each of which fills its pages, and its row says where they
//! are. A rewritten record changes only the pieces that differ.

use std::borrow::Cow;

use redb::{ReadableTable, Table, TableDefinition};

use super::handle::Fault;
use super::record::Error;

/// A page of redb.
const PAGE: usize = 4096;
/// What the page of a piece holds besides the piece: its head, the end of the value, and the key (8 + 4 bytes).
const OVERHEAD: usize = 4 + 4 + 12;
/// The pages of the largest piece, in bytes.
const PIECE_PAGES: usize = 64 * 1024;
/// The largest record that stays in its row: with any key, it fits into a page.
pub(super) const INLINE_MAX: usize = 3_584;
/// The first byte of a row whose record lies in pieces. No record begins with it: there it is a version.
const MARK: u8 = 0xff;

/// (Number of the record, place of the piece) → the piece. Written and removed with the row.
pub(super) const PIECES: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("pieces");

/// The handle of a write transaction on [`PIECES`].
pub(super) type PiecesTable<'txn> = Table<'txn, (u64, u32), &'static [u8]>;

/// Where a large record lies: what its row holds.
#[derive(Clone, Copy)]
struct Pointer {
    number: u64,
    bytes: u64,
}

impl Pointer {
    /// Reads a row; `None` where the row is the record itself.
    fn of(row: &[u8]) -> Result<Option<Self>, Error> {
        let Some((&MARK, rest)) = row.split_first() else { return Ok(None) };
        let (numbers, []) = rest.as_chunks::<8>() else { return Err(Error::Value("a pointer is cut off")) };
        let [number, bytes] = numbers else { return Err(Error::Value("a pointer is cut off")) };
        Ok(Some(Self { number: u64::from_le_bytes(*number), bytes: u64::from_le_bytes(*bytes) }))
    }

    fn row(self) -> Vec<u8> {
        [&[MARK][..], &self.number.to_le_bytes(), &self.bytes.to_le_bytes()].concat()
    }
}

/// Returns how many bytes of a record are kept: of the row's, or of the pieces'.
pub(super) fn bytes(row: &[u8]) -> u64 {
    match Pointer::of(row) {
        Ok(Some(pointer)) => pointer.bytes,
        Ok(None) | Err(_) => row.len() as u64,
    }
}

/// Writes the pieces of a record that is larger than `inline_max`, and returns what its row is to hold. `before` is what
/// the row holds now: its pieces are used again, or removed.
pub(super) fn write<'r>(
    table: &mut PiecesTable<'_>,
    record: &'r [u8],
    inline_max: usize,
    before: Option<&[u8]>,
) -> Result<Cow<'r, [u8]>, Fault> {
    let before = before.and_then(|row| Pointer::of(row).ok().flatten());
    if record.len() <= inline_max {
        if let Some(before) = before {
            remove_from(table, before.number, 0)?;
        }
        return Ok(Cow::Borrowed(record));
    }
    let number = match before {
        Some(before) => before.number,
        None => table.last()?.map_or(0, |(key, _)| key.value().0 + 1),
    };
    let (mut rest, mut place) = (record, 0);
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(first_piece(rest.len()));
        let key = (number, place);
        let is_same = before.is_some() && table.get(key)?.is_some_and(|known| known.value() == piece);
        if !is_same {
            table.insert(key, piece)?;
        }
        (rest, place) = (left, place + 1);
    }
    if before.is_some() {
        remove_from(table, number, place)?;
    }
    Ok(Cow::Owned(Pointer { number, bytes: record.len() as u64 }.row()))
}

/// Removes the pieces of a row that goes. A row that cannot be read leads to none.
pub(super) fn remove(table: &mut PiecesTable<'_>, row: &[u8]) -> Result<(), Fault> {
    match Pointer::of(row) {
        Ok(Some(pointer)) => remove_from(table, pointer.number, 0),
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Reads the record of a row.
pub(super) fn read<'r>(
    table: &impl ReadableTable<(u64, u32), &'static [u8]>,
    row: &'r [u8],
) -> Result<Cow<'r, [u8]>, Fault> {
    let Some(pointer) = Pointer::of(row).map_err(Fault::damaged("pieces"))? else {
        return Ok(Cow::Borrowed(row));
    };
    let mut record = Vec::new();
    for piece in table.range((pointer.number, 0)..=(pointer.number, u32::MAX))? {
        record.extend_from_slice(piece?.1.value());
    }
    if record.len() as u64 == pointer.bytes {
        Ok(Cow::Owned(record))
    } else {
        Err(Fault::damaged("pieces")(Error::Value("a piece is missing")))
    }
}

/// Removes the pieces of a record from a place on.
fn remove_from(table: &mut PiecesTable<'_>, number: u64, place: u32) -> Result<(), Fault> {
    table.retain_in((number, place)..=(number, u32::MAX), |_, _| false)?;
    Ok(())
}

/// Returns how much of what is left the next piece takes: as much as fills the most pages.
fn first_piece(left: usize) -> usize {
    let mut pages = PIECE_PAGES;
    while pages > PAGE && left < pages - OVERHEAD {
        pages /= 2;
    }
    left.min(pages - OVERHEAD)
}

#[cfg(test)]
mod tests {
    use redb::Database;
    use redb::backends::InMemoryBackend;

    use super::*;

    fn record(bytes: usize, seed: usize) -> Vec<u8> {
        (0..bytes).map(|place| u8::try_from((place * 31 + place / 256 + seed) % 251).unwrap()).collect()
    }

    #[test]
    fn pieces_fill_their_pages() {
        for bytes in [5_000, 66_000, 100_000, 1_048_576, 1_050_000] {
            let (mut left, mut pages) = (bytes, 0);
            while left > 0 {
                let piece = first_piece(left);
                pages += (piece + OVERHEAD).div_ceil(PAGE).next_power_of_two() * PAGE;
                left -= piece;
            }
            assert!(pages < bytes + bytes / 100 + PAGE, "{bytes}: {pages}");
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_leaves_nothing_behind() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let txn = database.begin_write().unwrap();
        let mut table = txn.open_table(PIECES).unwrap();
        let neighbour = record(70_000, 9);
        let neighbours = write(&mut table, &neighbour, INLINE_MAX, None).unwrap().into_owned();
        let mut row: Option<Vec<u8>> = None;
        for (seed, bytes) in [10, 3_584, 3_585, 200_000, 70_000, 70_000, 0, 65_516].into_iter().enumerate() {
            let record = record(bytes, seed);
            let written = write(&mut table, &record, INLINE_MAX, row.as_deref()).unwrap().into_owned();
            assert_eq!(*read(&table, &written).unwrap(), *record);
            assert_eq!(super::bytes(&written), bytes as u64);
            assert!(written.len() <= INLINE_MAX);
            row = Some(written);
        }
        remove(&mut table, &row.unwrap()).unwrap();
        assert_eq!(*read(&table, &neighbours).unwrap(), *neighbour);
        table.pop_first().unwrap();
        assert!(matches!(read(&table, &neighbours), Err(Fault::Damaged { table: "pieces", .. })));
        remove(&mut table, &neighbours).unwrap();
        assert!(table.first().unwrap().is_none());
        assert!(matches!(read(&table, &neighbours[..9]), Err(Fault::Damaged { .. })));
        remove(&mut table, &neighbours[..9]).unwrap();
        assert!(write(&mut table, &neighbour, INLINE_MAX, Some(&neighbours[..9])).is_ok());
    }

    /// A plugin that appended to 1 MiB of state rewrote all of it, for each event.
    #[test]
    fn a_rewrite_changes_only_the_pieces_that_differ() {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).unwrap();
        let mut log = record(1_000_000, 0);
        let mut row = None;
        let mut write = |log: &[u8]| {
            let txn = database.begin_write().unwrap();
            let before = txn.stats().unwrap().allocated_pages();
            let mut table = txn.open_table(PIECES).unwrap();
            row = Some(super::write(&mut table, log, INLINE_MAX, row.as_deref()).unwrap().into_owned());
            drop(table);
            let pages = txn.stats().unwrap().allocated_pages() - before;
            txn.commit().unwrap();
            pages
        };
        assert!(write(&log) > 240);
        log.extend_from_slice(b"one line more");
        assert!(write(&log) < 48, "the last pieces, and the way to them");
    }
}
