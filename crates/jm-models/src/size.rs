//! Bytes as people read them.

use std::fmt;

/// Displayed in decimal units: `94 MB`, `1.3 MB`, `596 B`.
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => (1, "B"),
            1_000..999_500 => (1_000, "kB"),
            _ => (1_000_000, "MB"),
        };
        let tenths = (self.0 * 10 + unit / 2) / unit;
        let text = if unit == 1 || tenths >= 100 {
            format!("{} {name}", (self.0 + unit / 2) / unit)
        } else {
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        };
        formatter.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_to_what_people_compare() {
        let shown = [0, 596, 2309, 999_499, 999_500, 5_911_673, 9_960_000, 94_375_479, 1_491_400_064]
            .map(|bytes| Size(bytes).to_string());
        let expected = ["0 B", "596 B", "2.3 kB", "999 kB", "1.0 MB", "5.9 MB", "10 MB", "94 MB", "1491 MB"];
        assert_eq!(shown, expected);
    }
}
