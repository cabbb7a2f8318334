//! The decisions: plans as text, and the laws L2 (same input, same plan), L3 (up twice is silent), L5 (one outcome per
//! step, in plan order) and L6 (cut anywhere, run again, same end).

use crate::fake::*;
use stack::apply::{Outcome, Report, World, apply};
use stack::plan::intent::*;
use stack::plan::step::Action;
use stack::plan::{Plan, converge};
use stack_runtime::engine::Waited;
use stack_runtime::observed::{Exit, HealthStatus};
use stack_schema::project::{Build as BuildOf, Condition, Project, PullPolicy};
use std::collections::BTreeMap;

pub(crate) fn up() -> Up {
    Up::default()
}

pub(crate) fn plan(project: &Project, fake: &Fake, intent: Intent) -> Plan {
    converge(project, &fake.observed(), &intent).expect("a plan")
}

pub(crate) fn text(project: &Project, fake: &Fake, intent: Intent) -> String {
    plan(project, fake, intent).to_string()
}

fn run(project: &Project, fake: &Fake, intent: Intent) -> Report {
    run_plan(project, fake, &plan(project, fake, intent))
}

fn run_plan(project: &Project, fake: &Fake, plan: &Plan) -> Report {
    let observed = fake.observed();
    let world =
        World { engine: fake, images: fake, project, observed: &observed, events: &Nothing, parallel: 8 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(apply(&world, plan))
}

pub(crate) fn done(project: &Project, fake: &Fake, intent: Intent) {
    let report = run(project, fake, intent);
    assert!(report.failure().is_none(), "{:?}", report.failure());
}

/// API on a database that must be healthy and a cache, one named volume.
pub(crate) fn shop() -> Shop {
    Shop::new()
        .volume("data")
        .service("db", |s| {
            healthy(s);
            named_volume(s, "data", "/data");
        })
        .service("cache", |_| {})
        .service("api", |s| {
            env(s, "FOO", "1");
            depends(s, "db", Condition::ServiceHealthy);
            depends(s, "cache", Condition::ServiceStarted);
        })
}

pub(crate) fn fake() -> Fake {
    Fake::with_images(&["db", "cache", "api"])
}

#[test]
fn the_first_up_makes_everything_in_order() {
    let expected = "\
create network shop_default (missing)
create volume shop_data (missing)
create db-1 (missing)
start db-1 (created)
create cache-1 (missing)
start cache-1 (created)
create api-1 (missing)
wait for db healthy (api depends on it)
start api-1 (created)
";
    assert_eq!(text(&shop().0, &fake(), Intent::Up(up())), expected);
}

#[test]
fn missing_images_are_pulled_or_built_before_anything_is_created() {
    let project = Shop::new()
        .service("db", |_| {})
        .service("api", |s| {
            s.image = None;
            s.build = Some(BuildOf::default());
        })
        .service("both", |s| s.build = Some(BuildOf::default()));
    let expected = "\
pull db (missing)
build api as shop-api (missing)
pull both (missing)
build both as both (missing, if both is still missing then)
create network shop_default (missing)
create db-1 (missing)
start db-1 (created)
create api-1 (missing)
start api-1 (created)
create both-1 (missing)
start both-1 (created)
";
    let fake = Fake::default();
    let plan = plan(&project.0, &fake, Intent::Up(up()));
    assert_eq!(plan.to_string(), expected);
    let network = plan.steps().nth(4).expect("the fifth").0;
    assert_eq!(plan.before(network).count(), 3, "the last step of each image");
}

#[test]
fn a_changed_variable_replaces_its_container_alone() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let changed = shop().service("api", |s| {
        env(s, "FOO", "2");
        depends(s, "db", Condition::ServiceHealthy);
        depends(s, "cache", Condition::ServiceStarted);
    });
    let expected = "\
replace api-1 (environment FOO changed)
stop api-1 (replaced)
remove api-1 (replaced)
rename api-1 (replaced)
start api-1 (replaced)
";
    assert_eq!(text(&changed.0, &fake, Intent::Up(up())), expected);
    done(&changed.0, &fake, Intent::Up(up()));
    assert!(fake.summary().iter().any(|l| l.starts_with("shop-api-1 running") && l.contains("FOO=2")));
    assert_eq!(text(&changed.0, &fake, Intent::Up(up())), "");
}

#[test]
fn a_successor_has_a_temporary_name_until_the_old_one_is_gone() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let old = fake.observed().containers.into_iter().find(|c| c.name == "shop-api-1").expect("it is up").id;
    let again = Up { services: vec!["api".into()], recreate: Recreate::Always, ..up() };
    let plan = plan(&shop().0, &fake, Intent::Up(again));
    let temporary = plan.steps().find_map(|(_, step)| match &step.action {
        Action::Create(creation) => creation.temporary.clone(),
        _ => None,
    });
    assert_eq!(temporary, Some(format!("{}_shop-api-1", &old[..12])));
}

#[test]
fn l2_the_same_input_gives_the_same_plan() {
    let fake = fake();
    for _ in 0..5 {
        assert_eq!(text(&shop().0, &fake, Intent::Up(up())), text(&shop().0, &fake, Intent::Up(up())));
    }
}

#[test]
fn l3_up_twice_is_silent() {
    let fake = fake();
    for intent in [up(), Up { wait: true, ..up() }] {
        done(&shop().0, &fake, Intent::Up(intent));
        let second = plan(&shop().0, &fake, Intent::Up(Up { wait: true, ..up() }));
        assert_eq!(second.to_string(), "");
        assert_eq!(second.settled.len(), 3);
    }
}

#[test]
fn what_does_not_count_in_the_fingerprint_replaces_nothing() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let mut other = shop().0;
    let api = other.services.get_mut("api").expect("api");
    api.depends_on.clear();
    api.pull_policy = PullPolicy::Missing;
    assert_eq!(text(&other, &fake, Intent::Up(up())), "");
}

#[test]
fn another_image_replaces() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    fake.offer("cache", "2");
    fake.install("cache");
    assert!(text(&shop().0, &fake, Intent::Up(up())).starts_with("replace cache-1 (image changed)\n"));
}

#[test]
fn a_build_decides_while_the_plan_runs() {
    let project = Shop::new().service("api", |s| s.build = Some(BuildOf::default()));
    let fake = Fake::with_images(&["api"]);
    done(&project.0, &fake, Intent::Up(up()));
    let again = Up { build: Building::Always, ..up() };
    let expected = "\
build api as api (asked for)
replace api-1 (image may change, if api is another image then)
stop api-1 (replaced, if api is another image then)
remove api-1 (replaced, if api is another image then)
rename api-1 (replaced, if api is another image then)
start api-1 (replaced, if api is another image then)
";
    assert_eq!(text(&project.0, &fake, Intent::Up(again.clone())), expected);
    fake.state().log.clear();
    let report = run(&project.0, &fake, Intent::Up(again.clone()));
    assert_eq!(fake.state().log, ["build api"]);
    assert!(matches!(report.outcomes[1], Outcome::Skipped));
    fake.offer("api", "2");
    done(&project.0, &fake, Intent::Up(again));
    assert!(fake.summary()[1].contains("image=sha256:api-2"), "{:?}", fake.summary());
}

#[test]
fn a_stopped_container_is_only_started() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    fake.set_state("shop-cache-1", exited(1));
    assert_eq!(text(&shop().0, &fake, Intent::Up(up())), "start cache-1 (not running)\n");
}

#[test]
fn force_replaces_the_named_and_not_what_they_need() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let intent = Up { services: vec!["api".into()], recreate: Recreate::Always, ..up() };
    assert!(text(&shop().0, &fake, Intent::Up(intent)).starts_with("replace api-1 (asked for)\n"));
    let never = Up { recreate: Recreate::Never, recreate_dependencies: Recreate::Never, ..up() };
    let changed = shop().service("cache", |s| env(s, "X", "1"));
    assert_eq!(text(&changed.0, &fake, Intent::Up(never)), "");
}

#[test]
fn naming_a_service_brings_up_what_it_needs() {
    let text = text(&shop().0, &fake(), Intent::Up(Up { services: vec!["cache".into()], ..up() }));
    assert_eq!(
        text,
        "create network shop_default (missing)\ncreate cache-1 (missing)\nstart cache-1 (created)\n"
    );
    let unknown = Up { services: vec!["x".into()], ..up() };
    let findings = converge(&shop().0, &fake().observed(), &Intent::Up(unknown)).expect_err("unknown");
    assert_eq!(findings[0].message, "no such service: x");
}

#[test]
fn scaling_adds_behind_the_highest_and_takes_the_highest() {
    let fake = fake();
    let project = Shop::new().service("api", |_| {});
    let to = |n| Intent::Up(Up { scale: BTreeMap::from([("api".to_string(), n)]), ..up() });
    done(&project.0, &fake, to(3));
    assert_eq!(text(&project.0, &fake, to(3)), "");
    assert_eq!(text(&project.0, &fake, to(2)), "stop api-3 (scaled down)\nremove api-3 (scaled down)\n");
    assert_eq!(text(&project.0, &fake, to(4)), "create api-4 (missing)\nstart api-4 (created)\n");
}

#[test]
fn orphans_are_named_or_removed() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let mut smaller = shop().0;
    smaller.services.shift_remove("cache");
    smaller.services["api"].depends_on.shift_remove("cache");
    let plan = plan(&smaller, &fake, Intent::Up(up()));
    assert!(plan.is_empty());
    assert!(plan.warnings[0].message.contains("shop-cache-1"));
    let remove = Up { remove_orphans: true, ..up() };
    assert_eq!(text(&smaller, &fake, Intent::Up(remove)), "stop cache-1 (orphan)\nremove cache-1 (orphan)\n");
}

#[test]
fn a_container_of_an_inactive_profile_is_no_orphan() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let mut smaller = shop().0;
    let cache = smaller.services.shift_remove("cache").expect("cache");
    smaller.services["api"].depends_on.shift_remove("cache");
    smaller.disabled.insert("cache".into(), cache);
    assert!(plan(&smaller, &fake, Intent::Up(up())).warnings.is_empty());
}

#[test]
fn a_namespace_follows_its_owner() {
    let shop = |value: &'static str| {
        Shop::new().service("api", move |s| env(s, "A", value)).service("cache", |s| {
            s.networks.clear();
            s.network_mode = Some("service:api".into());
            depends(s, "api", Condition::ServiceStarted);
        })
    };
    let fake = fake();
    done(&shop("1").0, &fake, Intent::Up(up()));
    let text = text(&shop("2").0, &fake, Intent::Up(up()));
    assert!(text.contains("replace api-1 (environment A changed)\n"), "{text}");
    assert!(text.contains("replace cache-1 (api is replaced)\n"), "{text}");
}

#[test]
fn a_dependent_that_restarts_goes_down_first_and_comes_up_last() {
    let shop = |value: &'static str| {
        Shop::new().service("db", move |s| env(s, "A", value)).service("api", |s| {
            depends(s, "db", Condition::ServiceStarted);
            s.depends_on["db"].restart = true;
        })
    };
    let fake = fake();
    done(&shop("1").0, &fake, Intent::Up(up()));
    let expected = "\
replace db-1 (environment A changed)
stop api-1 (db is replaced)
stop db-1 (replaced)
remove db-1 (replaced)
rename db-1 (replaced)
start db-1 (replaced)
start api-1 (db is replaced)
";
    assert_eq!(text(&shop("2").0, &fake, Intent::Up(up())), expected);
}

#[test]
fn a_changed_network_is_made_anew_without_its_containers() {
    let fake = fake();
    let project = Shop::new().service("api", |_| {});
    done(&project.0, &fake, Intent::Up(up()));
    let mut other = Shop::new().service("api", |_| {});
    other.0.networks["default"].internal = true;
    let expected = "\
stop api-1 (network shop_default changed)
remove api-1 (network shop_default changed)
remove network shop_default (configuration changed)
create network shop_default (replaced)
create api-1 (network shop_default changed)
start api-1 (replaced)
";
    assert_eq!(text(&other.0, &fake, Intent::Up(up())), expected);
    done(&other.0, &fake, Intent::Up(up()));
    assert_eq!(text(&other.0, &fake, Intent::Up(up())), "");
}

#[test]
fn anonymous_volumes_go_along_unless_renewed() {
    let shop = |value: &'static str| {
        Shop::new().service("api", move |s| {
            env(s, "A", value);
            s.volumes.push(mount(stack_schema::project::MountKind::Volume, None, "/cache"));
        })
    };
    let fake = fake();
    done(&shop("1").0, &fake, Intent::Up(up()));
    let first = fake.state().volumes.clone();
    done(&shop("2").0, &fake, Intent::Up(up()));
    assert_eq!(fake.state().volumes, first);
    done(&shop("2").0, &fake, Intent::Up(Up { renew_anonymous_volumes: true, ..up() }));
    assert_ne!(fake.state().volumes, first);
    assert_eq!(fake.state().volumes.len(), 1);
}

#[test]
fn missing_externals_are_named_before_anything_happens() {
    let mut project = shop().0;
    project.networks["default"].external = true;
    project.volumes["data"].external = true;
    let findings = converge(&project, &fake().observed(), &Intent::Up(up())).expect_err("missing");
    assert_eq!(findings[0].message, "network shop_default declared as external, but could not be found");
    assert_eq!(findings[1].message, "external volume \"shop_data\" not found");
}

#[test]
fn a_one_shot_dependency_is_waited_for() {
    let project = Shop::new().service("db", |_| {}).service("api", |s| {
        depends(s, "db", Condition::ServiceCompletedSuccessfully);
    });
    let fake = fake();
    assert!(
        text(&project.0, &fake, Intent::Up(up())).contains("wait for db completed (api depends on it)\n")
    );
    fake.state().waits.insert("shop-api-1".into(), Waited::Reached); // and stays up
    done(&project.0, &fake, Intent::Up(Up { wait: true, ..up() }));
}

#[test]
fn an_unhealthy_dependency_keeps_its_dependents_down() {
    let fake = fake();
    fake.state().waits.insert("shop-db-1".into(), Waited::Unhealthy);
    let plan = plan(&shop().0, &fake, Intent::Up(up()));
    let report = run_plan(&shop().0, &fake, &plan);
    let (_, failure, container) = report.failure().expect("unhealthy");
    assert_eq!(failure.message, "dependency failed to start: container shop-db-1 is unhealthy");
    assert!(container.is_some());
    assert!(fake.summary().iter().any(|l| l.starts_with("shop-api-1 created")));
    assert!(fake.summary().iter().any(|l| l.starts_with("shop-cache-1 running")));
    assert_eq!(report.outcomes.len(), plan.len(), "L5");
    assert!(matches!(report.outcomes.last(), Some(Outcome::NotRun)));
}

#[test]
fn an_optional_dependency_may_fail() {
    let fake = fake();
    let exit = Exit { code: Some(3), ..Exit::default() };
    fake.state().waits.insert("shop-db-1".into(), Waited::Exited(exit));
    let mut project = shop().0;
    project.services["api"].depends_on["db"].required = false;
    done(&project, &fake, Intent::Up(up()));
}

#[test]
fn waiting_for_health_needs_a_check() {
    let project =
        Shop::new().service("db", |_| {}).service("api", |s| depends(s, "db", Condition::ServiceHealthy));
    let fake = fake();
    let report = run(&project.0, &fake, Intent::Up(up()));
    assert_eq!(
        report.failure().expect("no check").1.message,
        "dependency failed to start: container shop-db-1 has no healthcheck configured"
    );
}

#[test]
fn an_image_that_cannot_be_had_leaves_nothing_half_made() {
    let fake = Fake::with_images(&["db", "cache"]);
    let report = run(&shop().0, &fake, Intent::Up(up()));
    assert!(report.failure().is_some());
    assert!(fake.summary().is_empty(), "{:?}", fake.summary());
}

#[test]
fn a_policy_of_never_is_an_error_of_the_plan() {
    let project = Shop::new().service("nowhere", |s| s.pull_policy = PullPolicy::Never);
    let findings = converge(&project.0, &fake().observed(), &Intent::Up(up())).expect_err("never");
    assert_eq!(findings[0].message, "No such image: nowhere");
}

#[test]
fn l4_down_leaves_only_volumes() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let expected = "\
stop api-1 (down)
stop cache-1 (down)
stop db-1 (down)
remove api-1 (down)
remove cache-1 (down)
remove db-1 (down)
remove network shop_default (down)
release the supervisor (down)
";
    let plan = plan(&shop().0, &fake, Intent::Down(Down::default()));
    assert_eq!(plan.to_string(), expected);
    run_plan(&shop().0, &fake, &plan);
    assert_eq!(fake.summary(), ["volume shop_data"]);
    assert_eq!(text(&shop().0, &fake, Intent::Down(Down::default())), "");
    done(&shop().0, &fake, Intent::Down(Down { volumes: true, ..Down::default() }));
    assert!(fake.summary().is_empty());
}

#[test]
fn down_needs_no_file() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let project = stack::plan::label::project_of("shop", &fake.observed());
    let down = Intent::Down(Down { volumes: true, ..Down::default() });
    let text = text(&project, &fake, down.clone());
    assert!(text.starts_with("stop api-1 (down)\n"), "{text}");
    done(&project, &fake, down);
    assert!(fake.summary().is_empty());
}

#[test]
fn down_keeps_a_network_that_others_use() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let down = Down { services: vec!["api".into()], ..Down::default() };
    let plan = plan(&shop().0, &fake, Intent::Down(down));
    assert_eq!(plan.to_string(), "stop api-1 (down)\nremove api-1 (down)\n");
    assert_eq!(plan.settled.len(), 1);
}

#[test]
fn a_network_with_guests_is_kept_as_it_is() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let mut observed = fake.observed();
    observed.networks[0].guests = vec!["tool/cli-1".into()];
    let plan = converge(&shop().0, &observed, &Intent::Down(Down::default())).expect("a plan");
    assert!(!plan.to_string().contains("remove network"), "{plan}");
    assert_eq!(plan.settled, [stack::plan::step::Settled::InUse { network: "shop_default".into() }]);
    let mut changed = shop().0;
    changed.networks["default"].internal = true;
    let findings = converge(&changed, &observed, &Intent::Up(up())).expect_err("in use");
    assert!(findings[0].message.contains("while other projects use it (tool/cli-1)"), "{findings:?}");
}

#[test]
fn down_leaves_the_network_of_another_project() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let mut observed = fake.observed();
    observed.networks[0].labels.insert("com.docker.compose.project".into(), "other".into());
    let plan = converge(&shop().0, &observed, &Intent::Down(Down::default())).expect("a plan");
    assert!(!plan.to_string().contains("remove network"), "{plan}");
}

#[test]
fn built_in_networks_are_not_joined_by_name() {
    let mut project = shop().0;
    project.networks["default"].external = true;
    project.networks["default"].name = "host".into();
    let findings = converge(&project, &fake().observed(), &Intent::Up(up())).expect_err("host");
    assert!(
        findings[0].hint.as_deref().is_some_and(|hint| hint.contains("network_mode: host")),
        "{findings:?}"
    );
}

#[test]
fn life_verbs_keep_the_order() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    let stop = Intent::Stop { services: vec![], grace: None };
    assert_eq!(
        text(&shop().0, &fake, stop.clone()),
        "stop api-1 (asked for)\nstop cache-1 (asked for)\nstop db-1 (asked for)\n"
    );
    done(&shop().0, &fake, stop);
    let start = Intent::Start { services: vec!["api".into()], wait: false };
    assert_eq!(
        text(&shop().0, &fake, start.clone()),
        "start db-1 (not running)\nstart cache-1 (not running)\nwait for db healthy (api depends on it)\nstart api-1 (not running)\n"
    );
    done(&shop().0, &fake, start);
    let restart = Intent::Restart { services: vec!["db".into()], grace: None, dependents: true };
    assert_eq!(text(&shop().0, &fake, restart), "stop db-1 (restart)\nstart db-1 (restart)\n");
    let kill = Intent::Kill { services: vec!["db".into()], signal: "HUP".into(), orphans: false };
    assert_eq!(text(&shop().0, &fake, kill), "send HUP to db-1 (asked for)\n");
    let remove = Intent::Remove { services: vec!["db".into()], stop: false, volumes: false };
    assert_eq!(text(&shop().0, &fake, remove), "");
}

/// Who needs a healthy dependency waits for it; what is not due is left alone, and not waited for either.
#[test]
fn what_is_due_comes_up_in_order() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    done(&shop().0, &fake, Intent::Stop { services: vec![], grace: None });
    let due = |keys: &[&str]| {
        let mut observed = fake.observed();
        for container in &mut observed.containers {
            container.is_due = keys.iter().any(|key| container.name == format!("shop-{key}-1"));
        }
        converge(&shop().0, &observed, &Intent::Due).expect("a plan").to_string()
    };
    assert_eq!(due(&[]), "");
    assert_eq!(
        due(&["api", "db"]),
        "start db-1 (due after a boot)\nwait for db healthy (api depends on it)\nstart api-1 (due after a boot)\n"
    );
    assert_eq!(due(&["api"]), "start api-1 (due after a boot)\n");
}

/// Every way to change something, from a world that is up.
fn histories() -> Vec<(&'static str, Project, Intent)> {
    let changed = shop().service("db", |s| {
        healthy(s);
        env(s, "NEW", "1");
        named_volume(s, "data", "/data");
    });
    let mut network = shop().0;
    network.networks["default"].internal = true;
    let scale = Up { scale: BTreeMap::from([("cache".to_string(), 3)]), ..up() };
    vec![
        ("up", shop().0, Intent::Up(up())),
        ("change", changed.0, Intent::Up(up())),
        ("network", network, Intent::Up(up())),
        ("scale", shop().0, Intent::Up(scale)),
        ("down", shop().0, Intent::Down(Down { volumes: true, ..Down::default() })),
    ]
}

#[test]
fn l6_cut_anywhere_and_run_again_gives_the_same_end() {
    for (name, project, intent) in histories() {
        let prepare = || {
            let fake = fake();
            if name != "up" {
                done(&shop().0, &fake, Intent::Up(up()));
            }
            fake
        };
        let uncut = prepare();
        done(&project, &uncut, intent.clone());
        let steps = plan(&project, &prepare(), intent.clone()).len();
        for cut in 0..=steps {
            let fake = prepare();
            fake.state().cut_after = Some(cut);
            run(&project, &fake, intent.clone());
            fake.state().cut_after = None;
            done(&project, &fake, intent.clone());
            assert_eq!(fake.summary(), uncut.summary(), "{name} cut after {cut} effects");
            assert_eq!(text(&project, &fake, intent.clone()), "", "{name} cut after {cut}: silent then");
        }
    }
}

#[test]
fn a_run_brings_up_what_it_needs_and_starts_nothing_itself() {
    let fake = fake();
    let project = shop().0;
    let run = Run {
        service: project.services["api"].clone(),
        name: "shop-api-run-0123456789ab".into(),
        one_off: Default::default(),
        up: up(),
    };
    let text = text(&project, &fake, Intent::Run(Box::new(run)));
    assert!(
        text.ends_with("wait for db healthy (api depends on it)\ncreate api-run-0123456789ab (asked for)\n"),
        "{text}"
    );
    assert!(!text.contains("start api"), "{text}");
}

#[test]
fn health_that_is_still_starting_is_waited_for() {
    let fake = fake();
    done(&shop().0, &fake, Intent::Up(up()));
    for container in fake.state().containers.values_mut().filter(|c| c.name == "shop-db-1") {
        container.health.status = HealthStatus::Starting;
    }
    assert_eq!(text(&shop().0, &fake, Intent::Up(up())), "");
    assert_eq!(text(&shop().0, &fake, Intent::Up(Up { wait: true, ..up() })), "wait for db up (asked for)\n");
}
