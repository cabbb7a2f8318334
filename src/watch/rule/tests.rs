use super::*;
use stack_schema::project::Mount;

pub(crate) fn written(action: WatchAction, path: &str, target: &str) -> WatchRule {
    WatchRule {
        action,
        path: path.into(),
        target: (!target.is_empty()).then(|| target.to_owned()),
        ignore: Vec::new(),
        include: Vec::new(),
        initial_sync: false,
        exec: None,
    }
}

fn project(develop: Vec<WatchRule>, build: Option<Build>) -> Project {
    let service = Service { key: "web".into(), develop, build, ..Service::default() };
    Project { services: [("web".to_owned(), service)].into_iter().collect(), ..Project::default() }
}

fn only(rule: WatchRule) -> Rule {
    Rules::of(&project(vec![rule], Some(Build::default())), &[]).unwrap().rules.remove(0)
}

#[test]
fn a_path_maps_below_the_target() {
    let rule = only(written(WatchAction::Sync, "/src", "/app/"));
    assert_eq!(rule.place(Path::new("/src/a/b.py")).unwrap(), "/app/a/b.py");
    assert_eq!(rule.place(Path::new("/srcs/a")), None);
    let file = only(written(WatchAction::Sync, "/src/app.py", "/app/main.py"));
    assert_eq!(file.place(Path::new("/src/app.py")).unwrap(), "/app/main.py");
}

#[test]
fn ignore_is_relative_to_the_path_and_anchored() {
    let rule = only(WatchRule {
        ignore: vec!["*.log".into(), "node_modules/".into()],
        ..written(WatchAction::Sync, "/src", "/app")
    });
    assert!(!rule.wants(Path::new("/src/a.log")));
    assert!(rule.wants(Path::new("/src/deep/a.log")));
    assert!(!rule.wants(Path::new("/src/node_modules/x/y.js")));
    assert!(rule.prunes(Path::new("/src/node_modules")));
    assert!(!rule.prunes(Path::new("/src")));
}

#[test]
fn a_star_in_the_list_ignores_nothing() {
    let rule = only(WatchRule {
        ignore: vec!["*".into(), "a".into()],
        ..written(WatchAction::Sync, "/src", "/app")
    });
    assert!(rule.wants(Path::new("/src/a")));
}

#[test]
fn include_limits_what_counts() {
    let rule =
        only(WatchRule { include: vec!["**/*.py".into()], ..written(WatchAction::Sync, "/src", "/app") });
    assert!(rule.wants(Path::new("/src/x/a.py")));
    assert!(!rule.wants(Path::new("/src/x/a.txt")));
    assert!(!rule.prunes(Path::new("/src/x")));
}

#[test]
fn what_editors_leave_is_no_edit() {
    let rule = only(written(WatchAction::Sync, "/src", "/app"));
    for name in [
        "a~",
        ".a.py.swp",
        "4913",
        ".#a",
        "#a#",
        ".git/index",
        ".idea/x",
        "deep/.git/HEAD",
        "a.py___jb_tmp___",
    ] {
        assert!(!rule.wants(&Path::new("/src").join(name)), "{name}");
    }
    assert!(rule.wants(Path::new("/src/.gitignore")));
}

#[test]
fn the_ignore_file_of_the_build_counts_except_for_a_file_that_the_rule_names() {
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join(".dockerignore"), "Dockerfile\nsecret\n").unwrap();
    let build = Build { context: context.path().into(), dockerfile: "Dockerfile".into(), ..Build::default() };
    let text = context.path().to_str().unwrap();
    let dockerfile = written(WatchAction::Rebuild, &format!("{text}/Dockerfile"), "");
    let develop = vec![written(WatchAction::Sync, text, "/app"), dockerfile];
    let rules = Rules::of(&project(develop, Some(build)), &[]).unwrap().rules;
    assert!(!rules[0].wants(&context.path().join("secret/key")));
    assert!(!rules[0].wants(&context.path().join("Dockerfile")));
    assert!(rules[0].wants(&context.path().join("app.py")));
    assert!(rules[1].wants(&context.path().join("Dockerfile")));
}

#[test]
fn nothing_to_watch_and_nothing_to_build_are_errors() {
    let nothing = Rules::of(&project(Vec::new(), None), &[]).unwrap_err();
    assert!(nothing.message.contains("none of the selected services is configured for watch"));
    let rebuild =
        Rules::of(&project(vec![written(WatchAction::Rebuild, "/src", "")], None), &[]).unwrap_err();
    assert_eq!(rebuild.message, "can't watch service \"web\" with action rebuild without a build context");
}

#[test]
fn a_bind_mounted_path_is_not_synchronised_but_still_restarts() {
    let mut project = project(
        vec![written(WatchAction::Sync, "/src", "/app"), written(WatchAction::Restart, "/src", "")],
        None,
    );
    let bind = Mount {
        kind: MountKind::Bind,
        source: Some("/src".into()),
        target: "/app".into(),
        read_only: false,
        create_host_path: true,
        propagation: None,
        recursive: None,
        nocopy: false,
        subpath: None,
        tmpfs_size: None,
        tmpfs_mode: None,
    };
    project.services["web"].volumes.push(bind);
    let rules = Rules::of(&project, &[]).unwrap();
    assert_eq!(rules.warnings.len(), 1);
    assert_eq!(rules.rules.iter().map(|rule| rule.action).collect::<Vec<_>>(), [WatchAction::Restart]);
}
