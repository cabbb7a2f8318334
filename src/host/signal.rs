//! Signals by the names that users write.

use nix::sys::signal::Signal;

/// The number of `SIGTERM`, `term`, `15`, `RTMIN+3`; `None` for what is no signal (also for 0).
pub fn number(text: &str) -> Option<i32> {
    const HIGHEST: i32 = 64;
    if let Ok(number) = text.parse::<i32>() {
        return (1..=HIGHEST).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    real_time(short).or_else(|| format!("SIG{short}").parse::<Signal>().ok().map(|signal| signal as i32))
}

/// The C library keeps the first two real-time signals for itself.
fn real_time(name: &str) -> Option<i32> {
    const LOWEST: i32 = 34;
    const HIGHEST: i32 = 64;
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.get(1..)?.parse::<i32>().ok() };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => LOWEST.checked_add(offset(rest)?)?,
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => HIGHEST.checked_sub(offset(rest)?)?,
        _ => return None,
    };
    (LOWEST..=HIGHEST).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_and_numbers() {
        for (text, expected) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("HUP", Some(1)),
            ("sigusr1", Some(10)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMIN", Some(34)),
            ("0", None),
            ("65", None),
            ("-1", None),
            ("", None),
            ("SIGNOPE", None),
            ("RTMIN+99", None),
            ("RTMIN+99999999999", None),
            ("RTMINé", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
