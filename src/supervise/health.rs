//! The health machine of one container: when to probe next and what a result means. Pure; time is passed in.
//!
//! Docker's rules (features.md 4.9) with one addition: until the container is healthy for the first time it is probed
//! fast (after 100 ms, growing to 1 s), whatever `interval` says. To keep the meaning of `interval`, `retries` and
//! `start_period`, a failure counts only where Docker would have probed; and a success found earlier than that counts
//! only when somebody listens where others can reach it ([`super::listening`]).
//!
//! A first success in its turn that nobody can reach is most often the private server with which a database prepares
//! its empty volume; it counts when it lasts for [`CONFIRMATION`], so that an image whose exposed port is simply
//! unused still becomes healthy.
//!
//! | result | begun early | in its turn, start period | in its turn |
//! |---|---|---|---|
//! | success, reachable | healthy | healthy | healthy |
//! | success, not reachable | noted | noted, healthy once it lasted | noted, healthy once it lasted |
//! | failure | noted | logged | logged, streak + 1, unhealthy at `retries` |

use stack_runtime::observed::{Health, HealthStatus, ProbeResult};
use stack_runtime::spec::HealthSpec;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Longer than a database's private server stays up once its work is done and before the real one takes over.
const CONFIRMATION: Duration = Duration::from_secs(3);
/// Results kept for `inspect`.
const LOG_LENGTH: usize = 5;

/// What a result means for the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Healthy,
    Failed,
    /// Goes to the log without consequence.
    Logged,
    /// Found before its turn: shown as the last result until the next one comes.
    Noted,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct HealthMachine {
    spec: HealthSpec,
    health: Health,
    started: Instant,
    was_healthy: bool,
    /// Current pause between fast probes.
    pause: Duration,
    /// When Docker would probe next: from then on a failure counts.
    turn: Instant,
    due: Option<Instant>,
    last_is_noted: bool,
    /// Since when successes in their turn have gone on without anybody to reach.
    unreached_since: Option<Instant>,
}

impl HealthMachine {
    /// The container has just started; of its earlier life only the log is kept.
    pub fn start(spec: HealthSpec, earlier: Health, now: Instant) -> Self {
        let health = Health { status: HealthStatus::Starting, failing_streak: 0, log: earlier.log };
        Self::adopt(spec, health, now, now)
    }

    /// A supervisor takes over a container that started earlier, with what was written about it.
    pub fn adopt(spec: HealthSpec, health: Health, started: Instant, now: Instant) -> Self {
        let was_healthy = matches!(health.status, HealthStatus::Healthy);
        let mut machine = Self {
            spec,
            health,
            started,
            was_healthy,
            pause: FIRST_PAUSE,
            turn: now,
            due: None,
            last_is_noted: false,
            unreached_since: None,
        };
        if machine.health.status == HealthStatus::None {
            machine.health.status = HealthStatus::Starting;
        }
        machine.turn = now + machine.spacing(now);
        machine.due = Some(machine.next(now));
        machine
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    /// When to probe; `None` while suspended.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    pub fn timeout(&self) -> Duration {
        self.spec.timeout
    }

    /// Takes one result; true when the status changed. `is_reachable` is asked only for an early success.
    pub fn probed(
        &mut self,
        begun: Instant,
        ended: Instant,
        result: ProbeResult,
        is_reachable: impl FnOnce() -> bool,
    ) -> bool {
        let before = self.health.status;
        let is_turn = self.was_healthy || begun >= self.turn;
        let is_success = result.exit_code == 0;
        self.hold(is_turn, is_success, begun);
        let verdict = self.verdict(is_turn, begun, is_success, is_reachable);
        self.log(result, verdict);
        self.apply(verdict);
        if verdict == Verdict::Healthy || (is_turn && verdict != Verdict::Noted) {
            self.turn = ended + self.spacing(ended);
        }
        if self.unreached_since == Some(begun) {
            self.pause = FIRST_PAUSE;
        }
        // Never more than half of the time spent in probes.
        self.pause = grown(self.pause).max(ended.saturating_duration_since(begun).min(self.spec.interval));
        self.due = Some(self.next(ended));
        before != self.health.status
    }

    /// Frozen: no probes, and shown as unhealthy until the first one after it goes on. True when the status changed.
    pub fn suspend(&mut self) -> bool {
        self.due = None;
        std::mem::replace(&mut self.health.status, HealthStatus::Unhealthy) != HealthStatus::Unhealthy
    }

    pub fn resume(&mut self, now: Instant) {
        self.due = Some(now + FIRST_PAUSE);
    }

    fn verdict(
        &self,
        is_turn: bool,
        begun: Instant,
        is_success: bool,
        is_reachable: impl FnOnce() -> bool,
    ) -> Verdict {
        match (is_success, is_turn) {
            (true, true) if self.was_healthy || self.is_confirmed(begun) => Verdict::Healthy,
            (true, _) if is_reachable() => Verdict::Healthy,
            (true, _) | (_, false) => Verdict::Noted,
            (false, true) if self.is_in_start_period(begun) => Verdict::Logged,
            (false, true) => Verdict::Failed,
        }
    }

    /// Begins or ends the time for which an unreached success must last.
    fn hold(&mut self, is_turn: bool, is_success: bool, begun: Instant) {
        match (is_success, is_turn) {
            (true, true) => self.unreached_since = self.unreached_since.or(Some(begun)),
            (true, false) => {}
            (false, _) => self.unreached_since = None,
        }
    }

    fn is_confirmed(&self, at: Instant) -> bool {
        self.unreached_since.is_some_and(|since| at.saturating_duration_since(since) >= CONFIRMATION)
    }

    fn apply(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Healthy => {
                self.health.status = HealthStatus::Healthy;
                self.health.failing_streak = 0;
                self.was_healthy = true;
            }
            Verdict::Failed => {
                self.health.failing_streak += 1;
                if self.health.failing_streak >= self.spec.retries.max(1) {
                    self.health.status = HealthStatus::Unhealthy;
                }
            }
            Verdict::Logged | Verdict::Noted => {}
        }
    }

    fn log(&mut self, result: ProbeResult, verdict: Verdict) {
        if std::mem::replace(&mut self.last_is_noted, verdict == Verdict::Noted) {
            self.health.log.pop();
        }
        self.health.log.push(result);
        let surplus = self.health.log.len().saturating_sub(LOG_LENGTH);
        self.health.log.drain(..surplus);
    }

    /// Grace ends with the period or with the first success, whichever is first.
    fn is_in_start_period(&self, at: Instant) -> bool {
        !self.was_healthy && at.saturating_duration_since(self.started) < self.spec.start_period
    }

    /// Docker's distance from the end of one probe to the next.
    fn spacing(&self, at: Instant) -> Duration {
        if self.is_in_start_period(at) { self.spec.start_interval } else { self.spec.interval }
    }

    fn next(&self, now: Instant) -> Instant {
        match self.was_healthy {
            true => self.turn,
            false if self.turn <= now => now + self.pause,
            false => self.turn.min(now + self.pause),
        }
    }
}

/// A quarter more each time: a success is never found later than a quarter of the time it took.
fn grown(pause: Duration) -> Duration {
    (pause + pause / 4).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use stack_runtime::spec::Probe;

    const SECOND: Duration = Duration::from_secs(1);

    fn spec(interval: u64, retries: u32, start_period: u64) -> HealthSpec {
        HealthSpec {
            probe: Probe::Exec(vec!["true".into()]),
            interval: SECOND * interval as u32,
            timeout: SECOND * 3,
            retries,
            start_period: SECOND * start_period as u32,
            start_interval: SECOND * 5,
        }
    }

    fn result(exit_code: i32, output: &str) -> ProbeResult {
        ProbeResult { start: String::new(), end: String::new(), exit_code, output: output.into() }
    }

    /// A machine and its clock.
    struct Bed {
        machine: HealthMachine,
        start: Instant,
        now: Instant,
    }

    impl Bed {
        fn new(spec: HealthSpec) -> Self {
            let start = Instant::now();
            Self { machine: HealthMachine::start(spec, Health::default(), start), start, now: start }
        }
        /// Goes to the next due probe, gives it a result at once, and returns the time since the start.
        fn probe(&mut self, code: i32, is_reachable: bool) -> Duration {
            self.now = self.machine.due().expect("due");
            self.machine.probed(self.now, self.now, result(code, ""), || is_reachable);
            self.now - self.start
        }
        fn status(&self) -> HealthStatus {
            self.machine.health().status
        }
        fn streak(&self) -> u32 {
            self.machine.health().failing_streak
        }
    }

    #[test]
    fn probes_are_fast_until_the_first_success_then_keep_the_interval() {
        let mut bed = Bed::new(spec(30, 3, 0));
        assert_eq!(bed.probe(1, true), Duration::from_millis(100));
        assert_eq!(bed.probe(1, true), Duration::from_millis(225));
        let third = bed.probe(0, true);
        assert_eq!(bed.status(), HealthStatus::Healthy);
        assert_eq!(bed.probe(0, true), third + SECOND * 30);
    }

    #[test]
    fn the_pause_grows_to_one_second() {
        let mut bed = Bed::new(spec(300, 3, 0));
        let times: Vec<_> = (0..30).map(|_| bed.probe(1, true)).collect();
        assert_eq!(times[29] - times[28], SECOND);
    }

    #[test]
    fn early_failures_do_not_count() {
        let mut bed = Bed::new(spec(5, 2, 0));
        while bed.probe(1, true) < SECOND * 5 {
            assert_eq!(bed.streak(), 0);
        }
        assert_eq!(bed.now - bed.start, SECOND * 5, "the counted one is exactly in its turn");
        assert_eq!((bed.streak(), bed.status()), (1, HealthStatus::Starting));
        while bed.probe(1, true) < SECOND * 10 {}
        assert_eq!((bed.streak(), bed.status()), (2, HealthStatus::Unhealthy));
    }

    #[test]
    fn early_failures_leave_one_line_in_the_log() {
        let mut bed = Bed::new(spec(30, 2, 0));
        bed.probe(1, true);
        bed.probe(1, true);
        assert_eq!(bed.machine.health().log.len(), 1);
        bed.probe(0, true);
        assert_eq!(bed.machine.health().log.len(), 1);
        assert_eq!(bed.machine.health().log[0].exit_code, 0);
    }

    #[test]
    fn an_early_success_counts_only_when_reachable() {
        let mut bed = Bed::new(spec(5, 3, 0));
        bed.probe(0, false);
        assert_eq!(bed.status(), HealthStatus::Starting);
        bed.probe(0, true);
        assert_eq!(bed.status(), HealthStatus::Healthy);
    }

    #[test]
    fn an_unreached_success_in_its_turn_counts_once_it_lasted() {
        let mut bed = Bed::new(spec(5, 3, 0));
        while bed.probe(0, false) < SECOND * 8 {
            assert_eq!(bed.status(), HealthStatus::Starting);
        }
        assert_eq!(bed.status(), HealthStatus::Healthy);
        assert!(bed.now - bed.start < SECOND * 10);
    }

    #[test]
    fn a_private_server_that_goes_away_does_not_count() {
        let mut bed = Bed::new(spec(1, 60, 0));
        while bed.probe(1, false) < SECOND * 3 {}
        while bed.probe(0, false) < SECOND * 5 {}
        while bed.probe(1, false) < SECOND * 6 {}
        assert_eq!(bed.status(), HealthStatus::Starting);
        bed.probe(0, true);
        assert_eq!(bed.status(), HealthStatus::Healthy);
    }

    #[test]
    fn somebody_to_reach_ends_the_wait() {
        let mut bed = Bed::new(spec(1, 60, 0));
        while bed.probe(0, false) < SECOND * 2 {}
        let held = bed.now;
        bed.probe(0, true);
        assert_eq!(bed.status(), HealthStatus::Healthy);
        assert!(bed.now - held < SECOND / 2, "probed fast while waiting");
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let mut bed = Bed::new(spec(2, 1, 12));
        while bed.probe(1, true) < SECOND * 11 {
            assert_eq!((bed.streak(), bed.status()), (0, HealthStatus::Starting));
        }
        while bed.probe(1, true) < SECOND * 15 {}
        assert_eq!((bed.streak(), bed.status()), (1, HealthStatus::Unhealthy));
    }

    #[test]
    fn a_success_ends_the_start_period() {
        let mut bed = Bed::new(spec(2, 1, 100));
        bed.probe(0, true);
        bed.probe(1, true);
        assert_eq!(bed.status(), HealthStatus::Unhealthy);
        bed.probe(0, true);
        assert_eq!((bed.streak(), bed.status()), (0, HealthStatus::Healthy));
    }

    #[test]
    fn consecutive_failures_make_it_unhealthy() {
        let mut bed = Bed::new(spec(1, 3, 0));
        for code in [0, 1, 1, 0, 1, 1] {
            bed.probe(code, true);
            assert_eq!(bed.status(), HealthStatus::Healthy);
        }
        bed.probe(1, true);
        assert_eq!(bed.status(), HealthStatus::Unhealthy);
    }

    #[test]
    fn the_log_keeps_five() {
        let mut bed = Bed::new(spec(1, 3, 0));
        for n in 0..9 {
            let now = bed.machine.due().expect("due");
            bed.machine.probed(now, now, result(0, &n.to_string()), || true);
        }
        let outputs: Vec<_> = bed.machine.health().log.iter().map(|r| r.output.as_str()).collect();
        assert_eq!(outputs, ["4", "5", "6", "7", "8"]);
    }

    #[test]
    fn the_interval_is_counted_from_the_end_of_a_probe() {
        let mut bed = Bed::new(spec(10, 3, 0));
        bed.probe(0, true);
        let begun = bed.machine.due().expect("due");
        bed.machine.probed(begun, begun + SECOND * 2, result(0, ""), || true);
        assert_eq!(bed.machine.due(), Some(begun + SECOND * 12));
    }

    #[test]
    fn slow_probes_are_not_run_back_to_back() {
        let mut bed = Bed::new(spec(30, 3, 0));
        let begun = bed.machine.due().expect("due");
        bed.machine.probed(begun, begun + SECOND * 4, result(1, ""), || true);
        assert_eq!(bed.machine.due(), Some(begun + SECOND * 8));
    }

    #[test]
    fn an_adopted_container_keeps_its_status_and_streak() {
        let now = Instant::now();
        let known = Health { status: HealthStatus::Healthy, failing_streak: 2, log: Vec::new() };
        let mut machine = HealthMachine::adopt(spec(10, 3, 0), known, now, now + SECOND);
        let due = machine.due().expect("due");
        assert_eq!(due, now + SECOND * 11);
        assert!(machine.probed(due, due, result(1, ""), || true));
        assert_eq!(machine.health().status, HealthStatus::Unhealthy);
    }

    #[test]
    fn a_paused_container_is_unhealthy_until_the_next_probe() {
        let mut bed = Bed::new(spec(10, 3, 0));
        bed.probe(0, true);
        assert!(bed.machine.suspend());
        assert_eq!((bed.machine.due(), bed.status()), (None, HealthStatus::Unhealthy));
        bed.machine.resume(bed.now);
        bed.probe(0, true);
        assert_eq!(bed.status(), HealthStatus::Healthy);
    }

    #[test]
    fn a_restarted_container_is_starting_and_keeps_its_log() {
        let known =
            Health { status: HealthStatus::Unhealthy, failing_streak: 9, log: vec![result(1, "old")] };
        let machine = HealthMachine::start(spec(10, 3, 0), known, Instant::now());
        let health = machine.health();
        assert_eq!((health.status, health.failing_streak, health.log.len()), (HealthStatus::Starting, 0, 1));
    }
}
