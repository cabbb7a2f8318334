//! Stages to steps: one per `FROM` and instruction of the selected stages, with what each waits for.

use stack_schema::dockerfile::stages::{Reference, Selected, Selection, label};
use stack_schema::dockerfile::{Dockerfile, Instruction, Kind};
use std::collections::HashMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Position in [`Selection::stages`].
    pub(super) stage: usize,
    /// Instruction of the stage; `None`: its `FROM`.
    pub(super) instruction: Option<usize>,
    /// `[stage 2/5] RUN make`.
    pub(super) name: String,
    /// Steps shown to the user make or start something; the others only change the configuration.
    pub(super) shown: bool,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) steps: Vec<Step>,
    pub(super) dependencies: Vec<Vec<usize>>,
    /// Last step of each selected stage.
    pub(super) ends: Vec<usize>,
    /// File index of a stage → position in the selection.
    positions: HashMap<usize, usize>,
}

impl Graph {
    pub(super) fn new(file: &Dockerfile, selection: &Selection) -> Self {
        let mut graph = Self::default();
        for (position, selected) in selection.stages.iter().enumerate() {
            graph.positions.insert(selected.index, position);
            graph.add_stage(file, position, selected, selection.stages.len() > 1);
        }
        graph
    }

    /// Position of a stage, which comes before those that refer to it.
    pub(super) fn position(&self, stage: usize) -> usize {
        self.positions[&stage]
    }

    fn end_of(&self, reference: &Reference) -> Option<usize> {
        match reference {
            Reference::Stage(index) => Some(self.ends[self.position(*index)]),
            _ => None,
        }
    }

    fn add_stage(&mut self, file: &Dockerfile, position: usize, selected: &Selected, many: bool) {
        let stage = &file.stages[selected.index];
        let named = stage.name.is_some() || many;
        let prefix = if named { format!("{} ", label(stage, selected.index)) } else { String::new() };
        let total = 1 + stage.instructions.iter().filter(|i| makes_layer(i)).count();
        let mut number = 1;
        let name = |number: usize, text: &str| format!("[{prefix}{number}/{total}] {}", short(text));
        let before = std::iter::once(&selected.base).chain(&selected.triggers);
        let dependencies = before.filter_map(|reference| self.end_of(reference)).collect();
        let shown = !matches!(selected.base, Reference::Stage(_) | Reference::Scratch);
        self.push(
            Step { stage: position, instruction: None, name: name(1, &stage.text), shown },
            dependencies,
        );
        for (index, instruction) in stage.instructions.iter().enumerate() {
            let shown = makes_layer(instruction);
            number += usize::from(shown);
            let name = if shown { name(number, &instruction.text) } else { short(&instruction.text) };
            let mut dependencies = vec![self.steps.len() - 1];
            let uses = selected.uses.iter().filter(|(at, _)| *at == index);
            dependencies.extend(uses.filter_map(|(_, reference)| self.end_of(reference)));
            self.push(Step { stage: position, instruction: Some(index), name, shown }, dependencies);
        }
        self.ends.push(self.steps.len() - 1);
    }

    fn push(&mut self, step: Step, dependencies: Vec<usize>) {
        self.steps.push(step);
        self.dependencies.push(dependencies);
    }
}

/// On one line, without the blanks of continuations, at most 200 characters.
fn short(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let joined = words.join(" ");
    match joined.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &joined[..end]),
        None => joined,
    }
}

fn makes_layer(instruction: &Instruction) -> bool {
    matches!(instruction.kind, Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stack_schema::dockerfile::stages::{Names, select};
    use stack_schema::source::Source;
    use std::sync::Arc;

    #[test]
    fn stages_wait_only_for_what_they_use() {
        let text = "FROM a AS one\nRUN x\nENV k=v\nFROM b AS unused\nRUN y\nFROM c AS two\nRUN z\nFROM one\nCOPY --from=two /z /z\nWORKDIR /w";
        let source = Source { name: "Dockerfile".into(), path: None, text: text.into() };
        let file = stack_schema::dockerfile::parse(Arc::new(source)).expect("valid");
        let names = Names {
            contexts: &|_| false,
            variables: &|_: &str| None,
            platform: &|_| Ok(()),
            image: &|_| Ok(()),
        };
        let graph = Graph::new(&file, &select(&file, None, &names).expect("valid"));
        let lines: Vec<String> = graph
            .steps
            .iter()
            .zip(&graph.dependencies)
            .map(|(step, needs)| format!("{} {needs:?}", step.name))
            .collect();
        assert_eq!(
            lines,
            [
                "[one 1/2] FROM a AS one []",
                "[one 2/2] RUN x [0]",
                "ENV k=v [1]",
                "[two 1/2] FROM c AS two []",
                "[two 2/2] RUN z [3]",
                "[stage-3 1/3] FROM one [2]",
                "[stage-3 2/3] COPY --from=two /z /z [5, 4]",
                "[stage-3 3/3] WORKDIR /w [6]",
            ]
        );
    }
}
