//! What a stage is after a step: configuration, history, layers, and the variables in scope.
//!
//! Pure. Metadata instructions are applied here; RUN, COPY, ADD and WORKDIR end here with the layer they made.
//! Errors are sentences; the caller knows the place.

use super::written;
use indexmap::IndexMap;
use stack_runtime::image::config::{Document, HealthcheckConfig, History, ImageConfig, RootFs};
use stack_runtime::image::{Digest, Image, Platform};
use stack_schema::dockerfile::expand::{Expanded, Expander, Variables};
use stack_schema::dockerfile::lint::{self, Finding};
use stack_schema::dockerfile::{Command, Healthcheck, Kind, Pairs};
use stack_schema::source::Place;
use std::sync::Mutex;
use std::time::Duration;

pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const COMMENT: &str = "buildkit.dockerfile.v0";
/// What they say is for the builder; RUN and substitution do not see it.
const SCAN_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];
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
    /// `ARG`s in order, with the values they got: part of RUN's history.
    args: IndexMap<String, Option<String>>,
    /// Where this stage set CMD, ENTRYPOINT and HEALTHCHECK last.
    own: Own,
    /// A WORKDIR of this file is in force.
    workdir_is_set: bool,
    /// The image it begins with, for people: its name and digest.
    pub(super) base: String,
    /// RFC 3339: the one date of everything that this build makes.
    date: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct Own {
    cmd: Option<Place>,
    entrypoint: Option<Place>,
    healthcheck: Option<Place>,
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
        state.config.working_dir = "/".into();
        state.take_environment();
        state
    }

    /// On an image of which only this is known.
    pub(super) fn from_document(document: &Document) -> Self {
        let variant = document.variant.clone();
        let (os, architecture) = (document.os.clone(), document.architecture.clone());
        let mut state = Self {
            platform: Platform { os, architecture, variant },
            author: document.author.clone(),
            created: document.created.clone(),
            config: document.config.clone(),
            history: document.history.clone(),
            ..Self::default()
        };
        if !state.config.working_dir.is_empty() {
            state.config.working_dir = state.below_workdir(&state.config.working_dir);
        }
        state.take_environment();
        state
    }

    pub(super) fn from_image(image: &Image) -> Self {
        Self {
            diff_ids: image.layers.clone(),
            chain: image.chain_id.clone(),
            ..Self::from_document(&image.document)
        }
    }

    /// Everything made from now on is of this date.
    pub(super) fn set_date(&mut self, date: Option<&str>) {
        self.date = date.map(str::to_owned);
        if self.date.is_some() {
            self.created.clone_from(&self.date);
        }
    }

    /// A child of this stage; ENV is in force there whatever ARG said.
    pub(super) fn child(&self) -> Self {
        let mut child = Self { own: Own::default(), ..self.clone() };
        child.take_environment();
        child
    }

    /// A PATH is always there: RUN has one anyway, and `ENV PATH=/x:$PATH` counts on it.
    fn take_environment(&mut self) {
        if !self.config.environment().any(|(name, _)| name == "PATH") {
            self.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        let pairs = self.config.environment().map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.scope.extend(pairs);
    }

    /// Names that have a value.
    pub(super) fn names(&self) -> Vec<&str> {
        self.scope.keys().map(String::as_str).collect()
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

    /// `ARG`s as RUN's history shows them, with the values that RUN sees.
    pub(super) fn shown_args(&self) -> Vec<String> {
        let value = |name: &String, given: &Option<String>| {
            self.scope.get(name).or(given.as_ref()).cloned().unwrap_or_default()
        };
        self.args.iter().map(|(name, given)| format!("{name}={}", value(name, given))).collect()
    }

    pub(super) fn has_arg(&self, name: &str) -> bool {
        self.args.contains_key(name)
    }

    /// WORKDIR, as the history has it. The path stays as it is written if it is absolute.
    pub(super) fn enter(&mut self, path: &str, words: &Words<'_>) -> Result<String> {
        let path = words.word(self, path)?;
        if !self.workdir_is_set && !path.starts_with('/') {
            let message = format!("`{path}` lies below whatever directory the base image sets");
            words.find(words.finding("WorkdirRelativePath", message));
        }
        self.workdir_is_set = true;
        self.config.working_dir = self.below_workdir(&path);
        Ok(format!("WORKDIR {}", self.config.working_dir))
    }

    fn below_workdir(&self, path: &str) -> String {
        match path {
            "" if self.config.working_dir.starts_with('/') => self.config.working_dir.clone(),
            rooted if rooted.starts_with('/') => rooted.to_owned(),
            path => self.absolute(path),
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
    pub(super) fn apply(&mut self, kind: &Kind, words: &Words<'_>, outside: &Outside) -> Result<bool> {
        match kind {
            Kind::Arg(args) => self.apply_args(args, words, outside)?,
            Kind::Env(pairs) => self.apply_env(pairs, words)?,
            Kind::Label(pairs) => self.apply_labels(pairs, words)?,
            Kind::Cmd(command) => self.apply_cmd(command, words),
            Kind::Entrypoint(command) => self.apply_entrypoint(command, words),
            Kind::Expose(ports) => self.apply_expose(ports, words)?,
            Kind::Healthcheck(check) => {
                words.once("HEALTHCHECK", &mut self.own.healthcheck);
                let check = healthcheck(check);
                self.remember(format!("HEALTHCHECK {}", written::healthcheck(&check)), true);
                self.config.healthcheck = Some(check);
            }
            Kind::Maintainer(name) => {
                self.author = Some(name.clone());
                self.remember(format!("MAINTAINER {name}"), true);
            }
            Kind::Onbuild(trigger) => self.config.on_build.push(trigger.clone()),
            Kind::Shell(shell) => {
                self.config.shell = Some(shell.clone());
                self.remember(format!("SHELL {}", written::list(shell)), true);
            }
            Kind::Stopsignal(signal) => self.apply_signal(signal, words)?,
            Kind::User(user) => {
                self.config.user = words.word(self, user)?;
                self.remember(format!("USER {}", self.config.user), true);
            }
            Kind::Volume(paths) => self.apply_volumes(paths, words)?,
            Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_) => return Ok(false),
        }
        Ok(true)
    }

    fn apply_args(
        &mut self,
        args: &[(String, Option<String>)],
        words: &Words<'_>,
        outside: &Outside,
    ) -> Result<()> {
        let mut shown = Vec::new();
        for (name, default) in args {
            words.secret("ARG", name);
            let value = match (outside.given(name), default) {
                (Some(given), _) => Some(given.to_owned()),
                (None, Some(default)) => Some(words.word(self, default)?),
                (None, None) => outside.globals.get(name).cloned(),
            };
            match &value {
                Some(value) => shown.push(format!("{name}={value}")),
                None => shown.push(name.clone()),
            }
            if let Some(value) = value.clone().filter(|_| !SCAN_ARGS.contains(&name.as_str())) {
                self.scope.insert(name.clone(), value);
            }
            self.args.insert(name.clone(), value);
        }
        self.remember(format!("ARG {}", shown.join(" ")), true);
        Ok(())
    }

    /// All values are read before any is set.
    fn pairs(&self, pairs: &Pairs, words: &Words<'_>) -> Result<Vec<(String, String)>> {
        let expand =
            |(name, value): &(String, String)| Ok((words.word(self, name)?, words.word(self, value)?));
        pairs.list.iter().map(expand).collect()
    }

    fn apply_env(&mut self, pairs: &Pairs, words: &Words<'_>) -> Result<()> {
        let expanded = self.pairs(pairs, words)?;
        words.legacy("ENV", pairs);
        for (name, value) in &expanded {
            words.secret("ENV", name);
            self.config.set_env(name, value);
            self.scope.insert(name.clone(), value.clone());
        }
        self.remember(shown("ENV", &expanded), true);
        Ok(())
    }

    fn apply_labels(&mut self, pairs: &Pairs, words: &Words<'_>) -> Result<()> {
        let expanded = self.pairs(pairs, words)?;
        words.legacy("LABEL", pairs);
        self.remember(shown("LABEL", &expanded), true);
        self.config.labels.extend(expanded);
        Ok(())
    }

    fn apply_cmd(&mut self, command: &Command, words: &Words<'_>) {
        words.once("CMD", &mut self.own.cmd);
        let args = self.starter("CMD", command, words);
        self.remember(format!("CMD {}", written::quoted_list(&args)), true);
        self.config.cmd = (!args.is_empty()).then_some(args);
        self.config.args_escaped = true;
    }

    fn apply_entrypoint(&mut self, command: &Command, words: &Words<'_>) {
        words.once("ENTRYPOINT", &mut self.own.entrypoint);
        let args = self.starter("ENTRYPOINT", command, words);
        self.remember(format!("ENTRYPOINT {}", written::quoted_list(&args)), true);
        self.config.entrypoint = (!args.is_empty()).then_some(args);
        if self.own.cmd.is_none() {
            self.config.cmd = None;
        }
    }

    /// In shell form the shell is process 1 and may not pass signals on; who sets a shell knows.
    fn starter(&self, keyword: &str, command: &Command, words: &Words<'_>) -> Vec<String> {
        let has_shell = self.config.shell.as_ref().is_some_and(|shell| !shell.is_empty());
        if matches!(command, Command::Shell(_)) && !has_shell {
            let message = format!("{keyword} in shell form may not pass signals to the program");
            let hint = format!("Write {keyword} as a JSON array of strings.");
            words.find(words.finding("JSONArgsRecommended", message).hint(hint));
        }
        self.command(command)
    }

    fn apply_expose(&mut self, ports: &[String], words: &Words<'_>) -> Result<()> {
        let mut single = Vec::new();
        for text in ports {
            for port in words.words(self, text)? {
                words.exposed(&port);
                single.extend(exposed(&port)?);
            }
        }
        self.remember(format!("EXPOSE {}", written::list(&single)), true);
        self.config.exposed_ports.extend(single);
        Ok(())
    }

    fn apply_signal(&mut self, signal: &str, words: &Words<'_>) -> Result<()> {
        let signal = words.word(self, signal)?;
        if !is_signal(&signal) {
            return Err(format!("invalid signal: {signal}"));
        }
        self.remember(format!("STOPSIGNAL {signal}"), true);
        self.config.stop_signal = Some(signal);
        Ok(())
    }

    fn apply_volumes(&mut self, paths: &[String], words: &Words<'_>) -> Result<()> {
        let paths = paths.iter().map(|path| words.word(self, path)).collect::<Result<Vec<_>>>()?;
        if paths.iter().any(String::is_empty) {
            return Err("VOLUME specified can not be an empty string".into());
        }
        self.remember(format!("VOLUME {}", written::list(&paths)), true);
        self.config.volumes.extend(paths);
        Ok(())
    }
}

fn shown(keyword: &str, pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{keyword} {}", pairs.join(" "))
}

/// Expansion in one instruction, and what is found there.
pub(super) struct Words<'a> {
    pub(super) escape: char,
    /// Of the instruction, or of the FROM that brought it.
    pub(super) place: &'a Place,
    pub(super) findings: &'a Mutex<Vec<Finding>>,
}

impl Words<'_> {
    pub(super) fn word(&self, state: &State, text: &str) -> Result<String> {
        let expanded = Expander { escape: self.escape, variables: state }.word(text);
        Ok(self.noted(state, expanded.map_err(|e| e.to_string())?))
    }

    /// Ports; BuildKit says nothing of unset variables here.
    fn words(&self, state: &State, text: &str) -> Result<Vec<String>> {
        let expanded = Expander { escape: self.escape, variables: state }.words(text);
        expanded.map(|expanded| expanded.value).map_err(|e| e.to_string())
    }

    /// Of a heredoc, where `\` escapes whatever the file says.
    pub(super) fn body(&self, state: &State, text: &str) -> Result<String> {
        let expanded = Expander { escape: '\\', variables: state }.body(text);
        Ok(self.noted(state, expanded.map_err(|e| e.to_string())?))
    }

    fn noted(&self, state: &State, expanded: Expanded<String>) -> String {
        let is_known = |name: &str| state.has_arg(name) || SCAN_ARGS.contains(&name);
        for name in expanded.unset.iter().filter(|name| !is_known(name)) {
            let message = format!("the variable `{name}` is not set");
            let hint = lint::nearest(name, &state.names())
                .unwrap_or_else(|| "Declare it with ARG or ENV before it is used.".into());
            self.find(self.finding(lint::UNDEFINED_VAR, message).hint(hint));
        }
        expanded.value
    }

    fn finding(&self, rule: &'static str, message: String) -> Finding {
        Finding::new(rule, self.place, message)
    }

    pub(super) fn find(&self, finding: Finding) {
        self.findings.lock().expect("never poisoned: nothing panics while it is held").push(finding);
    }

    /// Of several CMD, ENTRYPOINT or HEALTHCHECK of a stage only the last one counts.
    fn once(&self, keyword: &str, last: &mut Option<Place>) {
        if let Some(before) = last.replace(self.place.clone()) {
            let message = format!("only the last {keyword} of a stage counts");
            self.find(Finding::new("MultipleInstructionsDisallowed", &before, message));
        }
    }

    fn legacy(&self, keyword: &str, pairs: &Pairs) {
        if pairs.is_legacy {
            let message = format!("`{keyword} name value` is the old form");
            let hint = format!("Write {keyword} name=value.");
            self.find(self.finding("LegacyKeyValueFormat", message).hint(hint));
        }
    }

    fn secret(&self, keyword: &str, name: &str) {
        let lower = name.to_lowercase();
        let has = |words: &[&str]| lower.split('_').any(|word| words.contains(&word));
        if has(&SECRET_WORDS) && !has(&["public", "file", "version"]) {
            let message = format!("{keyword} `{name}` looks like a secret and stays readable in the image");
            let hint = "Use RUN --mount=type=secret.";
            self.find(self.finding("SecretsUsedInArgOrEnv", message).hint(hint));
        }
    }

    fn exposed(&self, port: &str) {
        if let Some((_, protocol)) = port.split_once('/').filter(|(_, text)| *text != text.to_lowercase()) {
            let message = format!("protocol `{protocol}` should be lowercase");
            self.find(self.finding("ExposeProtoCasing", message));
        }
        if port.rsplitn(3, ':').skip(1).any(|part| !part.is_empty()) {
            let message = format!("`{port}`: an address or a port of the host has no effect here");
            self.find(self.finding("ExposeInvalidFormat", message));
        }
    }
}

const SECRET_WORDS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

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

/// `[ADDRESS:][PORT:]80`, `80/udp`, `8000-8003` to single ports with protocol. An address or a port of the host means
/// nothing, but has to be one.
fn exposed(text: &str) -> Result<Vec<String>> {
    let wrong = || {
        format!("invalid port `{text}`: it has to be PORT or FIRST-LAST, with /tcp, /udp or /sctp if need be")
    };
    let mut parts = text.rsplitn(3, ':');
    let (ports, host, address) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let (ports, protocol) = ports.split_once('/').unwrap_or((ports, ""));
    let protocol = match protocol.to_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(wrong()),
    };
    let (first, last) = port_range(ports).ok_or_else(wrong)?;
    if let Some(address) = address.filter(|address| !address.is_empty()) {
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        bare.parse::<std::net::IpAddr>().map_err(|_| wrong())?;
    }
    if let Some(host) = host.filter(|host| !host.is_empty()) {
        let (low, high) = port_range(host).ok_or_else(wrong)?;
        if high - low != last - first && last != first {
            return Err(wrong());
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.parse::<i64>().ok()).flatten().and_then(|port| u16::try_from(port).ok())
    };
    match text.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last),
        None => number(text).map(|port| (port, port)),
    }
}

/// Any number but 0, or a name of Linux.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, most: u8| {
        let text = name.strip_prefix(prefix)?;
        let number = text.parse::<u8>().ok().filter(|number| (1..=most).contains(number))?;
        (number.to_string() == text).then_some(())
    };
    matches!(name, "RTMIN" | "RTMAX" | "CLD" | "IOT" | "POLL")
        || offset("RTMIN+", 15).is_some()
        || offset("RTMAX-", 14).is_some()
        || format!("SIG{name}").parse::<nix::sys::signal::Signal>().is_ok()
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
        let findings = Mutex::default();
        for instruction in &file.stages[0].instructions {
            let words = Words { escape: file.escape, place: &instruction.place, findings: &findings };
            state.apply(&instruction.kind, &words, outside)?;
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
        assert_eq!(state.shown_args(), ["given=g", "other=g", "bare=b", "global=w", "nothing="],);
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
        for bad in [
            "EXPOSE 65536",
            "EXPOSE 80/x",
            "EXPOSE 9-8",
            "STOPSIGNAL SIGFOO",
            "STOPSIGNAL 0",
            "VOLUME [\"\"]",
        ] {
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
