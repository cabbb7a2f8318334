//! `64m`, `1.5g`, `1024`; and file modes.

use super::{ShortError, error};
use crate::project::Bytes;

/// A size: a number with an optional unit `b k m g t p` (also `kb`, `kib`), any case, multiples of 1024. `-1` and other whole
/// negative numbers are allowed where Compose gives them a meaning.
pub fn parse_bytes(text: &str) -> Result<Bytes, ShortError> {
    if let Ok(number) = text.parse::<i64>() {
        return Ok(Bytes(number));
    }
    let bad =
        || ShortError(format!("`{text}` is no size; write a number with a unit, such as `64m` or `1.5g`"));
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.').ok_or_else(bad)? + 1;
    let number: f64 = text[..end].parse().map_err(|_| bad())?;
    if number < 0.0 {
        return error(format!("the size `{text}` is negative"));
    }
    let unit = text[end..].trim_start_matches(' ').to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(bad()),
    };
    let bytes = number * 1024f64.powi(power);
    if bytes >= i64::MAX as f64 {
        return error(format!("the size `{text}` is too large"));
    }
    Ok(Bytes(bytes as i64))
}

/// A file mode written as a string: octal digits.
pub fn parse_mode(text: &str) -> Result<u32, ShortError> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        Ok(_) => error(format!("the mode `{text}` is larger than 7777")),
        Err(_) => error(format!("`{text}` is no file mode; write octal digits, such as `0440`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit() {
        for (text, bytes) in [
            ("2b", 2),
            ("1024kb", 1 << 20),
            ("300m", 300 << 20),
            ("1.5g", 3 << 29),
            ("1.5 GiB", 3 << 29),
            ("64M", 64 << 20),
            ("1T", 1 << 40),
            ("0", 0),
            ("-1", -1),
        ] {
            assert_eq!(parse_bytes(text), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "m", "1x", "1mm", "-1m", "9999999p", "1.2.3", "0x10"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0440"), Ok(0o440));
        assert_eq!(parse_mode("440"), Ok(0o440));
        assert!(parse_mode("0o440").is_err() && parse_mode("99").is_err() && parse_mode("77777").is_err());
    }
}
