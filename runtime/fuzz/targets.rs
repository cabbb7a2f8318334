//! What each fuzz target does with its bytes. The libFuzzer programs and the test that replays the corpus share it.

use stack_runtime::image::manifest::{self, Parsed};
use stack_runtime::image::tar_read::{Kind, Reader};
use stack_runtime::image::{Digest, Document, Platform, Reference};
use std::io::{self, Read};

/// A target's name and what it does.
pub(crate) type Target = (&'static str, fn(&[u8]));

pub(crate) const ALL: [Target; 3] = [("layer", layer), ("reference", reference), ("manifest", manifests)];

/// Runs the target of that name.
#[allow(dead_code, reason = "the corpus test goes through all of them")]
pub(crate) fn run(name: &str, data: &[u8]) {
    let (_, target) = ALL.iter().find(|(known, _)| *known == name).expect("a target's name");
    target(data);
}

/// Every entry with its content, then the same skipping all content: both ways see the same entries.
fn layer(data: &[u8]) {
    let mut seen = Vec::new();
    let mut reader = Reader::new(data);
    let whole = loop {
        match reader.entry() {
            Ok(Some(entry)) => {
                let content = match io::copy(&mut reader, &mut io::sink()) {
                    Ok(count) => count,
                    Err(_) => break false,
                };
                assert_eq!(content, entry.size, "what was promised");
                assert!(content <= data.len() as u64, "no more than there is");
                assert!(!matches!(entry.kind, Kind::HardLink | Kind::Symlink) || entry.size == 0);
                seen.push(entry);
            }
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    let mut reader = Reader::new(Slow(data));
    let mut skipped = Vec::new();
    while let Ok(Some(entry)) = reader.entry() {
        skipped.push(entry);
    }
    assert!(!whole || skipped == seen, "{skipped:?}\n{seen:?}");
}

/// Gives a few bytes at a time, as a network does.
struct Slow<'d>(&'d [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(100);
        self.0.read(&mut buffer[..most])
    }
}

fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    let Ok(reference) = Reference::parse(text) else { return };
    let written = reference.to_string();
    assert_eq!(Reference::parse(&written).ok().as_ref(), Some(&reference), "{written}");
    let familiar = reference.familiar();
    assert_eq!(Reference::parse(&familiar).ok().as_ref(), Some(&reference), "{familiar}");
    assert!(!reference.registry().is_empty() && !reference.path().is_empty());
    assert!(!reference.path().split('/').any(|part| part.is_empty() || part == ".."), "{written}");
}

fn manifests(data: &[u8]) {
    match manifest::parse(data, "it") {
        Ok(Parsed::Manifest(manifest)) => assert!(manifest.layers.len() <= 1024),
        Ok(Parsed::Index(index)) => {
            if let Ok(chosen) = manifest::choose(&index, &Platform::host(), "it") {
                assert!(!manifest::is_attestation(chosen));
            }
        }
        Err(_) => {}
    }
    if let Ok(document) = serde_json::from_slice::<Document>(data) {
        let written = serde_json::to_vec(&document).expect("a document is JSON");
        let again: Document = serde_json::from_slice(&written).expect("what is written is read");
        // A number that is no short integer, in a field nobody knows, may change in its last digit.
        let is_float = data.windows(2).any(|pair| pair[0].is_ascii_digit() && b".eE".contains(&pair[1]));
        let is_long = data.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() > 15);
        let is_exact = !is_float && !is_long;
        assert!(!is_exact || serde_json::to_vec(&again).expect("JSON") == written);
    }
}
