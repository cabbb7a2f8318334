//! The health check: service over image over Docker's defaults, field by field.

use stack_runtime::image::{HealthcheckConfig, ImageConfig};
use stack_runtime::spec::{HealthSpec, Probe};
use stack_schema::project::Healthcheck;
use std::time::Duration;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: u32 = 3;

pub(super) fn health(own: Option<&Healthcheck>, image: &ImageConfig) -> Option<HealthSpec> {
    let own = own.cloned().unwrap_or_default();
    let base = image.healthcheck.clone().unwrap_or_default();
    if own.disable {
        return None;
    }
    let test = own.test.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| base.test.clone());
    Some(merged(probe(&test, image)?, &own, &base))
}

/// Zero means unset at every level.
fn merged(probe: Probe, own: &Healthcheck, base: &HealthcheckConfig) -> HealthSpec {
    let pick = |own: Option<Duration>, base: Duration, default: Duration| {
        [own.unwrap_or_default(), base].into_iter().find(|d| !d.is_zero()).unwrap_or(default)
    };
    let retries = [own.retries.unwrap_or(0), base.retries].into_iter().find(|n| *n > 0);
    HealthSpec {
        probe,
        interval: pick(own.interval, base.interval, DEFAULT_INTERVAL),
        timeout: pick(own.timeout, base.timeout, DEFAULT_TIMEOUT),
        retries: retries.unwrap_or(DEFAULT_RETRIES),
        start_period: pick(own.start_period, base.start_period, Duration::ZERO),
        start_interval: pick(own.start_interval, base.start_interval, DEFAULT_START_INTERVAL),
    }
}

/// `None` for `NONE` and for no test at all. The built-in ones (HTTP, TCP, GRPC, LOG) are ours, not Docker's.
fn probe(test: &[String], image: &ImageConfig) -> Option<Probe> {
    let (kind, rest) = test.split_first()?;
    match (kind.as_str(), rest) {
        ("CMD", rest) if !rest.is_empty() => Some(Probe::Exec(rest.to_vec())),
        ("CMD-SHELL", rest) if !rest.is_empty() => Some(Probe::Exec(in_shell(&rest.join(" "), image))),
        ("HTTP", [url]) => Some(Probe::Http(url.clone())),
        ("TCP", [address]) => Some(Probe::Tcp(address.clone())),
        ("GRPC", [address, rest @ ..]) => {
            let service = rest.first().cloned().unwrap_or_default();
            Some(Probe::Grpc { address: address.clone(), service })
        }
        ("LOG", [text, rest @ ..]) => {
            let count = rest.first().and_then(|count| count.parse().ok()).unwrap_or(1);
            Some(Probe::Log { text: text.clone(), count })
        }
        _ => None,
    }
}

fn in_shell(text: &str, image: &ImageConfig) -> Vec<String> {
    let shell = image.shell.clone().filter(|s| !s.is_empty());
    let mut args = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
    args.push(text.to_string());
    args
}
