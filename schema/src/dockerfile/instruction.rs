//! One logical line to one typed instruction.
//!
//! Errors: an unknown keyword or flag (with the nearest known one), a wrong number of arguments, a form
//! that the keyword does not allow.

use super::lines::{self, Line};
use super::mount::MountText;
use super::words::{self, Json};
use super::{Command, Healthcheck, Heredoc, Instruction, Kind, Pairs, Run, Stage, Transfer, TransferSource};
use crate::diagnostic::Diagnostic;
use std::time::Duration;

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What can be wrong with a line: a message, and perhaps a hint.
struct Wrong(String, Option<String>);

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self(message, None)
    }
}

impl From<&str> for Wrong {
    fn from(message: &str) -> Self {
        Self(message.to_owned(), None)
    }
}

type Result<T> = std::result::Result<T, Wrong>;

fn located<T>(line: &Line, result: Result<T>) -> std::result::Result<T, Box<Diagnostic>> {
    result.map_err(|Wrong(message, hint)| {
        let mut diagnostic = Diagnostic::error(message).at(line.place.clone());
        diagnostic.hint = hint;
        Box::new(diagnostic)
    })
}

pub(super) fn parse(line: &Line, escape: char) -> std::result::Result<Instruction, Box<Diagnostic>> {
    let kind = located(line, kind(line, escape))?;
    Ok(Instruction { keyword: line.keyword.clone(), text: one_line(line), place: line.place.clone(), kind })
}

/// `KEYWORD rest`, with the keyword in upper case.
fn one_line(line: &Line) -> String {
    format!("{} {}", line.keyword(), line.rest()).trim_end().to_owned()
}

fn kind(line: &Line, escape: char) -> Result<Kind> {
    let keyword = line.keyword();
    let text = line.arguments.as_str();
    let is_none = || words::first(text).map_or(text, |(form, _)| form).eq_ignore_ascii_case("NONE");
    let flags = match keyword.as_str() {
        // BuildKit looks at no flags of these.
        "ARG" | "STOPSIGNAL" => Flags::default(),
        "HEALTHCHECK" if is_none() => Flags::default(),
        known if KEYWORDS.contains(&known) => Flags::check(known, &line.flags)?,
        _ => return Err(unknown(&line.keyword)),
    };
    match keyword.as_str() {
        "ADD" => transfer(&flags, text, line).map(Kind::Add),
        "ARG" => arg(text, escape),
        "CMD" => Ok(Kind::Cmd(command(text)?)),
        "COPY" => transfer(&flags, text, line).map(Kind::Copy),
        "ENTRYPOINT" => Ok(Kind::Entrypoint(command(text)?)),
        "ENV" => pairs("ENV", text, escape).map(Kind::Env),
        "EXPOSE" => expose(text),
        "HEALTHCHECK" => healthcheck(&flags, text).map(Kind::Healthcheck),
        "LABEL" => pairs("LABEL", text, escape).map(Kind::Label),
        "MAINTAINER" => one("MAINTAINER", text).map(Kind::Maintainer),
        "ONBUILD" => onbuild(line, escape),
        "RUN" => run(&flags, text, line).map(Kind::Run),
        "SHELL" => shell(text),
        "STOPSIGNAL" => one("STOPSIGNAL", text).map(Kind::Stopsignal),
        "USER" => one("USER", text).map(Kind::User),
        "VOLUME" => volume(text),
        "WORKDIR" => one("WORKDIR", text).map(Kind::Workdir),
        _ => Err(unknown(&line.keyword)),
    }
}

fn unknown(keyword: &str) -> Wrong {
    let shown: String = keyword.chars().take(40).collect();
    Wrong(format!("unknown instruction `{shown}`"), nearest(keyword, &KEYWORDS))
}

/// "Did you mean": the known word at most two edits away.
pub fn nearest(word: &str, known: &[&str]) -> Option<String> {
    if word.len() > 40 {
        return None;
    }
    let best = known.iter().map(|name| (edits(word, name), name)).min()?;
    (best.0 <= 2).then(|| format!("Did you mean `{}`?", best.1))
}

fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(ca != *cb)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Flags of one instruction, checked against the ones it knows.
#[derive(Default)]
struct Flags(Vec<(String, Option<String>)>);

fn known_flags(keyword: &str) -> &'static [&'static str] {
    match keyword {
        "FROM" => &["platform"],
        "RUN" => &["mount", "network", "security", "device"],
        "COPY" => &["from", "chown", "chmod", "link", "parents", "exclude"],
        "ADD" => &["chown", "chmod", "link", "exclude", "checksum", "unpack", "keep-git-dir"],
        "HEALTHCHECK" => &["interval", "timeout", "start-period", "start-interval", "retries"],
        _ => &[],
    }
}

const BOOLEAN: [&str; 4] = ["link", "parents", "unpack", "keep-git-dir"];
const REPEATABLE: [&str; 3] = ["mount", "exclude", "device"];

impl Flags {
    fn check(keyword: &str, words: &[String]) -> Result<Self> {
        let known = known_flags(keyword);
        let mut flags: Vec<(String, Option<String>)> = Vec::new();
        for word in words {
            let body = &word[2..];
            let (name, value) = body.split_once('=').map_or((body, None), |(n, v)| (n, Some(v.to_owned())));
            if !known.contains(&name) {
                return Err(Wrong(format!("unknown flag `--{name}` of {keyword}"), nearest(name, known)));
            }
            if value.is_none() && !BOOLEAN.contains(&name) {
                return Err(format!("the flag `--{name}` needs a value").into());
            }
            if !REPEATABLE.contains(&name) && flags.iter().any(|(seen, _)| seen == name) {
                return Err(format!("the flag `--{name}` is given twice").into());
            }
            flags.push((name.to_owned(), value));
        }
        Ok(Self(flags))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(n, _)| n == name)?.1.clone()
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(n, _)| n == name).filter_map(|(_, value)| value.clone()).collect()
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>> {
        let Some((_, value)) = self.0.iter().find(|(n, _)| n == name) else { return Ok(None) };
        match value.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(format!("the flag `--{name}` is true or false, not `{other}`").into()),
        }
    }
}

fn one(keyword: &str, text: &str) -> Result<String> {
    if text.is_empty() {
        Err(format!("{keyword} requires exactly one argument").into())
    } else {
        Ok(text.to_owned())
    }
}

fn some(keyword: &str, words: Vec<String>) -> Result<Vec<String>> {
    if words.is_empty() { Err(format!("{keyword} requires at least one argument").into()) } else { Ok(words) }
}

/// Words, or a JSON array of them.
fn list(text: &str) -> Result<Vec<String>> {
    match words::json_array(text) {
        Some(Json::Strings(strings)) => Ok(strings),
        Some(Json::Mixed) => Err(mixed()),
        None => Ok(words::blank_separated(text).into_iter().map(str::to_owned).collect()),
    }
}

fn mixed() -> Wrong {
    "the JSON form may only hold strings".into()
}

fn command(text: &str) -> Result<Command> {
    match words::json_array(text) {
        Some(Json::Strings(strings)) => Ok(Command::Exec(strings)),
        Some(Json::Mixed) => Err(mixed()),
        None => Ok(Command::Shell(text.to_owned())),
    }
}

fn expose(text: &str) -> Result<Kind> {
    let mut ports = some("EXPOSE", words::blank_separated(text).into_iter().map(str::to_owned).collect())?;
    ports.sort();
    Ok(Kind::Expose(ports))
}

fn volume(text: &str) -> Result<Kind> {
    let paths: Vec<String> = some("VOLUME", list(text)?)?.iter().map(|path| path.trim().to_owned()).collect();
    if paths.iter().any(String::is_empty) {
        return Err("VOLUME specified can not be an empty string".into());
    }
    Ok(Kind::Volume(paths))
}

fn shell(text: &str) -> Result<Kind> {
    match words::json_array(text) {
        Some(Json::Strings(strings)) if !strings.is_empty() => Ok(Kind::Shell(strings)),
        Some(Json::Strings(_)) => Err("SHELL requires at least one argument".into()),
        Some(Json::Mixed) => Err(mixed()),
        _ => Err(Wrong(
            "SHELL requires the arguments to be in JSON form".into(),
            Some("For example: SHELL [\"/bin/bash\", \"-c\"].".into()),
        )),
    }
}

fn arg(text: &str, escape: char) -> Result<Kind> {
    let words = some("ARG", words::raw(text, escape))?;
    let mut args = Vec::new();
    for word in words {
        let (name, value) =
            word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v.to_owned())));
        if name.is_empty() {
            return Err("ARG names can not be blank".into());
        }
        args.push((name.to_owned(), value));
    }
    Ok(Kind::Arg(args))
}

/// `k=v k=v …`, or the old `k v` with one pair.
fn pairs(keyword: &str, text: &str, escape: char) -> Result<Pairs> {
    let words = some(keyword, words::raw(text, escape))?;
    if !words[0].contains('=') {
        let Some((name, value)) = words::first(text) else {
            return Err(Wrong(
                format!("{keyword} must have two arguments"),
                Some(format!("Write {keyword} name=value.")),
            ));
        };
        return Ok(Pairs { list: vec![(name.to_owned(), value.to_owned())], is_legacy: true });
    }
    let list = words.iter().map(|word| pair(keyword, word)).collect::<Result<_>>()?;
    Ok(Pairs { list, is_legacy: false })
}

fn pair(keyword: &str, word: &str) -> Result<(String, String)> {
    match word.split_once('=') {
        Some(("", _)) => Err(format!("{keyword} names can not be blank").into()),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!("can't find = in `{word}`; it must be of the form name=value").into()),
    }
}

fn run(flags: &Flags, text: &str, line: &Line) -> Result<Run> {
    if flags.text("device").is_some() {
        return Err("the flag `--device` of RUN is not supported".into());
    }
    let mounts =
        flags.all("mount").iter().map(|text| MountText::parse(text)).collect::<std::result::Result<_, _>>();
    let network = flags.text("network");
    one_of("network", network.as_deref(), &["default", "none", "host"])?;
    let security = flags.text("security");
    one_of("security", security.as_deref(), &["sandbox", "insecure"])?;
    let mounts = mounts.map_err(|why| format!("invalid --mount: {why}"))?;
    Ok(Run { command: command(text)?, heredocs: line.heredocs.clone(), mounts, network, security })
}

fn one_of(flag: &str, value: Option<&str>, allowed: &[&str]) -> Result<()> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            Err(format!("the flag `--{flag}` is {}, not `{value}`", allowed.join(" or ")).into())
        }
        _ => Ok(()),
    }
}

fn transfer(flags: &Flags, text: &str, line: &Line) -> Result<Transfer> {
    let keyword = line.keyword();
    let mut words = list(text)?;
    if words.len() < 2 {
        let message = format!("{keyword} requires at least two arguments");
        return Err(Wrong(message, Some(format!("Write {keyword} source… destination."))));
    }
    let destination = words.pop().expect("two at least");
    if lines::heredoc(&destination).is_some() {
        return Err(format!("{keyword} cannot take a heredoc as its destination").into());
    }
    Ok(Transfer {
        sources: words.into_iter().map(|word| source(word, line)).collect(),
        destination,
        from: flags.text("from").filter(|from| !from.is_empty()),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.boolean("link")?.unwrap_or(false),
        parents: flags.boolean("parents")?.unwrap_or(false),
        excludes: flags.all("exclude"),
        checksum: flags.text("checksum").filter(|checksum| !checksum.is_empty()),
        unpack: flags.boolean("unpack")?,
        keep_git: flags.boolean("keep-git-dir")?,
    })
}

/// A heredoc's body is the last one of its name; in the JSON form it has none.
fn source(word: String, line: &Line) -> TransferSource {
    let Some(announced) = lines::heredoc(&word) else { return TransferSource::Path(word) };
    let body = line.heredocs.iter().rfind(|heredoc| heredoc.name == announced.name);
    let content = body.map(|heredoc| heredoc.content.clone()).unwrap_or_default();
    TransferSource::Inline(Heredoc { content, ..announced })
}

fn healthcheck(flags: &Flags, text: &str) -> Result<Healthcheck> {
    let (form, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let test = match (form.to_ascii_uppercase().as_str(), rest.trim()) {
        ("NONE", "" | "[]") => {
            return Ok(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
        }
        ("NONE", _) => return Err("HEALTHCHECK NONE takes no arguments".into()),
        ("CMD", "") => return Err("missing command after HEALTHCHECK CMD".into()),
        ("CMD", rest) => match command(rest)? {
            Command::Exec(args) if args.is_empty() => {
                return Err("missing command after HEALTHCHECK CMD".into());
            }
            Command::Exec(args) => std::iter::once("CMD".to_owned()).chain(args).collect(),
            Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text],
        },
        ("", _) => return Err("HEALTHCHECK requires an argument: CMD or NONE".into()),
        (other, _) => return Err(format!("unknown type `{other}` in HEALTHCHECK (try CMD)").into()),
    };
    Ok(Healthcheck {
        test,
        interval: period(flags, "interval")?,
        timeout: period(flags, "timeout")?,
        start_period: period(flags, "start-period")?,
        start_interval: period(flags, "start-interval")?,
        retries: retries(flags)?,
    })
}

fn retries(flags: &Flags) -> Result<Option<u32>> {
    let Some(text) = flags.text("retries").filter(|text| !text.is_empty()) else { return Ok(None) };
    let number = text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok());
    let value = number.ok_or_else(|| format!("--retries has to be a number from 0, not `{text}`"))?;
    Ok((value > 0).then_some(value))
}

/// Zero means "not set".
fn period(flags: &Flags, name: &str) -> Result<Option<Duration>> {
    let Some(text) = flags.text(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let value = duration(&text).ok_or_else(|| format!("--{name} is no duration: `{text}`"))?;
    if !value.is_zero() && value < Duration::from_millis(1) {
        return Err(format!("--{name} cannot be less than 1ms").into());
    }
    Ok((!value.is_zero()).then_some(value))
}

/// `1h2m3.5s`, `500ms`, `0`; to the nanosecond.
fn duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let text =
        text.strip_prefix('-').filter(|rest| duration(rest).is_some_and(|d| d.is_zero())).unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut nanoseconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let part = nanoseconds_of(&rest[..digits], nanoseconds_in(&after[..unit])?)?;
        nanoseconds = nanoseconds.checked_add(part).filter(|sum| i64::try_from(*sum).is_ok())?;
        rest = &after[unit..];
    }
    (!text.is_empty()).then_some(Duration::from_nanos(nanoseconds))
}

fn nanoseconds_of(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // More digits than this are below a nanosecond of any unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let parts: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let below = parts * u128::from(unit) / 10u128.pow(u32::try_from(fraction.len()).ok()?);
    whole.checked_mul(unit)?.checked_add(u64::try_from(below).ok()?)
}

fn nanoseconds_in(unit: &str) -> Option<u64> {
    Some(match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" | "μs" => 1_000,
        "ns" => 1,
        _ => return None,
    })
}

/// What the trigger does is only looked at where it runs.
fn onbuild(line: &Line, escape: char) -> Result<Kind> {
    let (keyword, rest) = words::first(&line.arguments).unwrap_or((&line.arguments, ""));
    let (_, arguments) = words::flags(rest, escape);
    match keyword.to_uppercase().as_str() {
        "" => return Err("ONBUILD requires an instruction".into()),
        "ONBUILD" => return Err("chaining ONBUILD isn't allowed".into()),
        word @ ("FROM" | "MAINTAINER") => {
            return Err(format!("{word} isn't allowed as an ONBUILD trigger").into());
        }
        word @ ("ENV" | "LABEL") if !arguments.is_empty() => drop(pairs_of_trigger(word, arguments, escape)?),
        "ADD" | "COPY" | "VOLUME" | "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => drop(command(arguments)?),
        _ => {}
    }
    let text = line.text.trim_start();
    let mut text = text.get(line.keyword.len()..).unwrap_or_default().trim_start().to_owned();
    for heredoc in &line.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(Kind::Onbuild(text))
}

/// Blank names are only wrong where the trigger runs.
fn pairs_of_trigger(keyword: &str, text: &str, escape: char) -> Result<()> {
    let words = words::raw(text, escape);
    match words.first() {
        Some(first) if !first.contains('=') => drop(pairs(keyword, text, escape)?),
        _ => words
            .iter()
            .filter(|word| !word.contains('='))
            .try_for_each(|word| pair(keyword, word).map(drop))?,
    }
    Ok(())
}

pub(super) fn parse_from(line: &Line) -> std::result::Result<Stage, Box<Diagnostic>> {
    located(line, from(line))
}

fn from(line: &Line) -> Result<Stage> {
    let flags = Flags::check("FROM", &line.flags)?;
    let words = words::blank_separated(&line.arguments);
    let name = match words.as_slice() {
        [_] => None,
        [_, as_word, name] if as_word.eq_ignore_ascii_case("as") => Some(stage_name(name)?),
        _ => {
            let hint = "Write FROM image, or FROM image AS name.";
            return Err(Wrong("FROM requires either one or three arguments".into(), Some(hint.into())));
        }
    };
    Ok(Stage {
        keyword: line.keyword.clone(),
        name,
        base: words[0].to_owned(),
        platform: flags.text("platform").filter(|platform| !platform.is_empty()),
        text: one_line(line),
        place: line.place.clone(),
        instructions: Vec::new(),
    })
}

fn stage_name(written: &str) -> Result<String> {
    let name = written.to_lowercase();
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    if starts && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c)) {
        return Ok(name);
    }
    let message = format!("invalid name for build stage: `{written}`");
    Err(Wrong(
        message,
        Some("A name starts with a letter and has only letters, digits, `-`, `_` and `.`.".into()),
    ))
}
