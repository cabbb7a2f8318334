//! `stack logs`.

use super::Context;
use super::follow::{Follow, Line, merged};
use crate::event::{Event, Sink as _};
use crate::failure::{Failure, Result};
use crate::host::record::ContainerDir;
use crate::plan::label::Labelled;
use crate::plan::step::short;
use crate::supervise::protocol::What;
use crate::ui::log::{LogPrinter, LogStyle};
use jiff::{SignedDuration, Timestamp};
use stack_runtime::engine::Engine;
use stack_runtime::logs::Options;
use stack_runtime::observed::{ContainerObserved, State};
use stack_schema::project::Project;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Go on as more is printed
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines of each container: a number or all
    #[arg(short = 'n', long, default_value = "all", value_name = "LINES")]
    tail: String,
    /// Only since a time (2026-01-02T15:04:05Z) or for a span back (42m)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only until a time or a span back
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// One colour for all
    #[arg(long)]
    no_color: bool,
    /// Lines without the container's name
    #[arg(long)]
    no_log_prefix: bool,
    /// Only this container of the service
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// Only one run of each container: 0 is the last one, -1 the one before
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "follow")]
    run: Option<i64>,
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    if args.index.is_some() && args.services.len() != 1 {
        return Err(Failure::usage("--index requires one service to be selected"));
    }
    let scene = context.existing(&args.services).await?;
    let options = args.options()?;
    let mut view = View { printer: LogPrinter::new(args.style(context)), context };
    let shown: Vec<&ContainerObserved> =
        scene.observed.containers.iter().filter(|c| args.shows(&scene.project, c)).collect();
    let name = |c: &ContainerObserved| short(&scene.project.name, &c.name).to_string();
    let directory = |c: &ContainerObserved| context.home.container(&scene.project.name, &c.id);
    shown.iter().for_each(|c| view.printer.announce(&name(c)));
    for container in shown.iter().filter(|c| c.spec.logging.driver == "none") {
        let why = "configured logging driver does not support reading";
        context.ui.emit(Event::warning(format!("Can't retrieve logs for {:?}: {why}", container.name)));
    }
    if !args.follow {
        let within = |c: &ContainerObserved| args.within_run(&scene.project.name, c, context, &options);
        let sources = shown.iter().filter_map(|c| Some((name(c), directory(c), within(c)?))).collect();
        return merged(sources, |line| view.print(&line)).await;
    }
    let mut follow = Follow::new();
    for container in &shown {
        follow.add(&name(container), directory(container), options.clone());
    }
    let project = &scene.project.name;
    // One that was just killed is followed by another.
    if scene.engine.running_client(project).await?.is_none() && !scene.engine.has_active(project) {
        for container in &shown {
            follow.drain(&name(container)).await.iter().for_each(|line| view.print(line));
        }
        return Ok(());
    }
    let mut notices = scene.engine.watch(&scene.project.name).await?;
    loop {
        tokio::select! {
            biased;
            line = follow.next() => view.print(&line),
            notice = notices.next() => match notice? {
                None => {
                    for container in &shown {
                        follow.drain(&name(container)).await.iter().for_each(|line| view.print(line));
                    }
                    return Ok(());
                }
                Some(notice) if matches!(notice.what, What::Started | What::Exited(_) | What::Adopted) => {
                    let observed = scene.engine.observe(&scene.project.name, &[]).await?;
                    let shown: Vec<_> =
                        observed.containers.iter().filter(|c| args.shows(&scene.project, c)).collect();
                    for container in &shown {
                        follow.add(&name(container), directory(container), Options::default());
                    }
                    if shown.iter().all(|c| matches!(c.state, State::Exited { .. } | State::Created)) {
                        for container in &shown {
                            follow.drain(&name(container)).await.iter().for_each(|line| view.print(line));
                        }
                        return Ok(());
                    }
                }
                Some(_) => {}
            },
        }
    }
}

struct View<'a> {
    printer: LogPrinter,
    context: &'a Context,
}

impl View<'_> {
    fn print(&mut self, line: &Line) {
        let time = format!("{:.9}", line.time);
        self.context.ui.data(&self.printer.line(&line.name, &time, &line.text));
    }
}

impl Args {
    fn shows(&self, project: &Project, container: &ContainerObserved) -> bool {
        let key = container.service();
        let is_meant = match self.services.is_empty() {
            true => project.services.get(key).is_some_and(|s| s.attach),
            false => self.services.iter().any(|s| s == key),
        };
        is_meant && !container.is_one_off() && self.index.is_none_or(|n| n == container.number())
    }

    /// What of a container's log is shown; `None`: it has no such run.
    fn within_run(
        &self,
        project: &str,
        container: &ContainerObserved,
        context: &Context,
        options: &Options,
    ) -> Option<Options> {
        let Some(run) = self.run else { return Some(options.clone()) };
        let supervision = ContainerDir::new(&context.home, project, &container.id).supervision().ok()?;
        let back = usize::try_from(run.checked_neg()?).ok()?;
        let index = supervision.runs.len().checked_sub(back.checked_add(1)?)?;
        let time = |index: usize| supervision.runs.get(index)?.parse::<Timestamp>().ok();
        let (begin, end) = (time(index)?, time(index + 1));
        let since = Some(options.since.map_or(begin, |since| since.max(begin)));
        let until = [options.until, end].into_iter().flatten().min();
        Some(Options { since, until, ..options.clone() })
    }

    fn style(&self, context: &Context) -> LogStyle {
        let colour = context.ui.colour_out && !self.no_color;
        LogStyle { colour, prefix: !self.no_log_prefix, timestamps: self.timestamps }
    }

    fn options(&self) -> Result<Options> {
        let tail = match self.tail.as_str() {
            "all" => None,
            number => {
                Some(number.parse().map_err(|_| Failure::usage(format!("invalid tail value {number:?}")))?)
            }
        };
        let (since, until) = (self.since.as_deref(), self.until.as_deref());
        let (since, until) = (since.map(moment).transpose()?, until.map(moment).transpose()?);
        Ok(Options { tail, since, until, follow: self.follow })
    }
}

/// A time, seconds since 1970, or a span back from now (`1h30m`).
pub(super) fn moment(text: &str) -> Result<Timestamp> {
    let bad = || Failure::usage(format!("invalid time or duration {text:?}"));
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Timestamp::from_nanosecond((seconds * 1e9) as i128).map_err(|_| bad());
    }
    if let Ok(span) = text.parse::<SignedDuration>() {
        return Timestamp::now().checked_sub(span).map_err(|_| bad());
    }
    let local: jiff::civil::DateTime = text.parse().map_err(|_| bad())?;
    local.to_zoned(jiff::tz::TimeZone::UTC).map(|z| z.timestamp()).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_seconds_or_spans() {
        assert_eq!(moment("2026-01-02T03:04:05Z").ok(), "2026-01-02T03:04:05Z".parse().ok());
        assert_eq!(moment("2026-01-02T03:04:05").ok(), "2026-01-02T03:04:05Z".parse().ok());
        assert_eq!(moment("2026-01-02").ok(), "2026-01-02T00:00:00Z".parse().ok());
        assert_eq!(moment("1.5").map(|t| t.as_millisecond()).ok(), Some(1500));
        let ago = Timestamp::now().duration_since(moment("1h30m").expect("a span"));
        assert!((5399..5405).contains(&ago.as_secs()));
        assert!(moment("soon").is_err());
    }
}
