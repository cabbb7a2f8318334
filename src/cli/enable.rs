//! `stack enable`, `stack disable`: whether the stack comes back after a boot.

use super::Context;
use crate::event::{Event, Sink as _};
use crate::failure::{Failure, Kind, Result, failed};
use crate::unit::{self, Unit};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, clap::Args)]
pub(super) struct EnableArgs {}

#[derive(Debug, clap::Args)]
pub(super) struct DisableArgs {}

/// Where systemd looks for units, and how it is spoken to.
struct Manager {
    units: PathBuf,
    is_of_user: bool,
}

pub(super) fn enable(_: &EnableArgs, context: &Context) -> Result<()> {
    let manager = Manager::here(context)?;
    let unit = manager.unit(context, context.project_name(&[])?)?;
    if context.dry_run {
        context.ui.data(&unit.text());
        return Ok(());
    }
    let file = manager.units.join(unit::name(&unit.project));
    write(&manager, &unit, &file).map_err(failed(&format!("write {}", file.display())))?;
    manager.tell(context, &["daemon-reload"])?;
    // From now on it is active, so that it is stopped in time when the machine goes down. Nothing is due in this boot
    // but what its own stop had set aside.
    manager.tell(context, &["start", &unit::name(&unit.project)])?;
    context.ui.remark(&format!("{} is enabled: {}", unit.project, file.display()));
    manager.hint_at_lingering(context);
    Ok(())
}

pub(super) fn disable(_: &DisableArgs, context: &Context) -> Result<()> {
    let manager = Manager::here(context)?;
    let project = context.project_name(&[])?;
    let unit = manager.unit(context, project.clone())?;
    let name = unit::name(&project);
    let file = manager.units.join(&name);
    if context.dry_run {
        context.ui.data(&format!("remove {}\n", file.display()));
        return Ok(());
    }
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    };
    let removing = |e| failed(&format!("remove {}", file.display()))(e);
    remove(&manager.units.join(unit.wanted_by()).join(&name)).map_err(removing)?;
    if !remove(&file).map_err(removing)? {
        context.ui.remark(&format!("{project} is not enabled"));
        return Ok(());
    }
    manager.tell(context, &["daemon-reload"])?;
    context.ui.remark(&format!("{project} is disabled"));
    Ok(())
}

fn write(manager: &Manager, unit: &Unit, file: &Path) -> io::Result<()> {
    let wanted = manager.units.join(unit.wanted_by());
    fs::create_dir_all(&wanted)?;
    stack_runtime::home::replace_durably(file, unit.text().as_bytes())?;
    let link = wanted.join(unit::name(&unit.project));
    match symlink(file, link) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

impl Manager {
    /// systemd, where it is PID 1; an ordinary user's own.
    fn here(context: &Context) -> Result<Self> {
        let is_of_user = !nix::unistd::geteuid().is_root();
        if !Path::new("/run/systemd/system").is_dir() {
            let message = "systemd does not run this machine, so there is nobody to enable the stack for";
            return Err(Failure::new(Kind::Machine, message).hint(
                "Let what starts programs after a boot run `stack -p PROJECT start --due`, and `stack -p PROJECT stop --keep-due` before the machine goes down.",
            ));
        }
        let units = match is_of_user {
            true => user_units(context)
                .ok_or_else(|| Failure::usage("neither XDG_CONFIG_HOME nor HOME is set"))?,
            false => PathBuf::from("/etc/systemd/system"),
        };
        Ok(Self { units, is_of_user })
    }

    fn unit(&self, context: &Context, project: String) -> Result<Unit> {
        let program = std::env::current_exe().map_err(failed("find this program"))?;
        let kept = |key: &&str| {
            Some(((*key).to_owned(), context.variable(key).filter(|v| !v.is_empty())?.to_owned()))
        };
        Ok(Unit {
            project,
            program,
            data: context.home.data.clone(),
            environment: unit::KEPT.iter().filter_map(kept).collect(),
            is_of_user: self.is_of_user,
        })
    }

    /// What is written counts at the next boot, whether systemd hears of it now or not.
    fn tell(&self, context: &Context, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("systemctl");
        if self.is_of_user {
            command.arg("--user");
        }
        let said = command.args(arguments).output();
        let why = match said {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(e) => e.to_string(),
        };
        let what = arguments.join(" ");
        context.ui.emit(Event::warning(format!(
            "`systemctl {what}` failed, so it counts from the next boot on only: {why}"
        )));
        Ok(())
    }

    fn hint_at_lingering(&self, context: &Context) {
        if !self.is_of_user {
            return;
        }
        let uid = nix::unistd::geteuid();
        let name =
            nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        if !Path::new("/var/lib/systemd/linger").join(&name).exists() {
            context.ui.emit(Event::warning(format!(
                "it comes back when {name} logs in, and goes when {name} has logged out everywhere; run `sudo loginctl enable-linger {name}` to have it with the machine"
            )));
        }
    }
}

fn user_units(context: &Context) -> Option<PathBuf> {
    let set = |key: &str| context.variable(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(config.join("systemd/user"))
}
