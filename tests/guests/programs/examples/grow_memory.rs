//! Allocates more memory than there is. With `cope` it survives the failure: it answers, or panics with the text of
//! `then`.

waypost_guest_programs::filter!(answer);

fn answer() -> String {
    if waypost::plugin::config::get("cope").is_none() {
        let mut kept = Vec::new();
        loop {
            kept.push(std::hint::black_box(vec![1u8; 1 << 20]));
        }
    }
    let refused = Vec::<u8>::new().try_reserve_exact(512 << 20).is_err();
    match waypost::plugin::config::get("then") {
        Some(text) => panic!("{text}"),
        None => format!("refused: {refused}"),
    }
}
