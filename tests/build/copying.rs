//! COPY and ADD.

use crate::bed::{Bed, Case};
use stack_runtime::snapshot;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

pub(crate) const ALL: &[(&str, Case)] = &[
    ("special_files_travel_as_what_they_are", special_files_travel_as_what_they_are),
    ("names_of_owners_are_the_stages", names_of_owners_are_the_stages),
    ("owners_and_modes", owners_and_modes),
    ("heredocs_are_files", heredocs_are_files),
    ("archives_are_unpacked", archives_are_unpacked),
    ("nothing_leads_out", nothing_leads_out),
    ("stages_keep_their_files", stages_keep_their_files),
    ("workdir_belongs_to_the_user", workdir_belongs_to_the_user),
    ("named_contexts", named_contexts),
    ("replacing_what_is_there", replacing_what_is_there),
    ("a_hundred_layers", a_hundred_layers),
    ("linked_layers_stay_when_the_base_changes", linked_layers_stay_when_the_base_changes),
];

fn owners_and_modes(bed: &Bed) {
    bed.write("a", "a");
    bed.write("d/x", "x");
    let text = "FROM busybox:1\nRUN echo 'app:x:7:8::/:/bin/sh' >> /etc/passwd; echo 'staff:x:9:' >> /etc/group\n\
        COPY a /plain\nCOPY --chown=app a /user\nCOPY --chown=app:staff d /tree\nCOPY --chown=3:4 --chmod=640 a /new/dir/\n\
        COPY --chown=nobody-here a /unknown\nCOPY --chmod=u=rwX,go= d /symbolic/";
    let built = bed.build(text);
    let owner = |path: &str| {
        let meta =
            bed.file(&built, path).unwrap_or_else(|| panic!("{path}")).symlink_metadata().expect("there");
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    assert_eq!(owner("plain"), (0, 0, 0o644));
    assert_eq!(owner("user"), (7, 8, 0o644));
    assert_eq!(owner("tree"), (7, 9, 0o755));
    assert_eq!(owner("tree/x"), (7, 9, 0o644));
    assert_eq!(owner("new/dir/a"), (3, 4, 0o640));
    assert_eq!(owner("new/dir"), (3, 4, 0o755));
    assert_eq!(owner("unknown"), (0, 0, 0o644));
    assert_eq!(owner("symbolic/x"), (0, 0, 0o600));
    assert_eq!(bed.build(text).counts(), (7, 7));
}

fn heredocs_are_files(bed: &Bed) {
    let text = "FROM busybox:1\nENV v=1\nCOPY <<EOF /etc/one\nv is $v\nEOF\nCOPY --chmod=755 <<\"two\" <<three /dir/\n$v\ntwo\n3\nthree\n";
    let built = bed.build(text);
    assert_eq!(bed.text(&built, "etc/one"), "v is 1\n");
    assert_eq!(bed.text(&built, "dir/two"), "$v\n");
    assert_eq!(bed.text(&built, "dir/three"), "3\n");
    assert_eq!(bed.file(&built, "dir/two").expect("there").metadata().expect("there").mode() & 0o777, 0o755);
}

fn archives_are_unpacked(bed: &Bed) {
    bed.write("in/sub/file", "content");
    let tar = |flags: &str, name: &str| {
        let made = Command::new("tar")
            .args(["--owner=5", "--group=6", flags])
            .arg(bed.context.join(name))
            .arg("-C")
            .arg(bed.context.join("in"))
            .arg("sub")
            .status();
        assert!(made.is_ok_and(|status| status.success()), "{name}");
    };
    tar("-cf", "plain.bin");
    tar("-czf", "packed.bin");
    bed.write("not.tar", "just text");
    let built = bed.build("FROM scratch\nADD plain.bin /plain\nADD --chown=1:2 packed.bin not.tar /packed/\nCOPY plain.bin /copied\nADD --unpack=false plain.bin /kept");
    let file = bed.file(&built, "plain/sub/file").expect("unpacked");
    assert_eq!((file.metadata().expect("there").uid(), file.metadata().expect("there").gid()), (5, 6));
    assert_eq!(bed.file(&built, "packed/sub/file").expect("unpacked").metadata().expect("there").uid(), 1);
    assert_eq!(bed.text(&built, "packed/not.tar"), "just text");
    assert!(bed.file(&built, "copied").expect("copied").is_file());
    assert!(bed.file(&built, "kept").expect("kept").is_file());
}

fn nothing_leads_out(bed: &Bed) {
    bed.write("file", "mine");
    let outside = bed.directory.path().join("outside");
    std::fs::write(&outside, "secret").expect("written");
    symlink(&outside, bed.context.join("out")).expect("linked");
    symlink("../outside", bed.context.join("up")).expect("linked");
    assert!(bed.build("FROM scratch\nCOPY out /x").failure().contains("not found"));
    assert!(bed.build("FROM scratch\nCOPY up /x").failure().contains("not found"));
    assert!(bed.build("FROM scratch\nCOPY ../outside /x").failure().contains("not found"));
    // Links of the image, absolute and climbing, stay in the image.
    let target = bed.directory.path().join("victim");
    std::fs::create_dir(&target).expect("made");
    let text = format!(
        "FROM busybox:1\nRUN ln -s {} /absolute; ln -s ../../../../../../../..{} /climbing\nCOPY file /absolute/a\nCOPY file /climbing/b\n",
        target.display(),
        target.display()
    );
    let built = bed.build(&text);
    let inside = target.strip_prefix("/").expect("absolute").display().to_string();
    assert_eq!(bed.text(&built, &format!("{inside}/a")), "mine");
    assert_eq!(bed.text(&built, &format!("{inside}/b")), "mine");
    assert_eq!(std::fs::read_dir(&target).expect("there").count(), 0);
}

fn stages_keep_their_files(bed: &Bed) {
    let text = "FROM busybox:1 AS made\nRUN mkdir -p /o/d && echo x > /o/d/f && chown 3:4 /o/d/f && chmod 4755 /o/d/f && ln /o/d/f /o/hard && ln -s d/f /o/soft && mkfifo /o/pipe\n\
        FROM busybox:1\nCOPY --from=made /o /o\nCOPY --from=made /o/soft /followed\nCOPY --from=made --exclude=d /o /less\n";
    let built = bed.build(text);
    let meta = |path: &str| {
        bed.file(&built, path).unwrap_or_else(|| panic!("{path}")).symlink_metadata().expect("there")
    };
    assert_eq!((meta("o/d/f").uid(), meta("o/d/f").gid(), meta("o/d/f").mode() & 0o7777), (3, 4, 0o4755));
    assert_eq!(meta("o/d/f").ino(), meta("o/hard").ino());
    assert!(meta("o/soft").file_type().is_symlink());
    assert!(meta("followed").is_file());
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&meta("o/pipe").file_type()));
    assert!(bed.file(&built, "less/d").is_none() && bed.file(&built, "less/hard").is_some());
    assert_eq!(bed.build(text).counts(), (4, 4));
}

fn workdir_belongs_to_the_user(bed: &Bed) {
    let built = bed.build("FROM busybox:1\nUSER 7:8\nWORKDIR /a/b\nWORKDIR c\nRUN touch made && pwd > made");
    let meta = bed.file(&built, "a/b/c").expect("there").metadata().expect("there");
    assert_eq!((meta.uid(), meta.gid()), (7, 8));
    assert_eq!(bed.text(&built, "a/b/c/made"), "/a/b/c\n");
}

fn named_contexts(bed: &Bed) {
    let other = bed.directory.path().join("other");
    std::fs::create_dir(&other).expect("made");
    std::fs::write(other.join("f"), "other").expect("written");
    let mut request =
        bed.request("FROM alias\nCOPY --from=extra f /f\nRUN --mount=from=extra,target=/m cat /m/f > /g");
    request.additional_contexts.insert("extra".into(), other.display().to_string());
    request.additional_contexts.insert("alias".into(), "docker-image://busybox:1".into());
    let built = bed.build_request(request);
    assert_eq!((bed.text(&built, "f"), bed.text(&built, "g")), ("other".into(), "other".into()));
}

fn replacing_what_is_there(bed: &Bed) {
    bed.write("new", "new");
    bed.write("dir/inner", "inner");
    let built = bed.build("FROM busybox:1\nRUN mkdir -p /there /was && echo old > /there/new && echo kept > /there/kept\nCOPY new /there\nCOPY dir /there");
    assert_eq!(bed.text(&built, "there/new"), "new");
    assert_eq!(bed.text(&built, "there/kept"), "kept\n");
    assert_eq!(bed.text(&built, "there/inner"), "inner");
    assert_eq!(bed.top_layer(&built), ["there", "there/inner"]);
    assert!(bed.build("FROM busybox:1\nCOPY dir /bin/busybox").failure().contains("non-directory"));
}

/// More than fit into one page of mount options.
fn a_hundred_layers(bed: &Bed) {
    let mut text = String::from("FROM busybox:1\n");
    for number in 0..100 {
        text.push_str(&format!("COPY <<E /n/{number}\n{number}\nE\n"));
    }
    text.push_str("RUN ls /n | wc -l > /count\n");
    let built = bed.build(&text);
    assert_eq!(bed.text(&built, "count"), "100\n");
    assert_eq!(built.counts(), (101, 0));
}

fn linked_layers_stay_when_the_base_changes(bed: &Bed) {
    bed.write("src/deep/f", "1");
    let text = |base: u32, flags: &str| {
        format!(
            "FROM busybox:1\nRUN echo {base} > /base; ln -s /elsewhere /link\nCOPY {flags} --chown=3:4 src /srv/app\nCOPY {flags} src/deep/f /link/f\nRUN cat /base /srv/app/deep/f > /seen\n"
        )
    };
    assert_eq!(bed.build(&text(1, "--link")).counts(), (4, 0));
    let built = bed.build(&text(2, "--link"));
    assert_eq!(built.counts(), (4, 2));
    assert_eq!(bed.text(&built, "seen"), "2\n1");
    let meta = bed.file(&built, "srv/app/deep/f").expect("there").metadata().expect("there");
    assert_eq!((meta.uid(), meta.gid()), (3, 4));
    // A link at the destination is no way: it is replaced.
    assert!(bed.file(&built, "link/f").is_some() && bed.file(&built, "elsewhere").is_none());
    assert_eq!(bed.build(&text(2, "--link")).counts(), (4, 4));
    // Plain copies depend on what is below them.
    bed.build(&text(1, "")).success();
    assert_eq!(bed.build(&text(2, "")).counts(), (4, 1));
    // The rebased layer can be archived, byte for byte what its name says.
    let image = bed.image(&built);
    for chain in &image.chain_ids[1..] {
        snapshot::archive(&bed.env.store, chain.as_str(), std::io::sink()).expect("archived");
    }
}

/// A socket becomes an empty file; pipes stay pipes.
fn special_files_travel_as_what_they_are(bed: &Bed) {
    use std::os::unix::fs::FileTypeExt;
    bed.write("d/file", "x");
    let _socket = std::os::unix::net::UnixListener::bind(bed.context.join("d/socket")).expect("bound");
    nix::unistd::mkfifo(&bed.context.join("d/pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let built = bed.build("FROM scratch\nCOPY d /d\n");
    let socket = bed.file(&built, "d/socket").expect("copied").symlink_metadata().expect("there");
    assert!(socket.is_file() && socket.len() == 0);
    let pipe = bed.file(&built, "d/pipe").expect("copied").symlink_metadata().expect("there");
    assert!(pipe.file_type().is_fifo());
}

fn names_of_owners_are_the_stages(bed: &Bed) {
    use std::os::unix::fs::MetadataExt;
    bed.write("a", "x");
    let text = |id: u32| {
        format!(
            "FROM busybox:1\nRUN echo me:x:{id}:{id}::/:/bin/sh >> /etc/passwd\nCOPY --chown=me a /a\nADD --link --chown=4:5 a /b\nWORKDIR /w\n"
        )
    };
    let owner =
        |built: &crate::bed::Built| bed.file(built, "a").expect("copied").metadata().expect("there").uid();
    let first = bed.build(&text(1001));
    assert_eq!(owner(&first), 1001);
    // The same words mean somebody else now; what does not depend on it is found again.
    let second = bed.build(&text(1002));
    assert_eq!((owner(&second), second.counts()), (1002, (4, 1)));
    let linked = bed.file(&second, "b").expect("copied").metadata().expect("there");
    assert_eq!((linked.uid(), linked.gid()), (4, 5));
}
