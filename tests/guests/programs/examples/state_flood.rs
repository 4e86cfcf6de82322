//! Writes state until that is refused, and reports how much it wrote.

waypost_guest_programs::filter!(answer);

use waypost::plugin::state;

fn answer() -> String {
    let large = state::set("large", &vec![0; 1536 << 10], None).unwrap_err();
    let long = state::set(&"k".repeat(300), &[], None).unwrap_err();
    let (keys, refused) =
        (0..).find_map(|i| Some((i, state::set(&format!("{i}"), &[1; 10], None).err()?))).unwrap();
    format!("{large:?}, {long:?}, after {keys} keys {refused:?}")
}
