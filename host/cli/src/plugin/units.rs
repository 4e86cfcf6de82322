//! Bytes and times as people read them.

use std::time::Duration;

/// Returns a number of bytes with three digits or a little more: `78.1 KiB`, `64 MiB`, `17 bytes`.
pub(super) fn bytes(bytes: u64) -> String {
    const KIB: u64 = 1024;
    let (unit, name) = match bytes {
        0..KIB => return format!("{bytes} bytes"),
        KIB..1_048_576 => (KIB, "KiB"),
        _ => (KIB * KIB, "MiB"),
    };
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        tenth => format!("{}.{tenth} {name}", tenths / 10),
    }
}

/// Returns a time with the unit that suits it: `38 µs`, `1.2 ms`, `250 ms`, `17.5 s`.
pub(super) fn time(time: Duration) -> String {
    let micros = time.as_micros();
    let tenths = |of: u128, unit: &str| match of % 10 {
        0 => format!("{} {unit}", of / 10),
        tenth => format!("{}.{tenth} {unit}", of / 10),
    };
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => tenths((micros + 50) / 100, "ms"),
        _ => tenths((micros + 50_000) / 100_000, "s"),
    }
}

/// Returns a time in milliseconds with three decimals, as JSON has it.
pub(super) fn milliseconds(time: Duration) -> f64 {
    f64::from(u32::try_from(time.as_micros()).unwrap_or(u32::MAX)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_suits_them() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(80_000), "78.1 KiB");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(1_245_184), "1.2 MiB");
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        assert_eq!(time(Duration::from_micros(38)), "38 µs");
        assert_eq!(time(Duration::from_micros(1_234)), "1.2 ms");
        assert_eq!(time(Duration::from_millis(250)), "250 ms");
        assert_eq!(time(Duration::from_millis(17_460)), "17.5 s");
    }
}
