//! Namespaces: own, shared, the host's.

use super::harness::{Fixture, sh};
use crate::privileged;
use stack_runtime::launch::JoinPids;
use stack_runtime::spec::{ContainerSpec, NamespaceMode, NetworkMode};
use std::fs;
use std::os::unix::fs::MetadataExt;

fn own(name: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_string_lossy().into_owned()
}

async fn inside(fixture: &Fixture, wanted: ContainerSpec, name: &str) -> String {
    let script = format!("readlink /proc/self/ns/{name}");
    fixture.run(ContainerSpec { args: sh(&script).args, ..wanted }).await.1.trim().to_owned()
}

privileged!(every_namespace_is_new_by_default, fixture, {
    for name in ["pid", "mnt", "uts", "ipc", "net", "cgroup"] {
        assert_ne!(inside(fixture, ContainerSpec::default(), name).await, own(name), "{name}");
    }
    assert_eq!(inside(fixture, ContainerSpec::default(), "user").await, own("user"));
});

privileged!(the_hosts_can_be_kept, fixture, {
    let host = || ContainerSpec {
        network: NetworkMode::Host,
        pid_mode: NamespaceMode::Host,
        ipc_mode: NamespaceMode::Host,
        uts_host: true,
        ..ContainerSpec::default()
    };
    for name in ["pid", "uts", "ipc", "net"] {
        assert_eq!(inside(fixture, host(), name).await, own(name), "{name}");
    }
});

privileged!(the_launchers_network_is_its_own_and_can_be_inherited, fixture, {
    let launcher = fixture.launcher.netns().unwrap();
    let inode = fs::File::from(launcher).metadata().unwrap().ino();
    assert_ne!(format!("net:[{inode}]"), own("net"));
    let wanted = ContainerSpec { network: NetworkMode::Inherit, ..ContainerSpec::default() };
    assert_eq!(inside(fixture, wanted, "net").await, format!("net:[{inode}]"));
});

privileged!(loopback_is_up_and_low_ports_are_free_to_use, fixture, {
    let wanted = ContainerSpec {
        user: "web".into(),
        ..sh("ip addr show lo; cat /proc/sys/net/ipv4/ip_unprivileged_port_start")
    };
    let (_, output) = fixture.run(wanted).await;
    assert!(output.contains("127.0.0.1/8") && output.contains("LOOPBACK,UP"), "{output}");
    assert!(output.ends_with("\n0\n"), "{output}");
});

privileged!(the_network_of_the_creation_is_the_containers, fixture, {
    let container = fixture.create(fixture.request(sh("readlink /proc/self/ns/net"))).await.unwrap();
    let inode = fs::File::from(container.created.netns.try_clone().unwrap()).metadata().unwrap().ino();
    fixture.start(&container).await.unwrap();
    container.exit().await;
    assert_eq!(container.output(), format!("net:[{inode}]\n"));
});

privileged!(host_names_are_set, fixture, {
    let (_, output) = fixture.sh("hostname").await;
    assert_eq!(output.trim().len(), 12);
    let wanted = ContainerSpec {
        hostname: Some("web".into()),
        domainname: Some("example.org".into()),
        ..sh("hostname; cat /proc/sys/kernel/domainname; echo $HOSTNAME")
    };
    assert_eq!(fixture.run(wanted).await.1, "web\nexample.org\nweb\n");
});

privileged!(another_containers_namespaces_are_joined, fixture, {
    let donor = fixture
        .up(ContainerSpec {
            ipc_mode: NamespaceMode::Shareable,
            ..sh("echo shared > /dev/shm/note; echo up; sleep 1000")
        })
        .await;
    donor.wait_for_output("up").await;
    let name = "donor".to_owned();
    let joiner = ContainerSpec {
        network: NetworkMode::Container(name.clone()),
        pid_mode: NamespaceMode::Container(name.clone()),
        ipc_mode: NamespaceMode::Container(name),
        ..sh(
            "for n in net pid ipc; do readlink /proc/self/ns/$n; done; cat /dev/shm/note; ps | grep -c 'sleep 1000'",
        )
    };
    let mut request = fixture.request(joiner);
    let pid = Some(donor.created.pid);
    request.join = JoinPids { network: pid, pid, ipc: pid };
    let (_, output) = fixture.run_request(request).await;
    let expected: String = ["net", "pid", "ipc"]
        .iter()
        .map(|name| {
            fs::read_link(format!("/proc/{}/ns/{name}", donor.created.pid)).unwrap().display().to_string()
                + "\n"
        })
        .collect();
    assert!(output.starts_with(&expected), "{output} {expected}");
    assert!(output.contains("shared\n"), "{output}");
    let orphan = ContainerSpec { network: NetworkMode::Container("gone".into()), ..sh("true") };
    let error = fixture.create(fixture.request(orphan)).await.err().expect("it is refused");
    assert!(error.reason.contains("cannot join network of a non running container: gone"), "{error}");
    donor.kill(9);
    donor.exit().await;
});

privileged!(sysctls_of_its_own_namespaces_only, fixture, {
    let mut wanted = sh("cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax");
    wanted.sysctls.insert("net.core.somaxconn".into(), "777".into());
    wanted.sysctls.insert("kernel.msgmax".into(), "4096".into());
    assert_eq!(fixture.run(wanted).await.1, "777\n4096\n");
    let mut wrong = sh("true");
    wrong.sysctls.insert("kernel.panic".into(), "1".into());
    let error = fixture.create(fixture.request(wrong)).await.err().expect("it is refused");
    assert_eq!(error.reason, "sysctl \"kernel.panic\" is not in a separate kernel namespace");
});
