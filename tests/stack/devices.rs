//! Devices by the Container Device Interface, and GPUs by what they can do. The vendor's files are made up, and the
//! devices are harmless ones of the host.

use crate::common::{Project, World};
use std::process::Command;

const CDI: &str = r#"
cdiVersion: 0.6.0
kind: nvidia.com/gpu
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  mounts: [{ hostPath: LIBRARY, containerPath: /usr/lib/libcuda.so.1, options: [ro, nosuid, nodev, bind] }]
  hooks:
  - hookName: createContainer
    path: /bin/sh
    args: [sh, -c, 'state=$(cat); bundle=$(echo "$state" | sed "s/.*\"bundle\":\"\([^\"]*\)\".*/\1/"); root=$(sed "s/.*\"path\":\"\([^\"]*root\)\".*/\1/" "$bundle/config.json"); echo hooked > "$root/hooked"']
devices:
- name: "0"
  containerEdits: { deviceNodes: [{ path: /dev/nvidia0, hostPath: /dev/loop-control, fileMode: 0o640, uid: 7 }] }
- name: "1"
  containerEdits: { deviceNodes: [{ path: /dev/nvidia1, hostPath: /dev/loop-control, permissions: w }] }
- name: all
  containerEdits: { deviceNodes: [{ path: /dev/nvidia0, hostPath: /dev/loop-control }, { path: /dev/nvidia1, hostPath: /dev/full }] }
"#;

/// `/etc` of this world alone, to be put away when it is dropped.
struct OwnEtc;

impl OwnEtc {
    fn new(world: &World) -> Self {
        let dir = |name: &str| {
            let dir = world.root.join(name);
            std::fs::create_dir_all(&dir).unwrap();
            dir.display().to_string()
        };
        let options = format!("lowerdir=/etc,upperdir={},workdir={}", dir("etc-upper"), dir("etc-work"));
        let mounted =
            Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options, "/etc"]).status();
        assert!(mounted.unwrap().success(), "an overlay on /etc");
        std::fs::create_dir_all("/etc/cdi").unwrap();
        Self
    }
}

impl Drop for OwnEtc {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", "/etc"]).status();
    }
}

fn sh(project: &Project<'_>, service: &str, script: &str) -> String {
    project.stack(&["exec", "-T", service, "sh", "-c", script]).ok().text().to_owned()
}

#[test]
fn gpus_come_by_every_spelling_with_all_they_need() {
    World::with_busybox().run(|world| {
        let _etc = OwnEtc::new(world);
        let library = world.root.join("library");
        std::fs::write(&library, "cuda").unwrap();
        std::fs::write("/etc/cdi/nvidia.yaml", CDI.replace("LIBRARY", &library.display().to_string())).unwrap();
        let spellings = [
            ("all", "gpus: all"),
            ("one", "gpus: [{ count: 1 }]"),
            ("second", "gpus: [{ driver: nvidia, device_ids: ['1'] }]"),
            ("reserved", "deploy: { resources: { reservations: { devices: [{ capabilities: [gpu], count: 1 }] } } }"),
            ("named", "devices: ['nvidia.com/gpu=0']"),
            ("driver", "deploy: { resources: { reservations: { devices: [{ driver: cdi, capabilities: [x], device_ids: ['nvidia.com/gpu=0'] }] } } }"),
        ];
        let services: String = spellings.iter().map(|(key, attribute)| {
            format!("  {key}: {{ image: 'busybox:1', command: [sleep, '1000'], stop_grace_period: 0s, {attribute} }}\n")
        }).collect();
        let project = world.project("gpus", &[("compose.yaml", &format!("services:\n{services}"))]);
        project.stack(&["up", "-d"]).ok();
        let nodes = |service: &str| sh(&project, service, "cd /dev; echo nvidia*");
        assert_eq!(nodes("all"), "nvidia0 nvidia1");
        assert_eq!(nodes("second"), "nvidia1");
        for service in ["one", "reserved", "named", "driver"] {
            assert_eq!(nodes(service), "nvidia0", "{service}");
            assert_eq!(sh(&project, service, "stat -c '%a %u' /dev/nvidia0"), "640 7");
        }
        for (service, _) in spellings {
            assert_eq!(sh(&project, service, "echo $NVIDIA_VISIBLE_DEVICES; cat /usr/lib/libcuda.so.1 /hooked"), "void\ncudahooked");
            assert!(sh(&project, service, "grep libcuda /proc/mounts").contains("ro,nosuid,nodev"));
        }
        // What the vendor allows, and no more.
        project.stack(&["exec", "-T", "second", "sh", "-c", ": < /dev/nvidia1"]).code(1).says("not permitted");
        project.stack(&["exec", "-T", "one", "sh", "-c", ": < /dev/nvidia0"]).ok();
    });
}

#[test]
fn a_device_that_is_not_there_is_said_before_anything_is_made() {
    World::with_busybox().run(|world| {
        let _etc = OwnEtc::new(world);
        let compose = "services:\n  other: { image: 'busybox:1', command: [sleep, '1000'] }\n  web:\n    image: busybox:1\n    gpus: all\n";
        let project = world.project("missing", &[("compose.yaml", compose)]);
        let ran = project.stack(&["up", "-d"]).code(1);
        assert!(ran.stderr.contains("error: could not select device driver \"\" with capabilities: [[gpu]]"), "{ran}");
        assert!(ran.stderr.contains("--> compose.yaml:5:"), "{ran}");
        assert!(ran.stderr.contains("nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"), "{ran}");
        assert!(project.ps().is_empty(), "nothing is made");
        std::fs::write("/etc/cdi/nvidia.json", r#"{"cdiVersion":"0.6.0","kind":"nvidia.com/gpu","devices":[{"name":"0","containerEdits":{"deviceNodes":[{"path":"/dev/nvidia0","hostPath":"/dev/null"}]}}]}"#).unwrap();
        let ran = project.stack(&["up", "-d"]).code(1);
        assert!(ran.stderr.contains("error: unresolvable CDI devices nvidia.com/gpu=all"), "{ran}");
        assert!(ran.stderr.contains("This machine has nvidia.com/gpu=0."), "{ran}");
        // A vendor's file that goes away later fails the start, in the same words.
        project.edit("compose.yaml", "gpus: all", "gpus: [{ count: 1 }]\n    command: [sleep, '1000']\n    stop_signal: SIGKILL");
        project.stack(&["up", "-d", "web"]).ok();
        project.stack(&["stop", "web"]).ok();
        std::fs::remove_file("/etc/cdi/nvidia.json").unwrap();
        project.stack(&["start", "web"]).code(1).says("could not select device driver");
    });
}
