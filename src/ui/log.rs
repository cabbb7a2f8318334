//! The log printer: one prefix and one colour per container, every line written whole.

use console::Style;
use std::collections::HashMap;
use unicode_width::UnicodeWidthStr;

/// How log lines look.
#[derive(Debug, Clone, Default)]
pub struct LogStyle {
    pub colour: bool,
    pub prefix: bool,
    pub timestamps: bool,
}

/// Formats lines of several containers; colours are given out in the order of first sight.
#[derive(Debug)]
pub struct LogPrinter {
    style: LogStyle,
    width: usize,
    colours: HashMap<String, Style>,
}

impl LogPrinter {
    pub fn new(style: LogStyle) -> Self {
        Self { style, width: 0, colours: HashMap::new() }
    }

    /// Announces a container, so that prefixes line up from its first line on.
    pub fn announce(&mut self, name: &str) {
        self.width = self.width.max(name.width());
        let next = colour(self.colours.len());
        self.colours.entry(name.to_string()).or_insert(next);
    }

    /// One line, `time` in RFC 3339; a line end is added.
    pub fn line(&mut self, name: &str, time: &str, text: &str) -> String {
        let mut out = self.head(name);
        if self.style.timestamps {
            out.push_str(time);
            out.push(' ');
        }
        out.push_str(text);
        out.push('\n');
        out
    }

    /// A remark about a container, e.g. that it exited, in its colour and without a prefix.
    pub fn remark(&mut self, name: &str, text: &str) -> String {
        self.announce(name);
        format!("{}\n", self.coloured(name, &format!("{name} {text}")))
    }

    fn head(&mut self, name: &str) -> String {
        if !self.style.prefix {
            return String::new();
        }
        self.announce(name);
        let gap = " ".repeat(self.width - name.width());
        format!("{} ", self.coloured(name, &format!("{name}{gap}  |")))
    }

    fn coloured(&self, name: &str, text: &str) -> String {
        match self.colours.get(name) {
            Some(style) if self.style.colour => style.apply_to(text).to_string(),
            _ => text.to_string(),
        }
    }
}

/// Cyan, yellow, green, magenta, blue, then the same again brighter.
fn colour(index: usize) -> Style {
    let base = Style::new().force_styling(true);
    let style = match index % 5 {
        0 => base.cyan(),
        1 => base.yellow(),
        2 => base.green(),
        3 => base.magenta(),
        _ => base.blue(),
    };
    if index / 5 % 2 == 1 { style.bright() } else { style }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> LogStyle {
        LogStyle { colour: false, prefix: true, timestamps: false }
    }

    #[test]
    fn prefixes_line_up() {
        let mut printer = LogPrinter::new(plain());
        printer.announce("web-1");
        printer.announce("cache-1");
        assert_eq!(printer.line("web-1", "", "hello"), "web-1    | hello\n");
        assert_eq!(printer.line("cache-1", "", "there"), "cache-1  | there\n");
    }

    #[test]
    fn raw_lines_have_no_prefix() {
        let mut printer = LogPrinter::new(LogStyle { prefix: false, ..plain() });
        assert_eq!(printer.line("web-1", "", "hello"), "hello\n");
    }

    #[test]
    fn timestamps_stand_before_the_text() {
        let mut printer = LogPrinter::new(LogStyle { timestamps: true, ..plain() });
        assert_eq!(printer.line("web-1", "2026-01-02T03:04:05Z", "x"), "web-1  | 2026-01-02T03:04:05Z x\n");
    }

    #[test]
    fn each_container_keeps_its_colour() {
        let mut printer = LogPrinter::new(LogStyle { colour: true, ..plain() });
        let first = printer.line("a", "", "1");
        let other = printer.line("b", "", "1");
        assert!(first.starts_with("\u{1b}[36m"), "{first:?}");
        assert!(other.starts_with("\u{1b}[33m"), "{other:?}");
        assert_eq!(printer.line("a", "", "1"), first);
    }
}
