//! `stack scale`: `up -d` of some services with other numbers of containers.

use super::{Context, up};
use crate::failure::{Failure, Result};
use crate::plan::intent::{Building, Up};
use std::collections::BTreeMap;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Do not start what the services depend on
    #[arg(long)]
    no_deps: bool,
    #[arg(required = true, value_name = "SERVICE=REPLICAS")]
    numbers: Vec<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let scale = args.numbers.iter().map(|text| number(text)).collect::<Result<BTreeMap<_, _>>>()?;
    let services: Vec<String> = scale.keys().cloned().collect();
    let project = context.project(&services)?;
    let dependencies = !args.no_deps;
    let intent = Up { services, dependencies, scale, build: Building::Never, ..Up::default() };
    up::converge(context, project, intent).await.map(drop)
}

fn number(text: &str) -> Result<(String, u32)> {
    let invalid = |why: &str| Failure::usage(format!("invalid scale specifier: {why}{text}"));
    match text.split_once('=') {
        Some((key, number)) if !key.is_empty() && !number.is_empty() => {
            let number = number.parse().map_err(|_| invalid("can't parse replica value as int: "))?;
            Ok((key.to_owned(), number))
        }
        _ => Err(invalid("")),
    }
}
