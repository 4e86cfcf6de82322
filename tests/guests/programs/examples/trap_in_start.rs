//! Panics in its start function, before any call.

waypost_guest_programs::filter!(answer);

fn answer() -> String {
    "never".to_owned()
}

extern "C" fn start() {
    panic!("not even begun");
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;
