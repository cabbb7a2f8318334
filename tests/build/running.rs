//! RUN and its mounts.

use crate::bed::{Bed, Case};
use stack::build::{BuildRequest, Network, Secret};

pub(crate) const ALL: &[(&str, Case)] = &[
    ("a_layer_has_only_what_changed", a_layer_has_only_what_changed),
    ("removed_files_are_gone", removed_files_are_gone),
    ("environment_user_and_directory", environment_user_and_directory),
    ("heredocs_run", heredocs_run),
    ("cache_mounts_stay_outside", cache_mounts_stay_outside),
    ("bind_mounts_are_read_and_thrown_away", bind_mounts_are_read_and_thrown_away),
    ("secrets_leave_no_trace", secrets_leave_no_trace),
    ("tmpfs_mounts", tmpfs_mounts),
    ("background_processes_end", background_processes_end),
    ("hosts_and_resolver_are_given", hosts_and_resolver_are_given),
    ("the_default_network_has_loopback", the_default_network_has_loopback),
    ("run_chooses_its_network_and_no_privileges", run_chooses_its_network_and_no_privileges),
    ("parallel_stages", parallel_stages),
    ("other_shells", other_shells),
    ("limits_hold_in_run", limits_hold_in_run),
    ("filtered_stages_take_nothing_from_the_cache", filtered_stages_take_nothing_from_the_cache),
    ("agents_are_forwarded", agents_are_forwarded),
];

fn a_layer_has_only_what_changed(bed: &Bed) {
    let built = bed.build("FROM busybox:1\nRUN mkdir /made && echo x > /made/f");
    assert_eq!(bed.top_layer(&built), ["made", "made/f"]);
}

fn removed_files_are_gone(bed: &Bed) {
    let built = bed.build("FROM busybox:1\nRUN echo x > /x; mkdir /d; echo y > /d/y\nRUN rm -r /x /d\nRUN test ! -e /x && test ! -e /d && mkdir /d && ls /d > /list");
    assert_eq!(bed.text(&built, "list"), "");
}

fn environment_user_and_directory(bed: &Bed) {
    let text = "FROM busybox:1\nENV FROM_IMAGE=i\nARG FROM_ARG=a\nARG UNSET\nUSER 7:8\nWORKDIR /tmp/w\n\
        RUN echo \"$FROM_IMAGE $FROM_ARG ${UNSET-unset} $http_proxy\" > env && id -u > id && id -g >> id && pwd > pwd && hostname > host";
    let mut request = bed.request(text);
    request.args.insert("HTTP_PROXY".into(), Some("http://proxy".into()));
    let built = bed.build_request(request);
    assert_eq!(bed.text(&built, "tmp/w/env"), "i a unset http://proxy\n");
    assert_eq!(bed.text(&built, "tmp/w/id"), "7\n8\n");
    assert_eq!(bed.text(&built, "tmp/w/pwd"), "/tmp/w\n");
    assert_eq!(bed.text(&built, "tmp/w/host"), "buildkitsandbox\n");
    // Proxies are in no key and no image.
    assert_eq!(bed.build(text).counts(), (2, 2));
    let document = serde_json::to_string(&bed.image(&built).document).expect("json");
    assert!(!document.contains("http://proxy"));
}

fn heredocs_run(bed: &Bed) {
    let text = "FROM busybox:1\nRUN <<EOF\nfalse\necho $HOSTNAME > /one\nEOF\nRUN cat <<A > /two && cat <<B >> /two\n1\nA\n2\nB\nRUN <<X\n#!/bin/busybox cat\n3\nX\n";
    let built = bed.build(text);
    assert_eq!(bed.text(&built, "one"), "buildkitsandbox\n");
    assert_eq!(bed.text(&built, "two"), "1\n2\n");
    assert!(built.output().contains(&"3"), "{:?}", built.output());
}

fn cache_mounts_stay_outside(bed: &Bed) {
    let text = |n: u32| {
        format!(
            "FROM busybox:1\nRUN --mount=type=cache,target=/var/cache/x echo {n} >> /var/cache/x/list && cp /var/cache/x/list /list"
        )
    };
    bed.build(&text(1)).success();
    let second = bed.build(&text(2));
    assert_eq!(bed.text(&second, "list"), "1\n2\n");
    assert_eq!(bed.top_layer(&second), ["list"]);
    let seeded = bed.build("FROM busybox:1 AS seed\nRUN mkdir /s && echo seed > /s/f\nFROM busybox:1\nRUN --mount=type=cache,target=/c,from=seed,source=/s cat /c/f > /f");
    assert_eq!(bed.text(&seeded, "f"), "seed\n");
    let owned = bed.build(
        "FROM busybox:1\nRUN --mount=type=cache,target=/c,uid=5,gid=6,mode=0700 stat -c '%u %g %a' /c > /f",
    );
    assert_eq!(bed.text(&owned, "f"), "5 6 700\n");
}

fn bind_mounts_are_read_and_thrown_away(bed: &Bed) {
    bed.write("src/a", "a");
    bed.write("ignored", "i");
    bed.write(".dockerignore", "ignored");
    let text = "FROM busybox:1 AS other\nRUN mkdir -p /o/p && echo o > /o/p/f\nFROM busybox:1\nWORKDIR /w\n\
        RUN --mount=target=/ctx --mount=from=other,source=/o/p,target=rel --mount=source=src/a,target=/one,rw \
        cat /ctx/src/a rel/f > /out; test ! -e /ctx/ignored && echo hidden >> /out; touch /ctx/x 2>/dev/null || echo ro >> /out; echo changed > /one && cat /one >> /out";
    let built = bed.build(text);
    assert_eq!(bed.text(&built, "out"), "ao\nhidden\nro\nchanged\n");
    assert_eq!(bed.top_layer(&built), ["out"]);
    assert_eq!(std::fs::read_to_string(bed.context.join("src/a")).expect("there"), "a");
    assert_eq!(bed.build(text).counts(), (3, 3));
    bed.write("src/a", "b");
    let changed = bed.build(text);
    assert_eq!(changed.counts(), (3, 2));
}

fn secrets_leave_no_trace(bed: &Bed) {
    const SECRET: &str = "s3cr3t-value";
    let text = "FROM busybox:1\nRUN --mount=type=secret,id=token --mount=type=secret,id=other,env=OTHER \
        stat -c %a /run/secrets/token > /mode && cut -c1-2 /run/secrets/token > /part && test \"$OTHER\" = x && test ! -e /run/secrets/other";
    let request = |value: &str| {
        let mut request = bed.request(text);
        let file = bed.directory.path().join("token");
        std::fs::write(&file, value).expect("written");
        request.secrets.insert("token".into(), Secret::File(file));
        request.secrets.insert("other".into(), Secret::Bytes(b"x".to_vec()));
        request
    };
    let built = bed.build_request(request(SECRET));
    assert_eq!(bed.text(&built, "part"), "s3\n");
    assert_eq!(bed.text(&built, "mode"), "400\n");
    assert_eq!(bed.top_layer(&built), ["mode", "part"]);
    std::fs::remove_file(bed.directory.path().join("token")).expect("removed");
    let found = std::process::Command::new("grep")
        .args(["-r", SECRET])
        .arg(bed.directory.path())
        .output()
        .expect("grep");
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    // Another value is no other key.
    assert_eq!(bed.build_request(request("another")).counts(), (1, 1));
    let missing = bed.build("FROM busybox:1\nRUN --mount=type=secret,id=none,required=true true").failure();
    assert!(missing.contains("secret none: not found"), "{missing}");
    bed.build("FROM busybox:1\nRUN --mount=type=secret,id=none test ! -e /run/secrets/none").success();
}

fn tmpfs_mounts(bed: &Bed) {
    let built = bed.build("FROM busybox:1\nRUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/x && grep ' /t tmpfs' /proc/mounts | grep -o size=1024k > /size");
    assert_eq!(bed.text(&built, "size"), "size=1024k\n");
    assert_eq!(bed.top_layer(&built), ["size"]);
}

fn background_processes_end(bed: &Bed) {
    let built = bed.build("FROM busybox:1\nRUN sleep 1000 & echo gone > /x");
    assert_eq!(bed.text(&built, "x"), "gone\n");
}

fn hosts_and_resolver_are_given(bed: &Bed) {
    let mut request =
        bed.request("FROM busybox:1\nRUN cat /etc/hosts > /seen && read x < /dev/stdin || echo eof >> /seen");
    request.extra_hosts = vec![("db".into(), "10.1.2.3".into())];
    let built = bed.build_request(request);
    let seen = bed.text(&built, "seen");
    assert!(
        seen.contains("10.1.2.3\tdb") && seen.contains("buildkitsandbox") && seen.ends_with("eof\n"),
        "{seen}"
    );
    assert!(
        !bed.top_layer(&built).iter().any(|name| name.starts_with("etc/")),
        "{:?}",
        bed.top_layer(&built)
    );
}

fn run_chooses_its_network_and_no_privileges(bed: &Bed) {
    let built = bed.build(
        "FROM busybox:1\nRUN --network=none readlink /proc/self/ns/net > /none; ip -o link > /links\n\
         RUN --network=host readlink /proc/self/ns/net > /host\n",
    );
    let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace").display().to_string();
    assert_eq!(bed.text(&built, "host").trim(), own);
    assert_ne!(bed.text(&built, "none").trim(), own);
    let links = bed.text(&built, "links");
    assert!(links.lines().count() == 1 && links.contains("lo"), "{links}");
    let refused = bed.build("FROM busybox:1\nRUN --security=insecure true\n").failure();
    assert!(refused.contains("security.insecure is not allowed") && refused.contains(":2:1"), "{refused}");
}

fn the_default_network_has_loopback(bed: &Bed) {
    let request = BuildRequest { network: Network::Default, ..bed.request("FROM busybox:1\nRUN ip addr show lo | grep -o 127.0.0.1 | head -n1 > /lo && cat /etc/resolv.conf > /resolv") };
    let built = bed.build_request(request);
    assert_eq!(bed.text(&built, "lo"), "127.0.0.1\n");
}

fn parallel_stages(bed: &Bed) {
    // Each waits for the other one to begin: only stages that run together can end.
    let meet = |own: &str, other: &str| {
        format!(
            "RUN --mount=type=cache,target=/meet touch /meet/{own}; n=0; until test -e /meet/{other}; do n=$((n+1)); test $n -lt 3000 || exit 1; usleep 10000; done; echo {own} > /{own}\n"
        )
    };
    let text = format!(
        "FROM busybox:1 AS a\n{}FROM busybox:1 AS b\n{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        meet("a", "b"),
        meet("b", "a")
    );
    let built = bed.build(&text);
    assert_eq!((bed.text(&built, "a"), bed.text(&built, "b")), ("a\n".into(), "b\n".into()));
}

fn other_shells(bed: &Bed) {
    let built = bed.build("FROM busybox:1\nSHELL [\"/bin/busybox\", \"echo\", \"said\"]\nRUN hello\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN [\"/bin/sh\", \"-c\", \"echo exec > /x\"]\nCMD run");
    assert!(built.output().contains(&"said hello"), "{:?}", built.output());
    assert_eq!(bed.image(&built).config.cmd.as_deref().expect("set"), ["/bin/sh", "-ec", "run"]);
    assert_eq!(bed.text(&built, "x"), "exec\n");
}

fn limits_hold_in_run(bed: &Bed) {
    let text = "FROM busybox:1\nRUN ulimit -Sn > /limits; ulimit -Hn >> /limits; df -k /dev/shm | awk 'END {print $2}' >> /limits";
    let limited = |soft| {
        let mut request = bed.request(text);
        request.ulimits.insert("nofile".into(), (soft, 300));
        request.shm_size = Some(3 << 20);
        bed.build_request(request)
    };
    let built = limited(200);
    assert_eq!(bed.text(&built, "limits"), "200\n300\n3072\n");
    assert_eq!(limited(200).counts(), (1, 1));
    // Another limit may give another result.
    assert_eq!(limited(201).counts(), (1, 0));
}

fn filtered_stages_take_nothing_from_the_cache(bed: &Bed) {
    let text = "FROM busybox:1 AS one\nRUN --mount=type=cache,target=/c echo x >> /c/f && cp /c/f /one\n\
        FROM busybox:1 AS two\nRUN echo two > /two\n\
        FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /";
    bed.build(text).success();
    let filtered = |filter: &[&str]| {
        let mut request = bed.request(text);
        request.no_cache_filter = filter.iter().map(|name| (*name).to_owned()).collect();
        bed.build_request(request)
    };
    assert_eq!(filtered(&["other"]).counts(), (4, 4));
    let built = filtered(&["ONE"]);
    // It gave the same file, so what copies it is found.
    assert_eq!(built.counts(), (4, 3));
    assert_eq!(bed.text(&built, "one"), "x\n");
    assert_eq!(filtered(&["one", "two"]).counts(), (4, 2));
}

fn agents_are_forwarded(bed: &Bed) {
    let agent = bed.directory.path().join("agent");
    let _listening = std::os::unix::net::UnixListener::bind(&agent).expect("listening");
    let text = "FROM busybox:1\nRUN --mount=type=ssh --mount=type=ssh,id=second,target=/s/second,uid=5,gid=6,mode=0640 \
        echo $SSH_AUTH_SOCK > /seen; stat -c '%F %a %u %g' $SSH_AUTH_SOCK /s/second >> /seen";
    let mut request = bed.request(text);
    request.ssh.insert("default".into(), agent.clone());
    request.ssh.insert("second".into(), agent.clone());
    let built = bed.build_request(request);
    assert_eq!(bed.text(&built, "seen"), "/run/buildkit/ssh_agent.0\nsocket 600 0 0\nsocket 640 5 6\n");
    assert_eq!(bed.top_layer(&built), ["seen"]);
    // Without one the variable is there and the socket is not, unless it is required.
    let without = bed
        .build("FROM busybox:1\nRUN --mount=type=ssh echo $SSH_AUTH_SOCK > /seen; test ! -e $SSH_AUTH_SOCK");
    assert_eq!(bed.text(&without, "seen"), "/run/buildkit/ssh_agent.0\n");
    let required = bed.build("FROM busybox:1\nRUN --mount=type=ssh,required true").failure();
    assert!(required.contains("unset ssh forward key default") && required.contains(":2:1"), "{required}");
}
