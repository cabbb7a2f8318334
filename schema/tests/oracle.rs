//! Development only: with `ORACLE=<path of the oracle script>` the expectations of the valid bundles are compared with what
//! docker compose prints now; with `UPDATE=1` too they are rewritten. Cases in `differs.txt` must differ.

mod support;

use std::path::Path;
use std::process::Command;
use support::{Case, read_bundle, write_bundle};

/// docker compose's JSON with the case's directory spelled `/case/<name>`; `None` when it refuses.
fn ask(oracle: &Path, case: &Case) -> Option<String> {
    let root = std::env::temp_dir().join(format!("stack-oracle-{}", std::process::id())).join(&case.name);
    for (path, text) in &case.files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
    let mut command = Command::new(oracle);
    command
        .arg("2.40")
        .current_dir(&root)
        .env_clear()
        .env("HOME", "/home/u")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let home = std::env::var("HOME").unwrap_or_default();
    command.env("ORACLE_DIR", std::env::var("ORACLE_DIR").unwrap_or(format!("{home}/.cache/compose-oracle")));
    for file in case.compose_files() {
        command.arg("-f").arg(file);
    }
    let mut parts = case.args.split(|arg| arg == "--");
    command
        .args(parts.next().unwrap_or_default())
        .args(["config", "--format", "json"])
        .args(parts.next().unwrap_or_default());
    let output = command.output().expect("the oracle runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let text = text.replace(root.parent().and_then(Path::to_str).expect("UTF-8"), "/case");
    std::fs::remove_dir_all(&root).expect("its own directory");
    output.status.success().then(|| text.trim_end().to_owned() + "\n")
}

#[test]
#[ignore = "needs docker compose: ORACLE=<script> cargo test -p stack-schema --test oracle -- --ignored"]
fn expectations_are_docker_composes() {
    let oracle = std::env::var_os("ORACLE").expect("ORACLE names the script that runs docker compose");
    let oracle = Path::new(&oracle);
    for bundle in ["attributes.txt", "rules.txt"] {
        let found: Vec<(Case, String)> = read_bundle(bundle)
            .into_iter()
            .map(|case| {
                let theirs =
                    ask(oracle, &case).unwrap_or_else(|| panic!("docker compose refuses {}", case.name));
                (case, theirs)
            })
            .collect();
        if std::env::var_os("UPDATE").is_some() {
            write_bundle(bundle, "expected.json", &found);
        } else {
            found.iter().for_each(|(case, theirs)| assert_eq!(&case.expected, theirs, "{}", case.name));
        }
    }
    for case in read_bundle("differs.txt") {
        let meaning = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        let theirs = ask(oracle, &case).map(|text| meaning(&text));
        assert_ne!(theirs, Some(meaning(&case.expected)), "{} no longer differs", case.name);
    }
    for case in read_bundle("broken.txt") {
        assert!(case.differs || ask(oracle, &case).is_none(), "docker compose accepts {}", case.name);
    }
}
