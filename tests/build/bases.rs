//! Base images that come from a registry.

use crate::bed::{Bed, Case};
use crate::registry::Server;
use stack::build::BuildRequest;
use stack_runtime::image::progress::silent;
use stack_runtime::image::{Reference, push};

pub(crate) const ALL: &[(&str, Case)] =
    &[("bases_are_pulled_once_and_again_when_asked", bases_are_pulled_once_and_again_when_asked)];

fn bases_are_pulled_once_and_again_when_asked(bed: &Bed) {
    let Some(server) = bed.wait_for(Server::start(15_099, false)) else { return };
    let name = server.name("base:1");
    let reference = Reference::parse(&name).expect("a name");
    let publish = |version: u32| {
        let mut request = bed.request(&format!("FROM busybox:1\nCOPY <<E /version\n{version}\nE"));
        request.tags = vec![reference.clone()];
        bed.build_request(request).success();
        bed.wait_for(push::push(&bed.env.store, &reference, &silent)).expect("pushed");
        bed.env.store.remove(&name, true).expect("removed here");
    };
    publish(1);
    let text =
        format!("FROM {name} AS a\nRUN cp /version /a\nFROM {name}\nCOPY --from=a /a /a\nRUN cp /version /b");
    let built = bed.build(&text);
    assert_eq!((bed.text(&built, "a"), bed.text(&built, "b")), ("1\n".into(), "1\n".into()));
    let local = bed.env.store.image(&name).expect("read").expect("pulled");
    publish(2);
    bed.env.store.tag(&local.id, &reference).expect("as before");
    // What is here is good enough, ...
    assert_eq!(bed.build(&text).counts(), (3, 3));
    // ... until the newest one is asked for, for every stage the same.
    let newest = BuildRequest { pull: true, ..bed.request(&text) };
    let built = bed.build_request(newest);
    assert_eq!((bed.text(&built, "a"), bed.text(&built, "b")), ("2\n".into(), "2\n".into()));
    // A digest names one image for ever.
    let pinned = format!(
        "FROM {}@{}\nRUN cp /version /c",
        server.name("base"),
        local.manifest_digest.expect("pulled")
    );
    assert_eq!(bed.text(&bed.build(&pinned), "c"), "1\n");
}
