//! `stack doctor` on this machine, and what it keeps from being made.

use crate::common::{Ran, World, skip};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The finding of one check.
#[track_caller]
fn finding(ran: &Ran, check: &str) -> Value {
    let all = ran.json();
    let found = all.as_array().and_then(|all| all.iter().find(|finding| finding["Check"] == check));
    found.unwrap_or_else(|| panic!("no finding of {check} in {ran}")).clone()
}

#[track_caller]
fn assert_state(ran: &Ran, check: &str, state: &str) {
    assert_eq!(finding(ran, check)["State"], state, "{check} in {ran}");
}

/// Whatever it tries, it leaves nothing, and needs no home.
fn listing(directory: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

#[test]
fn a_machine_that_runs_the_tests_lacks_nothing_that_is_needed() {
    World::empty().run(|world| {
        let before = listing(&world.home);
        let ran = world.stack(&["doctor", "--format", "json"]).ok();
        for needed in ["kernel", "namespaces", "overlayfs", "seccomp", "network", "nftables", "home"] {
            assert_ne!(finding(&ran, needed)["State"], "missing", "{ran}");
        }
        assert_state(&ran, "network", "ok");
        assert_eq!(listing(&world.home), before);
        let text = world.stack(&["doctor"]).ok();
        assert!(text.stdout.contains("ok       kernel           Linux "), "{text}");
        world.stack(&["doctor", "--format", "yaml"]).code(1);
    });
}

/// What they have is enough; each thing that is not had is a warning with its command.
#[test]
fn an_ordinary_user_is_told_what_they_do_not_have() {
    World::empty().as_ordinary_user().run(|world| {
        if !nix::unistd::geteuid().is_root() {
            return skip("on a machine that is made for users they have everything");
        }
        let before = listing(&world.home);
        let ran = world.stack(&["doctor", "--format", "json"]).ok();
        assert_state(&ran, "user namespaces", "ok");
        let overlay = finding(&ran, "overlayfs");
        assert_eq!(overlay["Text"], "mounts in a user namespace (userxattr)", "{ran}");
        assert_state(&ran, "network", "ok");
        assert_state(&ran, "control groups", "warning");
        let ids = finding(&ran, "subordinate ids");
        let name = nix::unistd::User::from_uid(1000.into()).unwrap().map_or("1000".into(), |user| user.name);
        let ranges = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
        let has_ids = ranges.lines().any(|line| line.starts_with(&format!("{name}:")));
        assert_eq!(ids["State"], if has_ids { "ok" } else { "warning" }, "{ran}");
        assert_eq!(ids["Mend"].is_null(), has_ids, "{ran}");
        assert_eq!(listing(&world.home), before);
    });
}

#[test]
fn who_may_not_make_user_namespaces_is_told_so() {
    World::empty().run(|world| {
        let project = world.project("nobody", &[]);
        let ran = project.as_nobody(&["doctor", "--format", "json"]).code(1);
        assert_state(&ran, "user namespaces", "missing");
    });
}

#[test]
fn a_program_that_is_not_there_is_a_warning() {
    World::empty().run(|world| {
        let ran = world.stack_in(&world.root, &[("PATH", "/nowhere")], &["doctor", "--format", "json"]).ok();
        assert_state(&ran, "pasta", "warning");
    });
}

/// The error, with what mends it; the home is as it was.
#[track_caller]
fn assert_refused(world: &World, home: &Path, why: &str, mend: &str) {
    let compose =
        "services: { web: { image: 'busybox:1', volumes: ['data:/data'] } }\nvolumes: { data: {} }\n";
    let project = world.project("refused", &[("compose.yaml", compose)]);
    let env = [("STACK_HOME", home.to_str().unwrap())];
    let before = listing(home);
    for args in [&["up", "-d"][..], &["create"], &["run", "--rm", "web"]] {
        let ran = project.stack_with(&env, args).code(1);
        assert!(
            ran.stderr.starts_with("error: ") && ran.stderr.contains(why),
            "`{why}` is missing from {ran}"
        );
        assert!(ran.stderr.contains(&format!("hint: Run `{mend}")), "`{mend}` is missing from {ran}");
    }
    assert_eq!(listing(home), before, "something was made");
    let ran = project.stack_with(&env, &["doctor"]).code(1);
    assert!(ran.stdout.lines().any(|line| line.starts_with("missing") && line.contains(why)), "{ran}");
}

#[test]
fn a_full_disk_is_said_before_anything_is_made() {
    World::empty().run(|world| {
        if !nix::unistd::geteuid().is_root() {
            return skip("only root mounts a small disk");
        }
        let home = mounted(world, "small", "tmpfs", "size=1m");
        assert_refused(world, &home, "free for", "stack system prune --all");
        umount2(&home, MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn a_file_system_without_layers_is_said_before_anything_is_made() {
    World::empty().run(|world| {
        if !nix::unistd::geteuid().is_root() {
            return skip("only root mounts such a file system");
        }
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir(world.root.join(name)).unwrap();
        }
        let root = world.root.display();
        let options = format!("lowerdir={root}/lower,upperdir={root}/upper,workdir={root}/work");
        let home = mounted(world, "layered", "overlay", &options);
        assert_refused(world, &home, "is on overlay", "export STACK_HOME=");
        umount2(&home, MntFlags::MNT_DETACH).unwrap();
    });
}

/// In this world's own mount namespace.
fn mounted(world: &World, name: &str, kind: &str, options: &str) -> PathBuf {
    let place = world.root.join(name);
    std::fs::create_dir(&place).unwrap();
    mount(Some(kind), &place, Some(kind), MsFlags::empty(), Some(options)).expect("root may mount");
    place
}
