//! Signals by name and what a process does with them.

/// `SIGTERM`, `term`, `15`, `RTMIN+3` …
pub fn signal_number(name: &str) -> Option<i32> {
    let upper = name.trim().to_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = short.strip_prefix("RTMIN") {
        return real_time(rest, 34, 1);
    }
    if let Some(rest) = short.strip_prefix("RTMAX") {
        return real_time(rest, 64, -1);
    }
    let short = match short {
        "CLD" => "CHLD",
        "IOT" => "ABRT",
        "POLL" => "IO",
        other => other,
    };
    format!("SIG{short}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

/// From the first or the last of them, which libraries leave to programs.
fn real_time(rest: &str, base: i32, direction: i32) -> Option<i32> {
    let number = match (rest, direction) {
        ("", _) => base,
        (rest, 1) => base + rest.strip_prefix('+')?.parse::<i32>().ok()?,
        (rest, _) => base - rest.strip_prefix('-')?.parse::<i32>().ok()?,
    };
    (34..=64).contains(&number).then_some(number)
}

/// Whether the process has a handler for the signal. A pid 1 without one never sees it (SIGKILL excepted).
pub fn catches_signal(pid: i32, signal: i32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    (1..=64).contains(&signal).then(|| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_real_time_signals() {
        for (name, number) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("sigquit", 3), ("RTMIN+3", 37), ("SIGRTMAX", 64)]
        {
            assert_eq!(signal_number(name), Some(number), "{name}");
        }
        for name in ["", "NOPE", "0", "65", "RTMIN+40"] {
            assert_eq!(signal_number(name), None, "{name}");
        }
    }

    #[test]
    fn handlers_are_seen() {
        let own = std::process::id().cast_signed();
        assert_eq!(catches_signal(own, libc::SIGUSR2), Some(false));
        // Rust handles it, to tell stack overflows.
        assert_eq!(catches_signal(own, libc::SIGSEGV), Some(true));
    }
}
