//! System call filters: Docker's allow-list or a profile file, and their BPF programs.
//!
//! The default answers EPERM to what it does not know. Groups of calls are opened by
//! capabilities; without CAP_SYS_ADMIN `clone` may not make namespaces and `clone3`, whose
//! flags a filter cannot see, is ENOSYS so that libraries fall back to `clone`.

mod allowed;
mod compile;
mod file;

use super::capability::Set;
pub(crate) use compile::compile;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompFilterFlag, LinuxSeccompOperator as Operator, LinuxSyscall,
    LinuxSyscallBuilder,
};
use std::path::Path;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
const AF_ALG: u64 = 38;
const AF_VSOCK: u64 = 40;
const SYS_ADMIN: u8 = 21;

/// What a container's `seccomp=` option asks for; `None` means no filter.
pub(super) fn resolve(option: Option<&str>, capabilities: &Set) -> Result<Option<LinuxSeccomp>, String> {
    match option {
        None | Some("" | "builtin" | "default") => Ok(Some(default(capabilities))),
        Some("unconfined") => Ok(None),
        Some(path) => file::read(Path::new(path), capabilities).map(Some),
    }
}

/// Docker's default for a container with these capabilities.
pub(crate) fn default(capabilities: &Set) -> LinuxSeccomp {
    let mut calls = vec![allow(allowed::ALWAYS, vec![])];
    calls.push(allow(&["socket"], vec![arg(0, AF_ALG, Operator::ScmpCmpLt)]));
    calls.push(allow(&["socket"], vec![arg(0, AF_ALG + 1, Operator::ScmpCmpEq)]));
    calls.push(allow(&["socket"], vec![arg(0, AF_VSOCK, Operator::ScmpCmpGt)]));
    calls.extend(
        allowed::PERSONALITIES.map(|value| allow(&["personality"], vec![arg(0, value, Operator::ScmpCmpEq)])),
    );
    for (capability, names) in allowed::BY_CAPABILITY {
        if capabilities.contains(capability) {
            calls.push(allow(names, vec![]));
        }
    }
    if !capabilities.contains(&SYS_ADMIN) {
        calls.push(allow(&["clone"], vec![masked(CLONE_NAMESPACES)]));
        calls.push(call(&["clone3"], Action::ScmpActErrno, Some(libc::ENOSYS.cast_unsigned()), vec![]));
    }
    profile(Action::ScmpActErrno, Some(libc::EPERM.cast_unsigned()), native(), calls)
}

/// What is known, in OCI's words.
#[derive(Debug)]
pub(crate) struct Names {
    pub actions: Vec<&'static str>,
    pub operators: Vec<&'static str>,
    pub archs: Vec<&'static str>,
    pub flags: Vec<&'static str>,
}

pub(crate) fn names() -> Names {
    Names {
        actions: vec![
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG",
            "SCMP_ACT_NOTIFY",
            "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ],
        operators: vec![
            "SCMP_CMP_EQ",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_LE",
            "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ],
        archs: vec![
            "SCMP_ARCH_AARCH64",
            "SCMP_ARCH_ARM",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X86_64",
        ],
        flags: vec![
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ],
    }
}

/// Somebody outside answers for the filter.
pub(crate) fn has_listener(filter: &LinuxSeccomp) -> bool {
    let asks = |action| action == Action::ScmpActNotify;
    filter.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty())
        && filter.syscalls().iter().flatten().any(|call| asks(call.action()))
}

/// As `seccomp(2)` wants it. One thread is always in step with itself.
pub(crate) fn flag_bit(flag: LinuxSeccompFilterFlag) -> u32 {
    match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
        LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 32,
    }
}

/// This machine's architecture and those it also runs.
fn native() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchNative],
    }
}

fn profile(
    default: Action,
    errno: Option<u32>,
    architectures: Vec<Arch>,
    calls: Vec<LinuxSyscall>,
) -> LinuxSeccomp {
    let mut seccomp = LinuxSeccompBuilder::default()
        .default_action(default)
        .architectures(architectures)
        .syscalls(calls)
        .build()
        .expect("no field is required");
    seccomp.set_default_errno_ret(errno);
    seccomp
}

fn allow(names: &[&str], args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    call(names, Action::ScmpActAllow, None, args)
}

fn call(names: &[&str], action: Action, errno: Option<u32>, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut call =
        LinuxSyscallBuilder::default().names(names).action(action).build().expect("no field is required");
    call.set_errno_ret(errno).set_args((!args.is_empty()).then_some(args));
    call
}

fn arg(index: usize, value: u64, operator: Operator) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .op(operator)
        .build()
        .expect("no field is required")
}

/// The first argument has none of these bits.
fn masked(bits: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(0usize)
        .value(bits)
        .value_two(0u64)
        .op(Operator::ScmpCmpMaskedEq)
        .build()
        .expect("no field is required")
}
