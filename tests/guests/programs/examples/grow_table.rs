//! Grows a table until that is refused, and then aborts.

#![feature(asm_experimental_arch)]

waypost_guest_programs::filter!(answer);

std::arch::global_asm!(".tabletype hostile_table, funcref", "hostile_table:");

fn answer() -> String {
    while grow(1000) != -1 {}
    std::process::abort();
}

/// Returns the size before, or -1 when the table cannot grow. Rust has no function for this.
fn grow(by: i32) -> i32 {
    let before;
    unsafe {
        std::arch::asm!(
            "ref.null_func",
            "local.get {by}",
            "table.grow hostile_table",
            "local.set {before}",
            by = in(local) by,
            before = lateout(local) before,
        );
    }
    before
}
