use super::*;
use crate::engine::ErrorKind;
use crate::network::create_record;
use crate::spec::NetworkSpec;

const DEAD: (i32, u64) = (1, 1);

struct Bed {
    home: Home,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { data: dir.path().into(), run: dir.path().join("run") };
        create_record(&home, "shop", &NetworkSpec { name: "net".into(), ..NetworkSpec::default() }).unwrap();
        share(&home, "net").unwrap();
        Self { home, _dir: dir }
    }

    fn attach(&self, project: &str, id: &str, address: &str, supervisor: (i32, u64)) {
        let names = vec![format!("{project}-{id}"), "web".into()];
        let addresses = vec![address.parse().unwrap()];
        let (id, project) = (id.to_owned(), project.to_owned());
        write(&self.home, "net", &Attachment { id, project, addresses, names, supervisor, namespace: 0 })
            .unwrap();
    }
}

fn alive() -> (i32, u64) {
    this_supervisor().unwrap()
}

#[test]
fn an_attachment_counts_while_its_supervisor_lives() {
    let bed = Bed::new();
    bed.attach("shop", "a", "10.0.0.2", alive());
    bed.attach("tool", "b", "10.0.0.3", alive());
    bed.attach("tool", "c", "10.0.0.4", DEAD);
    assert_eq!(guests(&bed.home, "net", "shop").unwrap(), ["tool/tool-b"]);
    assert!(has_guests(&bed.home, "shop") && !has_guests(&bed.home, "tool"));
    remove(&bed.home, "net", "b").unwrap();
    remove(&bed.home, "net", "b").unwrap();
    assert!(!has_guests(&bed.home, "shop"));
}

#[test]
fn a_running_container_counts_without_its_supervisor() {
    let bed = Bed::new();
    bed.attach("tool", "b", "10.0.0.3", DEAD);
    let dir = bed.home.container("tool", "b");
    fs::create_dir_all(&dir).unwrap();
    let (pid, start_time) = alive();
    let run = RunRecord {
        pid,
        start_time,
        monitor_pid: pid,
        monitor_start_time: start_time,
        started_at: String::new(),
    };
    home::replace_json(&dir.join("run.json"), &run).unwrap();
    assert!(has_guests(&bed.home, "shop"));
}

#[test]
fn a_record_stays_while_it_has_guests() {
    let bed = Bed::new();
    bed.attach("tool", "b", "10.0.0.3", alive());
    let refused = records::remove_record(&bed.home, "net").unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
    assert!(refused.message.contains("active endpoints (tool/tool-b)"), "{refused}");
    bed.attach("tool", "b", "10.0.0.3", DEAD);
    records::remove_record(&bed.home, "net").unwrap();
    assert!(!is_shared(&bed.home, "net"));
}

#[test]
fn names_follow_the_files() {
    let bed = Bed::new();
    let others = Others::new(&bed.home, "net", "shop");
    let web = || others.addresses("web").iter().map(ToString::to_string).collect::<Vec<_>>();
    bed.attach("shop", "a", "10.0.0.2", alive());
    assert!(web().is_empty(), "our own are not others");
    bed.attach("tool", "b", "10.0.0.3", alive());
    bed.attach("more", "c", "10.0.0.4", alive());
    assert_eq!(web(), ["10.0.0.3", "10.0.0.4"]);
    assert_eq!(others.name("10.0.0.4".parse().unwrap()).as_deref(), Some("more-c"));
    remove(&bed.home, "net", "b").unwrap();
    assert_eq!(web(), ["10.0.0.4"]);
}
