//! The harness itself: what a world is, and that it notices what is left.

use crate::common::World;

#[test]
fn a_world_has_a_shared_root_and_a_network_of_its_own() {
    World::empty().run(|world| {
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        assert!(root.contains("shared:"), "{root}");
        let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert_eq!(devices.matches(':').count(), 1, "{devices}");
        assert!(world.leaks().is_empty());
    });
}

#[test]
fn a_process_that_names_the_home_is_a_leak() {
    World::empty().run(|world| {
        let mut child =
            std::process::Command::new("sleep").arg("60").env("STACK_HOME", &world.home).spawn().unwrap();
        // The kernel shows a program's environment a moment after its start was reported.
        let is_process = |line: &String| line.starts_with("process");
        crate::common::eventually("the process is found", || {
            world.leaks().iter().any(is_process).then_some(())
        });
        child.kill().unwrap();
        child.wait().unwrap();
    });
}
