//! A table of machines: what each lacks, and what mends it.

use super::*;
use stack_runtime::machine::{
    Disk, Distribution, GroupVersion, Groups, Identities, Kernel, Module, Restrictions, Session, Trials, Tun,
    Uplink, User,
};

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

fn distribution(id: &str, like: &str) -> Option<Distribution> {
    Some(Distribution { id: id.into(), like: words(like) })
}

/// Debian with everything, used by root.
fn of_root() -> Machine {
    Machine {
        user: User { uid: 0, name: "root".into() },
        kernel: Kernel {
            release: "6.1.0-18-amd64".into(),
            namespaces: words("user mnt pid net ipc uts cgroup"),
            overlay: Module::Present,
            has_seccomp: true,
        },
        restrictions: Restrictions { most_user_namespaces: Some(15_000), ..Default::default() },
        disk: Disk {
            home: "/var/lib/stack".into(),
            file_system: "ext4".into(),
            free_bytes: 50 << 30,
            free_inodes: Some(1_000_000),
            is_writable: true,
        },
        distribution: distribution("debian", ""),
        identities: None,
        groups: Some(Groups {
            version: GroupVersion::Unified,
            controllers: words("cpuset cpu io memory pids"),
            is_writable: true,
            session: None,
        }),
        uplink: Some(Uplink { pasta: Some("/usr/bin/pasta".into()), tun: Tun::Usable }),
        trials: Some(Trials {
            user_namespace: None,
            namespaces: Ok(()),
            proc: Ok(()),
            overlay: Ok(()),
            bridge: Ok(()),
            nftables: Ok(()),
        }),
    }
}

/// The same, used by an ordinary user.
fn of_user() -> Machine {
    let mut machine = of_root();
    machine.user = User { uid: 1000, name: "dev".into() };
    machine.disk.home = "/home/dev/.local/share/stack".into();
    machine.identities =
        Some(Identities { users: 65_536, groups: 65_536, next: 165_536, ..Default::default() });
    let session =
        Session { has_systemd: true, is_running: true, lingers: true, delegated: words("cpu memory pids") };
    if let Some(groups) = &mut machine.groups {
        groups.session = Some(session);
    }
    if let Some(trials) = &mut machine.trials {
        trials.user_namespace = Some(Ok(()));
    }
    machine
}

fn session(machine: &mut Machine) -> &mut Session {
    machine.groups.as_mut().and_then(|groups| groups.session.as_mut()).expect("of a user")
}

fn groups(machine: &mut Machine) -> &mut Groups {
    machine.groups.as_mut().expect("looked at")
}

fn trials(machine: &mut Machine) -> &mut Trials {
    machine.trials.as_mut().expect("tried")
}

fn identities(machine: &mut Machine) -> &mut Identities {
    machine.identities.as_mut().expect("of a user")
}

fn uplink(machine: &mut Machine) -> &mut Uplink {
    machine.uplink.as_mut().expect("looked at")
}

/// The only thing that is wrong after `change`.
#[track_caller]
fn wrong(mut machine: Machine, change: impl FnOnce(&mut Machine)) -> Finding {
    change(&mut machine);
    let all = findings(&machine);
    let mut wrong = all.into_iter().filter(|finding| finding.state != State::Good);
    let found = wrong.next().expect("something is wrong");
    assert_eq!(wrong.next(), None, "beside {found:?}");
    found
}

#[track_caller]
fn expect(found: &Finding, state: State, check: &str, text: &str, mend: Option<&str>) {
    assert_eq!((found.check, found.state, found.mend.as_deref()), (check, state, mend), "{found:?}");
    assert!(found.text.contains(text), "`{text}` is not in {found:?}");
}

#[test]
fn a_machine_with_everything_has_only_good_findings() {
    for machine in [of_root(), of_user()] {
        let bad: Vec<_> = findings(&machine).into_iter().filter(|f| f.state != State::Good).collect();
        assert_eq!(bad, []);
        assert_eq!(refusal(&findings(&machine)).map(|f| f.message), None);
    }
}

#[test]
fn kernels_that_lack_something_are_refused() {
    use State::Missing;
    let found = wrong(of_root(), |m| m.kernel.release = "5.10.0-28-amd64".into());
    let mend = "apt-get update && apt-get dist-upgrade -y && reboot";
    expect(&found, Missing, "kernel", "Linux 5.10.0-28-amd64; 5.12 is needed", Some(mend));
    let found = wrong(of_user(), |m| m.kernel.release = "4.18.0-553.el8_10.x86_64".into());
    let mend = "sudo apt-get update && sudo apt-get dist-upgrade -y && sudo reboot";
    expect(&found, Missing, "kernel", "4.18", Some(mend));
    let found = wrong(of_root(), |m| m.kernel.namespaces.retain(|kind| kind != "pid" && kind != "ipc"));
    expect(&found, Missing, "namespaces", "without pid, ipc namespaces", None);
    let found = wrong(of_root(), |m| m.kernel.has_seccomp = false);
    expect(&found, Missing, "seccomp", "without seccomp", None);
    let found = wrong(of_root(), |m| m.kernel.overlay = Module::Absent);
    let mend = "echo overlay | tee /etc/modules-load.d/overlay.conf && modprobe overlay";
    expect(&found, Missing, "overlayfs", "no overlayfs", Some(mend));
    let found = wrong(of_user(), |m| {
        m.kernel.namespaces.retain(|kind| kind != "user");
        trials(m).user_namespace = Some(Err("Invalid argument".into()));
    });
    expect(&found, Missing, "user namespaces", "built without user namespaces", None);
}

#[test]
fn kernels_of_the_oldest_release_and_later_are_well() {
    for release in ["5.12.0", "5.15.0-105-generic", "6.18.5", "10.0", "not a number"] {
        let mut machine = of_root();
        machine.kernel.release = release.into();
        assert_eq!(findings(&machine)[0].state, State::Good, "{release}");
    }
}

#[test]
fn trials_that_failed_are_told_with_their_reason() {
    use State::{Missing, Warning};
    let refused = || Err("Operation not permitted (os error 1)".to_owned());
    let found = wrong(of_root(), |m| trials(m).namespaces = refused());
    expect(&found, Missing, "namespaces", "Operation not permitted (os error 1); in a container", None);
    let found = wrong(of_root(), |m| trials(m).proc = refused());
    expect(&found, Missing, "namespaces", "/proc cannot be mounted", None);
    let found = wrong(of_root(), |m| trials(m).overlay = Err("Invalid argument (os error 22)".into()));
    let mend = "export STACK_HOME=/a/folder/on/ext4/xfs/or/btrfs";
    expect(&found, Missing, "overlayfs", "/var/lib/stack (ext4): Invalid argument", Some(mend));
    let found = wrong(of_root(), |m| {
        m.kernel.overlay = Module::Loadable;
        trials(m).overlay = Err("No such device (os error 19)".into());
    });
    let mend = "echo overlay | tee /etc/modules-load.d/overlay.conf && modprobe overlay";
    expect(&found, Missing, "overlayfs", "No such device", Some(mend));
    let found = wrong(of_root(), |m| trials(m).bridge = Err("Operation not supported".into()));
    let mend = "echo bridge | tee /etc/modules-load.d/bridge.conf && modprobe bridge && echo veth | tee /etc/modules-load.d/veth.conf && modprobe veth";
    expect(&found, Missing, "network", "no bridge or veth", Some(mend));
    let found = wrong(of_root(), |m| trials(m).nftables = Err("Protocol not supported".into()));
    assert_eq!((found.state, found.check), (Warning, "nftables"));
    assert!(found.mend.is_some_and(|command| command.starts_with("echo nf_tables | tee")));
}

#[test]
fn settings_that_forbid_user_namespaces_are_named_with_the_command() {
    // Then nothing else can be tried, and it is the one finding.
    let refuse = |m: &mut Machine| {
        let refused = || Err("Permission denied".to_owned());
        *trials(m) = Trials {
            user_namespace: Some(refused()),
            namespaces: refused(),
            proc: refused(),
            overlay: refused(),
            bridge: refused(),
            nftables: refused(),
        };
    };
    type Case = (fn(&mut Machine), &'static str, &'static str);
    let cases: [Case; 3] = [
        (
            |m| m.restrictions.apparmor = true,
            "AppArmor",
            "echo kernel.apparmor_restrict_unprivileged_userns=0 | sudo tee -a /etc/sysctl.d/60-stack.conf && sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            |m| m.restrictions.clone_is_forbidden = true,
            "kernel.unprivileged_userns_clone is 0",
            "echo kernel.unprivileged_userns_clone=1 | sudo tee -a /etc/sysctl.d/60-stack.conf && sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            |m| m.restrictions.most_user_namespaces = Some(0),
            "user.max_user_namespaces is 0",
            "echo user.max_user_namespaces=15000 | sudo tee -a /etc/sysctl.d/60-stack.conf && sudo sysctl -w user.max_user_namespaces=15000",
        ),
    ];
    for (set, text, mend) in cases {
        let found = wrong(of_user(), |m| {
            set(m);
            refuse(m);
        });
        expect(&found, State::Missing, "user namespaces", text, Some(mend));
    }
    let found = wrong(of_user(), refuse);
    expect(&found, State::Missing, "user namespaces", "needs: Permission denied", Some("sudo stack"));
}

/// A profile of the user's own may allow what the setting forbids; and root needs none.
#[test]
fn a_restriction_that_does_not_apply_is_no_finding() {
    for mut machine in [of_root(), of_user()] {
        machine.restrictions.apparmor = true;
        machine.restrictions.profile = Some("stack".into());
        assert!(findings(&machine).iter().all(|finding| finding.state == State::Good));
    }
}

/// Before something is made nothing is tried: the namespace is there, and its rights were taken.
#[test]
fn a_profile_that_takes_the_rights_away_is_found_at_a_glance() {
    let found = wrong(of_user(), |m| {
        m.trials = None;
        m.restrictions.apparmor = true;
        m.restrictions.profile = Some("unprivileged_userns".into());
    });
    assert_eq!((found.state, found.check), (State::Missing, "user namespaces"));
}

#[test]
fn subordinate_ids_that_are_not_there_leave_one_id() {
    use State::{Missing, Warning};
    let both = || words("newuidmap newgidmap");
    let found = wrong(of_user(), |m| identities(m).lacking = both());
    let text = "`newuidmap` and `newgidmap` are not installed: containers have one user id";
    expect(&found, Warning, "subordinate ids", text, Some("sudo apt-get install -y uidmap"));
    let found = wrong(of_user(), |m| (identities(m).users, identities(m).groups) = (0, 0));
    let mend = "echo dev:165536:65536 | sudo tee -a /etc/subuid /etc/subgid";
    expect(&found, Warning, "subordinate ids", "no range of dev in /etc/subuid, /etc/subgid", Some(mend));
    let found = wrong(of_user(), |m| identities(m).groups = 0);
    let mend = "echo dev:165536:65536 | sudo tee -a /etc/subgid";
    expect(&found, Warning, "subordinate ids", "in /etc/subgid:", Some(mend));
    let found = wrong(of_user(), |m| identities(m).users = 10);
    let mend = "echo dev:165536:65536 | sudo tee -a /etc/subuid /etc/subgid";
    expect(&found, Warning, "subordinate ids", "dev has 10", Some(mend));
    let found = wrong(of_user(), |m| identities(m).powerless = vec!["/usr/bin/newuidmap".into()]);
    let mend = "sudo apt-get install -y --reinstall uidmap";
    expect(&found, Missing, "subordinate ids", "/usr/bin/newuidmap has lost its right", Some(mend));
}

#[test]
fn control_groups_that_cannot_be_used_are_a_warning() {
    use State::Warning;
    let check = "control groups";
    let found = wrong(of_root(), |m| groups(m).version = GroupVersion::None);
    expect(&found, Warning, check, "none are mounted", Some("mount -t cgroup2 cgroup2 /sys/fs/cgroup"));
    let found = wrong(of_root(), |m| groups(m).is_writable = false);
    expect(&found, Warning, check, "read-only", Some("mount -o remount,rw /sys/fs/cgroup"));
    let found = wrong(of_root(), |m| groups(m).controllers.retain(|name| name != "memory"));
    let mend = "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&cgroup_enable=memory /' /etc/default/grub && update-grub && reboot";
    expect(&found, Warning, check, "no memory controller", Some(mend));
    let found = wrong(of_root(), |m| groups(m).controllers.clear());
    expect(&found, Warning, check, "no cpu, memory, pids controller", None);
    let found = wrong(of_user(), |m| groups(m).version = GroupVersion::Hybrid);
    let mend = "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&systemd.unified_cgroup_hierarchy=1 /' /etc/default/grub && sudo update-grub && sudo reboot";
    expect(&found, Warning, check, "version 1, which is not delegated", Some(mend));
    let found = wrong(of_user(), |m| session(m).has_systemd = false);
    expect(&found, Warning, check, "no systemd", Some("sudo stack"));
    let found = wrong(of_user(), |m| session(m).is_running = false);
    let mend = "sudo loginctl enable-linger dev && export XDG_RUNTIME_DIR=/run/user/1000";
    expect(&found, Warning, check, "no service manager of dev", Some(mend));
    let found = wrong(of_user(), |m| session(m).delegated = words("memory pids"));
    let mend = "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | sudo tee /etc/systemd/system/user@.service.d/delegate.conf && sudo systemctl daemon-reload && sudo systemctl restart user@1000.service";
    expect(&found, Warning, check, "delegates no cpu controller to dev", Some(mend));
}

/// Both versions' controllers do.
#[test]
fn root_has_limits_with_every_version() {
    for version in [GroupVersion::Unified, GroupVersion::Hybrid, GroupVersion::Legacy] {
        let mut machine = of_root();
        groups(&mut machine).version = version;
        assert!(findings(&machine).iter().all(|finding| finding.state == State::Good), "{version:?}");
    }
}

#[test]
fn a_way_out_that_is_not_there_is_a_warning() {
    use State::Warning;
    let found = wrong(of_root(), |m| uplink(m).pasta = None);
    expect(&found, Warning, "pasta", "not installed", Some("apt-get install -y passt"));
    let found = wrong(of_user(), |m| uplink(m).tun = Tun::Absent);
    let mend = "echo tun | sudo tee /etc/modules-load.d/tun.conf && sudo modprobe tun";
    expect(&found, Warning, "pasta", "no /dev/net/tun", Some(mend));
    let found = wrong(of_user(), |m| uplink(m).tun = Tun::Forbidden);
    expect(&found, Warning, "pasta", "for root only", Some("sudo chmod 666 /dev/net/tun"));
}

#[test]
fn homes_that_cannot_hold_layers_are_refused() {
    use State::{Missing, Warning};
    let mend = Some("export STACK_HOME=/a/folder/on/ext4/xfs/or/btrfs");
    for kind in ["nfs", "overlay", "vfat", "9p", "ecryptfs"] {
        let found = wrong(of_user(), |m| m.disk.file_system = kind.into());
        expect(&found, Missing, "home", &format!("/home/dev/.local/share/stack is on {kind}"), mend);
    }
    let found = wrong(of_root(), |m| m.disk.file_system = "tmpfs".into());
    expect(&found, Warning, "home", "lost at the next boot", mend);
    let found = wrong(of_user(), |m| m.disk.is_writable = false);
    let mend = Some("sudo install -d -o dev /home/dev/.local/share/stack");
    expect(&found, Missing, "home", "cannot be written to", mend);
    for kind in ["xfs", "btrfs", "zfs", "0x1234"] {
        let mut machine = of_root();
        machine.disk.file_system = kind.into();
        assert!(findings(&machine).iter().all(|finding| finding.state == State::Good), "{kind}");
    }
}

#[test]
fn a_full_disk_is_refused_and_a_nearly_full_one_warned_of() {
    use State::{Missing, Warning};
    let mend = Some("stack system prune --all");
    let found = wrong(of_root(), |m| m.disk.free_bytes = 1 << 20);
    expect(&found, Missing, "disk space", "only 1.05MB and 1000000 files free for /var/lib/stack", mend);
    let found = wrong(of_root(), |m| m.disk.free_inodes = Some(10));
    expect(&found, Missing, "disk space", "and 10 files free", mend);
    let found = wrong(of_root(), |m| m.disk.free_bytes = 500 << 20);
    expect(&found, Warning, "disk space", "only 524MB", mend);
    let found = wrong(of_root(), |m| m.disk.free_inodes = Some(5000));
    expect(&found, Warning, "disk space", "and 5000 files", mend);
    let mut btrfs = of_root();
    btrfs.disk.free_inodes = None;
    assert!(findings(&btrfs).iter().all(|finding| finding.state == State::Good));
}

#[test]
fn commands_are_the_distributions() {
    let cases = [
        ("ubuntu", "debian", "sudo apt-get install -y passt", "sudo apt-get install -y uidmap"),
        ("linuxmint", "ubuntu debian", "sudo apt-get install -y passt", "sudo apt-get install -y uidmap"),
        ("fedora", "", "sudo dnf install -y passt", "sudo dnf install -y shadow-utils"),
        ("rocky", "rhel centos fedora", "sudo dnf install -y passt", "sudo dnf install -y shadow-utils"),
        ("arch", "", "sudo pacman -S --needed passt", "sudo pacman -S --needed shadow"),
        ("alpine", "", "doas apk add passt", "doas apk add shadow-uidmap"),
        ("opensuse-leap", "suse opensuse", "sudo zypper install -y passt", "sudo zypper install -y shadow"),
        ("nixos", "", "install the package `passt`", "install the package `uidmap`"),
    ];
    for (id, like, pasta, ids) in cases {
        let on = |change: fn(&mut Machine)| {
            wrong(of_user(), |m| {
                m.distribution = distribution(id, like);
                change(m);
            })
        };
        let found = on(|m| uplink(m).pasta = None);
        assert_eq!(found.mend.as_deref(), Some(pasta), "{id}");
        let found = on(|m| identities(m).lacking = words("newuidmap"));
        assert_eq!(found.mend.as_deref(), Some(ids), "{id}");
    }
    let found = wrong(of_root(), |m| {
        m.distribution = distribution("alpine", "");
        groups(m).version = GroupVersion::None;
    });
    assert_eq!(found.mend.as_deref(), Some("rc-update add cgroups && rc-service cgroups start"));
    let found = wrong(of_root(), |m| {
        m.distribution = distribution("fedora", "");
        m.kernel.release = "5.11.0".into();
    });
    assert_eq!(found.mend.as_deref(), Some("dnf upgrade -y --refresh kernel && reboot"));
}

#[test]
fn a_refusal_is_an_error_with_the_command() {
    let mut machine = of_root();
    machine.disk.free_bytes = 0;
    uplink(&mut machine).pasta = None;
    let failure = refusal(&findings(&machine)).expect("the disk is full");
    let expected = "error: only 0B and 1000000 files free for /var/lib/stack\nhint: Run `stack system prune --all`. `stack doctor` tells more.\n";
    assert_eq!(failure.render(), expected);
}
