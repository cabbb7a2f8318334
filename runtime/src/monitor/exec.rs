//! The parent of an exec: joins the container's namespaces, runs the program, tells its end.

use super::run::{Progress, settle, tell};
use super::{RunRecord, start_time};
use crate::cgroup::Group;
use crate::container::{Bundle, ExecPlan};
use crate::home;
use crate::init::{self, Child, Context, Link, Operation};
use crate::launch::message::{Command, Reply};
use crate::launch::{LaunchError, Named};
use crate::sys::{packet, process};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Serves one exec to its end.
pub(crate) fn run(plan: ExecPlan, reply: OwnedFd, streams: Vec<OwnedFd>) -> ! {
    settle(c"stack-exec");
    match start(plan, streams) {
        Ok((child, terminal)) => {
            let fds = terminal.iter().map(AsFd::as_fd).collect::<Vec<_>>();
            tell(&reply, &Reply::Executing { pid: child.pid }, &fds);
            drop(terminal);
            let code = watch(&child, &reply);
            tell(&reply, &Reply::Ended { code }, &[]);
        }
        Err(error) => tell(&reply, &Reply::Failed(error), &[]),
    }
    process::exit(0)
}

fn start(plan: ExecPlan, streams: Vec<OwnedFd>) -> Result<(Child, Option<OwnedFd>), LaunchError> {
    let container = open_container(&plan).named("find the container")?;
    let bundle: Option<Bundle> = home::read_json(&plan.dir.join("oci.json")).named("read the container")?;
    let bundle = bundle.ok_or_else(|| LaunchError::new("read the container", "it was never started"))?;
    let group = Group::find(&bundle.cgroup).named("find the control group")?;
    // Decides about children only, hence before the clone.
    move_into_thread_name_spaces(container.as_fd(), ThreadNameSpaceType::PROCESS_ID)
        .named("join the pid namespace")?;
    let (ours, theirs) = packet::pair().named("make a socket pair")?;
    match init::clone(0, &group).named("clone the process")? {
        process::Clone::Child => {
            let (operations, environment) = init::exec(&bundle, &plan.exec, plan.tty);
            let mut context = Context::new(Link::new(theirs), &group, environment);
            context.streams = <[OwnedFd; 3]>::try_from(streams).ok();
            become_program(context, operations, container)
        }
        process::Clone::Parent { pid, pidfd } => {
            let child = Child { pid, pidfd, link: ours };
            drop((theirs, streams));
            group.place(pid).named("enter the control group")?;
            packet::send(&child.link, b"p", &[]).named("start the process")?;
            let mut progress = Progress::default();
            progress.finish(&child)?;
            Ok((child, progress.terminal))
        }
    }
}

/// By pid and start time, so that a reused pid is never entered.
fn open_container(plan: &ExecPlan) -> io::Result<OwnedFd> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "it is not running");
    let pid = Pid::from_raw(plan.pid).ok_or_else(gone)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    let run = RunRecord::read(&plan.dir)?.ok_or_else(gone)?;
    if run.pid != plan.pid || start_time(plan.pid).map_err(|_| gone())? != run.start_time {
        return Err(gone());
    }
    Ok(pidfd)
}

fn become_program(context: Context<'_>, operations: Vec<Operation>, container: OwnedFd) -> ! {
    context.link.wait();
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    if let Err(e) = move_into_thread_name_spaces(container.as_fd(), all) {
        let error = LaunchError::new("join the namespaces of the container", io::Error::from(e));
        let _ = context.link.send(&init::Note::Failed(error), &[]);
        process::exit(1);
    }
    let _ = process::close_all_except(&init::kept(&context));
    init::run(operations, context)
}

/// Delivers signals and waits for the end. An owner that goes leaves the program running.
fn watch(child: &Child, reply: &OwnedFd) -> i32 {
    let mut has_owner = true;
    loop {
        let mut fds = vec![PollFd::new(&child.pidfd, PollFlags::IN)];
        if has_owner {
            fds.push(PollFd::new(reply, PollFlags::IN));
        }
        if poll(&mut fds, None).is_err() {
            continue;
        }
        let asked = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if !fds[0].revents().is_empty() {
            return code(child);
        }
        if asked {
            let command =
                packet::receive(reply).ok().and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok());
            match command {
                Some(Command::Signal(number)) => signal(child, number),
                Some(Command::Go) => {}
                None => has_owner = false,
            }
        }
    }
}

/// SIGKILL goes to the whole group, so that what a shell started goes too.
fn signal(child: &Child, number: i32) {
    let Some(signal) = Signal::from_named_raw(number) else { return };
    // It may have ended by now.
    let _ = pidfd_send_signal(&child.pidfd, signal);
    if let Some(group) = Pid::from_raw(child.pid).filter(|_| signal == Signal::KILL) {
        let _ = kill_process_group(group, signal);
    }
}

fn code(child: &Child) -> i32 {
    let status = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).ok().flatten();
    let signal = status.as_ref().and_then(|status| status.terminating_signal());
    status
        .as_ref()
        .and_then(|status| status.exit_status())
        .or(signal.map(|signal| 128 + signal))
        .unwrap_or(255)
}
