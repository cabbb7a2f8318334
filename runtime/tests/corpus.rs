//! Replays what the fuzz targets began with and what they have found.
#![allow(clippy::print_stdout)]

#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn the_corpus_passes() {
    for (name, target) in targets::ALL {
        let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let files: Vec<_> = std::fs::read_dir(&folder).expect("a corpus").flatten().collect();
        assert!(!files.is_empty(), "{folder} is empty");
        for file in files {
            let data = std::fs::read(file.path()).expect("a readable file");
            // Named first, so that a panic says whose it is.
            println!("{}", file.path().display());
            target(&data);
        }
    }
}
