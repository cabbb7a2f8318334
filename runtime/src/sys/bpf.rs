//! Device programs of version 2 control groups.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// One instruction of an extended BPF program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u8,
    /// Destination in the low, source in the high four bits.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for loading.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u32; 4],
    kernel_version: u32,
    flags: u32,
}

/// The head of `union bpf_attr` for attaching.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a device program; it lives as long as the descriptor or a group it is attached to.
pub fn load_device_program(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let load = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).expect("a program has fewer than 2^32 instructions"),
        instructions: instructions.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log: [0; 4],
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `load` and all it points to live across the call, and the kernel only reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a device program to a version 2 group (a descriptor of its directory).
pub fn attach_device_program(group: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let attach = Attach {
        target: group.as_fd().as_raw_fd().cast_unsigned(),
        program: program.as_fd().as_raw_fd().cast_unsigned(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: `attach` lives across the call, and the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
