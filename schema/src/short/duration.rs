//! `1h5m30s20ms`, `2d`, `1.5s`.

use super::{ShortError, error};
use std::time::Duration;

/// In nanoseconds.
const UNITS: [(&str, u64); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// A duration as [`format_duration`] writes it. One below zero is well-formed, too; nothing can last that long.
pub fn canonical_duration(text: &str) -> Result<String, ShortError> {
    match text.strip_prefix('-') {
        Some(rest) if !rest.starts_with('+') => {
            let duration = parse_duration(rest)?;
            let sign = if duration.is_zero() { "" } else { "-" };
            Ok(format!("{sign}{}", format_duration(duration)))
        }
        _ => parse_duration(text).map(format_duration),
    }
}

/// A duration: numbers with units, added up. The largest is about 292 years.
pub fn parse_duration(text: &str) -> Result<Duration, ShortError> {
    let bad = || {
        ShortError(format!("`{text}` is no duration; write a number with a unit, such as `90s` or `1m30s`"))
    };
    if text.starts_with('-') {
        return error(format!("the duration `{text}` is negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let too_long = || ShortError(format!("the duration `{text}` is too long"));
    let mut nanos: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number = &rest[..end];
        rest = &rest[end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = UNITS.iter().find(|(unit, _)| *unit == &rest[..unit_end]).ok_or_else(bad)?.1;
        let part = multiple(number, factor).ok_or_else(bad)?.ok_or_else(too_long)?;
        nanos = nanos.checked_add(part).filter(|sum| *sum <= i64::MAX as u64).ok_or_else(too_long)?;
        rest = &rest[unit_end..];
    }
    Ok(Duration::from_nanos(nanos))
}

/// A decimal number of units in nanoseconds, by whole numbers, so that what is written as `133.665ms` is read as that.
/// `None`: no number; `Some(None)`: too large.
fn multiple(number: &str, unit: u64) -> Option<Option<u64>> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = fraction.bytes().all(|digit| digit.is_ascii_digit()) && whole.len() + fraction.len() > 0;
    if !is_number {
        return None;
    }
    // More digits than these are less than a nanosecond of the longest unit.
    let digits = &fraction[..fraction.len().min(18)];
    let scale = 10u128.pow(digits.len() as u32);
    let parts = digits.parse().unwrap_or(0u128) * u128::from(unit) / scale;
    let whole = if whole.is_empty() { Some(0) } else { whole.parse::<u64>().ok() };
    Some(whole.and_then(|whole| whole.checked_mul(unit)?.checked_add(parts as u64)))
}

/// As Go writes durations, and so as `docker compose config` does: `1m30s`, `1h0m0s`, `1.5s`, `500ms`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000_000_000 {
        return match nanos {
            0..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => format!("{}µs", fraction(nanos, 1_000)),
            _ => format!("{}ms", fraction(nanos, 1_000_000)),
        };
    }
    let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
    let seconds = fraction(rest, 1_000_000_000);
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// `nanos / unit` in decimal, without trailing zeros.
fn fraction(nanos: u128, unit: u128) -> String {
    let digits = unit.ilog10() as usize;
    let text = format!("{}.{:0digits$}", nanos / unit, nanos % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_like_go() {
        for (text, written) in [
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1m", "1m0s"),
            ("1.5s", "1.5s"),
            ("1500ms", "1.5s"),
            ("20ms", "20ms"),
            ("10us", "10µs"),
            ("5ns", "5ns"),
            ("1h5m30s20ms", "1h5m30.02s"),
            ("2d", "48h0m0s"),
            ("1w", "168h0m0s"),
            ("0", "0s"),
            ("0s", "0s"),
            // Found by fuzzing: in floating point it lost a nanosecond each time it was written and read.
            ("133665µs", "133.665ms"),
            ("133.665ms", "133.665ms"),
            (".5s", "500ms"),
            ("1.s", "1s"),
            ("9223372036.854775807s", "2562047h47m16.854775807s"),
        ] {
            assert_eq!(format_duration(parse_duration(text).expect(text)), written, "{text}");
        }
    }

    #[test]
    fn writes_negative_durations() {
        for (text, written) in [("-5s", "-5s"), ("-90s", "-1m30s"), ("-0s", "0s"), ("+5s", "5s")] {
            assert_eq!(canonical_duration(text).expect(text), written);
        }
        assert!(canonical_duration("--5s").is_err() && canonical_duration("-+5s").is_err());
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "",
            "10",
            "s",
            "1x",
            "1s2",
            "-1s",
            "9999999w",
            "1..5s",
            ".s",
            "9223372036.854775808s",
            "99999999999999999999s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
