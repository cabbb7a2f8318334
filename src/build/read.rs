//! What a Dockerfile says, without building it: the state at the end of each stage, as far as it can be known without
//! running anything, and the findings.
//!
//! The instructions are applied by the code that a build uses; RUN, COPY, ADD and WORKDIR leave their line in the
//! history and no layer. On an image that is not known only such findings are told that need none of its values, and
//! what would be wrong is left to the build.

use super::command;
use super::failure::{BuildFailure, Result};
use super::inputs;
use super::request::{BuildRequest, DockerfileSource};
use super::state::{Outside, State, Words};
use super::transfer::{self, Source};
use stack_runtime::image::config::{Document, ImageConfig};
use stack_runtime::image::{Platform, Reference as ImageName};
use stack_schema::dockerfile::lint::{self, Finding};
use stack_schema::dockerfile::stages::{Reference, Selected, froms};
use stack_schema::dockerfile::{Dockerfile, Instruction, Kind, Transfer, parse_trigger};
use stack_schema::ignore::Patterns;
use stack_schema::source::Place;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Mutex;

pub(super) struct Reader<'a> {
    file: &'a Dockerfile,
    outside: &'a Outside,
    platform: Platform,
    ignore: &'a Patterns,
    image: &'a dyn Fn(&str) -> Result<Option<Document>>,
    /// Ends of stages by their index, and whether everything below them is known.
    states: HashMap<usize, (State, bool)>,
    /// Names of all images that are needed.
    images: BTreeSet<String>,
    findings: Vec<Finding>,
}

impl<'a> Reader<'a> {
    /// `ignore`: of the build context. `image`: the document of an image, if it is known.
    pub(super) fn new(
        file: &'a Dockerfile,
        outside: &'a Outside,
        platform: Option<&str>,
        ignore: &'a Patterns,
        image: &'a dyn Fn(&str) -> Result<Option<Document>>,
    ) -> Result<Self> {
        let platform = platform.map(Platform::parse).transpose()?.unwrap_or_else(Platform::host);
        let (states, images, findings) = (HashMap::new(), BTreeSet::new(), Vec::new());
        Ok(Self { file, outside, platform, ignore, image, states, images, findings })
    }

    /// Reads stages, which stand after those they refer to. What is said of their images comes first.
    pub(super) fn read(&mut self, stages: &[Selected]) -> Result<()> {
        stages.iter().try_for_each(|selected| self.images_of_stage(selected))?;
        stages.iter().try_for_each(|selected| self.stage(selected))
    }

    pub(super) fn findings(self) -> Vec<Finding> {
        self.findings
    }

    fn stage(&mut self, selected: &Selected) -> Result<()> {
        let stage = &self.file.stages[selected.index];
        let (mut state, is_known) = self.base(selected, &stage.place)?;
        for trigger in state.take_triggers() {
            let label = inputs::stage_label(self.file, selected.index);
            let instruction = parse_trigger(&trigger, &label)?;
            self.images.extend(self.images_of(&instruction));
            self.instruction(&mut state, &instruction, &stage.place, is_known)?;
        }
        for instruction in &stage.instructions {
            self.instruction(&mut state, instruction, &instruction.place, is_known)?;
        }
        self.states.insert(selected.index, (state, is_known));
        Ok(())
    }

    fn base(&mut self, selected: &Selected, place: &Place) -> Result<(State, bool)> {
        let platform = self.platform_of(selected, place)?;
        Ok(match &selected.base {
            Reference::Scratch => (State::scratch(platform), true),
            Reference::Stage(index) => {
                let (state, is_known) = &self.states[index];
                (state.child(), *is_known)
            }
            Reference::Context(_) => (unknown(platform), false),
            Reference::Image(name) => match (self.image)(name)? {
                Some(document) => (State::from_document(&document), true),
                None => (unknown(platform), false),
            },
        })
    }

    fn platform_of(&self, selected: &Selected, place: &Place) -> Result<Platform> {
        match &selected.platform {
            Some(text) => Platform::parse(text).map_err(|e| BuildFailure::from(e).at(place)),
            None => Ok(self.platform.clone()),
        }
    }

    /// The images that a stage names, and whether those that are known are for its platform.
    fn images_of_stage(&mut self, selected: &Selected) -> Result<()> {
        let stage = &self.file.stages[selected.index];
        if let Reference::Image(name) = &selected.base {
            let platform = self.platform_of(selected, &stage.place)?;
            self.note_image(name, &platform, Some(&stage.place))?;
        }
        for (at, reference) in &selected.uses {
            let Reference::Image(name) = reference else { continue };
            let instruction = &stage.instructions[*at];
            let place = matches!(instruction.kind, Kind::Copy(_)).then_some(&instruction.place);
            self.note_image(name, &self.platform.clone(), place)?;
        }
        Ok(())
    }

    /// `place`: where to say that it is for another platform, if that is said.
    fn note_image(&mut self, name: &str, platform: &Platform, place: Option<&Place>) -> Result<()> {
        self.images.insert(name.to_owned());
        let (Some(place), Some(document)) = (place, (self.image)(name)?) else { return Ok(()) };
        let is_other = document.os != platform.os || document.architecture != platform.architecture;
        if is_other && !is_empty(&document) {
            let own = State::from_document(&document).platform;
            let message = other_platform(name, &own, platform);
            self.findings.push(Finding::new(lint::BASE_PLATFORM, place, message));
        }
        Ok(())
    }

    /// What a trigger copies or mounts from, if that is no stage.
    fn images_of(&self, instruction: &Instruction) -> Vec<String> {
        let is_index = |name: &str| matches!(instruction.kind, Kind::Copy(_)) && name.parse::<u64>().is_ok();
        let is_named = |name: &str| {
            let mut names = self.file.stages.iter().filter_map(|stage| stage.name.as_deref());
            names.any(|own| own.eq_ignore_ascii_case(name))
        };
        let names = froms(&instruction.kind).into_iter();
        let images = names.filter(|name| *name != "scratch" && !is_index(name) && !is_named(name));
        images.map(str::to_owned).collect()
    }

    /// `place`: where the user wrote it, or what brought it.
    fn instruction(
        &mut self,
        state: &mut State,
        instruction: &Instruction,
        place: &Place,
        is_known: bool,
    ) -> Result<()> {
        let findings = Mutex::default();
        let words = Words { escape: self.file.escape, place, findings: &findings };
        let applied = match state.apply(&instruction.kind, &words, self.outside) {
            Ok(false) => self.layer(state, &instruction.kind, &words),
            applied => applied.map(drop),
        };
        let mut findings = findings.into_inner().expect("never poisoned: nothing panics while it is held");
        findings.retain(|finding| is_known || finding.rule != lint::UNDEFINED_VAR);
        self.findings.extend(findings);
        match applied {
            // What the base sets can only count where there are variables.
            Err(why) if is_known || !instruction.text.contains('$') => Err(BuildFailure::new(why).at(place)),
            _ => Ok(()),
        }
    }

    fn layer(&self, state: &mut State, kind: &Kind, words: &Words<'_>) -> std::result::Result<(), String> {
        let (created_by, is_empty) = match kind {
            Kind::Workdir(path) => (state.enter(path, words)?, state.config.working_dir == "/"),
            Kind::Run(run) => (command::read(run, state, words)?, false),
            Kind::Copy(transfer) => (self.transfer(transfer, "COPY", state, words)?, false),
            Kind::Add(transfer) => (self.transfer(transfer, "ADD", state, words)?, false),
            _ => return Ok(()),
        };
        state.remember(created_by, is_empty);
        Ok(())
    }

    fn transfer(
        &self,
        transfer: &Transfer,
        keyword: &'static str,
        state: &State,
        words: &Words<'_>,
    ) -> std::result::Result<String, String> {
        let plan = transfer::plan(transfer, keyword, Source::Chain(String::new()), state, words, None)?;
        // With exceptions it cannot be said of a directory what is in it.
        if transfer.from.is_none() && !self.ignore.takes_back() {
            for path in plan.paths().filter(|path| self.ignore.matches(path)) {
                let message = format!("`{path}` is left out by the .dockerignore file");
                words.find(Finding::new(lint::COPY_IGNORED, words.place, message));
            }
        }
        Ok(plan.created_by())
    }
}

/// On an image of which nothing is known: it may be anywhere but in the root.
fn unknown(platform: Platform) -> State {
    let mut state = State::scratch(platform);
    state.config.working_dir = "/image".into();
    state
}

/// Nothing is in the image, so that it is for any platform.
fn is_empty(document: &Document) -> bool {
    document.rootfs.diff_ids.is_empty() && document.history.iter().all(|entry| entry.empty_layer)
}

/// The finding of a base image for another platform.
pub(super) fn other_platform(name: &str, own: &Platform, wanted: &Platform) -> String {
    format!("base image `{name}` is for {own}, the build is for {wanted}")
}

/// What the reader understood of a Dockerfile.
#[derive(Debug)]
pub struct Understood {
    pub file: Dockerfile,
    /// All images that the last stage needs, by their full names, sorted.
    pub images: Vec<String>,
    /// Of the last stage.
    pub config: ImageConfig,
    pub history: Vec<String>,
    pub findings: Vec<Finding>,
}

/// Reads a Dockerfile for linux/amd64 as if every image were `base`.
///
/// # Errors
/// What is wrong with it; a finding, if it wants those to be errors.
pub fn understand(path: &Path, base: &Document) -> Result<Understood> {
    let here = std::env::current_dir().unwrap_or_default();
    understand_source(DockerfileSource::Path(here.join(path)), base)
}

fn understand_source(dockerfile: DockerfileSource, base: &Document) -> Result<Understood> {
    const PLATFORM: &str = "linux/amd64";
    let request = BuildRequest { dockerfile, platform: Some(PLATFORM.into()), ..BuildRequest::default() };
    let (file, _) = inputs::read_any(&request)?;
    let outside = inputs::outside(&file, &request)?;
    let selection = inputs::selection(&file, &request, &outside)?;
    let ignore = Patterns::default();
    let image = |_: &str| Ok(Some(base.clone()));
    let mut reader = Reader::new(&file, &outside, Some(PLATFORM), &ignore, &image)?;
    reader.findings = inputs::findings(&file, &request, &outside);
    reader.read(&selection.stages)?;
    let (state, _) = &reader.states[&selection.target];
    let config = state.config.clone();
    let history = state.history.iter().map(|entry| entry.created_by.clone().unwrap_or_default()).collect();
    let images: BTreeSet<String> = reader.images.iter().map(|name| full(name)).collect();
    let mut findings = reader.findings;
    findings.retain(|finding| file.check.wants(finding.rule));
    file.check.verdict(&findings)?;
    Ok(Understood { images: images.into_iter().collect(), config, history, findings, file })
}

fn full(name: &str) -> String {
    ImageName::parse(name).map_or_else(|_| name.to_owned(), |name| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Understood> {
        read_on(text, r#"{"os":"linux","architecture":"amd64","config":{"Env":["BASE=b"],"Cmd":["sh"]}}"#)
    }

    fn read_on(text: &str, base: &str) -> Result<Understood> {
        let base = serde_json::from_str(base).expect("a document");
        understand_source(DockerfileSource::Inline(text.into()), &base)
    }

    fn found(text: &str) -> Vec<String> {
        let understood = read(text).unwrap_or_else(|e| panic!("{text}: {}", e.render()));
        let line = |finding: &Finding| finding.diagnostic.place.as_ref().map_or(0, |place| place.lines().0);
        understood.findings.iter().map(|finding| format!("{}:{}", finding.rule, line(finding))).collect()
    }

    #[test]
    fn findings_inside_of_stages_have_the_known_names() {
        for (text, expected) in [
            ("FROM a\nCMD run", "JSONArgsRecommended:2"),
            ("FROM a\nENTRYPOINT run", "JSONArgsRecommended:2"),
            ("FROM a\nWORKDIR here\nWORKDIR there", "WorkdirRelativePath:2"),
            ("FROM a\nENV D=d\nWORKDIR $D", "WorkdirRelativePath:3"),
            ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]", "MultipleInstructionsDisallowed:2"),
            ("FROM a\nENV k v", "LegacyKeyValueFormat:2"),
            ("FROM a\nLABEL k v w=x", "LegacyKeyValueFormat:2"),
            ("FROM a\nENV DB_PASSWORD=x", "SecretsUsedInArgOrEnv:2"),
            ("FROM a\nARG API_TOKEN", "SecretsUsedInArgOrEnv:2"),
            ("FROM a\nEXPOSE 80/TCP", "ExposeProtoCasing:2"),
            ("FROM a\nARG P=UDP\nEXPOSE 80/$P", "ExposeProtoCasing:3"),
            ("FROM a\nEXPOSE 127.0.0.1:80:80", "ExposeInvalidFormat:2"),
            ("FROM a\nLABEL l=${NOPE:-x}", "UndefinedVar:2"),
            ("FROM a\nRUN --mount=type=cache,target=/c$NOPE x", "UndefinedVar:2"),
            ("FROM a AS b\nONBUILD CMD x\nFROM b\nUSER u", "JSONArgsRecommended:3"),
        ] {
            assert_eq!(found(text), [expected], "{text}");
        }
        assert_eq!(found("FROM a\nCOPY $x $x /"), ["UndefinedVar:2", "UndefinedVar:2"]);
    }

    #[test]
    fn nothing_is_found_inside_of_stages_that_is_meant() {
        for text in [
            "FROM a AS b\nSHELL [\"/bin/bash\", \"-c\"]\nCMD run\nFROM b\nENTRYPOINT run",
            "FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y",
            "FROM a\nENV PATH=/x PUBLIC_KEY=1 monkey=2\nARG KEY_FILE TOKEN_VERSION",
            "FROM a\nEXPOSE 80/tcp 90-91/udp $NOPE",
            "FROM a\nARG X\nLABEL l=$X$BASE$PATH",
            "FROM a AS b\nCMD run\nFROM a",
        ] {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
    }

    #[test]
    fn the_history_is_as_buildkit_writes_it() {
        for (text, expected) in [
            ("ARG A B=2\nENV B=3\nRUN x  y", "RUN |2 A= B=3 /bin/sh -c x  y # buildkit"),
            ("RUN [\"a\", \"b c\"]", "RUN a b c # buildkit"),
            ("RUN", "RUN /bin/sh -c  # buildkit"),
            ("RUN <<-E\n\ta\nE", "RUN /bin/sh -c a\n # buildkit"),
            ("RUN cat <<E > f\na\nE", "RUN /bin/sh -c cat <<E > f\na\nE # buildkit"),
            ("RUN <<E\n#!/bin/x\nE", "RUN /bin/sh -c /dev/pipes/E # buildkit"),
            (
                "COPY --from=b --chown=1:2 --link --chmod=7 a b /",
                "COPY --chown=1:2 --chmod=7 a b / # buildkit",
            ),
            ("COPY <<E x /d/\nbody\nE", "COPY x <<E /d/ # buildkit"),
            ("CMD [\"a\", \"b\\n\"]", "CMD [\"a\" \"b\\n\"]"),
            ("CMD", "CMD [\"/bin/sh\" \"-c\" \"\"]"),
            ("ENTRYPOINT []", "ENTRYPOINT []"),
            ("EXPOSE 90/UDP 80-81", "EXPOSE [80/tcp 81/tcp 90/udp]"),
            ("VOLUME /a /b", "VOLUME [/a /b]"),
            ("SHELL [\"b\", \"-c\"]", "SHELL [b -c]"),
            (
                "HEALTHCHECK --interval=90s CMD x",
                "HEALTHCHECK &{[\"CMD-SHELL\" \"x\"] \"1m30s\" \"0s\" \"0s\" \"0s\" '\\x00'}",
            ),
            ("WORKDIR /a//b/", "WORKDIR /a//b/"),
            ("WORKDIR a/../b", "WORKDIR /b"),
        ] {
            let understood = read(&format!("FROM x\n{text}")).unwrap_or_else(|e| panic!("{}", e.render()));
            assert_eq!(understood.history.last().map(String::as_str), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_base_gives_its_configuration_and_its_triggers() {
        let base =
            r#"{"os":"linux","config":{"Cmd":["c"],"Shell":["bash"],"OnBuild":["RUN $X","ENTRYPOINT e"]}}"#;
        let understood = read_on("FROM a\nONBUILD USER u\nUSER v", base).expect("valid");
        let config = &understood.config;
        assert_eq!(understood.history, ["RUN bash $X # buildkit", "ENTRYPOINT [\"bash\" \"e\"]", "USER v"]);
        assert_eq!((config.cmd.as_ref(), config.on_build.as_slice()), (None, &["USER u".to_owned()][..]));
        assert!(config.env[0].starts_with("PATH=/usr/local/sbin"));
        assert_eq!(read("FROM scratch\nCMD [\"x\"]").expect("valid").config.working_dir, "/");
    }

    #[test]
    fn stages_nobody_needs_are_read_as_far_as_buildkit_reads_them() {
        let images = |text: &str| read(text).map(|understood| understood.images).map_err(|e| e.render());
        let needed = "FROM b AS unused\nCOPY --chmod=x a b\nFROM c:1\nRUN --mount=from=d,target=/d x";
        assert_eq!(images(needed).expect("valid"), ["docker.io/library/c:1", "docker.io/library/d:latest"]);
        for (text, expected) in [
            ("FROM Up:1 AS unused\nFROM c", "failed to parse image name"),
            ("FROM a AS b\nFROM B", "failed to parse image name"),
            ("FROM a AS b\nCOPY --from=b x y\nFROM c", "circular"),
            ("FROM --platform=$NOPE a", "empty platform"),
            ("FROM a\nCOPY --from=2 x y", "invalid stage index"),
            ("FROM a\nCOPY https://x/y z", "can't be a URL"),
            ("# check=error=true\nFROM a\nCMD x", "lint violation"),
        ] {
            assert!(images(text).expect_err(text).contains(expected), "{text}");
        }
    }
}
