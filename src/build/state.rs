//! What a stage is after a step: configuration, history, layers, and the variables in scope.
//!
//! Pure. Metadata instructions are applied here; RUN, COPY, ADD and WORKDIR end here with the layer they made.
//! Errors are sentences; the caller knows the place.

use indexmap::IndexMap;
use stack_runtime::image::config::{Document, HealthcheckConfig, History, ImageConfig, RootFs};
use stack_runtime::image::{Digest, Image, Platform};
use stack_schema::dockerfile::expand::{ExpandError, Expanded, Expander, Variables};
use stack_schema::dockerfile::{Command, Healthcheck, Kind};
use std::time::Duration;

pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const COMMENT: &str = "buildkit.dockerfile.v0";
/// Set in RUN without being declared, and in no key.
pub(super) const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Values from outside the stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Outside {
    /// The request's build arguments.
    pub(super) build_args: IndexMap<String, Option<String>>,
    /// Global `ARG`s with values, and the platform's variables.
    pub(super) globals: IndexMap<String, String>,
}

impl Outside {
    /// A value given for this build, whatever the file says.
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        self.build_args.get(name)?.as_deref()
    }
}

impl Variables for Outside {
    fn get(&self, name: &str) -> Option<String> {
        self.globals.get(name).cloned()
    }
}

/// A layer of the stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) diff_id: Digest,
    pub(super) chain_id: Digest,
    /// RFC 3339.
    pub(super) created: String,
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) platform: Platform,
    pub(super) author: Option<String>,
    pub(super) created: Option<String>,
    pub(super) config: ImageConfig,
    pub(super) history: Vec<History>,
    pub(super) diff_ids: Vec<Digest>,
    /// Of the top layer; empty without layers.
    pub(super) chain: String,
    /// Values of `ENV` and `ARG`, the later one wins.
    scope: IndexMap<String, String>,
    /// `ARG`s without a value.
    valueless: Vec<String>,
    /// `ARG`s with a value, in order: part of RUN's key and history.
    pub(super) args: IndexMap<String, String>,
    cmd_is_own: bool,
    /// The image it begins with, for people: its name and digest.
    pub(super) base: String,
    /// RFC 3339: the one date of everything that this build makes.
    date: Option<String>,
}

impl Variables for State {
    fn get(&self, name: &str) -> Option<String> {
        self.scope.get(name).cloned()
    }
}

type Result<T> = std::result::Result<T, String>;

impl State {
    pub(super) fn scratch(platform: Platform) -> Self {
        let mut state = Self { platform, ..Self::default() };
        state.config.set_env("PATH", DEFAULT_PATH);
        state.take_environment();
        state
    }

    pub(super) fn from_image(image: &Image) -> Self {
        let variant = image.variant.clone();
        let platform = Platform { os: image.os.clone(), architecture: image.architecture.clone(), variant };
        let mut state = Self {
            platform,
            author: image.document.author.clone(),
            created: image.document.created.clone(),
            config: image.config.clone(),
            history: image.document.history.clone(),
            diff_ids: image.layers.clone(),
            chain: image.chain_id.clone(),
            ..Self::default()
        };
        state.take_environment();
        state
    }

    /// Everything made from now on is of this date.
    pub(super) fn set_date(&mut self, date: Option<&str>) {
        self.date = date.map(str::to_owned);
        if self.date.is_some() {
            self.created.clone_from(&self.date);
        }
    }

    /// A child of this stage.
    pub(super) fn child(&self) -> Self {
        Self { cmd_is_own: false, ..self.clone() }
    }

    fn take_environment(&mut self) {
        let pairs = self.config.environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.scope = pairs.collect();
        // RUN has one anyway, and `ENV PATH=/x:$PATH` counts on it.
        self.scope.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    }

    /// Names that have a value.
    pub(super) fn names(&self) -> Vec<&str> {
        self.scope.keys().map(String::as_str).collect()
    }

    /// Of names that were used without a value, those that nobody declared; each once.
    pub(super) fn undeclared(&self, used: std::sync::Mutex<Vec<String>>) -> Vec<String> {
        let mut names = used.into_inner().expect("never poisoned: nothing panics while it is held");
        names.retain(|name| !self.valueless.contains(name));
        names.sort();
        names.dedup();
        names
    }

    /// The triggers of the base, which run once.
    pub(super) fn take_triggers(&mut self) -> Vec<String> {
        std::mem::take(&mut self.config.on_build)
    }

    /// The environment of a RUN: image and `ARG`s, and a PATH.
    pub(super) fn environment(&self) -> IndexMap<String, String> {
        self.scope.clone()
    }

    pub(super) fn shell(&self) -> Vec<String> {
        self.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()])
    }

    /// The words that start a command.
    pub(super) fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(args) => args.clone(),
            Command::Shell(text) => self.shell().into_iter().chain([text.clone()]).collect(),
        }
    }

    /// An absolute path, below the working directory unless it is absolute itself.
    pub(super) fn absolute(&self, path: &str) -> String {
        let joined = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.config.working_dir)
        };
        match stack_schema::ignore::clean(&joined).as_str() {
            "." => "/".into(),
            cleaned => format!("/{cleaned}"),
        }
    }

    /// A layer was made (or found) by the step.
    pub(super) fn add_layer(&mut self, made: Made, created_by: String) {
        self.diff_ids.push(made.diff_id);
        self.chain = made.chain_id.to_string();
        self.created = Some(self.date.clone().unwrap_or(made.created));
        self.remember(created_by, false);
    }

    pub(super) fn remember(&mut self, created_by: String, empty_layer: bool) {
        self.history.push(History {
            created: self.created.clone(),
            created_by: Some(created_by),
            comment: Some(COMMENT.into()),
            empty_layer,
            ..History::default()
        });
    }

    /// The configuration document of an image that is this stage.
    pub(super) fn document(&self, labels: &IndexMap<String, String>) -> Document {
        let mut config = self.config.clone();
        config.labels.extend(labels.iter().map(|(name, value)| (name.clone(), value.clone())));
        Document {
            created: self.created.clone(),
            author: self.author.clone(),
            architecture: self.platform.architecture.clone(),
            os: self.platform.os.clone(),
            variant: self.platform.variant.clone(),
            config,
            rootfs: RootFs { diff_ids: self.diff_ids.clone(), ..RootFs::default() },
            history: self.history.clone(),
            ..Document::default()
        }
    }

    /// Applies an instruction that makes no layer; `false` when it does make one.
    pub(super) fn apply(
        &mut self,
        kind: &Kind,
        text: &str,
        words: &mut Words<'_>,
        outside: &Outside,
    ) -> Result<bool> {
        match kind {
            Kind::Arg(args) => self.apply_args(args, words, outside)?,
            Kind::Env(pairs) => self.apply_env(pairs, words)?,
            Kind::Label(pairs) => self.apply_labels(pairs, words)?,
            Kind::Cmd(command) => {
                let args = self.command(command);
                self.config.cmd = (!args.is_empty()).then_some(args);
                self.cmd_is_own = true;
                self.remember(text.to_owned(), true);
            }
            Kind::Entrypoint(command) => self.apply_entrypoint(command, text),
            Kind::Expose(ports) => self.apply_expose(ports, text, words)?,
            Kind::Healthcheck(check) => {
                self.config.healthcheck = Some(healthcheck(check));
                self.remember(text.to_owned(), true);
            }
            Kind::Maintainer(name) => {
                self.author = Some(name.clone());
                self.remember(text.to_owned(), true);
            }
            Kind::Onbuild(trigger) => self.config.on_build.push(trigger.clone()),
            Kind::Shell(shell) => {
                self.config.shell = Some(shell.clone());
                self.remember(text.to_owned(), true);
            }
            Kind::Stopsignal(signal) => self.apply_signal(signal, words)?,
            Kind::User(user) => {
                self.config.user = words.word(self, user)?;
                self.remember(format!("USER {}", self.config.user), true);
            }
            Kind::Volume(paths) => self.apply_volumes(paths, text, words)?,
            Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_) => return Ok(false),
        }
        Ok(true)
    }

    fn apply_args(
        &mut self,
        args: &[(String, Option<String>)],
        words: &mut Words<'_>,
        outside: &Outside,
    ) -> Result<()> {
        let mut shown = Vec::new();
        for (name, default) in args {
            let name = words.word(self, name)?;
            let default = default.as_deref().map(|value| words.word(self, value)).transpose()?;
            let given = outside.given(&name).map(str::to_owned);
            let value = given.or(default).or_else(|| outside.globals.get(&name).cloned());
            let Some(value) = value else {
                shown.push(name.clone());
                self.valueless.push(name);
                continue;
            };
            shown.push(format!("{name}={value}"));
            self.scope.insert(name.clone(), value.clone());
            self.args.insert(name, value);
        }
        self.remember(format!("ARG {}", shown.join(" ")), true);
        Ok(())
    }

    /// All values are read before any is set.
    fn pairs(&self, pairs: &[(String, String)], words: &mut Words<'_>) -> Result<Vec<(String, String)>> {
        let expand =
            |(name, value): &(String, String)| Ok((words.word(self, name)?, words.word(self, value)?));
        pairs.iter().map(expand).collect()
    }

    fn apply_env(&mut self, pairs: &[(String, String)], words: &mut Words<'_>) -> Result<()> {
        let pairs = self.pairs(pairs, words)?;
        for (name, value) in &pairs {
            self.config.set_env(name, value);
            self.scope.insert(name.clone(), value.clone());
        }
        self.remember(shown("ENV", &pairs), true);
        Ok(())
    }

    fn apply_labels(&mut self, pairs: &[(String, String)], words: &mut Words<'_>) -> Result<()> {
        let pairs = self.pairs(pairs, words)?;
        self.remember(shown("LABEL", &pairs), true);
        self.config.labels.extend(pairs);
        Ok(())
    }

    fn apply_entrypoint(&mut self, command: &Command, text: &str) {
        let args = self.command(command);
        self.config.entrypoint = (!args.is_empty()).then_some(args);
        if !self.cmd_is_own {
            self.config.cmd = None;
        }
        self.remember(text.to_owned(), true);
    }

    fn apply_expose(&mut self, ports: &[String], text: &str, words: &mut Words<'_>) -> Result<()> {
        for written in ports {
            for port in words.words(self, written)? {
                self.config.exposed_ports.extend(exposed(&port)?);
            }
        }
        self.remember(text.to_owned(), true);
        Ok(())
    }

    fn apply_signal(&mut self, signal: &str, words: &mut Words<'_>) -> Result<()> {
        let signal = words.word(self, signal)?;
        if !is_signal(&signal) {
            return Err(format!("invalid signal: {signal}"));
        }
        self.remember(format!("STOPSIGNAL {signal}"), true);
        self.config.stop_signal = Some(signal);
        Ok(())
    }

    fn apply_volumes(&mut self, paths: &[String], text: &str, words: &mut Words<'_>) -> Result<()> {
        for path in paths {
            let path = words.word(self, path)?;
            if path.trim().is_empty() {
                return Err("VOLUME specified can not be an empty string".into());
            }
            self.config.volumes.insert(path);
        }
        self.remember(text.to_owned(), true);
        Ok(())
    }
}

fn shown(keyword: &str, pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{keyword} {}", pairs.join(" "))
}

/// Expansion in one instruction, collecting the names that were not set.
pub(super) struct Words<'a> {
    pub(super) escape: char,
    pub(super) unset: &'a std::sync::Mutex<Vec<String>>,
}

impl Words<'_> {
    pub(super) fn word(&self, variables: &dyn Variables, text: &str) -> Result<String> {
        self.note(Expander { escape: self.escape, variables }.word(text))
    }

    pub(super) fn words(&self, variables: &dyn Variables, text: &str) -> Result<Vec<String>> {
        self.note(Expander { escape: self.escape, variables }.words(text))
    }

    pub(super) fn body(&self, variables: &dyn Variables, text: &str) -> Result<String> {
        self.note(Expander { escape: self.escape, variables }.body(text))
    }

    fn note<T>(&self, result: std::result::Result<Expanded<T>, ExpandError>) -> Result<T> {
        let expanded = result.map_err(|e| e.to_string())?;
        self.unset.lock().expect("never poisoned: nothing panics while it is held").extend(expanded.unset);
        Ok(expanded.value)
    }
}

fn healthcheck(check: &Healthcheck) -> HealthcheckConfig {
    let duration = |value: Option<Duration>| value.unwrap_or_default();
    HealthcheckConfig {
        test: check.test.clone(),
        interval: duration(check.interval),
        timeout: duration(check.timeout),
        start_period: duration(check.start_period),
        start_interval: duration(check.start_interval),
        retries: check.retries.unwrap_or(0),
    }
}

/// `80`, `80/udp`, `8000-8003` to single ports with protocol.
fn exposed(text: &str) -> Result<Vec<String>> {
    let wrong = || {
        format!("invalid port `{text}`: it has to be PORT or FIRST-LAST, with /tcp, /udp or /sctp if need be")
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    // An address or a port of the host means nothing here.
    let ports = ports.rsplit(':').next().unwrap_or_default();
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(wrong());
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(wrong());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-"));
    match real_time {
        Some(offset) => offset.parse::<u8>().is_ok_and(|offset| offset <= 30),
        None => {
            matches!(name, "RTMIN" | "RTMAX" | "POLL")
                || format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stack_schema::source::Source;
    use std::sync::{Arc, Mutex};

    fn applied(body: &str, outside: &Outside) -> Result<State> {
        applied_on(State::scratch(Platform::host()), body, outside)
    }

    fn applied_on(mut state: State, body: &str, outside: &Outside) -> Result<State> {
        let source = Source { name: "Dockerfile".into(), path: None, text: format!("FROM scratch\n{body}") };
        let file = stack_schema::dockerfile::parse(Arc::new(source)).map_err(|e| e.render())?;
        let unset = Mutex::default();
        for instruction in &file.stages[0].instructions {
            let mut words = Words { escape: file.escape, unset: &unset };
            state.apply(&instruction.kind, &instruction.text, &mut words, outside)?;
        }
        Ok(state)
    }

    fn ok(body: &str) -> State {
        applied(body, &Outside::default()).expect(body)
    }

    #[test]
    fn values_of_one_env_are_from_before_it() {
        let state = ok("ENV a=1\nENV a=2 b=$a\nENV c=${a}x");
        assert_eq!(state.config.env[1..], ["a=2", "b=1", "c=2x"]);
    }

    #[test]
    fn args_take_given_then_default_then_global() {
        let outside = Outside {
            build_args: [("given".into(), Some("g".into())), ("bare".into(), None)].into_iter().collect(),
            globals: [("global".to_owned(), "w".to_owned())].into_iter().collect(),
        };
        let state = applied("ARG given=d other=$given bare=b\nARG global\nARG nothing\nENV all=$given$other$bare$global$nothing", &outside).expect("valid");
        assert_eq!(state.config.env[1], "all=ggbw");
        assert_eq!(state.args.len(), 4);
        assert!(!state.environment().contains_key("nothing"));
    }

    #[test]
    fn the_later_of_env_and_arg_wins_but_the_image_keeps_env() {
        let state = ok("ENV x=env\nARG x=arg\nLABEL l=$x");
        assert_eq!(state.config.labels["l"], "arg");
        assert_eq!(state.environment()["x"], "arg");
        assert_eq!(state.config.env[1], "x=env");
        assert_eq!(ok("ARG x=arg\nENV x=env").environment()["x"], "env");
        assert_eq!(ok("ENV x=env\nARG x").environment()["x"], "env");
    }

    #[test]
    fn commands_and_entry_points() {
        let base = ok("CMD [\"base\"]");
        let state = applied_on(base.child(), "ENTRYPOINT [\"e\"]", &Outside::default()).expect("valid");
        assert_eq!((state.config.entrypoint, state.config.cmd), (Some(vec!["e".into()]), None));
        let state = ok("CMD [\"c\"]\nENTRYPOINT e x\nSHELL [\"/bin/bash\", \"-c\"]\nCMD d");
        assert_eq!(state.config.entrypoint.as_deref().expect("set"), ["/bin/sh", "-c", "e x"]);
        assert_eq!(state.config.cmd.as_deref().expect("set"), ["/bin/bash", "-c", "d"]);
    }

    #[test]
    fn ports_signals_and_volumes_are_checked() {
        let state = ok(
            "ENV p=\"80 81/UDP\"\nEXPOSE $p 90-92\nSTOPSIGNAL sigquit\nVOLUME [\"/a\", \"/b c\"]\nVOLUME /d",
        );
        assert_eq!(
            state.config.exposed_ports.iter().collect::<Vec<_>>(),
            ["80/tcp", "81/udp", "90/tcp", "91/tcp", "92/tcp"]
        );
        assert_eq!(state.config.volumes.len(), 3);
        for bad in
            ["EXPOSE 0", "EXPOSE 80/x", "EXPOSE 9-8", "STOPSIGNAL SIGFOO", "STOPSIGNAL 0", "VOLUME [\"\"]"]
        {
            assert!(applied(bad, &Outside::default()).is_err(), "{bad}");
        }
        assert!(applied("STOPSIGNAL RTMIN+3", &Outside::default()).is_ok());
    }

    #[test]
    fn history_and_paths() {
        let state = ok("ARG A=1\nENV x=\"a b\"\nUSER u\nONBUILD RUN x");
        let lines: Vec<_> = state.history.iter().map(|h| h.created_by.clone().expect("set")).collect();
        assert_eq!(lines, ["ARG A=1", "ENV x=a b", "USER u"]);
        assert!(state.history.iter().all(|h| h.empty_layer));
        assert_eq!(state.absolute("a/../b"), "/b");
        assert_eq!(state.absolute("../.."), "/");
        assert_eq!(state.config.on_build, ["RUN x"]);
    }
}
