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
