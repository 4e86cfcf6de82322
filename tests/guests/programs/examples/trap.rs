//! Traps without a message.

waypost_guest_programs::filter!(answer);

fn answer() -> String {
    match waypost::plugin::config::get("how").as_deref() {
        Some("memory") => {
            // Beyond all memory that the guest has.
            let address = std::hint::black_box(0xfff0_0000_usize) as *const u8;
            unsafe { address.read_volatile() }.to_string()
        }
        Some("exit") => std::process::exit(3),
        _ => std::arch::wasm32::unreachable(),
    }
}
