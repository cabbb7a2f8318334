//! `stack port`.

use super::Context;
use crate::failure::{Failure, Kind, Result};
use crate::plan::label::Labelled;
use stack_runtime::spec::Protocol;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    service: String,
    /// Port in the container, as 80 or 53/udp
    #[arg(value_name = "PRIVATE_PORT")]
    port: String,
    /// tcp or udp
    #[arg(long, value_name = "PROTOCOL", value_parser = ["tcp", "udp"])]
    protocol: Option<String>,
    /// Which container of the service
    #[arg(long, default_value_t = 1, value_name = "N")]
    index: u32,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let (number, of_port) = args.port.split_once('/').unwrap_or((&args.port, "tcp"));
    let protocol = args.protocol.as_deref().unwrap_or(of_port);
    let target: u16 = number.parse().map_err(|_| Failure::usage(format!("invalid port {:?}", args.port)))?;
    let wanted = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
    let scene = context.existing(std::slice::from_ref(&args.service)).await?;
    let is_meant = |c: &&stack_runtime::observed::ContainerObserved| {
        c.service() == args.service && !c.is_one_off() && c.number() == args.index
    };
    let missing = || {
        Failure::new(
            Kind::NotFound,
            format!("service {:?} has no running container #{}", args.service, args.index),
        )
    };
    let container = scene.observed.containers.iter().find(is_meant).ok_or_else(missing)?;
    let bound = container.published.iter().find(|p| p.target == target && p.protocol == wanted);
    let bound = bound.ok_or_else(|| {
        let name = &container.name;
        Failure::new(Kind::NotFound, format!("no port {target}/{protocol} for container {name}"))
    })?;
    let host =
        if bound.host_ip.contains(':') { format!("[{}]", bound.host_ip) } else { bound.host_ip.clone() };
    context.ui.data(&format!("{host}:{}\n", bound.host_port));
    Ok(())
}
