//! Commands that mend a finding, as the distribution has them.

use stack_runtime::machine::{Distribution, Machine};

/// Package managers and what goes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Debian,
    Fedora,
    Suse,
    Arch,
    Alpine,
    Unknown,
}

/// A thing that packages have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Package {
    /// `newuidmap`, `newgidmap`.
    IdMaps,
    /// `pasta`.
    Pasta,
}

/// How commands are written for one user of one machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mend {
    family: Family,
    is_root: bool,
}

impl Mend {
    pub(super) fn of(machine: &Machine) -> Self {
        let family = machine.distribution.as_ref().map_or(Family::Unknown, family);
        Self { family, is_root: machine.user.is_root() }
    }

    fn sudo(self) -> &'static str {
        match (self.is_root, self.family) {
            (true, _) => "",
            (_, Family::Alpine) => "doas ",
            _ => "sudo ",
        }
    }

    /// A command for root.
    pub(super) fn root(self, command: &str) -> String {
        format!("{}{command}", self.sudo())
    }

    pub(super) fn install(self, package: Package) -> String {
        let name = self.name_of(package);
        let install = match self.family {
            Family::Debian => "apt-get install -y",
            Family::Fedora => "dnf install -y",
            Family::Suse => "zypper install -y",
            Family::Arch => "pacman -S --needed",
            Family::Alpine => "apk add",
            Family::Unknown => return format!("install the package `{name}`"),
        };
        self.root(&format!("{install} {name}"))
    }

    /// As a file that is given the right to map by its package, and has lost it.
    pub(super) fn reinstall(self, package: Package) -> String {
        let name = self.name_of(package);
        match self.family {
            Family::Debian => self.root(&format!("apt-get install -y --reinstall {name}")),
            Family::Fedora => self.root(&format!("dnf reinstall -y {name}")),
            Family::Suse => self.root(&format!("zypper install -y --force {name}")),
            Family::Arch => self.root(&format!("pacman -S {name}")),
            Family::Alpine => self.root(&format!("apk fix {name}")),
            Family::Unknown => format!("install the package `{name}` again"),
        }
    }

    fn name_of(self, package: Package) -> &'static str {
        match (package, self.family) {
            (Package::Pasta, _) => "passt",
            (Package::IdMaps, Family::Fedora) => "shadow-utils",
            (Package::IdMaps, Family::Arch | Family::Suse) => "shadow",
            (Package::IdMaps, Family::Alpine) => "shadow-uidmap",
            (Package::IdMaps, Family::Debian | Family::Unknown) => "uidmap",
        }
    }

    /// Now and after every boot.
    pub(super) fn sysctl(self, setting: &str) -> String {
        let sudo = self.sudo();
        format!("echo {setting} | {sudo}tee -a /etc/sysctl.d/60-stack.conf && {sudo}sysctl -w {setting}")
    }

    /// Now and after every boot.
    pub(super) fn module(self, name: &str) -> String {
        let sudo = self.sudo();
        format!("echo {name} | {sudo}tee /etc/modules-load.d/{name}.conf && {sudo}modprobe {name}")
    }

    /// From the next boot on.
    pub(super) fn kernel_argument(self, argument: &str) -> String {
        let sudo = self.sudo();
        let set = format!("{sudo}sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{argument} /' /etc/default/grub");
        let write = match self.family {
            Family::Fedora => {
                return format!("{sudo}grubby --update-kernel=ALL --args={argument} && {sudo}reboot");
            }
            Family::Debian => "update-grub",
            Family::Suse => "grub2-mkconfig -o /boot/grub2/grub.cfg",
            Family::Arch | Family::Alpine | Family::Unknown => "grub-mkconfig -o /boot/grub/grub.cfg",
        };
        format!("{set} && {sudo}{write} && {sudo}reboot")
    }

    pub(super) fn newer_kernel(self) -> String {
        let update = match self.family {
            Family::Debian => "apt-get update && sudo apt-get dist-upgrade -y",
            Family::Fedora => "dnf upgrade -y --refresh kernel",
            Family::Suse => "zypper dup -y",
            Family::Arch => "pacman -Syu",
            Family::Alpine => "apk upgrade --update-cache --available",
            Family::Unknown => return "install a newer kernel and reboot".into(),
        };
        let update = if self.is_root { update.replace("sudo ", "") } else { update.to_owned() };
        format!("{} && {}", self.root(&update), self.root("reboot"))
    }

    /// Where no service manager mounts control groups by itself.
    pub(super) fn mount_groups(self) -> String {
        match self.family {
            Family::Alpine => {
                format!("{} && {}", self.root("rc-update add cgroups"), self.root("rc-service cgroups start"))
            }
            _ => self.root("mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
        }
    }
}

fn family(distribution: &Distribution) -> Family {
    let names = std::iter::once(&distribution.id).chain(&distribution.like);
    names.map(|name| known(name)).find(|family| *family != Family::Unknown).unwrap_or(Family::Unknown)
}

fn known(name: &str) -> Family {
    match name {
        "debian" | "ubuntu" | "raspbian" => Family::Debian,
        "fedora" | "rhel" | "centos" | "amzn" => Family::Fedora,
        "suse" | "opensuse" | "sles" | "opensuse-leap" | "opensuse-tumbleweed" => Family::Suse,
        "arch" | "archarm" => Family::Arch,
        "alpine" => Family::Alpine,
        _ => Family::Unknown,
    }
}
