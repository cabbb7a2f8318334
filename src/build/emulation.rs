//! Programs of another architecture: run where the kernel was told how (binfmt_misc), and nowhere else.

use super::failure::{BuildFailure, Result};
use stack_runtime::image::Platform;
use std::fs;
use std::path::Path;

const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// # Errors
/// When nothing here runs programs of the platform.
pub(super) fn check(platform: &str) -> Result<()> {
    let wanted = Platform::parse(platform)?;
    let host = Platform::host();
    if runs_natively(&host, &wanted) || is_emulated(Path::new(BINFMT), &wanted.architecture) {
        return Ok(());
    }
    let failure = BuildFailure::new(format!("this machine ({host}) cannot run programs for {wanted}"));
    Err(failure.hint(
        "Register an emulator with binfmt_misc (Debian: package qemu-user-static), or run those steps on \
         --platform=$BUILDPLATFORM.",
    ))
}

fn runs_natively(host: &Platform, wanted: &Platform) -> bool {
    let pair = (host.architecture.as_str(), wanted.architecture.as_str());
    host.architecture == wanted.architecture || matches!(pair, ("amd64", "386") | ("arm64", "arm"))
}

/// As QEMU names architectures.
fn emulator(architecture: &str) -> &str {
    match architecture {
        "amd64" => "qemu-x86_64",
        "386" => "qemu-i386",
        "arm64" => "qemu-aarch64",
        "arm" => "qemu-arm",
        "riscv64" => "qemu-riscv64",
        "ppc64le" => "qemu-ppc64le",
        "s390x" => "qemu-s390x",
        "mips64le" => "qemu-mips64el",
        "loong64" => "qemu-loongarch64",
        other => other,
    }
}

fn is_emulated(directory: &Path, architecture: &str) -> bool {
    let text = fs::read_to_string(directory.join(emulator(architecture))).unwrap_or_default();
    text.lines().next() == Some("enabled")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulators_have_to_be_enabled() {
        let directory = tempfile::tempdir().expect("a directory");
        let look = |architecture: &str| is_emulated(directory.path(), architecture);
        assert!(!look("arm64"));
        fs::write(directory.path().join("qemu-aarch64"), "enabled\ninterpreter /usr/bin/x\n")
            .expect("written");
        fs::write(directory.path().join("qemu-s390x"), "disabled\n").expect("written");
        assert!(look("arm64") && !look("s390x"));
        let platform = |text: &str| Platform::parse(text).expect("a platform");
        assert!(runs_natively(&platform("linux/amd64"), &platform("linux/386")));
        assert!(!runs_natively(&platform("linux/amd64"), &platform("linux/arm64")));
        check(&Platform::host().to_string()).expect("our own");
    }
}
