//! `stack cp` and `stack export`: files in and out of containers, running and stopped.

use crate::common::{Project, World};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

const COMPOSE: &str = r#"
services:
  web: { image: "busybox:1", command: [sleep, "1000"], stop_grace_period: 0s, scale: 2, volumes: ["data:/data", "./bound:/bound"] }
  closed: { image: "busybox:1", command: [sleep, "1000"], stop_grace_period: 0s, read_only: true, user: "7:8", volumes: ["data:/data:ro"], tmpfs: [/memory] }
volumes: { data: {} }
"#;

fn with(key: &'static str, test: impl FnOnce(&Project<'_>) + Send + 'static) {
    World::with_busybox().run(move |world| {
        let project =
            world.project(key, &[("compose.yaml", COMPOSE), ("tree/file", "hi"), ("tree/sub/inner", "ho")]);
        symlink("file", project.directory.join("tree/link")).unwrap();
        symlink("tree", project.directory.join("way")).unwrap();
        test(&project);
    });
}

fn sh(project: &Project<'_>, index: &str, script: &str) -> String {
    project.stack(&["exec", "-T", "--index", index, "web", "sh", "-c", script]).ok().text().to_owned()
}

fn read(project: &Project<'_>, name: &str) -> String {
    std::fs::read_to_string(project.directory.join(name)).unwrap()
}

#[test]
fn cp_goes_both_ways_as_dockers_does() {
    with("cp", |project| {
        project.stack(&["up", "-d"]).ok();
        project.stack(&["cp", "tree", "web:/tmp"]).ok();
        for index in ["1", "2"] {
            assert_eq!(sh(project, index, "cat /tmp/tree/sub/inner; readlink /tmp/tree/link"), "hofile");
        }
        project.stack(&["cp", "--index", "2", "tree/.", "web:/only"]).ok();
        assert_eq!(sh(project, "2", "ls /only"), "file\nlink\nsub");
        assert_eq!(sh(project, "1", "ls / | grep only; true"), "");
        project.stack(&["cp", "tree/link", "web:/as-link"]).ok();
        project.stack(&["cp", "-L", "tree/link", "web:/as-file"]).ok();
        assert_eq!(sh(project, "1", "readlink /as-link; test -L /as-file || cat /as-file"), "file\nhi");
        project.stack(&["cp", "web:/tmp/tree", "new"]).ok();
        project.stack(&["cp", "web:/tmp/tree", "new"]).ok();
        assert_eq!(
            (read(project, "new/sub/inner"), read(project, "new/tree/file")),
            ("ho".into(), "hi".into())
        );
        project.stack(&["cp", "web:/tmp/tree/file", "taken"]).ok();
        assert_eq!(read(project, "taken"), "hi");
        for (args, why) in [
            (["tree", "web:/etc/passwd"], "cannot copy a directory to a file"),
            (["tree/file", "web:/nowhere/"], "the destination directory must exist"),
            (["web:/nope", "."], "could not find the file /nope in container"),
            (["web:/a", "closed:/b"], "copying between services is not supported"),
            (["a", "b"], "unknown copy direction"),
            (["nope", "web:/"], "nope: no such file or directory"),
        ] {
            let ran = project.stack(&["cp", args[0], args[1]]).code(1);
            assert!(ran.stderr.contains("error: ") && ran.stderr.contains(why), "{why}: {ran}");
        }
        project.stack(&["cp", "nosuch:/a", "b"]).code(1).says("no such service: nosuch");
    });
}

#[test]
fn links_in_a_container_lead_nowhere_else() {
    with("cp-links", |project| {
        project.stack(&["up", "-d"]).ok();
        std::fs::create_dir_all(project.directory.join("outside")).unwrap();
        let outside = project.directory.join("outside").display().to_string();
        sh(project, "1", &format!("ln -s {outside} /trap; ln -s /etc /way; mkdir -p /made{outside}"));
        project.stack(&["cp", "--index", "1", "tree/file", "web:/way/copied"]).ok();
        assert_eq!(sh(project, "1", "cat /etc/copied"), "hi");
        project.stack(&["cp", "--index", "1", "tree/file", "web:/trap/x"]).code(1);
        assert!(!Path::new(&outside).join("x").exists());
        project.stack(&["cp", "web:/trap/../../etc/copied", "back"]).ok();
        assert_eq!(read(project, "back"), "hi");
    });
}

#[test]
fn a_stopped_container_is_copied_to_and_read_only_ones_refuse() {
    with("cp-stopped", |project| {
        project.stack(&["create"]).ok();
        for target in ["/tmp/x", "/data/x", "/bound/x"] {
            project.stack(&["cp", "tree/file", &format!("web:{target}")]).ok();
        }
        assert_eq!(read(project, "bound/x"), "hi");
        project.stack(&["cp", "web:/tmp/x", "out-x"]).ok();
        project.stack(&["cp", "web:/data/x", "out-data"]).ok();
        assert_eq!(read(project, "out-x") + &read(project, "out-data"), "hihi");
        project.stack(&["up", "-d"]).ok();
        assert_eq!(sh(project, "2", "cat /tmp/x /data/x /bound/x"), "hihihi");
        for state in ["running", "stopped"] {
            let refused = |target: &str| project.stack(&["cp", "tree/file", target]).code(1);
            refused("closed:/x").says("container rootfs is marked read-only");
            refused("closed:/data/y").says("mounted volume is marked read-only");
            if state == "running" {
                project.stack(&["cp", "tree/file", "closed:/memory/x"]).ok();
                project.stack(&["cp", "-a", "tree/file", "closed:/memory/own"]).ok();
                let owners = project
                    .stack(&["exec", "-T", "closed", "stat", "-c", "%u:%g", "/memory/x", "/memory/own"])
                    .ok();
                assert_eq!(owners.text(), "0:0\n7:8");
                project.stack(&["stop", "closed"]).ok();
            }
        }
    });
}

#[test]
fn archives_come_and_go_by_the_standard_streams() {
    with("cp-tar", |project| {
        project.stack(&["up", "-d"]).ok();
        let script = "tar cf in.tar tree";
        assert!(
            std::process::Command::new("sh")
                .args(["-c", script])
                .current_dir(&project.directory)
                .status()
                .unwrap()
                .success()
        );
        project.reading("in.tar", &["cp", "-", "web:/tmp"]).ok();
        assert_eq!(sh(project, "2", "cat /tmp/tree/file"), "hi");
        project.reading("in.tar", &["cp", "-", "web:/nowhere"]).code(1);
        let ran = project.stack(&["cp", "web:/tmp/tree/sub", "-"]).ok();
        let mut archive = tar::Archive::new(ran.stdout.as_bytes());
        let names: Vec<String> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["sub/", "sub/inner"]);
    });
}

#[test]
fn a_containers_own_files_are_exported() {
    with("export", |project| {
        project.stack(&["up", "-d"]).ok();
        sh(project, "1", "echo mine > /own; rm /bin/vi; echo kept > /data/volume");
        project.stack(&["export", "-o", "all.tar", "web"]).ok();
        let file = project.directory.join("all.tar");
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        let mut archive = tar::Archive::new(std::fs::File::open(file).unwrap());
        let names: Vec<String> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        let has = |name: &str| names.iter().any(|found| found == name);
        assert!(has("own") && has("bin/busybox") && has("data/"), "{names:?}");
        assert!(
            !has("bin/vi") && !has("data/volume") && !names.iter().any(|name| name.starts_with("proc/1")),
            "{names:?}"
        );
        project.stack(&["stop", "web"]).ok();
        project.stack(&["export", "web"]).code(1).says("service \"web\" is not running");
    });
}

#[test]
fn an_image_is_made_of_what_a_container_changed() {
    with("commit", |project| {
        project.stack(&["up", "-d"]).ok();
        sh(project, "1", "echo mine > /own; rm /bin/vi; echo kept > /data/volume");
        let changes = ["-c", "ENV ADDED=yes", "-c", "CMD cat /own", "-c", "WORKDIR /tmp"];
        let head = ["commit", "-a", "Ada", "-m", "a note"];
        let made = project.stack(&[&head[..], &changes, &["web", "made:1"]].concat()).ok();
        assert_eq!(project.ps_field("web", "State"), "running", "it is thawed");
        let image = project.world.stack(&["image", "inspect", "made:1"]).ok();
        assert!(image.stdout.contains(made.text()) && image.stdout.contains("ADDED=yes"), "{image}");
        project.write("made.yaml", "services: { one: { image: 'made:1' } }");
        let run = |script: &str| {
            project.stack(&["-f", "made.yaml", "run", "--rm", "-T", "one", "sh", "-c", script]).ok()
        };
        assert_eq!(
            run("cat /own; echo $ADDED; pwd; ls /bin/vi /data/volume; true").text(),
            "mine\nyes\n/tmp"
        );
        assert_eq!(project.stack(&["-f", "made.yaml", "run", "--rm", "-T", "one"]).ok().text(), "mine");
        project.stack(&["commit", "-c", "RUN true", "web"]).code(1).says("it would make a layer");
        project.stack(&["stop", "web"]).ok();
        project.stack(&["commit", "web"]).code(1).says("service \"web\" is not running");
    });
}
