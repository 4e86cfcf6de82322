//! An allocator for programs that live for one call.
//!
//! A fresh instance handles one delivery and is then dropped, so reusing freed memory gains nothing. Growing a memory is
//! expensive: it changes the protection of pages, which stalls the host's other threads. Memory therefore comes from an
//! arena in the module's initial memory, which suffices for a usual event, and after that in large steps. Only the last
//! block can be freed and resized in place, which is what growing strings and vectors need.

/// The size of the arena. With Rust's stack of 1 MiB it stays below the 2 MiB that the host keeps resident for the
/// next instance.
#[cfg(all(target_arch = "wasm32", feature = "bump-allocator"))]
const ARENA_BYTES: usize = 768 * 1024;
/// The first growth, and the largest step that doubling leads to: unused memory counts towards the limit.
const STEP_BYTES: usize = 1024 * 1024;
const STEP_BYTES_MAX: usize = 4 * 1024 * 1024;
const PAGE_BYTES: usize = 64 * 1024;

/// The free memory, as addresses: `next..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Room {
    next: usize,
    end: usize,
    /// The size of the last growth in bytes, at most [`STEP_BYTES_MAX`].
    step: usize,
}

impl Room {
    /// Allocates a block. Without enough free memory it calls `grow`, which maps a number of bytes to the address of new
    /// memory.
    fn take(
        &mut self,
        size: usize,
        align: usize,
        grow: impl FnOnce(usize) -> Option<usize>,
    ) -> Option<usize> {
        if let Some(block) = self.fits(size, align) {
            return Some(block);
        }
        let wanted = size.checked_add(align)?;
        let bytes = wanted
            .max((self.step * 2).clamp(STEP_BYTES, STEP_BYTES_MAX))
            .checked_next_multiple_of(PAGE_BYTES)?;
        let begin = grow(bytes)?;
        self.step = bytes.min(STEP_BYTES_MAX);
        if begin != self.end {
            self.next = begin;
        }
        // The last page of the address space ends at its size, which is not an address.
        self.end = begin.saturating_add(bytes);
        self.fits(size, align)
    }

    fn fits(&mut self, size: usize, align: usize) -> Option<usize> {
        let block = self.next.checked_next_multiple_of(align)?;
        let next = block.checked_add(size)?;
        if next > self.end {
            return None;
        }
        self.next = next;
        Some(block)
    }

    /// Frees a block, if it is the last one.
    fn give_back(&mut self, block: usize, size: usize) {
        if block + size == self.next {
            self.next = block;
        }
    }

    /// Resizes a block in place. Shrinking always succeeds; growing needs the last block and enough free memory.
    fn resize(&mut self, block: usize, old: usize, new: usize) -> bool {
        if block + old != self.next {
            return new <= old;
        }
        match block.checked_add(new) {
            Some(next) if next <= self.end => {
                self.next = next;
                true
            }
            _ => false,
        }
    }
}

#[cfg(all(target_arch = "wasm32", feature = "bump-allocator"))]
mod global {
    use std::alloc::{GlobalAlloc, Layout};
    use std::cell::{Cell, UnsafeCell};

    use super::{ARENA_BYTES, PAGE_BYTES, Room};

    /// All zeroes, so that it takes no space in the module.
    #[repr(align(16))]
    struct Arena(UnsafeCell<[u8; ARENA_BYTES]>);

    struct Bump(Cell<Option<Room>>);

    #[expect(unsafe_code, reason = "an instance has one thread")]
    unsafe impl Sync for Arena {}
    #[expect(unsafe_code, reason = "an instance has one thread")]
    unsafe impl Sync for Bump {}

    static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_BYTES]));

    #[global_allocator]
    static BUMP: Bump = Bump(Cell::new(None));

    impl Bump {
        fn with<T>(&self, change: impl FnOnce(&mut Room) -> T) -> T {
            let mut room = self.0.get().unwrap_or_else(|| {
                let next = ARENA.0.get().addr();
                Room { next, end: next + ARENA_BYTES, step: 0 }
            });
            let changed = change(&mut room);
            self.0.set(Some(room));
            changed
        }
    }

    fn grow(bytes: usize) -> Option<usize> {
        let page = core::arch::wasm32::memory_grow::<0>(bytes / PAGE_BYTES);
        (page != usize::MAX).then(|| page * PAGE_BYTES)
    }

    #[expect(
        unsafe_code,
        reason = "blocks never overlap: each lies between the old and the new end of what is taken"
    )]
    unsafe impl GlobalAlloc for Bump {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let block = self.with(|room| room.take(layout.size(), layout.align(), grow));
            block.map_or(std::ptr::null_mut(), std::ptr::with_exposed_provenance_mut)
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.with(|room| room.give_back(block.addr(), layout.size()));
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            if self.with(|room| room.resize(block.addr(), layout.size(), size)) {
                return block;
            }
            let moved = self.with(|room| room.take(size, layout.align(), grow));
            let Some(moved) = moved else { return std::ptr::null_mut() };
            let moved = std::ptr::with_exposed_provenance_mut(moved);
            // SAFETY: the caller's block has the old size, the new one is elsewhere and larger.
            unsafe { std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size)) };
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(_: usize) -> Option<usize> {
        None
    }

    #[test]
    fn blocks_are_aligned_and_do_not_overlap() {
        let mut room = Room { next: 1001, end: 2000, step: 0 };
        assert_eq!(room.take(3, 1, full), Some(1001));
        assert_eq!(room.take(8, 8, full), Some(1008));
        assert_eq!(room.take(1, 16, full), Some(1024));
        assert_eq!(room.take(975, 1, full), Some(1025));
        assert_eq!(room.take(1, 1, full), None);
    }

    #[test]
    fn the_last_block_is_freed_and_resized_in_place() {
        let mut room = Room { next: 1000, end: 2000, step: 0 };
        let (first, last) = (room.take(10, 1, full).unwrap(), room.take(10, 1, full).unwrap());
        assert!(room.resize(last, 10, 900) && !room.resize(last, 900, 991) && room.resize(last, 900, 10));
        assert!(!room.resize(first, 10, 11) && room.resize(first, 10, 5));
        room.give_back(first, 5);
        assert_eq!(room.next, last + 10);
        room.give_back(last, 10);
        assert_eq!(room.next, last);
    }

    #[test]
    fn it_grows_in_doubling_steps_and_merges_adjacent_memory() {
        let mut room = Room { next: 1000, end: 1010, step: 0 };
        let mib = 1024 * 1024;
        // Memory that something else allocated lies in between.
        assert_eq!(room.take(100, 1, |bytes| (bytes == mib).then_some(65536)), Some(65536));
        let end = 65536 + mib;
        assert_eq!(room.end, end);
        room.take(mib - 100, 1, full).unwrap();
        assert_eq!(room.take(100, 1, |bytes| (bytes == 2 * mib).then_some(end)), Some(end));
        let large = room.take(8 * mib, 16, |bytes| (bytes == 8 * mib + PAGE_BYTES).then_some(end + 2 * mib));
        assert!(large.is_some_and(|block| block < end + 2 * mib), "what adjoins is used as one");
        assert_eq!(room.take(usize::MAX, 1, full), None);
    }
}
