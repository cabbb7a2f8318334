//! RUN: what it means, its key, what it mounts, and making its layer.

use super::event::Stream;
use super::failure::{BuildFailure, Doing, Result};
use super::key::{Key, Part};
use super::mounts::{self, CacheMount};
use super::request::Network;
use super::run::{Ended, HOSTNAME, Order, Runners};
use super::shared::{Shared, blocking};
use super::ssh::{self, Forwarded};
use super::state::{PROXIES, State, Words};
use super::transfer::{self, Source};
use indexmap::IndexMap;
use stack_runtime::image::Digest;
use stack_runtime::snapshot::{self, Layer, Working};
use stack_runtime::spec::{MountKindSpec, MountSpec};
use stack_schema::dockerfile::mount::{Mount, MountKind, MountText};
use stack_schema::dockerfile::{Command, Heredoc, Run};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// One RUN with everything expanded.
pub(super) struct Plan {
    args: Vec<String>,
    env: IndexMap<String, String>,
    /// In the environment, in no key.
    proxies: IndexMap<String, String>,
    created_by: String,
    working_dir: String,
    user: String,
    network: Network,
    mounts: Vec<PlannedMount>,
    /// A heredoc with `#!`: name and body.
    script: Option<(String, String)>,
    platform: String,
    /// Cache mounts begin empty.
    no_cache: bool,
}

struct PlannedMount {
    mount: Mount,
    target: Option<String>,
    /// Of binds, and of caches with initial content.
    from: Option<Source>,
}

/// `from`: what the mounts with `from=` refer to, in their order. `context`: where other binds take from.
///
/// # Errors
/// Sentences about the instruction.
pub(super) fn plan(
    run: &Run,
    from: Vec<Source>,
    context: &Source,
    shared: &Shared,
    state: &State,
    words: &Words<'_>,
    no_cache: bool,
) -> std::result::Result<Plan, String> {
    if run.security.as_deref() == Some("insecure") {
        return Err("security.insecure is not allowed: privileged RUN is not supported".into());
    }
    let network = run.network.as_deref().and_then(Network::parse).unwrap_or(shared.request.network);
    let (args, script) = command_line(run, state);
    let created_by = created_by(&args, state);
    let mut from = from.into_iter();
    let mut mounts = Vec::new();
    let mut env = state.environment();
    let mut agents = 0;
    for text in &run.mounts {
        let (mount, mut target) = resolved(text, state, words)?;
        let referred = text.from().and_then(|_| from.next());
        let from = match &mount.kind {
            MountKind::Bind { .. } => referred.or_else(|| Some(context.clone())),
            _ => referred,
        };
        if matches!(mount.kind, MountKind::Ssh { .. }) {
            let socket = target.get_or_insert_with(|| format!("/run/buildkit/ssh_agent.{agents}")).clone();
            env.entry("SSH_AUTH_SOCK".into()).or_insert(socket);
            agents += 1;
        }
        mounts.push(PlannedMount { target, mount, from });
    }
    Ok(Plan {
        args,
        env,
        proxies: proxies(shared, state),
        created_by,
        working_dir: state.absolute("."),
        user: state.config.user.clone(),
        network,
        mounts,
        script,
        platform: state.platform.to_string(),
        no_cache,
    })
}

/// A mount, and where it is.
fn resolved(
    text: &MountText,
    state: &State,
    words: &Words<'_>,
) -> std::result::Result<(Mount, Option<String>), String> {
    let mount = text.resolve(&mut |word: &str| words.word(state, word))?;
    let target = mounts::target(&mount, state);
    if target.as_deref() == Some("/") {
        return Err("a mount cannot have / as its target".into());
    }
    Ok((mount, target))
}

/// The line of the history, for one that is only read.
///
/// # Errors
/// Sentences about the mounts.
pub(super) fn read(run: &Run, state: &State, words: &Words<'_>) -> std::result::Result<String, String> {
    run.mounts.iter().try_for_each(|text| resolved(text, state, words).map(drop))?;
    Ok(created_by(&command_line(run, state).0, state))
}

fn created_by(args: &[String], state: &State) -> String {
    let mut words = state.shown_args();
    if !words.is_empty() {
        words.insert(0, format!("|{}", words.len()));
    }
    words.extend_from_slice(args);
    format!("RUN {} # buildkit", words.join(" "))
}

/// The words to run; with heredocs as the shell, or the kernel, wants them.
fn command_line(run: &Run, state: &State) -> (Vec<String>, Option<(String, String)>) {
    let (Command::Shell(text), Some(first)) = (&run.command, run.heredocs.first()) else {
        return (state.command(&run.command), None);
    };
    let is_alone = Heredoc::announced(text);
    let shell = |text: String| state.shell().into_iter().chain([text]).collect();
    if is_alone && first.content.starts_with("#!") {
        let script = (first.name.clone(), first.body());
        return (shell(format!("/dev/pipes/{}", first.name)), Some(script));
    }
    if is_alone {
        return (shell(first.body()), None);
    }
    // The shell reads its own heredocs.
    let bodies: String =
        run.heredocs.iter().map(|heredoc| format!("\n{}{}", heredoc.content, heredoc.name)).collect();
    (shell(format!("{text}{bodies}")), None)
}

/// Proxy settings given for the build that are not declared.
fn proxies(shared: &Shared, state: &State) -> IndexMap<String, String> {
    let mut found = IndexMap::new();
    for name in PROXIES {
        for name in [name.to_owned(), name.to_ascii_lowercase()] {
            if let Some(value) = shared.outside.given(&name).filter(|_| !state.has_arg(&name)) {
                found.insert(name.to_ascii_uppercase(), value.to_owned());
                found.insert(name.to_ascii_lowercase(), value.to_owned());
            }
        }
    }
    found
}

impl Plan {
    pub(super) fn created_by(&self) -> String {
        self.created_by.clone()
    }

    /// What the container runs, as people write it.
    pub(super) fn shown(&self) -> String {
        self.args.join(" ").chars().take(200).collect()
    }

    /// Whether files belong to the key.
    pub(super) fn reads_files(&self) -> bool {
        self.mounts.iter().any(|mount| mount.source().is_some())
    }

    /// Blocks if it [reads files](Self::reads_files).
    pub(super) fn key(&self, shared: &Shared, parent: &str) -> Result<(Digest, Vec<Part>)> {
        let mut key = shared
            .dated(Key::of_step("run"))
            .text("parent", parent)
            .list("args", self.args.iter().map(String::as_str));
        for (name, value) in &self.env {
            key = key.named("environment", name, value);
        }
        key = key
            .text("directory", &self.working_dir)
            .text("user", &self.user)
            .text("network", self.network.name());
        key = key.text("hostname", HOSTNAME).text("platform", &self.platform);
        key = key.number("shm", shared.request.shm_size.unwrap_or(0));
        for (name, (soft, hard)) in &shared.request.ulimits {
            key = key
                .text("limit", name)
                .number("soft", soft.cast_unsigned())
                .number("hard", hard.cast_unsigned());
        }
        key = key.list("hosts", shared.request.extra_hosts.iter().map(|(name, _)| name.as_str()));
        key = match &self.script {
            Some((name, body)) => key.text("script", name).text("body", body),
            None => key,
        };
        for planned in &self.mounts {
            let digest = planned.source_digest(shared)?;
            let about = format!("mount {}", planned.target.as_deref().unwrap_or_default());
            key = mounts::key(
                key.about(about.trim_end()),
                &planned.mount,
                planned.target.as_deref(),
                digest.as_ref().map(Digest::as_str),
            );
        }
        Ok(key.parts())
    }
}

impl PlannedMount {
    fn source(&self) -> Option<(&Source, &str)> {
        match &self.mount.kind {
            MountKind::Bind { source, .. } | MountKind::Cache { source, .. } => {
                Some((self.from.as_ref()?, source))
            }
            _ => None,
        }
    }

    fn source_digest(&self, shared: &Shared) -> Result<Option<Digest>> {
        self.source().map(|(from, path)| transfer::source_digest(shared, from, path)).transpose()
    }
}

/// What the mounts became; temporary things live as long as this.
#[derive(Default)]
struct Mounted {
    specs: Vec<MountSpec>,
    images: IndexMap<String, Vec<PathBuf>>,
    env: IndexMap<String, String>,
    _caches: Vec<CacheMount>,
    agents: Vec<Forwarded>,
    temporary: Vec<TempDir>,
}

/// Makes the layer.
pub(super) async fn execute(
    shared: &Arc<Shared>,
    runners: &Runners,
    plan: Arc<Plan>,
    parent: &str,
    on_line: &(dyn Fn(Stream, String) + Sync),
    on_note: &(dyn Fn(String) + Sync),
) -> Result<Layer> {
    super::emulation::check(&plan.platform)?;
    if plan.args.is_empty() {
        return Err(
            BuildFailure::new("RUN has no command").hint("Write at least one word in its JSON array.")
        );
    }
    let (working, directory, lower, mounted) = {
        let (shared, plan, parent) = (shared.clone(), plan.clone(), parent.to_owned());
        blocking(move || prepare(&shared, &plan, &parent)).await?
    };
    let targets: Vec<String> = mounted.specs.iter().map(|mount| mount.target.clone()).collect();
    let mut env = plan.env.clone();
    env.extend(plan.proxies.clone());
    env.extend(mounted.env.clone());
    let (log, file) = shared.cache.log().doing(|| "keep the output")?;
    let order = Order {
        args: plan.args.clone(),
        env,
        working_dir: plan.working_dir.clone(),
        user: plan.user.clone(),
        mounts: mounted.specs.clone(),
        images: mounted.images.clone(),
        network: plan.network,
        shm_size: shared.request.shm_size,
        ulimits: shared.request.ulimits.clone(),
        extra_hosts: shared.request.extra_hosts.clone(),
        lower: lower.clone(),
        directory,
        log: file,
    };
    let ended = runners.run(order, on_line, on_note).await?;
    if ended.exit.code != Some(0) {
        return Err(ended_badly(&plan, ended, log));
    }
    let shared = shared.clone();
    blocking(move || {
        drop(mounted);
        mounts::remove_mount_points(&working.upper, &lower, &targets);
        shared.commit(working, false)
    })
    .await
}

fn ended_badly(plan: &Plan, ended: Ended, log: PathBuf) -> BuildFailure {
    let exit = ended.exit;
    let how = match (exit.error, exit.oom_killed, exit.signal, exit.code) {
        (Some(error), ..) => error,
        (_, true, ..) => "it was killed because memory ran out".to_owned(),
        (_, _, Some(signal), _) => format!("it was killed by signal {signal}"),
        (_, _, _, Some(code)) => format!("exit code: {code}"),
        _ => "nobody saw how it ended".to_owned(),
    };
    let mut failure =
        BuildFailure::new(format!("process `{}` did not complete successfully: {how}", plan.shown()));
    failure.exit_code = exit.code;
    failure.output = ended.output;
    failure.log = Some(log);
    failure
}

type Ready = (Working, PathBuf, Vec<PathBuf>, Mounted);

/// Working layer and mounts. Blocks, also while a locked cache is in use.
fn prepare(shared: &Shared, plan: &Plan, parent: &str) -> Result<Ready> {
    let directory = tempfile::Builder::new().prefix("run-").rand_bytes(16).tempdir_in(shared.cache.tmp());
    let directory = directory.doing(|| "make a working directory")?;
    let mounted = mount_all(shared, plan)?;
    let working =
        snapshot::prepare(&shared.env.store, parent, directory.path()).doing(|| "make a working layer")?;
    let lower = shared.lower(parent)?;
    // From here on the working layer removes it.
    Ok((working, directory.keep(), lower, mounted))
}

fn mount_all(shared: &Shared, plan: &Plan) -> Result<Mounted> {
    let mut mounted = Mounted::default();
    for (index, planned) in plan.mounts.iter().enumerate() {
        mount(shared, planned, index, plan.no_cache, &mut mounted)?;
    }
    if let Some((name, body)) = &plan.script {
        let directory = temporary(shared)?;
        let path = directory.path().join(name);
        std::fs::write(&path, body).doing(|| "write the script of the heredoc")?;
        for path in [directory.path(), &path] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(path, mode).doing(|| "write the script of the heredoc")?;
        }
        mounted.specs.push(mounts::bind(directory.path().to_owned(), "/dev/pipes", true));
        mounted.temporary.push(directory);
    }
    Ok(mounted)
}

fn temporary(shared: &Shared) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("mount-").tempdir_in(shared.cache.tmp());
    made.doing(|| "make a directory for a mount")
}

fn mount(
    shared: &Shared,
    planned: &PlannedMount,
    index: usize,
    no_cache: bool,
    mounted: &mut Mounted,
) -> Result<()> {
    let read_only = planned.mount.read_only;
    match (&planned.mount.kind, &planned.target) {
        (MountKind::Bind { source, .. }, Some(target)) => bind(shared, planned, source, target, mounted),
        (MountKind::Cache { .. }, Some(target)) => cache(shared, planned, target, no_cache, mounted),
        (MountKind::Tmpfs { size }, Some(target)) => {
            let kind = MountKindSpec::Tmpfs { size: *size, mode: None, options: String::new() };
            mounted.specs.push(MountSpec { kind, target: target.clone(), read_only });
            Ok(())
        }
        (MountKind::Secret { .. }, target) => secret(shared, planned, target.as_deref(), index, mounted),
        (MountKind::Ssh { id, required, owner }, Some(target)) => {
            let Some(agent) = shared.request.ssh.get(id) else {
                return if *required { Err(ssh::missing(id)) } else { Ok(()) };
            };
            let directory = temporary(shared)?;
            let forwarded = ssh::forward(agent, directory.path(), owner)?;
            mounted.specs.push(mounts::bind(forwarded.socket.clone(), target, false));
            mounted.agents.push(forwarded);
            mounted.temporary.push(directory);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn bind(
    shared: &Shared,
    planned: &PlannedMount,
    source: &str,
    target: &str,
    mounted: &mut Mounted,
) -> Result<()> {
    let from = planned.from.as_ref().expect("a bind has a source");
    if let Source::Chain(chain) = from
        && planned.mount.read_only
        && !chain.is_empty()
        && let Some(real) = transfer::directory_in_chain(shared, chain, source)?
    {
        let subpath = Some(real).filter(|path| !path.is_empty());
        let kind = MountKindSpec::Image { chain_id: chain.clone(), subpath };
        mounted.specs.push(MountSpec { kind, target: target.to_owned(), read_only: true });
        mounted.images.insert(target.to_owned(), shared.lower(chain)?);
        return Ok(());
    }
    let directory = temporary(shared)?;
    transfer::materialise(shared, from, source, directory.path(), "/content")?;
    let content = directory.path().join("content");
    if !content.exists() {
        return Err(BuildFailure::new(format!("`{source}` not found")));
    }
    mounted.specs.push(mounts::bind(content, target, planned.mount.read_only));
    mounted.temporary.push(directory);
    Ok(())
}

fn cache(
    shared: &Shared,
    planned: &PlannedMount,
    target: &str,
    no_cache: bool,
    mounted: &mut Mounted,
) -> Result<()> {
    let MountKind::Cache { id, sharing, from, source, owner } = &planned.mount.kind else { return Ok(()) };
    let namespace = shared.outside.given("BUILDKIT_CACHE_MOUNT_NS").unwrap_or_default();
    let label = format!("{namespace}{}", id.as_deref().unwrap_or(target));
    let directory = mounts::cache_id(Some(&label), target, owner, from.as_deref());
    let wanted = mounts::Wanted { label: &label, sharing: *sharing, owner, empty: no_cache };
    let opened = mounts::open_cache(&shared.cache, &directory, &wanted, |data| match &planned.from {
        Some(from) => transfer::materialise(shared, from, source, data, "/"),
        None => Ok(()),
    })?;
    let kind = MountKindSpec::Directory { source: opened.data.clone() };
    mounted.specs.push(MountSpec { kind, target: target.to_owned(), read_only: planned.mount.read_only });
    mounted._caches.push(opened);
    Ok(())
}

fn secret(
    shared: &Shared,
    planned: &PlannedMount,
    target: Option<&str>,
    index: usize,
    mounted: &mut Mounted,
) -> Result<()> {
    let MountKind::Secret { id, env, required, owner } = &planned.mount.kind else { return Ok(()) };
    let Some(secret) = shared.request.secrets.get(id) else {
        return match required {
            true => {
                Err(BuildFailure::new(format!("secret {id}: not found"))
                    .hint("Give it with `build.secrets`."))
            }
            false => Ok(()),
        };
    };
    let bytes = mounts::secret_bytes(id, secret)?;
    if let Some(name) = env {
        mounted.env.insert(name.clone(), String::from_utf8_lossy(&bytes).into_owned());
    }
    if let Some(target) = target {
        let made = shared.cache.secrets().and_then(tempfile::tempdir_in);
        let directory = made.doing(|| "make a directory for secrets")?;
        let path = mounts::write_secret(directory.path(), index, &bytes, owner)
            .doing(|| format!("pass the secret `{id}`"))?;
        mounted.specs.push(mounts::bind(path, target, true));
        mounted.temporary.push(directory);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use stack_runtime::image::Platform;
    use stack_schema::dockerfile::Kind;
    use stack_schema::source::Source as Text;

    fn words(body: &str) -> (Vec<String>, Option<(String, String)>) {
        let source = Text { name: "Dockerfile".into(), path: None, text: format!("FROM scratch\n{body}") };
        let file = stack_schema::dockerfile::parse(Arc::new(source)).expect("valid");
        let Kind::Run(run) = &file.stages[0].instructions[0].kind else { panic!("a run") };
        command_line(run, &State::scratch(Platform::host()))
    }

    #[test]
    fn heredocs_become_arguments_or_scripts() {
        assert_eq!(words("RUN <<EOF\na\nb\nEOF").0, ["/bin/sh", "-c", "a\nb\n"]);
        assert_eq!(words("RUN <<-EOF\n\ta\n\tEOF").0[2], "a\n");
        assert_eq!(words("RUN cat <<A <<B\n1\nA\n2\nB").0[2], "cat <<A <<B\n1\nA\n2\nB");
        let (args, script) = words("RUN <<X\n#!/bin/cat\nhi\nX");
        assert_eq!(args[2], "/dev/pipes/X");
        assert_eq!(script, Some(("X".into(), "#!/bin/cat\nhi\n".into())));
        assert_eq!(words("RUN [\"a\", \"b\"]").0, ["a", "b"]);
    }
}
