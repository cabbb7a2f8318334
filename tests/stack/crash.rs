//! SIGKILL at random moments: the command line, the supervisor, or both, during up, recreate, run and down.
//!
//! Every round ends with a command that converges; containers of a running stack keep running through a round that
//! does not replace them; every tenth round ends with `down` and the leak check.
//!
//! `STACK_CRASH_ROUNDS` says how many rounds (default 200), `STACK_CRASH_SEED` repeats a run.

use crate::common::{Project, World, note};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const FILE: &str = r#"
services:
  db:
    image: busybox:1
    command: ["sh", "-c", "trap 'exit 0' TERM; touch /ready; while :; do sleep 0.1; done"]
    healthcheck: { test: ["CMD", "test", "-e", "/ready"], interval: 1s }
    volumes: ["data:/data"]
    restart: always
  web:
    image: busybox:1
    command: ["sleep", "100000"]
    depends_on: { db: { condition: service_healthy } }
    restart: unless-stopped
volumes: { data: {} }
"#;

/// One in so many rounds ends with nothing.
const ROUNDS_UP: u32 = 10;

/// What is cut off.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Up,
    Recreate,
    Run,
    Down,
}

impl Verb {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Up => &["up", "-d"],
            Self::Recreate => &["up", "-d", "--force-recreate"],
            Self::Run => &["run", "--rm", "-T", "web", "sleep", "0.05"],
            Self::Down => &["down", "-t", "1"],
        }
    }

    /// Containers that ran before run on.
    fn keeps(self) -> bool {
        matches!(self, Self::Up | Self::Run)
    }
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    CommandLine,
    Supervisor,
    Both,
}

#[test]
fn killed_at_random_moments_the_next_command_converges() {
    World::with_busybox().run(|world| {
        let project = world.project("crash", &[("compose.yaml", FILE)]);
        let mut random = Random::seeded();
        for round in 1..=number("STACK_CRASH_ROUNDS").unwrap_or(200) {
            let verb = random.pick(&[Verb::Up, Verb::Recreate, Verb::Run, Verb::Down]);
            let victim = random.pick(&[Victim::CommandLine, Victim::Supervisor, Victim::Both]);
            let moment = Duration::from_micros(random.below(250_000));
            let what = format!("round {round}: {victim:?} killed {moment:?} into {verb:?}");
            let before = programs(&project);
            cut(&project, verb, victim, moment);
            converge(&project, &what);
            if verb.keeps() {
                assert_kept(&before, &programs(&project), &what);
            }
            if round % u64::from(ROUNDS_UP) == 0 {
                project.stack(&["down", "-v", "-t", "1", "--remove-orphans"]).ok();
                world.assert_no_leak();
            }
        }
    });
}

/// Starts the verb, kills at the moment, and waits until the command line is gone.
fn cut(project: &Project<'_>, verb: Verb, victim: Victim, moment: Duration) {
    let running = project.spawn(verb.arguments());
    let begun = Instant::now();
    while begun.elapsed() < moment {
        std::thread::sleep(Duration::from_micros(200));
    }
    if matches!(victim, Victim::CommandLine | Victim::Both) {
        running.signal(Signal::KILL);
    }
    if matches!(victim, Victim::Supervisor | Victim::Both) {
        for pid in supervisors(project.world) {
            // It may have ended by itself.
            let _ = kill_process(Pid::from_raw(pid).expect("not zero"), Signal::KILL);
        }
    }
    // Its code is not looked at: it was cut off, or lost its supervisor.
    running.wait(crate::common::PATIENCE);
}

fn supervisors(world: &World) -> Vec<i32> {
    let processes = world.processes().into_iter();
    processes.filter(|(_, command)| command.contains("__supervise")).map(|(pid, _)| pid).collect()
}

/// The same command as ever gives the same stack as ever; a `run` that was cut off removes itself.
fn converge(project: &Project<'_>, what: &str) {
    let ran = project.stack(&["up", "-d"]);
    assert!(ran.status.success(), "{what}: {ran}\n{}", files(project));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = containers(project);
        if found.len() == 2 && found.iter().all(|(_, state)| state == "running") {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: not exactly db and web run: {found:?}\n{ran}\n{}",
            files(project)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let ran = project.stack(&["exec", "-T", "web", "sh", "-c", "exit 7"]);
    assert_eq!(ran.status.code(), Some(7), "{what}: {ran}");
}

/// What is written about the containers, for whoever has to find out.
fn files(project: &Project<'_>) -> String {
    let folder = project.world.home.join("stacks").join(&project.name).join("containers");
    let log = project.world.home.join("run").join(&project.name).join("supervisor.log");
    let mut text = std::fs::read_to_string(log).unwrap_or_default();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        for name in ["supervision.json", "run.json", "exit.json"] {
            let read = std::fs::read_to_string(entry.path().join(name));
            text += &format!("{} {name}: {}\n", entry.file_name().display(), read.unwrap_or_default());
        }
    }
    text
}

/// Name and state of each container of the project, one-offs included.
fn containers(project: &Project<'_>) -> Vec<(String, String)> {
    let field = |row: &serde_json::Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> =
        project.ps().iter().map(|row| (field(row, "Name"), field(row, "State"))).collect();
    found.sort();
    found
}

/// Process ids of the running programs by container id, from the files their monitors wrote.
fn programs(project: &Project<'_>) -> BTreeMap<String, i32> {
    let folder = project.world.home.join("stacks").join(&project.name).join("containers");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let run = stack_runtime::monitor::RunRecord::read(&entry.path()).ok().flatten();
        if let Some(run) = run.filter(|run| run.is_alive() && !entry.path().join("exit.json").exists()) {
            found.insert(entry.file_name().to_string_lossy().into_owned(), run.pid);
        }
    }
    found
}

/// A one-off that ran before may have ended since.
#[track_caller]
fn assert_kept(before: &BTreeMap<String, i32>, after: &BTreeMap<String, i32>, what: &str) {
    for (id, pid) in after {
        assert!(before.get(id).is_none_or(|earlier| earlier == pid), "{what}: {id} was restarted");
    }
    let kept = before.keys().filter(|id| after.contains_key(*id)).count();
    assert!(before.len().min(2) <= kept, "{what}: {before:?} became {after:?}");
}

struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = number("STACK_CRASH_SEED").unwrap_or(u64::from(now.subsec_nanos()));
        note(&format!("STACK_CRASH_SEED={seed}"));
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Marsaglia's xorshift: good enough to hit different moments.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
