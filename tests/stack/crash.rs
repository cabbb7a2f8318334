//! SIGKILL at random moments: the command line, the supervisor, or both, during up, recreate, run and down.
//!
//! Every round ends with a command that converges; containers of a running stack keep running through a round that
//! does not replace them; every tenth round ends with `down` and the leak check. Nine rounds of ten use a small image,
//! the tenth PostgreSQL with a client that writes all the time: what it was told is committed is there afterwards.
//!
//! `STACK_CRASH_ROUNDS` says how many rounds (default 200), `STACK_CRASH_SEED` repeats a run.

use crate::common::{Project, World, eventually, note};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

const SMALL: &str = r#"
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

/// `web` writes down what it was told is committed, outside.
const POSTGRES: &str = r#"
services:
  db:
    image: postgres:17
    environment: { POSTGRES_PASSWORD: pw }
    healthcheck: { test: [CMD, pg_isready, -U, postgres], interval: 1s, retries: 100 }
    volumes: ["data:/var/lib/postgresql/data"]
    restart: always
  web:
    image: postgres:17
    environment: { PGHOST: db, PGUSER: postgres, PGPASSWORD: pw, PGCONNECT_TIMEOUT: 5 }
    volumes: ["./acknowledged:/acknowledged"]
    command:
      - bash
      - -c
      - |
        trap 'exit 0' TERM
        sql() { psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --command "$$1"; }
        until sql "CREATE TABLE IF NOT EXISTS counted (n bigint)"; do sleep 0.1; done
        n=$$(tail -n 1 /acknowledged/rows)
        while :; do
          n=$$((n + 1))
          sql "INSERT INTO counted VALUES ($$n)" && echo $$n >>/acknowledged/rows || sleep 0.05
        done
    depends_on: { db: { condition: service_healthy } }
    restart: unless-stopped
volumes: { data: {} }
"#;

/// One in so many rounds ends with nothing, and one in so many uses PostgreSQL.
const TENTH: u64 = 10;

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

fn rounds() -> u64 {
    number("STACK_CRASH_ROUNDS").unwrap_or(200)
}

#[test]
fn killed_at_random_moments_the_next_command_converges() {
    World::with_busybox().run(|world| {
        let project = world.project("crash", &[("compose.yaml", SMALL)]);
        let mut random = Random::seeded();
        for round in 1..=rounds() - rounds() / TENTH {
            cut_and_converge(&project, &mut random, round, Duration::from_millis(250));
            if round % TENTH == 0 {
                project.stack(&["down", "-v", "-t", "1", "--remove-orphans"]).ok();
                world.assert_no_leak();
            }
        }
    });
}

#[test]
fn killed_at_random_moments_no_committed_row_is_lost() {
    World::with_base_images().run(|world| {
        let project = world.project("crash-rows", &[("compose.yaml", POSTGRES), ("acknowledged/rows", "")]);
        let mut random = Random::seeded();
        // A cluster that is made half is the image's own affair, as it is in Docker.
        project.stack(&["up", "-d"]).ok();
        for round in 1..=(rounds() / TENTH).max(1) {
            assert_goes_on(&project, "before the cut");
            let what = cut_and_converge(&project, &mut random, round, Duration::from_millis(1500));
            assert_goes_on(&project, &what);
            assert_no_row_lost(&project, &what);
            if round % TENTH == 0 {
                project.stack(&["down", "-t", "1"]).ok();
                world.assert_no_leak();
                project.stack(&["up", "-d"]).ok();
                assert_no_row_lost(&project, &what);
            }
        }
        note(&format!("{} rows were acknowledged, and all are there", acknowledged(&project).len()));
    });
}

/// One round; says what it was.
fn cut_and_converge(project: &Project<'_>, random: &mut Random, round: u64, longest: Duration) -> String {
    let verb = random.pick(&[Verb::Up, Verb::Recreate, Verb::Run, Verb::Down]);
    let victim = random.pick(&[Victim::CommandLine, Victim::Supervisor, Victim::Both]);
    let longest = u64::try_from(longest.as_micros()).expect("a few seconds");
    let moment = Duration::from_micros(random.below(longest));
    let what = format!("round {round}: {victim:?} killed {moment:?} into {verb:?}");
    let before = programs(project);
    cut(project, verb, victim, moment);
    converge(project, &what);
    if verb.keeps() {
        assert_kept(&before, &programs(project), &what);
    }
    what
}

/// Rows that the writer was told are committed.
fn acknowledged(project: &Project<'_>) -> Vec<u64> {
    let text = std::fs::read_to_string(project.directory.join("acknowledged/rows")).unwrap();
    text.lines().map(|line| line.parse().unwrap_or_else(|e| panic!("{e}: {line:?}"))).collect()
}

/// The server takes and commits more rows.
fn assert_goes_on(project: &Project<'_>, what: &str) {
    let before = acknowledged(project).len();
    eventually(&format!("{what}: another row"), || (acknowledged(project).len() > before + 1).then_some(()));
}

#[track_caller]
fn assert_no_row_lost(project: &Project<'_>, what: &str) {
    let told = acknowledged(project);
    let query = ["exec", "-T", "db", "psql", "-U", "postgres", "-Atc", "SELECT n FROM counted"];
    let ran = project.stack(&query).ok();
    let there: HashSet<u64> = ran.stdout.lines().map(|line| line.parse().unwrap()).collect();
    let lost: Vec<_> = told.iter().filter(|row| !there.contains(row)).collect();
    assert!(lost.is_empty(), "{what}: of {} committed rows {lost:?} are lost", told.len());
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
