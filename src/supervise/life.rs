//! The life of one container as a table: in which phase, on which event, what is done. Pure.
//!
//! | phase ╲ event | start | started | failed | stop | exited | due |
//! |---|---|---|---|---|---|---|
//! | down | launch → starting | - | - | - | - | - |
//! | starting | - | → up | settle → down | - | settle or wait | - |
//! | up | - | - | - | terminate → stopping | settle → down, or wait → waiting | - |
//! | stopping | refuse | - | - | terminate | settle → down | - |
//! | waiting | launch → starting | - | - | settle → down | - | launch → starting |
//!
//! A dash is "nothing to do". The pure decision whether an exit is final is [`super::restart`]'s.

use std::time::Duration;

/// Where a container is in the supervisor's eye.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not running, and nothing will change that but a start.
    #[default]
    Down,
    Starting,
    Up,
    /// The stop signal was sent by the user's wish.
    Stopping,
    /// Ended; the next attempt is due later.
    Waiting,
}

/// What happened, or is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Start,
    Started,
    StartFailed,
    Stop,
    /// With the delay until the next attempt, if the policy wants one.
    Exited(Option<Duration>),
    /// The delay is over.
    Due,
}

/// What the supervisor does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Nothing,
    Launch,
    /// Send the stop signal, and KILL after the grace period.
    Terminate,
    /// Arm the timer of the next attempt.
    Wait(Duration),
    /// Give back what it held; remove it if it is to be removed.
    Settle,
    /// Start of something that is being stopped.
    Refuse,
}

/// One cell of the table.
pub fn step(phase: Phase, event: Event) -> (Phase, Action) {
    use Phase::{Down, Starting, Stopping, Up, Waiting};
    match (phase, event) {
        (Down | Waiting, Event::Start) | (Waiting, Event::Due) => (Starting, Action::Launch),
        (Stopping, Event::Start) => (Stopping, Action::Refuse),
        (Starting, Event::Started) => (Up, Action::Nothing),
        (Starting, Event::StartFailed) | (Waiting, Event::Stop) => (Down, Action::Settle),
        (Up | Stopping, Event::Stop) => (Stopping, Action::Terminate),
        (Stopping, Event::Exited(_)) | (Starting | Up, Event::Exited(None)) => (Down, Action::Settle),
        (Starting | Up, Event::Exited(Some(delay))) => (Waiting, Action::Wait(delay)),
        (unchanged, _) => (unchanged, Action::Nothing),
    }
}

impl Phase {
    /// Holds the supervisor alive.
    pub fn is_active(self) -> bool {
        self != Self::Down
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Event, Phase, step};
    use std::time::Duration;

    const SOON: Duration = Duration::from_millis(100);
    const PHASES: [Phase; 5] = [Phase::Down, Phase::Starting, Phase::Up, Phase::Stopping, Phase::Waiting];

    fn run(events: &[Event]) -> (Phase, Vec<Action>) {
        let mut phase = Phase::Down;
        let actions = events
            .iter()
            .map(|event| {
                let (next, action) = step(phase, *event);
                phase = next;
                action
            })
            .collect();
        (phase, actions)
    }

    #[test]
    fn the_whole_table() {
        let events = [
            Event::Start,
            Event::Started,
            Event::StartFailed,
            Event::Stop,
            Event::Exited(None),
            Event::Exited(Some(SOON)),
            Event::Due,
        ];
        let mut table = String::new();
        for phase in PHASES {
            for event in events {
                let (next, action) = step(phase, event);
                if (next, action) != (phase, Action::Nothing) {
                    table += &format!("{phase:?} + {event:?} -> {action:?}, {next:?}\n");
                }
            }
        }
        let expected = "\
Down + Start -> Launch, Starting
Starting + Started -> Nothing, Up
Starting + StartFailed -> Settle, Down
Starting + Exited(None) -> Settle, Down
Starting + Exited(Some(100ms)) -> Wait(100ms), Waiting
Up + Stop -> Terminate, Stopping
Up + Exited(None) -> Settle, Down
Up + Exited(Some(100ms)) -> Wait(100ms), Waiting
Stopping + Start -> Refuse, Stopping
Stopping + Stop -> Terminate, Stopping
Stopping + Exited(None) -> Settle, Down
Stopping + Exited(Some(100ms)) -> Settle, Down
Waiting + Start -> Launch, Starting
Waiting + Stop -> Settle, Down
Waiting + Due -> Launch, Starting
";
        assert_eq!(table, expected);
    }

    #[test]
    fn a_stop_between_two_attempts_cancels_the_restart() {
        let (phase, actions) =
            run(&[Event::Start, Event::Started, Event::Exited(Some(SOON)), Event::Stop, Event::Due]);
        assert_eq!(phase, Phase::Down);
        assert_eq!(actions[2..], [Action::Wait(SOON), Action::Settle, Action::Nothing]);
    }

    #[test]
    fn a_restart_attempt_that_cannot_start_ends_the_loop() {
        let (phase, _) =
            run(&[Event::Start, Event::Started, Event::Exited(Some(SOON)), Event::Due, Event::StartFailed]);
        assert_eq!(phase, Phase::Down);
    }
}
