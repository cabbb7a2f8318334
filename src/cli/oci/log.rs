//! Where errors and warnings go: standard error for people, `--log` for the engine that called.

use super::args::{Global, LogFormat};
use jiff::Timestamp;
use serde_json::json;
use stack_runtime::launch::LaunchError;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(Debug)]
pub(super) struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    pub(super) fn new(global: &Global) -> Self {
        Self { file: global.log.clone(), format: global.log_format, debug: global.debug }
    }

    pub(super) fn error(&self, error: &LaunchError) {
        self.write("error", &error.to_string());
        self.say(&format!("error: {error}"));
    }

    pub(super) fn warnings(&self, warnings: Vec<String>) {
        for warning in warnings {
            self.warning(&warning);
        }
    }

    pub(super) fn warning(&self, warning: &str) {
        self.write("warning", warning);
        if self.file.is_none() {
            self.say(&format!("warning: {warning}"));
        }
    }

    pub(super) fn debug(&self, text: &str) {
        if self.debug {
            self.write("debug", text);
            if self.file.is_none() {
                self.say(&self.line("debug", text));
            }
        }
    }

    fn say(&self, text: &str) {
        // Nobody is left to tell.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// A log that cannot be written must not keep a container from running.
    fn write(&self, level: &str, text: &str) {
        let Some(path) = &self.file else { return };
        if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
            let _ = writeln!(file, "{}", self.line(level, text));
        }
    }

    fn line(&self, level: &str, text: &str) -> String {
        let time = Timestamp::now().to_string();
        match self.format {
            LogFormat::Json => json!({ "level": level, "msg": text, "time": time }).to_string(),
            LogFormat::Text => format!("time={:?} level={level} msg={}", time, json!(text)),
        }
    }
}
