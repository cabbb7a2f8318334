//! How BuildKit's history writes values: quoted texts, lists, durations.

use stack_runtime::image::config::HealthcheckConfig;
use std::time::Duration;

/// `["a" "b"]`.
pub(super) fn quoted_list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(" "))
}

/// `[a b]`.
pub(super) fn list(texts: &[String]) -> String {
    format!("[{}]", texts.join(" "))
}

/// `&{["CMD" "x"] "30s" "0s" "0s" "0s" '\x03'}`.
pub(super) fn healthcheck(check: &HealthcheckConfig) -> String {
    let durations = [check.interval, check.timeout, check.start_period, check.start_interval];
    let durations = durations.map(|value| format!("\"{}\"", duration(value))).join(" ");
    format!("&{{{} {durations} {}}}", quoted_list(&check.test), quoted_number(check.retries))
}

fn quoted(text: &str) -> String {
    let inside: String = text.chars().map(|c| escaped(c, '"')).collect();
    format!("\"{inside}\"")
}

/// The character of that number, as numbers are where texts are meant.
fn quoted_number(number: u32) -> String {
    let c = char::from_u32(number).unwrap_or('\u{fffd}');
    format!("'{}'", escaped(c, '\''))
}

fn escaped(c: char, quote: char) -> String {
    match c {
        '\\' => "\\\\".into(),
        c if c == quote => format!("\\{quote}"),
        '\x07' => "\\a".into(),
        '\x08' => "\\b".into(),
        '\x0c' => "\\f".into(),
        '\n' => "\\n".into(),
        '\r' => "\\r".into(),
        '\t' => "\\t".into(),
        '\x0b' => "\\v".into(),
        c if is_printable(c) => c.into(),
        c if u32::from(c) < 0x80 => format!("\\x{:02x}", u32::from(c)),
        c if u32::from(c) < 0x10000 => format!("\\u{:04x}", u32::from(c)),
        c => format!("\\U{:08x}", u32::from(c)),
    }
}

/// Letters, marks, numbers, signs, and of the blanks only the plain one.
fn is_printable(c: char) -> bool {
    let is_blank = c.is_whitespace() && c != ' ';
    // A mark alone would be escaped, behind a letter it is not.
    !is_blank && format!("a{c}").escape_debug().count() == 2 || matches!(c, '"' | '\'')
}

/// `1h0m30s`, `1.5s`, `250ms`, `0s`.
fn duration(value: Duration) -> String {
    let nanoseconds = value.as_nanos();
    match nanoseconds {
        0 => "0s".into(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanoseconds, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanoseconds, 6)),
        _ => {
            let minutes = value.as_secs() / 60;
            let seconds = decimal(nanoseconds % 60_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// A number with that many digits behind the point, without the zeros at their end.
fn decimal(number: u128, digits: usize) -> String {
    let unit = 10u128.pow(u32::try_from(digits).expect("at most nine"));
    let text = format!("{}.{:0digits$}", number / unit, number % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_does() {
        for (text, expected) in [
            ("a b", r#""a b""#),
            (r#"say "x" \n"#, r#""say \"x\" \\n""#),
            ("it's\t\n", r#""it's\t\n""#),
            ("é e\u{301} 日本 🎉", "\"é e\u{301} 日本 🎉\""),
            ("\u{1}\u{7f}\u{a0}\u{200b}", r#""\x01\x7f\u00a0\u200b""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn durations_and_numbers() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1_500_000, "1.5ms"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (300_000_000_000, "5m0s"),
            (3_600_500_000_000, "1h0m0.5s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), expected);
        }
        let number = |number| quoted_number(number);
        assert_eq!([number(0), number(3), number(10), number(39)], ["'\\x00'", "'\\x03'", "'\\n'", "'\\''"]);
    }
}
