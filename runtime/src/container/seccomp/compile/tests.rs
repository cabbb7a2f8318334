//! The program is run by a small interpreter, not compared with listings.

use super::*;
use crate::container::capability;
use crate::container::seccomp::{arg, call, default, profile};

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;
const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;

fn run(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let load = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => arch,
        at => (args[((at - ARGUMENTS) / 8) as usize] >> (if at % 8 == 0 { 0 } else { 32 })) as u32,
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let Instruction { code, jump_true, jump_false, k } = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jump_true } else { jump_false });
        match code {
            LOAD_WORD => accumulator = load(k),
            AND => accumulator &= k,
            RETURN => return k,
            JUMP => at += k as usize,
            JUMP_EQUAL => branch(accumulator == k),
            JUMP_GREATER => branch(accumulator > k),
            JUMP_GREATER_EQUAL => branch(accumulator >= k),
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

fn number(name: &str) -> u32 {
    name.parse::<syscalls::x86_64::Sysno>().unwrap().id() as u32
}

fn docker(add: &[&str]) -> Vec<Instruction> {
    let add: Vec<String> = add.iter().map(|name| (*name).to_owned()).collect();
    compile(&default(&capability::resolve(&add, &[], false).unwrap()))
}

fn verdict(program: &[Instruction], name: &str, first: u64) -> u32 {
    run(program, X86_64, number(name), [first, 0, 0, 0, 0, 0])
}

#[test]
fn the_default_allows_programs_and_refuses_the_machine() {
    let program = docker(&[]);
    for name in ["read", "execve", "chroot", "ptrace", "futex", "clone"] {
        assert_eq!(verdict(&program, name, 0), ALLOW, "{name}");
    }
    for name in [
        "mount",
        "unshare",
        "setns",
        "keyctl",
        "bpf",
        "reboot",
        "init_module",
        "kexec_load",
        "io_uring_setup",
    ] {
        assert_eq!(verdict(&program, name, 0), EPERM, "{name}");
    }
    assert!(program.len() < 4096, "{}", program.len());
}

#[test]
fn namespaces_need_sys_admin() {
    let program = docker(&[]);
    assert_eq!(verdict(&program, "clone", 0x1000_0000), EPERM);
    assert_eq!(verdict(&program, "clone3", 0), ENOSYS);
    let admin = docker(&["SYS_ADMIN"]);
    for name in ["clone", "clone3", "mount", "unshare"] {
        assert_eq!(verdict(&admin, name, 0x1000_0000), ALLOW, "{name}");
    }
}

#[test]
fn each_capability_brings_its_calls() {
    let groups = [
        ("DAC_READ_SEARCH", "open_by_handle_at"),
        ("SYS_ADMIN", "fanotify_init"),
        ("SYS_BOOT", "reboot"),
        ("SYS_MODULE", "init_module"),
        ("SYS_NICE", "mbind"),
        ("SYS_PACCT", "acct"),
        ("SYS_PTRACE", "kcmp"),
        ("SYS_RAWIO", "iopl"),
        ("SYS_TIME", "settimeofday"),
        ("SYS_TTY_CONFIG", "vhangup"),
        ("SYSLOG", "syslog"),
        ("BPF", "bpf"),
        ("PERFMON", "perf_event_open"),
    ];
    let default = docker(&[]);
    for (capability, name) in groups {
        assert_eq!(verdict(&default, name, 0), EPERM, "{name} without {capability}");
        assert_eq!(verdict(&docker(&[capability]), name, 0), ALLOW, "{name} with {capability}");
    }
    assert_eq!(verdict(&default, "chroot", 0), ALLOW, "SYS_CHROOT is among Docker's own");
    let without = capability::resolve(&[], &["SYS_CHROOT".into()], false).unwrap();
    assert_eq!(verdict(&compile(&crate::container::seccomp::default(&without)), "chroot", 0), EPERM);
}

#[test]
fn socket_families_and_personalities_are_chosen() {
    let program = docker(&[]);
    for (family, expected) in [(1, ALLOW), (2, ALLOW), (38, EPERM), (39, ALLOW), (40, EPERM), (41, ALLOW)] {
        assert_eq!(verdict(&program, "socket", family), expected, "family {family}");
    }
    for (value, expected) in [(0, ALLOW), (8, ALLOW), (0x20008, ALLOW), (0xffff_ffff, ALLOW), (1, EPERM)] {
        assert_eq!(verdict(&program, "personality", value), expected, "personality {value:#x}");
    }
}

#[test]
fn other_architectures_have_their_own_numbers() {
    let program = docker(&[]);
    let mount_x86 = "mount".parse::<syscalls::x86::Sysno>().unwrap().id() as u32;
    let getpid_x86 = "getpid".parse::<syscalls::x86::Sysno>().unwrap().id() as u32;
    assert_eq!(run(&program, X86, mount_x86, [0; 6]), EPERM);
    assert_eq!(run(&program, X86, getpid_x86, [0; 6]), ALLOW);
    assert_eq!(run(&program, X86_64, X32_BIT | number("getpid"), [0; 6]), ALLOW);
    assert_eq!(run(&program, X86_64, X32_BIT | number("mount"), [0; 6]), EPERM);
    assert_eq!(run(&program, X86_64, X32_BIT | 514, [0; 6]), ALLOW);
    assert_eq!(run(&program, 0x1234, 0, [0; 6]), ENOSYS);
}

#[test]
fn calls_of_the_future_do_not_exist() {
    let program = docker(&[]);
    assert_eq!(run(&program, X86_64, 9999, [0; 6]), ENOSYS);
    assert_eq!(run(&program, X86_64, u32::MAX, [0; 6]), ENOSYS);
}

#[test]
fn comparisons_use_all_64_bits() {
    let big = 0x1_0000_0005;
    let cases: [(Operator, [bool; 4]); 6] = [
        (Operator::ScmpCmpEq, [false, false, true, false]),
        (Operator::ScmpCmpNe, [true, true, false, true]),
        (Operator::ScmpCmpLt, [true, true, false, false]),
        (Operator::ScmpCmpLe, [true, true, true, false]),
        (Operator::ScmpCmpGt, [false, false, false, true]),
        (Operator::ScmpCmpGe, [false, false, true, true]),
    ];
    for (operator, expected) in cases {
        let rule = call(&["read"], Action::ScmpActAllow, None, vec![arg(1, big, operator)]);
        let program = compile(&profile(
            Action::ScmpActErrno,
            Some(1),
            vec![oci_spec::runtime::Arch::ScmpArchX86_64],
            vec![rule],
        ));
        for (value, holds) in [5, 0x1_0000_0004, big, 0x2_0000_0000].into_iter().zip(expected) {
            let found = run(&program, X86_64, number("read"), [0, value, 0, 0, 0, 0]);
            assert_eq!(found == ALLOW, holds, "{operator:?} {value:#x}");
        }
    }
}

#[test]
fn all_arguments_of_a_rule_must_match_and_rules_are_alternatives() {
    let both = vec![arg(0, 1, Operator::ScmpCmpEq), arg(1, 2, Operator::ScmpCmpEq)];
    let calls = vec![
        call(&["read"], Action::ScmpActAllow, None, both),
        call(&["read"], Action::ScmpActErrno, Some(5), vec![arg(0, 9, Operator::ScmpCmpEq)]),
    ];
    let program = compile(&profile(
        Action::ScmpActErrno,
        Some(1),
        vec![oci_spec::runtime::Arch::ScmpArchX86_64],
        calls,
    ));
    let try_with = |a, b| run(&program, X86_64, number("read"), [a, b, 0, 0, 0, 0]);
    assert_eq!([try_with(1, 2), try_with(1, 3), try_with(9, 0)], [ALLOW, EPERM, ERRNO | 5]);
}
