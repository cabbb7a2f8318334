use super::*;
use stack_schema::project::{Project, Service, WatchAction, WatchRule};
use std::fs;
use std::time::Duration;

fn rules(path: &Path, ignore: &[&str]) -> Rules {
    let rule = WatchRule {
        action: WatchAction::Sync,
        path: path.into(),
        target: Some("/app".into()),
        ignore: ignore.iter().map(|p| (*p).to_owned()).collect(),
        include: Vec::new(),
        initial_sync: false,
        exec: None,
    };
    let service = Service { key: "web".into(), develop: vec![rule], ..Service::default() };
    Rules::of(
        &Project { services: [("web".to_owned(), service)].into_iter().collect(), ..Project::default() },
        &[],
    )
    .unwrap()
}

/// Collects batches until everything wanted was seen.
async fn until(tree: &mut Tree, wanted: &[PathBuf]) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    let all = async {
        while !wanted.iter().all(|path| seen.contains(path)) {
            seen.extend(tree.changed().await.unwrap());
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), all).await;
    assert!(in_time.is_ok(), "wanted {wanted:?}, saw {seen:?}");
    seen
}

#[tokio::test]
async fn one_save_is_one_batch() {
    let top = tempfile::tempdir().unwrap();
    let file = top.path().join("app.py");
    fs::write(&file, "one").unwrap();
    let mut tree = Tree::open(rules(top.path(), &[])).unwrap();
    fs::write(&file, "two").unwrap();
    assert_eq!(until(&mut tree, std::slice::from_ref(&file)).await, std::slice::from_ref(&file));
    // As editors do that replace the file.
    let other = top.path().join("app.py~");
    fs::write(&other, "three").unwrap();
    fs::rename(&other, &file).unwrap();
    assert_eq!(until(&mut tree, std::slice::from_ref(&file)).await, [file]);
}

#[tokio::test]
async fn files_of_a_directory_made_a_moment_ago_are_not_missed() {
    let top = tempfile::tempdir().unwrap();
    let mut tree = Tree::open(rules(top.path(), &[])).unwrap();
    let mut wanted = Vec::new();
    for n in 0..100 {
        let deep = top.path().join(format!("d{n}/a/b"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("f"), "x").unwrap();
        wanted.push(deep.join("f"));
    }
    until(&mut tree, &wanted).await;
}

#[tokio::test]
async fn ignored_directories_are_neither_reported_nor_watched() {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir_all(top.path().join("node_modules/x")).unwrap();
    let mut tree = Tree::open(rules(top.path(), &["node_modules"])).unwrap();
    fs::write(top.path().join("node_modules/x/y.js"), "").unwrap();
    let file = top.path().join("a");
    fs::write(&file, "").unwrap();
    assert_eq!(until(&mut tree, std::slice::from_ref(&file)).await, [file]);
    assert!(!tree.known.keys().any(|path| path.ends_with("x")));
}

#[tokio::test]
async fn a_path_that_is_not_there_yet_is_picked_up() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("later/src");
    let mut tree = Tree::open(rules(&root, &[])).unwrap();
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("a"), "").unwrap();
    until(&mut tree, &[root.join("a")]).await;
    // Gone and made again, as by a checkout.
    fs::remove_dir_all(top.path().join("later")).unwrap();
    until(&mut tree, &[root.join("a")]).await;
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("b"), "").unwrap();
    until(&mut tree, &[root.join("b")]).await;
}

#[tokio::test]
async fn a_moved_directory_is_removed_there_and_found_here() {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir_all(top.path().join("a/sub")).unwrap();
    fs::write(top.path().join("a/sub/f"), "").unwrap();
    let mut tree = Tree::open(rules(top.path(), &[])).unwrap();
    fs::rename(top.path().join("a"), top.path().join("b")).unwrap();
    until(&mut tree, &[top.path().join("a"), top.path().join("b/sub/f")]).await;
    fs::write(top.path().join("b/sub/f"), "new").unwrap();
    let seen = until(&mut tree, &[top.path().join("b/sub/f")]).await;
    assert!(seen.iter().all(|path| path.starts_with(top.path().join("b"))), "{seen:?}");
}

#[tokio::test]
async fn lost_events_are_made_up_for() {
    let top = tempfile::tempdir().unwrap();
    for name in ["same", "changed", "removed"] {
        fs::write(top.path().join(name), "x").unwrap();
    }
    let mut tree = Tree::open(rules(top.path(), &[])).unwrap();
    fs::write(top.path().join("changed"), "longer").unwrap();
    fs::write(top.path().join("new"), "").unwrap();
    fs::remove_file(top.path().join("removed")).unwrap();
    // The overflow says only that something was lost: what was queued before it goes too.
    tree.events.close();
    while tree.events.try_recv().is_ok() {}
    tree.absorb(Ok(Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan))).unwrap();
    let mut seen = tree.take();
    seen.sort();
    let seen: Vec<_> = seen
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .filter(|name| top.path().file_name() != Some(name.as_ref()))
        .collect();
    assert_eq!(seen, ["changed", "new", "removed"]);
}
