//! Never ends: in a loop, or with `how` set to `copy` in copies of 16 MiB, each of which is one instruction.

waypost_guest_programs::filter!(answer);

fn answer() -> String {
    if waypost::plugin::config::get("how").as_deref() != Some("copy") {
        loop {
            std::hint::spin_loop();
        }
    }
    let (from, mut to) = (vec![1u8; 16 << 20], vec![0u8; 16 << 20]);
    loop {
        std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from));
    }
}
