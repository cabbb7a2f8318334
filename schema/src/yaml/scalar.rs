//! How a plain scalar is read. Neither YAML 1.1 nor 1.2, but what docker compose's reader (Go's yaml v4) does:
//! `0644` is octal, `0o17`, `0b11`, `0x1f` and `1_000` are integers, `yes`, `on` and `22:22` stay text.

use super::Value;

/// The value of a plain (unquoted, untagged) scalar.
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Str(text.to_owned());
    }
    if let Some(large) = large(text) {
        return Value::Str(large);
    }
    integer(text)
        .map(Value::Int)
        .or_else(|| float(text).map(Value::Float))
        .unwrap_or_else(|| Value::Str(text.to_owned()))
}

/// A plain scalar that docker compose's reader takes for a point in time, which no attribute accepts: `2001-12-14`,
/// `2001-12-14 21:59:43`, `2001-12-14T21:59:43Z`.
pub fn is_timestamp(text: &str) -> bool {
    let Some(at) = text.find(['T', 't', ' ']) else { return is_date(text) };
    let time = &text[at + 1..];
    let is_zoned = !text[at..].starts_with(' ');
    is_date(&text[..at])
        && match (is_zoned, time.find(['Z', '+', '-'])) {
            (true, Some(zone)) => is_time(&time[..zone]) && is_zone(&time[zone..]),
            (false, None) => is_time(time),
            _ => false,
        }
}

/// A number of one or two digits, from `least` to `most`.
fn is_number(part: &str, least: u32, most: u32) -> bool {
    part.len() <= 2
        && part.bytes().all(|c| c.is_ascii_digit())
        && part.parse::<u32>().is_ok_and(|n| (least..=most).contains(&n))
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    year.len() == 4
        && year.bytes().all(|c| c.is_ascii_digit())
        && is_number(month, 1, 12)
        && is_number(day, 1, 31)
}

fn is_time(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let [hour, minute, second] = parts[..] else { return false };
    let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
    is_number(hour, 0, 23)
        && is_number(minute, 0, 59)
        && is_number(second, 0, 59)
        && !fraction.is_empty()
        && fraction.bytes().all(|c| c.is_ascii_digit())
}

/// `Z`, `+01:00`
fn is_zone(text: &str) -> bool {
    text == "Z"
        || (text.len() == 6 && text[1..].split(':').all(|part| part.len() == 2 && is_number(part, 0, 59)))
}

fn integer(text: &str) -> Option<i64> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    let (radix, digits) = radix(digits);
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let signed = if negative { format!("-{digits}") } else { digits.to_owned() };
    i64::from_str_radix(&signed, radix).ok()
}

/// A whole number that only 64 bits without a sign can hold stays text, digit for digit.
fn large(text: &str) -> Option<String> {
    let plain = text.replace('_', "");
    let number = plain.strip_prefix('+').unwrap_or(&plain);
    let fits = !number.starts_with('0') && number.parse::<u64>().is_ok_and(|n| i64::try_from(n).is_err());
    fits.then(|| number.to_owned())
}

fn radix(digits: &str) -> (u32, &str) {
    let prefixed =
        |lower: &str, upper: &str| digits.strip_prefix(lower).or_else(|| digits.strip_prefix(upper));
    if let Some(rest) = prefixed("0b", "0B") {
        (2, rest)
    } else if let Some(rest) = prefixed("0o", "0O") {
        (8, rest)
    } else if let Some(rest) = prefixed("0x", "0X") {
        (16, rest)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, &digits[1..])
    } else {
        (10, digits)
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, underscores ignored.
fn float(text: &str) -> Option<f64> {
    let plain = text.replace('_', "");
    let unsigned = plain.strip_prefix(['-', '+']).unwrap_or(&plain);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    let has_digits = !whole.is_empty() || !fraction.is_empty();
    let exponent_fits = exponent.is_none_or(|e| {
        let digits = e.strip_prefix(['-', '+']).unwrap_or(e);
        !digits.is_empty() && is_digits(digits)
    });
    if has_digits && is_digits(whole) && is_digits(fraction) && exponent_fits {
        // What is too large for a number stays text.
        plain.parse().ok().filter(|number: &f64| number.is_finite())
    } else {
        None
    }
}

/// A float as Go prints it: shortest digits, an exponent below 1e-4 and from 1e6.
pub fn format_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        return go_exponent(&format!("{number:e}"));
    }
    format!("{number}")
}

/// `1e21` → `1e+21`, `1e-7` → `1e-07`.
fn go_exponent(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else { return text.to_owned() };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_plain_scalars_like_compose() {
        for (text, value) in [
            ("0644", Value::Int(420)),
            ("017", Value::Int(15)),
            ("0o17", Value::Int(15)),
            ("0b11", Value::Int(3)),
            ("0x1F", Value::Int(31)),
            ("1_000", Value::Int(1000)),
            ("-5", Value::Int(-5)),
            ("08", Value::Float(8.0)),
            ("1.10", Value::Float(1.1)),
            ("1e3", Value::Float(1000.0)),
            ("1e400", Value::Str("1e400".into())),
            ("yes", Value::Str("yes".into())),
            ("on", Value::Str("on".into())),
            ("22:22", Value::Str("22:22".into())),
            ("1.2.3", Value::Str("1.2.3".into())),
            ("-", Value::Str("-".into())),
            (".", Value::Str(".".into())),
            ("", Value::Null),
            ("~", Value::Null),
            ("TRUE", Value::Bool(true)),
        ] {
            assert_eq!(resolve(text), value, "{text}");
        }
    }

    #[test]
    fn prints_floats_like_go() {
        for (number, text) in
            [(1.1, "1.1"), (3.0, "3"), (1e6, "1e+06"), (1e-7, "1e-07"), (999999.5, "999999.5")]
        {
            assert_eq!(format_float(number), text);
        }
    }
}
