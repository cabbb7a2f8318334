//! What happened to containers, of all projects: `data/events`, one JSON object per line.
//!
//! Whoever does something appends one line (a single write, so that lines of several writers never mix). The last
//! [`MOST_BYTES`] or twice as many are kept: a full file becomes `data/events.1`. There is no server, so the history is
//! there whether a supervisor runs or not; a line that cannot be written (disk full) holds nothing up.

use super::record::ContainerRecord;
use crate::plan::label;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stack_runtime::home::{self, Home};
use stack_runtime::spec::{ContainerSpec, Map};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Then a new file is begun.
const MOST_BYTES: u64 = 1 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happened {
    pub time: Timestamp,
    pub project: String,
    pub service: String,
    /// 64 hex digits.
    pub id: String,
    /// As in Docker: `start`, `die`, `health_status: healthy`.
    pub action: String,
    /// Image, name, the user's labels, and what the action adds.
    pub attributes: Map,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_off: bool,
}

/// Notes what happened to a container.
pub fn note(home: &Home, record: &ContainerRecord, action: &str, extra: &[(&str, String)]) {
    note_of(home, &record.project, &record.id, &record.spec, action, extra);
}

/// As [`note`], where there is no record.
pub fn note_of(
    home: &Home,
    project: &str,
    id: &str,
    spec: &ContainerSpec,
    action: &str,
    extra: &[(&str, String)],
) {
    let is_own = |key: &str| key.starts_with("com.docker.compose.") || key == label::PARTS;
    let mut attributes: Map =
        spec.labels.iter().filter(|(key, _)| !is_own(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    attributes.insert("image".into(), spec.image.clone());
    attributes.insert("name".into(), spec.name.clone());
    attributes.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    let happened = Happened {
        time: Timestamp::now(),
        project: project.into(),
        service: label::of(&spec.labels, label::SERVICE).into(),
        id: id.into(),
        action: action.into(),
        attributes,
        one_off: label::of(&spec.labels, label::ONE_OFF).eq_ignore_ascii_case("true"),
    };
    if let Err(e) = append(home, &happened) {
        tracing::debug!("{action} of {} is not in the journal: {e}", spec.name);
    }
}

fn append(home: &Home, happened: &Happened) -> io::Result<()> {
    let path = home.data.join("events");
    let mut line = serde_json::to_vec(happened)?;
    line.push(b'\n');
    let mut file = File::options().create(true).append(true).open(&path)?;
    file.write_all(&line)?;
    if file.metadata()?.len() >= MOST_BYTES { turn(home, &path) } else { Ok(()) }
}

/// One of those who see it full does it.
fn turn(home: &Home, path: &Path) -> io::Result<()> {
    let Some(_lock) = home::try_lock(&home.data.join("events.lock"))? else { return Ok(()) };
    // Somebody may have done it meanwhile.
    if fs::metadata(path)?.len() < MOST_BYTES { Ok(()) } else { fs::rename(path, earlier(path)) }
}

fn earlier(path: &Path) -> PathBuf {
    path.with_extension("1")
}

/// Reads on where it stopped, over the ends of files.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// A line that is not complete yet.
    begun: Vec<u8>,
}

impl Reader {
    /// From now on.
    pub fn from_now(home: &Home) -> io::Result<Self> {
        let mut reader = Self::new(home);
        if let Some(file) = &mut reader.file {
            file.seek(SeekFrom::End(0))?;
        }
        Ok(reader)
    }

    /// All that is kept, oldest first, and what comes.
    pub fn from_begin(home: &Home) -> (Vec<Happened>, Self) {
        let reader = Self::new(home);
        let text = fs::read_to_string(earlier(&reader.path)).unwrap_or_default();
        (text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(), reader)
    }

    fn new(home: &Home) -> Self {
        let path = home.data.join("events");
        Self { file: File::open(&path).ok().map(BufReader::new), path, begun: Vec::new() }
    }

    /// The next ones, as far as they are there.
    pub fn take(&mut self) -> io::Result<Vec<Happened>> {
        let mut found = Vec::new();
        loop {
            let Some(file) = &mut self.file else {
                match File::open(&self.path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
                    opened => self.file = Some(BufReader::new(opened?)),
                }
                continue;
            };
            if file.read_until(b'\n', &mut self.begun)? > 0 && self.begun.ends_with(b"\n") {
                found.extend(serde_json::from_slice::<Happened>(&self.begun).ok());
                self.begun.clear();
            } else if self.is_followed()? {
                // Looked at once more after the rename: nothing is written to it any more, or soon not.
                self.file = None;
                self.begun.clear();
            } else {
                return Ok(found);
            }
        }
    }

    /// Another file is at the path, and the end of this one was reached.
    fn is_followed(&mut self) -> io::Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        let number = file.get_ref().metadata()?.ino();
        let is_other = fs::metadata(&self.path).is_ok_and(|now| now.ino() != number);
        Ok(is_other && file.fill_buf()?.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let root = tempfile::tempdir().expect("a folder");
        let home = Home { data: root.path().into(), run: root.path().join("run") };
        (root, home)
    }

    fn spec(labels: &[(&str, &str)]) -> ContainerSpec {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ContainerSpec { name: "shop-web-1".into(), image: "nginx".into(), labels, ..Default::default() }
    }

    #[test]
    fn lines_say_who_and_leave_our_own_labels_out() {
        let (_root, home) = home();
        let spec = spec(&[(label::SERVICE, "web"), (label::ONE_OFF, "False"), ("team", "red")]);
        note_of(&home, "shop", "ab", &spec, "die", &[("exitCode", "3".into())]);
        let (earlier, mut reader) = Reader::from_begin(&home);
        assert_eq!(earlier, []);
        let found = reader.take().expect("a file");
        let attributes: Vec<String> = found[0].attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            (found[0].service.as_str(), found[0].action.as_str(), found[0].one_off),
            ("web", "die", false)
        );
        assert_eq!(attributes, ["team=red", "image=nginx", "name=shop-web-1", "exitCode=3"]);
        assert_eq!(reader.take().expect("a file"), []);
    }

    #[test]
    fn a_reader_goes_on_over_files_and_misses_nothing() {
        let (_root, home) = home();
        let mut reader = Reader::from_now(&home).expect("a reader");
        let long = "x".repeat(10_000);
        let mut seen = Vec::new();
        for number in 0..300 {
            note_of(&home, "shop", &number.to_string(), &spec(&[("long", &long)]), "start", &[]);
            if number % 7 == 0 {
                seen.extend(reader.take().expect("a file"));
            }
        }
        seen.extend(reader.take().expect("a file"));
        let ids: Vec<String> = seen.into_iter().map(|happened| happened.id).collect();
        assert_eq!(ids, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
        let bytes = |name: &str| fs::metadata(home.data.join(name)).map_or(0, |meta| meta.len());
        assert!(bytes("events") < MOST_BYTES + 20_000 && bytes("events.1") < MOST_BYTES + 20_000);
        let (earlier, mut later) = Reader::from_begin(&home);
        let kept = earlier.len() + later.take().expect("a file").len();
        assert!((100..300).contains(&kept), "{kept} are kept");
    }
}
