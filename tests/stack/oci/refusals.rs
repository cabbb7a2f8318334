//! What is wrong with a config is said before anything is done. (Each check has its unit test; this is the way out.)

use super::bed::bed;
use serde_json::json;

#[test]
fn a_wrong_config_is_named_and_nothing_is_left() {
    bed(|bed| {
        let mut bundle = bed.bundle("true");
        bundle.config["process"]["cwd"] = "relative".into();
        let said = bundle.refused();
        assert!(
            said.contains(
                "config.json: invalid configuration: process.cwd \"relative\" is not an absolute path"
            ),
            "{said}"
        );
        bundle.config["process"]["cwd"] = "/".into();
        bundle.config["linux"]["sysctl"] = json!({ "vm.swappiness": "1" });
        assert!(bundle.refused().contains("not in a separate kernel namespace"));
        bundle.config["linux"].as_object_mut().unwrap().remove("sysctl");
        bundle.config["root"]["path"] = "nowhere".into();
        assert!(bundle.refused().contains("nowhere"));
        std::fs::write(bundle.dir.join("config.json"), "{").unwrap();
        let args = ["create", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id];
        assert!(bed.refused(&args).contains("failed to read"));
        std::fs::remove_file(bundle.dir.join("config.json")).unwrap();
        assert!(bed.refused(&args).contains("No such file or directory"));
        assert_eq!(bed.ok(&["list", "-q"]), "");
    });
}

#[test]
fn what_nobody_can_grant_is_a_warning() {
    bed(|bed| {
        let mut bundle = bed.bundle("echo ran");
        bundle.config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_TO_FLY"]);
        let said = bundle.run();
        assert!(
            said.out == "ran\n" && said.err.contains("unknown capability \"CAP_TO_FLY\" is ignored"),
            "{}{}",
            said.out,
            said.err
        );
    });
}
