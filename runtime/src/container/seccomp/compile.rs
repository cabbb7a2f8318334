//! From a filter by names to a classic BPF program.
//!
//! Per architecture, the numbers fall into ranges that end alike; a binary tree of comparisons finds the
//! range of a call, so that the common call costs some ten instructions and not hundreds.

use crate::sys::seccomp::Instruction;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};
use std::collections::BTreeMap;

const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;

/// Where `struct seccomp_data` has its fields.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const X32_BIT: u32 = 0x4000_0000;
const ERRNO: u32 = 0x0005_0000;

/// x32 has numbers of its own for these, from 512 on, in this order.
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// What happens to one call: conditions in order, the first whose arguments all match wins.
#[derive(Debug, Clone, PartialEq)]
struct Verdict {
    rules: Vec<(Vec<LinuxSeccompArg>, u32)>,
    otherwise: u32,
}

/// The program; architectures it does not know get ENOSYS for everything.
pub(crate) fn compile(filter: &LinuxSeccomp) -> Vec<Instruction> {
    let answered = super::has_listener(filter);
    let default = result(filter.default_action(), filter.default_errno_ret(), answered);
    let calls = filter.syscalls().as_deref().unwrap_or_default();
    let mut asked = filter.architectures().clone().unwrap_or_default();
    // A filter that leaves out what runs here would forbid everything.
    if !asked.iter().any(|arch| *arch == Arch::ScmpArchNative || super::native().first() == Some(arch)) {
        asked.push(Arch::ScmpArchNative);
    }
    let mut sections: BTreeMap<u32, BTreeMap<u32, Verdict>> = BTreeMap::new();
    for arch in asked {
        let Some((audit, lookup)) = table(arch) else { continue };
        let section = sections.entry(audit).or_default();
        for call in calls {
            add(section, call, default, lookup, answered);
        }
    }
    let mut program = vec![statement(LOAD_WORD, ARCHITECTURE)];
    for (audit, section) in sections {
        let body = section_body(section, default);
        program.push(jump(JUMP_EQUAL, audit, 1, 0));
        program.push(statement(JUMP, body.len() as u32));
        program.extend(body);
    }
    program.push(statement(RETURN, ERRNO | libc::ENOSYS.cast_unsigned()));
    program
}

fn add(
    section: &mut BTreeMap<u32, Verdict>,
    call: &LinuxSyscall,
    default: u32,
    lookup: fn(&str) -> Option<u32>,
    answered: bool,
) {
    let verdict = result(call.action(), call.errno_ret(), answered);
    for number in call.names().iter().filter_map(|name| lookup(name)) {
        let entry =
            section.entry(number).or_insert_with(|| Verdict { rules: Vec::new(), otherwise: default });
        match call.args().as_deref() {
            None | Some([]) => entry.otherwise = verdict,
            // libseccomp cannot compare one argument twice, so runtimes read that as "or".
            Some(args) if names_one_twice(args) => {
                entry.rules.extend(args.iter().map(|arg| (vec![*arg], verdict)));
            }
            Some(args) => entry.rules.push((args.to_vec(), verdict)),
        }
    }
}

fn names_one_twice(args: &[LinuxSeccompArg]) -> bool {
    args.iter().enumerate().any(|(at, arg)| args[..at].iter().any(|earlier| earlier.index() == arg.index()))
}

/// One architecture: loads the number, then the tree. Calls newer than all that the filter
/// names are ENOSYS, so that libraries use what they used before those existed.
fn section_body(section: BTreeMap<u32, Verdict>, default: u32) -> Vec<Instruction> {
    let newest = section.keys().filter(|number| **number < X32_BIT).max().copied().unwrap_or(0);
    let plain = |otherwise| Verdict { rules: Vec::new(), otherwise };
    let unknown = if default & 0xffff_0000 == ERRNO { ERRNO | libc::ENOSYS.cast_unsigned() } else { default };
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut next = 0;
    for (number, verdict) in section {
        if number > next {
            push(&mut ranges, next, plain(if next > newest && next < X32_BIT { unknown } else { default }));
        }
        push(&mut ranges, number, verdict);
        next = number + 1;
    }
    push(&mut ranges, next, plain(unknown));
    let mut body = vec![statement(LOAD_WORD, NUMBER)];
    body.extend(tree(&ranges));
    body
}

/// Starts a range, unless it ends as the one before.
fn push(ranges: &mut Vec<(u32, Verdict)>, start: u32, verdict: Verdict) {
    if ranges.last().is_none_or(|(_, last)| *last != verdict) {
        ranges.push((start, verdict));
    }
}

fn tree(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    if let [(_, verdict)] = ranges {
        return leaf(verdict);
    }
    let (left, right) = ranges.split_at(ranges.len() / 2);
    let (below, above) = (tree(left), tree(right));
    // A conditional jump reaches 255 instructions, an unconditional one any number.
    let mut code = vec![jump(JUMP_GREATER_EQUAL, right[0].0, 0, 1), statement(JUMP, below.len() as u32)];
    code.extend(below);
    code.extend(above);
    code
}

fn leaf(verdict: &Verdict) -> Vec<Instruction> {
    let mut code = Vec::new();
    for (args, result) in &verdict.rules {
        code.extend(conditions(args, *result));
    }
    code.push(statement(RETURN, verdict.otherwise));
    code
}

/// All conditions hold: return; else go on after the code.
fn conditions(args: &[LinuxSeccompArg], result: u32) -> Vec<Instruction> {
    let mut code = vec![statement(RETURN, result)];
    for arg in args.iter().rev() {
        let mut with = comparison(arg, code.len() as u8);
        with.extend(code);
        code = with;
    }
    code
}

/// Falls through when the comparison holds, else jumps over itself and `rest` further instructions.
/// Arguments have 64 bits, the machine 32: the high half decides unless equal.
fn comparison(arg: &LinuxSeccompArg, rest: u8) -> Vec<Instruction> {
    let (low, high) = (arg.value() as u32, (arg.value() >> 32) as u32);
    let offset = ARGUMENTS + 8 * arg.index() as u32;
    let load = |word: u32| {
        statement(LOAD_WORD, offset + 4 * if cfg!(target_endian = "little") { word } else { 1 - word })
    };
    match arg.op() {
        Operator::ScmpCmpEq => {
            vec![load(1), jump(JUMP_EQUAL, high, 0, 2 + rest), load(0), jump(JUMP_EQUAL, low, 0, rest)]
        }
        Operator::ScmpCmpNe => {
            vec![load(1), jump(JUMP_EQUAL, high, 0, 2), load(0), jump(JUMP_EQUAL, low, rest, 0)]
        }
        Operator::ScmpCmpMaskedEq => masked(arg, load(1), load(0), rest),
        Operator::ScmpCmpGt | Operator::ScmpCmpGe => {
            let test = if arg.op() == Operator::ScmpCmpGt { JUMP_GREATER } else { JUMP_GREATER_EQUAL };
            let high_test = [load(1), jump(JUMP_GREATER, high, 3, 0), jump(JUMP_EQUAL, high, 0, 2 + rest)];
            [&high_test[..], &[load(0), jump(test, low, 0, rest)]].concat()
        }
        Operator::ScmpCmpLt | Operator::ScmpCmpLe => {
            let test = if arg.op() == Operator::ScmpCmpLt { JUMP_GREATER_EQUAL } else { JUMP_GREATER };
            let high_test = [load(1), jump(JUMP_GREATER, high, 3 + rest, 0), jump(JUMP_EQUAL, high, 0, 2)];
            [&high_test[..], &[load(0), jump(test, low, rest, 0)]].concat()
        }
    }
}

fn masked(
    arg: &LinuxSeccompArg,
    load_high: Instruction,
    load_low: Instruction,
    rest: u8,
) -> Vec<Instruction> {
    let (mask, value) = (arg.value(), arg.value_two().unwrap_or(0));
    vec![
        load_high,
        statement(AND, (mask >> 32) as u32),
        jump(JUMP_EQUAL, (value >> 32) as u32, 0, 3 + rest),
        load_low,
        statement(AND, mask as u32),
        jump(JUMP_EQUAL, value as u32, 0, rest),
    ]
}

/// The value that the program returns for an action.
fn result(action: Action, errno: Option<u32>, answered: bool) -> u32 {
    let data = errno.unwrap_or(libc::EPERM.cast_unsigned()) & 0xffff;
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => 0,
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActNotify if answered => 0x7fc0_0000,
        // A notification without a listener is ENOSYS in the kernel; say so at once.
        Action::ScmpActNotify => ERRNO | libc::ENOSYS.cast_unsigned(),
        Action::ScmpActErrno => ERRNO | data,
        Action::ScmpActTrace => 0x7ff0_0000 | data,
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActAllow => 0x7fff_0000,
    }
}

type Lookup = fn(&str) -> Option<u32>;

/// AUDIT_ARCH_… and the numbers of an architecture.
fn table(arch: Arch) -> Option<(u32, Lookup)> {
    use syscalls::{aarch64, arm, x86, x86_64};
    Some(match arch {
        Arch::ScmpArchX86_64 => {
            (0xc000_003e, |name| Some(name.parse::<x86_64::Sysno>().ok()?.id().cast_unsigned()))
        }
        Arch::ScmpArchX32 => (0xc000_003e, x32),
        Arch::ScmpArchX86 => {
            (0x4000_0003, |name| Some(name.parse::<x86::Sysno>().ok()?.id().cast_unsigned()))
        }
        Arch::ScmpArchAarch64 => {
            (0xc000_00b7, |name| Some(name.parse::<aarch64::Sysno>().ok()?.id().cast_unsigned()))
        }
        Arch::ScmpArchArm => {
            (0x4000_0028, |name| Some(name.parse::<arm::Sysno>().ok()?.id().cast_unsigned()))
        }
        Arch::ScmpArchNative if cfg!(target_arch = "x86_64") => return table(Arch::ScmpArchX86_64),
        Arch::ScmpArchNative if cfg!(target_arch = "aarch64") => return table(Arch::ScmpArchAarch64),
        _ => return None,
    })
}

fn x32(name: &str) -> Option<u32> {
    let own = X32_OWN.iter().position(|own| *own == name).map(|index| 512 + index as u32);
    own.or_else(|| Some(name.parse::<syscalls::x86_64::Sysno>().ok()?.id().cast_unsigned()))
        .map(|n| n | X32_BIT)
}

fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, k }
}

fn jump(code: u16, k: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, k }
}

#[cfg(test)]
mod tests;
