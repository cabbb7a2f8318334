//! Restart policies as a pure value: what an exit leads to, and after how long.
//!
//! The rules are Docker's (features.md, `RT-restart-*`): the delay starts at 100 ms, doubles with each attempt up to a
//! minute and starts anew after ten seconds of uptime; `on-failure:n` counts attempts until an explicit start; a stop
//! or a signal sent by the user takes the next exit as final.

use serde::{Deserialize, Serialize};
use stack_runtime::spec::RestartSpec;
use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A container that stayed up this long is not in a crash loop.
const SETTLED_UPTIME: Duration = Duration::from_secs(10);

/// The counters behind one container's restart policy; kept in `supervision.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restarts {
    /// Restarts since the last explicit start.
    pub count: u32,
    /// The delay used last; zero before the first restart.
    pub delay: Duration,
    /// The user stopped or signalled it since the last explicit start.
    pub is_manually_stopped: bool,
    /// The next exit is final, whatever the policy says.
    pub is_cancelled: bool,
    /// It was stopped because the machine goes down, or its unit does; not by the user.
    pub is_set_aside: bool,
}

impl Restarts {
    /// An explicit start forgets everything.
    pub fn start(&mut self) {
        *self = Self::default();
    }

    /// The user asked for a stop: no restart follows.
    pub fn stop(&mut self) {
        self.is_manually_stopped = true;
        self.is_cancelled = true;
    }

    /// The machine goes down: this exit is final, and what comes back after a boot does.
    pub fn set_aside(&mut self) {
        self.is_set_aside = true;
        self.is_cancelled = true;
    }

    /// After a boot. As in Docker, `always` comes back even if the user had stopped it; `on-failure` does not.
    pub fn comes_back(&self, policy: RestartSpec) -> bool {
        match policy {
            RestartSpec::Always => true,
            RestartSpec::UnlessStopped => !self.is_manually_stopped,
            RestartSpec::No | RestartSpec::OnFailure(_) => false,
        }
    }

    /// The user sent `signal`. With a stop signal of its own, only that signal (or KILL) is taken for a stop.
    pub fn signal(&mut self, signal: i32, stop_signal: Option<i32>) {
        const KILL: i32 = 9;
        self.is_manually_stopped = true;
        self.is_cancelled |= signal == KILL || stop_signal.is_none_or(|own| own == signal);
    }

    /// The delay until the next attempt, or `None` when this exit is final. An exit nobody saw counts as a failure.
    pub fn after_exit(
        &mut self,
        policy: RestartSpec,
        code: Option<i32>,
        up_for: Duration,
    ) -> Option<Duration> {
        if std::mem::take(&mut self.is_cancelled) {
            return None;
        }
        let again = match policy {
            RestartSpec::No => false,
            RestartSpec::Always => true,
            RestartSpec::UnlessStopped => !self.is_manually_stopped,
            RestartSpec::OnFailure(most) => code != Some(0) && (most == 0 || self.count < most),
        };
        again.then(|| self.next_delay(up_for))
    }

    fn next_delay(&mut self, up_for: Duration) -> Duration {
        let is_fresh = self.delay.is_zero() || up_for >= SETTLED_UPTIME;
        self.delay = if is_fresh { FIRST_DELAY } else { (self.delay * 2).min(LONGEST_DELAY) };
        self.count += 1;
        self.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn what_comes_back_after_a_boot() {
        let mut stopped = Restarts::default();
        stopped.stop();
        let mut aside = Restarts::default();
        aside.set_aside();
        assert_eq!(aside.after_exit(RestartSpec::Always, Some(0), SHORT), None, "not before the boot");
        let table = [
            (RestartSpec::No, false, false),
            (RestartSpec::OnFailure(0), false, false),
            (RestartSpec::Always, true, true),
            (RestartSpec::UnlessStopped, true, false),
        ];
        for (policy, ran, was_stopped) in table {
            assert_eq!(Restarts::default().comes_back(policy), ran, "{policy:?}");
            assert_eq!(aside.comes_back(policy), ran, "{policy:?}");
            assert_eq!(stopped.comes_back(policy), was_stopped, "{policy:?}");
        }
    }

    fn delays(policy: RestartSpec, code: i32, rounds: usize) -> Vec<u64> {
        let mut restarts = Restarts::default();
        (0..rounds)
            .map_while(|_| restarts.after_exit(policy, Some(code), SHORT))
            .map(|delay| delay.as_millis() as u64)
            .collect()
    }

    #[test]
    fn the_delay_doubles_from_100_ms_to_a_minute() {
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000];
        assert_eq!(delays(RestartSpec::Always, 0, 12), expected);
    }

    #[test]
    fn ten_seconds_of_uptime_reset_the_delay_but_not_the_count() {
        let mut restarts = Restarts { count: 4, delay: Duration::from_secs(1), ..Default::default() };
        let delay = restarts.after_exit(RestartSpec::OnFailure(5), Some(1), Duration::from_secs(10));
        assert_eq!(delay, Some(FIRST_DELAY));
        assert_eq!(restarts.after_exit(RestartSpec::OnFailure(5), Some(1), SHORT), None);
    }

    #[test]
    fn on_failure_counts_attempts_and_ignores_success() {
        assert_eq!(delays(RestartSpec::OnFailure(3), 1, 9).len(), 3);
        assert_eq!(delays(RestartSpec::OnFailure(0), 1, 9).len(), 9);
        assert_eq!(delays(RestartSpec::OnFailure(3), 0, 9).len(), 0);
        assert_eq!(delays(RestartSpec::No, 1, 9).len(), 0);
    }

    #[test]
    fn an_exit_nobody_saw_is_a_failure() {
        let mut restarts = Restarts::default();
        assert!(restarts.after_exit(RestartSpec::OnFailure(0), None, SHORT).is_some());
    }

    #[test]
    fn a_manual_stop_is_final_until_the_next_start() {
        for policy in [RestartSpec::Always, RestartSpec::UnlessStopped, RestartSpec::OnFailure(0)] {
            let mut restarts = Restarts::default();
            restarts.stop();
            assert_eq!(restarts.after_exit(policy, Some(143), SHORT), None, "{policy:?}");
            restarts.start();
            assert_eq!(restarts.after_exit(policy, Some(143), SHORT), Some(FIRST_DELAY), "{policy:?}");
        }
    }

    #[test]
    fn a_signal_other_than_its_stop_signal_does_not_end_the_policy() {
        let (hup, quit, kill) = (1, 3, 9);
        let outcome = |signal, own, policy| {
            let mut restarts = Restarts::default();
            restarts.signal(signal, own);
            restarts.after_exit(policy, Some(1), SHORT).is_some()
        };
        assert!(!outcome(hup, None, RestartSpec::Always));
        assert!(outcome(hup, Some(quit), RestartSpec::Always));
        assert!(outcome(hup, Some(quit), RestartSpec::OnFailure(0)));
        assert!(!outcome(hup, Some(quit), RestartSpec::UnlessStopped));
        assert!(!outcome(quit, Some(quit), RestartSpec::Always));
        assert!(!outcome(kill, Some(quit), RestartSpec::Always));
    }
}
