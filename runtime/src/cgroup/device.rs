//! Device rules: lists in version 1, a small program in version 2.

use crate::sys::bpf::{Instruction, attach_device_program, load_device_program};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType as Kind};
use std::fs::{self, File};
use std::io;
use std::path::Path;

pub(super) fn write_legacy(dir: &Path, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    rules.iter().filter(|rule| kind(rule) == Kind::A || !access(rule).is_empty()).try_for_each(|rule| {
        let file = if rule.allow() { "devices.allow" } else { "devices.deny" };
        fs::write(dir.join(file), line(rule))
    })
}

fn line(rule: &LinuxDeviceCgroup) -> String {
    let number = |number: Option<i64>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
    match kind(rule) {
        Kind::A => "a".to_owned(),
        kind => {
            format!("{} {}:{} {}", kind.as_str(), number(rule.major()), number(rule.minor()), access(rule))
        }
    }
}

fn kind(rule: &LinuxDeviceCgroup) -> Kind {
    rule.typ().unwrap_or_default()
}

/// Letters that mean nothing are left out, as runc does.
fn access(rule: &LinuxDeviceCgroup) -> String {
    rule.access().as_deref().unwrap_or("rwm").chars().filter(|letter| "rwm".contains(*letter)).collect()
}

pub(super) fn attach(dir: &Path, rules: &[LinuxDeviceCgroup]) -> io::Result<()> {
    attach_device_program(File::open(dir)?, load_device_program(&program(rules))?)
}

const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// The context has `access << 16 | kind`, major and minor, 32 bits each. Later rules win, as in
/// version 1's lists, so they are tried first; nothing matching is denied.
fn program(rules: &[LinuxDeviceCgroup]) -> Vec<Instruction> {
    let mut code = vec![
        load(2, 0),
        instruction(0x54, 2, 0xffff),
        load(3, 0),
        instruction(0x74, 3, 16),
        load(4, 4),
        load(5, 8),
    ];
    for rule in rules.iter().rev() {
        code.extend(check(rule));
        if kind(rule) == Kind::A {
            // Nothing gets past it, and the kernel refuses code that nothing reaches.
            return code;
        }
    }
    code.extend(finish(false));
    code
}

/// Returns if the rule matches, else falls through.
fn check(rule: &LinuxDeviceCgroup) -> Vec<Instruction> {
    let mut tests: Vec<Vec<Instruction>> = Vec::new();
    match kind(rule) {
        // As in version 1, `a` is everything, whatever else the rule says.
        Kind::A => return finish(rule.allow()).to_vec(),
        Kind::B => tests.push(vec![unless_equal(2, BLOCK)]),
        _ => tests.push(vec![unless_equal(2, CHARACTER)]),
    }
    let allowed = mask(&access(rule));
    if allowed != MKNOD | READ | WRITE {
        // All that is asked for must be in the rule: copy, and away what it has.
        tests.push(vec![
            Instruction { code: 0xbc, registers: 1 | (3 << 4), offset: 0, immediate: 0 },
            instruction(0x54, 1, !allowed),
            unless_equal(1, 0),
        ]);
    }
    tests.extend(rule.major().map(|major| vec![unless_equal(4, major as i32)]));
    tests.extend(rule.minor().map(|minor| vec![unless_equal(5, minor as i32)]));
    assemble(tests.concat(), finish(rule.allow()))
}

/// Every open jump goes to the end of the code.
fn assemble(mut tests: Vec<Instruction>, end: [Instruction; 2]) -> Vec<Instruction> {
    let length = tests.len() + end.len();
    for (index, test) in tests.iter_mut().enumerate() {
        if test.code == JUMP_UNLESS_EQUAL {
            test.offset = (length - index - 1) as i16;
        }
    }
    tests.extend(end);
    tests
}

const JUMP_UNLESS_EQUAL: u8 = 0x55;

fn mask(access: &str) -> i32 {
    let bit = |letter, bit| if access.contains(letter) { bit } else { 0 };
    bit('m', MKNOD) | bit('r', READ) | bit('w', WRITE)
}

/// `register = *(u32 *)(context + offset)`
fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: 0x61, registers: register | (1 << 4), offset, immediate: 0 }
}

fn instruction(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn unless_equal(register: u8, value: i32) -> Instruction {
    instruction(JUMP_UNLESS_EQUAL, register, value)
}

fn finish(allow: bool) -> [Instruction; 2] {
    [instruction(0xb7, 0, i32::from(allow)), instruction(0x95, 0, 0)]
}

#[cfg(test)]
mod tests;
