//! Named volumes: kept, made anew, refused to go.

use crate::common::{Project, World};
use crate::fake::*;
use crate::plan::{done, fake, plan, shop, text, up};
use stack::plan::converge;
use stack::plan::intent::{Intent, Up};
use stack_schema::project::Project as Wanted;

/// The shop with a changed definition of its volume.
fn changed() -> Wanted {
    let mut project = shop().0;
    project.volumes["data"].labels.insert("kind".into(), "other".into());
    project
}

fn agreed() -> Intent {
    Intent::Up(Up { renew_volumes: ["shop_data".to_string()].into(), ..up() })
}

#[test]
fn a_changed_volume_is_kept_with_a_warning() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let plan = plan(&changed(), &fake, Intent::Up(up()));
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(plan.kept_volumes, ["shop_data"]);
    let warning = &plan.warnings[0].message;
    assert!(warning.contains("volume \"shop_data\" exists but doesn't match"), "{warning}");
}

#[test]
fn a_changed_volume_is_made_anew_when_agreed_to() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let expected = "\
stop db-1 (volume shop_data changed)
remove db-1 (volume shop_data changed)
remove volume shop_data (configuration changed)
create volume shop_data (replaced)
create db-1 (volume shop_data changed)
start db-1 (replaced)
";
    assert_eq!(text(&changed(), &fake, agreed()), expected);
    done(&changed(), &fake, agreed());
    assert!(plan(&changed(), &fake, agreed()).is_empty());
}

#[test]
fn a_changed_volume_that_others_use_stays() {
    let fake = fake();
    let both = |project: Shop| project.service("other", |s| named_volume(s, "data", "/data"));
    fake.offer("other", "1");
    fake.install("other");
    done(&both(shop()).0, &fake, Intent::Up(up()));
    let mut project = both(shop()).0;
    project.volumes["data"].labels.insert("kind".into(), "other".into());
    let only = Up { services: vec!["db".into()], renew_volumes: ["shop_data".to_string()].into(), ..up() };
    let findings = converge(&project, &fake.observed(), &Intent::Up(only)).expect_err("in use");
    assert!(findings[0].message.contains("volume is in use by shop-other-1"), "{findings:?}");
}

const FILE: &str = "services:\n  db: { image: 'busybox:1', command: [sleep, '1000'], stop_grace_period: 0s, \
    volumes: ['data:/data'] }\nvolumes:\n  data: { labels: { kind: first } }\n";

fn sh(project: &Project<'_>, script: &str) -> String {
    project.stack(&["exec", "-T", "db", "sh", "-c", script]).ok().text().to_owned()
}

#[test]
fn data_is_lost_only_when_the_user_says_so() {
    World::with_busybox().run(|world| {
        let project = world.project("renew", &[("compose.yaml", FILE)]);
        project.stack(&["up", "-d"]).ok();
        sh(&project, "echo precious > /data/file");
        project.edit("compose.yaml", "first", "second");
        // Nobody is there to answer.
        project.stack(&["up", "-d"]).ok().says("doesn't match the configuration").says("Running");
        assert_eq!(sh(&project, "cat /data/file"), "precious");
        project.stack(&["up", "-d", "--yes"]).ok();
        assert_eq!(sh(&project, "ls /data"), "");
        project.stack(&["up", "-d", "--yes"]).ok().says("Running");
    });
}

#[test]
fn a_volume_in_use_is_not_removed() {
    World::with_busybox().run(|world| {
        let project = world.project("owner", &[("compose.yaml", FILE)]);
        project.stack(&["up", "-d"]).ok();
        let name = format!("{}_data", project.name);
        let file = format!(
            "services:\n  guest: {{ image: 'busybox:1', command: [sleep, '1000'], stop_grace_period: 0s, volumes: ['data:/data'] }}\n\
             volumes:\n  data: {{ external: true, name: {name} }}\n"
        );
        let guest = world.project("guest", &[("compose.yaml", &file)]);
        guest.stack(&["create"]).ok();
        world.stack(&["volume", "rm", &name]).code(1).says("volume is in use");
        project.stack(&["down", "-v"]).ok().says("Resource is still in use");
        assert!(world.stack(&["volume", "ls", "-q"]).ok().stdout.contains(&name));
        guest.stack(&["down"]).ok();
        world.stack(&["volume", "rm", &name]).ok();
    });
}

/// `type: none`, `o: bind`: the host's directory itself, which `down -v` leaves alone.
#[test]
fn a_local_volume_may_be_a_directory_of_the_host() {
    World::with_busybox().run(|world| {
        let project = world.project("bound", &[("there/file", "text\n")]);
        let there = project.directory.join("there");
        let volume = |options: &str| {
            format!(
                "services: {{ web: {{ image: 'busybox:1', command: [sleep, '1000'], stop_signal: SIGKILL, volumes: ['data:/data'] }} }}\nvolumes:\n  data:\n    driver_opts: {{ type: none, o: '{options}', device: {} }}\n",
                there.display()
            )
        };
        project.write("compose.yaml", &volume("bind"));
        project.stack(&["up", "-d"]).ok();
        assert_eq!(project.stack(&["exec", "-T", "web", "cat", "/data/file"]).ok().text(), "text");
        project.stack(&["exec", "-T", "web", "sh", "-c", "echo made > /data/made"]).ok();
        assert_eq!(std::fs::read_to_string(there.join("made")).unwrap(), "made\n");
        project.stack(&["down", "-v"]).ok();
        assert!(there.join("made").exists(), "only the volume goes");

        project.write("compose.yaml", &volume("bind,ro,nodev"));
        project.stack(&["up", "-d"]).ok().says("the mount option \"nodev\" has no effect on a bind");
        project.stack(&["exec", "-T", "web", "touch", "/data/x"]).code(1).says("Read-only file system");
        project.stack(&["down", "-v"]).ok();

        // Made only when the container starts, as in Docker; the error names it.
        std::fs::remove_dir_all(&there).unwrap();
        let ran = project.stack(&["up", "-d"]).code(1);
        assert!(ran.stderr.contains("failed to mount local volume"), "{ran}");
        assert!(ran.stderr.contains(&format!("{}: no such file or directory", there.display())), "{ran}");
        project.stack(&["down", "-v"]).ok();
    });
}

#[test]
fn a_local_volume_may_be_a_file_system_of_its_own() {
    World::with_busybox().run(|world| {
        let service = "{ image: 'busybox:1', command: [sleep, '1000'], stop_signal: SIGKILL, volumes: ['data:/data'] }";
        let volume = "volumes:\n  data:\n    driver_opts: { type: tmpfs, device: tmpfs, o: 'size=2m,mode=0750,noexec' }\n";
        let project = world.project("memory", &[("compose.yaml", &format!("services: {{ web: {service} }}\n{volume}"))]);
        project.stack(&["up", "-d"]).ok();
        let mounts = project.stack(&["exec", "-T", "web", "grep", " /data ", "/proc/mounts"]).ok();
        let row: Vec<&str> = mounts.text().split(' ').collect();
        assert_eq!((row[0], row[1], row[2]), ("tmpfs", "/data", "tmpfs"), "{mounts}");
        for option in ["size=2048k", "mode=750", "noexec"] {
            assert!(row[3].split(',').any(|o| o == option), "{option} is missing: {mounts}");
        }
        project.stack(&["exec", "-T", "web", "dd", "if=/dev/zero", "of=/data/x", "bs=1M", "count=4"]).code(1);
        assert_eq!(std::fs::read_dir(world.home.join("volumes")).unwrap().flatten().filter(|e| e.path().join("_data/x").exists()).count(), 0);
        project.stack(&["down", "-v"]).ok();
    });
}

#[test]
fn volumes_that_cannot_be_made_are_refused_with_their_place() {
    World::with_busybox().run(|world| {
        let cases = [
            ("driver_opts: { foo: bar }", "volume `data`: invalid option: \"foo\""),
            ("driver_opts: { type: tmpfs }", "volume `data`: missing required option: \"device\""),
            ("driver_opts: { type: nfs, o: 'addr=10.0.0.1', device: ':/x' }", "volume `data`: file systems of type nfs are not mounted by stack"),
            ("driver: nosuch", "error looking up volume plugin nosuch: plugin \"nosuch\" not found"),
        ];
        for (attribute, why) in cases {
            let compose = format!("services: {{ web: {{ image: 'busybox:1', volumes: ['data:/data'] }} }}\nvolumes:\n  data:\n    {attribute}\n");
            let project = world.project("refused", &[("compose.yaml", &compose)]);
            let ran = project.stack(&["up", "-d"]).code(1);
            assert!(ran.stderr.contains(&format!("error: {why}")), "`{why}` is missing from {ran}");
            assert!(ran.stderr.contains("--> compose.yaml:4:"), "no place in {ran}");
            assert!(project.ps().is_empty(), "nothing is made");
        }
    });
}
