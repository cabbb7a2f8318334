//! The command line of runc, option by option. Options may also stand after the id.

use super::log::Log;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use serde_json::Value;
use stack_runtime::container::signal_number;
use stack_runtime::launch::LaunchError;
use stack_runtime::oci::{CreateOptions, ExecOptions, Result, Update, template};
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

/// Runs containers from OCI bundles, for engines that call an OCI runtime
#[derive(Debug, Parser)]
#[command(name = "stack oci", version = VERSION, disable_help_subcommand = true, disable_version_flag = true)]
pub(super) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

#[derive(Debug, Clone, Args)]
pub(super) struct Global {
    /// Directory of the containers' state
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// File for messages, beside standard error
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Tell what is being done
    #[arg(long)]
    pub debug: bool,
    /// cgroupsPath is SLICE:PREFIX:NAME, and systemd makes the control group
    #[arg(long)]
    systemd_cgroup: bool,
    /// cgroupfs or systemd
    #[arg(long, value_name = "NAME", hide = true)]
    cgroup_manager: Option<String>,
    /// Found out by itself
    #[arg(long, value_name = "BOOL", hide = true)]
    rootless: Option<String>,
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<String>,
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
}

impl Global {
    pub(super) fn wants_systemd(&self) -> bool {
        self.systemd_cgroup || self.cgroup_manager.as_deref() == Some("systemd")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Create a container, which waits for its start
    Create(Create),
    /// Run the program of a created container
    Start(Id),
    /// Create and start a container, and wait for its end
    Run(Run),
    /// Print the state of a container
    State(Id),
    /// Send a signal to the init of a container
    Kill(Kill),
    /// Remove what a container that has ended holds
    Delete(Delete),
    /// Run a program in a container
    Exec(Box<Exec>),
    /// Show the processes of a container
    Ps(Ps),
    /// Freeze the processes of a container
    Pause(Id),
    /// Thaw the processes of a container
    Resume(Id),
    /// Change the limits of a container
    Update(Box<Limits>),
    /// Tell what a container uses, and when it runs out of memory
    Events(Events),
    /// List the containers of the root directory
    List(List),
    /// Print what is supported
    Features,
    /// Write an example config.json
    Spec(Spec),
}

impl Verb {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Start(_) => "start",
            Self::Run(_) => "run",
            Self::State(_) => "state",
            Self::Kill(_) => "kill",
            Self::Delete(_) => "delete",
            Self::Exec(_) => "exec",
            Self::Ps(_) => "ps",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Update(_) => "update",
            Self::Events(_) => "events",
            Self::List(_) => "list",
            Self::Features => "features",
            Self::Spec(_) => "spec",
        }
    }

    /// Processes of ours will be where a container can see them.
    pub(super) fn enters_containers(&self) -> bool {
        matches!(self, Self::Create(_) | Self::Run(_) | Self::Exec(_))
    }
}

#[derive(Debug, Args)]
pub(super) struct Id {
    pub id: String,
}

#[derive(Debug, Args)]
pub(super) struct Create {
    id: String,
    /// The directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Other than the bundle's config.json
    #[arg(short = 'f', long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Unix socket that gets the terminal
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    /// File for the number of the container's init
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// For a root in memory
    #[arg(long)]
    no_pivot: bool,
    /// Keep the session keyring of the caller
    #[arg(long)]
    no_new_keyring: bool,
    /// Pass this many descriptors from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
}

impl Create {
    pub(super) fn options(&self, systemd: bool) -> Result<CreateOptions> {
        let bundle = std::path::absolute(&self.bundle)
            .map_err(|e| LaunchError::new(format!("find the bundle {}", self.bundle.display()), e))?;
        Ok(CreateOptions {
            id: self.id.clone(),
            bundle,
            config: self.config.clone(),
            console_socket: self.console_socket.clone(),
            pid_file: self.pid_file.clone(),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: self.preserve_fds,
            systemd,
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub create: Create,
    /// Do not wait for the end
    #[arg(short, long)]
    pub detach: bool,
    /// Do not delete the container when it has ended
    #[arg(long)]
    pub keep: bool,
    /// Nothing: orphans are nobody's here
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    pub id: String,
    /// Name or number
    #[arg(default_value = "SIGTERM")]
    signal: String,
    /// Everybody in the container
    #[arg(short, long)]
    pub all: bool,
}

impl Kill {
    pub(super) fn signal(&self) -> Result<i32> {
        let number = if self.signal == "0" { Some(0) } else { signal_number(&self.signal) };
        number.ok_or_else(|| LaunchError::new(format!("send the signal {:?}", self.signal), "unknown signal"))
    }
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// End it first; one that does not exist is fine
    #[arg(short, long)]
    force: bool,
}

impl Delete {
    /// All of them; the last failure is the command's, the others are only told.
    pub(super) fn each(&self, delete: impl Fn(&str, bool) -> Result<Vec<String>>, log: &Log) -> Result<()> {
        let mut failures = Vec::new();
        for id in &self.ids {
            match delete(id, self.force) {
                Ok(warnings) => log.warnings(warnings),
                Err(failure) => failures.push(failure),
            }
        }
        let last = failures.pop();
        failures.iter().for_each(|failure| log.error(failure));
        last.map_or(Ok(()), Err)
    }
}

#[derive(Debug, Args)]
pub(super) struct Exec {
    id: String,
    /// Program and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    args: Vec<String>,
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    #[arg(short, long, value_name = "KEY=VALUE", action = ArgAction::Append)]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    #[arg(short, long, value_name = "UID[:GID]")]
    user: Option<String>,
    #[arg(short = 'g', long, value_name = "GID", action = ArgAction::Append)]
    additional_gids: Vec<u32>,
    #[arg(short, long, value_name = "CAP", action = ArgAction::Append)]
    cap: Vec<String>,
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    no_new_privs: Option<bool>,
    #[arg(short, long)]
    detach: bool,
    #[arg(long, value_name = "PATH")]
    console_socket: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    #[arg(long)]
    ignore_paused: bool,
    /// A group below the container's, of all controllers or of these
    #[arg(long, value_name = "[CONTROLLER[,CONTROLLER]:]PATH")]
    cgroup: Vec<String>,
}

impl Exec {
    pub(super) fn options(self: Box<Self>) -> Result<ExecOptions> {
        Ok(ExecOptions {
            id: self.id,
            args: self.args,
            process: self.process,
            cwd: self.cwd,
            env: self.env,
            terminal: self.tty,
            user: self.user,
            additional_gids: self.additional_gids,
            capabilities: self.cap,
            apparmor: self.apparmor,
            process_label: self.process_label,
            no_new_privileges: self.no_new_privs.unwrap_or(false),
            detach: self.detach,
            console_socket: self.console_socket,
            pid_file: self.pid_file,
            preserve_fds: self.preserve_fds,
            ignore_paused: self.ignore_paused,
            cgroup: self.cgroup,
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct Ps {
    pub id: String,
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: PsFormat,
    /// For ps, instead of -ef
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    pub args: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PsFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[arg(short, long, value_enum, default_value = "table")]
    pub format: ListFormat,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    pub id: String,
    /// Once, then end
    #[arg(long)]
    pub stats: bool,
    /// Between two of them: 5s, 100ms, 1m
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    interval: String,
}

impl Events {
    pub(super) fn interval(&self) -> Result<Duration> {
        let text = self.interval.as_str();
        let units = [("ms", 1.0), ("s", 1000.0), ("m", 60_000.0), ("h", 3_600_000.0)];
        let parse = |(unit, milliseconds): &(&str, f64)| {
            Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * milliseconds)
        };
        let milliseconds = units.iter().find_map(parse).filter(|value| *value >= 1.0 && *value < 1e12);
        let refuse = || {
            LaunchError::new(
                format!("use the interval {text:?}"),
                "it is no duration above zero such as 5s or 100ms",
            )
        };
        milliseconds.map(|value| Duration::from_millis(value as u64)).ok_or_else(refuse)
    }
}

#[derive(Debug, Args)]
pub(super) struct Spec {
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    rootless: bool,
}

impl Spec {
    pub(super) fn write(&self) -> Result<()> {
        let path = self.bundle.join("config.json");
        let failed = |e: std::io::Error| LaunchError::new(format!("write {}", path.display()), e);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
        let pretty = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut writer = serde_json::Serializer::with_formatter(file, pretty);
        serde::Serialize::serialize(&template(self.rootless), &mut writer).map_err(|e| failed(e.into()))
    }
}

#[derive(Debug, Args)]
pub(super) struct Limits {
    pub id: String,
    /// Read them from a file, `-`: from standard input
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    #[arg(long, value_name = "N")]
    cpu_share: Option<u64>,
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    cpu_idle: Option<i64>,
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<String>,
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Memory and swap together
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Ignored: no kernel has it any more
    #[arg(long, value_name = "BYTES", hide = true, allow_hyphen_values = true)]
    kernel_memory: Option<String>,
    #[arg(long, value_name = "BYTES", hide = true, allow_hyphen_values = true)]
    kernel_memory_tcp: Option<String>,
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
}

impl Limits {
    pub(super) fn update(&self) -> Result<Update> {
        if let Some(path) = &self.resources {
            return Update::parse(&read(path)?);
        }
        let mut update = Update::default();
        let text = |value: &Option<String>| value.clone().map(Value::from);
        update.set("blockIO", "weight", self.blkio_weight.map(Value::from));
        update.set("cpu", "period", self.cpu_period.map(Value::from));
        update.set("cpu", "quota", self.cpu_quota.map(Value::from));
        update.set("cpu", "burst", self.cpu_burst.map(Value::from));
        update.set("cpu", "shares", self.cpu_share.map(Value::from));
        update.set("cpu", "realtimePeriod", self.cpu_rt_period.map(Value::from));
        update.set("cpu", "realtimeRuntime", self.cpu_rt_runtime.map(Value::from));
        update.set("cpu", "cpus", text(&self.cpuset_cpus));
        update.set("cpu", "mems", text(&self.cpuset_mems));
        update.set("cpu", "idle", self.cpu_idle.map(Value::from));
        update.set("memory", "limit", bytes(self.memory.as_ref())?);
        update.set("memory", "reservation", bytes(self.memory_reservation.as_ref())?);
        update.set("memory", "swap", bytes(self.memory_swap.as_ref())?);
        let _ = bytes(self.kernel_memory.as_ref())?;
        update.set("memory", "kernelTCP", bytes(self.kernel_memory_tcp.as_ref())?);
        update.set("pids", "limit", self.pids_limit.map(Value::from));
        Ok(update)
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    let failed = |e| LaunchError::new(format!("read {}", path.display()), e);
    if path.as_os_str() != "-" {
        return std::fs::read(path).map_err(failed);
    }
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// `64m`, `1G`, `-1`: binary units.
fn bytes(text: Option<&String>) -> Result<Option<Value>> {
    let Some(text) = text else { return Ok(None) };
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, shift) = match digits.char_indices().next_back() {
        Some((at, 'k')) => (&digits[..at], 10),
        Some((at, 'm')) => (&digits[..at], 20),
        Some((at, 'g')) => (&digits[..at], 30),
        Some((at, 't')) => (&digits[..at], 40),
        _ => (digits, 0),
    };
    let number: Option<i64> = digits.trim().parse().ok();
    let value = number.and_then(|number| number.checked_mul(1 << shift));
    value
        .map(|value| Some(value.into()))
        .ok_or_else(|| LaunchError::new(format!("use the size {text:?}"), "it is no number of bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let value =
            |text: &str| bytes(Some(&text.to_owned())).ok().flatten().and_then(|value| value.as_i64());
        assert_eq!(
            [value("64m"), value("-1"), value("1GB"), value("7"), value("1KiB")],
            [Some(64 << 20), Some(-1), Some(1 << 30), Some(7), Some(1024)]
        );
        assert_eq!([value("m"), value("x"), value("9999999999g")], [None; 3]);
    }

    #[test]
    fn options_stand_before_and_after_the_id_but_not_among_the_commands() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap().verb;
        let Verb::Create(create) = parse("oci create web --bundle /b --pid-file p") else {
            panic!("not create")
        };
        assert_eq!((create.bundle, create.pid_file), ("/b".into(), Some("p".into())));
        let Verb::Exec(exec) = parse("oci exec -t web ls -t --all") else { panic!("not exec") };
        assert_eq!((exec.tty, exec.args), (true, vec!["ls".into(), "-t".into(), "--all".into()]));
        let Verb::Kill(kill) = parse("oci kill web 9 --all") else { panic!("not kill") };
        assert_eq!((kill.signal().unwrap(), kill.all), (9, true));
    }

    #[test]
    fn intervals() {
        let of =
            |text: &str| Events { id: String::new(), stats: false, interval: text.into() }.interval().ok();
        assert_eq!(
            [of("5s"), of("100ms"), of("1m")],
            [5000, 100, 60_000].map(|ms| Some(Duration::from_millis(ms)))
        );
        assert_eq!([of("0s"), of("5"), of("-1s")], [None; 3]);
    }
}
