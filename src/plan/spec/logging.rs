//! Where the output goes: driver and options, as Docker's json-file driver reads them.

use stack_runtime::spec::{LogSpec, Map};
use stack_schema::diagnostic::Diagnostic;
use stack_schema::project::{Logging, Service};

type Result<T> = std::result::Result<T, Diagnostic>;

/// Every option that Docker's file drivers take.
const OPTIONS: [&str; 10] = [
    "max-size",
    "max-file",
    "compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
    "mode",
    "max-buffer-size",
];
/// Those of them that do nothing here yet.
const WITHOUT_EFFECT: [&str; 2] = ["labels-regex", "env-regex"];
/// Docker's size of the buffer of `mode: non-blocking`.
const BUFFER_BYTES: u64 = 1_000_000;
/// Docker's other drivers.
const FOREIGN: [&str; 9] =
    ["syslog", "journald", "gelf", "fluentd", "awslogs", "splunk", "gcplogs", "etwlogs", "logentries"];

/// What is not honoured, in sentences.
pub(in crate::plan) fn warnings(service: &Service) -> Vec<String> {
    let Some(logging) = &service.logging else { return Vec::new() };
    let key = &service.key;
    if FOREIGN.contains(&logging.driver.as_str()) {
        let driver = &logging.driver;
        return vec![format!(
            "service `{key}`: the logging driver {driver:?} is not there yet; output is kept as by \"json-file\""
        )];
    }
    let inert = logging.options.keys().filter(|option| WITHOUT_EFFECT.contains(&option.as_str()));
    inert.map(|option| format!("service `{key}`: the logging option {option:?} has no effect yet")).collect()
}

pub(super) fn logging(service: &Service, labels: &Map, env: &[(String, String)]) -> Result<LogSpec> {
    let Some(logging) = &service.logging else { return Ok(LogSpec::default()) };
    let refuse = |why: String| Diagnostic::error(why).key(format!("services.{}.logging", service.key));
    match logging.driver.as_str() {
        "" | "json-file" => {
            check(logging).map_err(refuse)?;
            file(logging, LogSpec::default(), labels, env).map_err(refuse)
        }
        "local" => {
            check(logging).map_err(refuse)?;
            let bounded =
                LogSpec { max_size: Some(20 << 20), max_file: 5, compress: true, ..LogSpec::default() };
            file(logging, bounded, labels, env).map_err(refuse)
        }
        "none" => Ok(LogSpec { driver: "none".into(), ..LogSpec::default() }),
        foreign if FOREIGN.contains(&foreign) => Ok(LogSpec::default()),
        other => Err(refuse(format!("logger: no log driver named '{other}' is registered"))),
    }
}

/// How the program waits for its log. What is written here never waits for anything but the disk.
fn mode(logging: &Logging) -> std::result::Result<(), String> {
    let option = |key: &str| logging.options.get(key).map(String::as_str);
    match (option("mode"), option("max-buffer-size")) {
        (Some("non-blocking"), Some(text)) if bytes(text).is_none() => {
            Err(format!("error getting max-buffer-size: invalid size {text:?}"))
        }
        (None | Some("" | "blocking"), None) | (Some("non-blocking"), _) => Ok(()),
        (None | Some("" | "blocking"), Some(_)) => {
            Err("max-buffer-size option is only supported with 'mode=non-blocking'".into())
        }
        (Some(other), _) => Err(format!("logger: logging mode '{other}' is not known")),
    }
}

fn check(logging: &Logging) -> std::result::Result<(), String> {
    mode(logging)?;
    let driver = if logging.driver.is_empty() { "json-file" } else { &logging.driver };
    match logging.options.keys().find(|option| !OPTIONS.contains(&option.as_str())) {
        Some(option) => Err(format!("unknown log opt '{option}' for {driver} log driver")),
        None => Ok(()),
    }
}

fn file(
    logging: &Logging,
    base: LogSpec,
    labels: &Map,
    env: &[(String, String)],
) -> std::result::Result<LogSpec, String> {
    let option = |key: &str| logging.options.get(key).map(String::as_str);
    let invalid = |key: &str, text: &str| format!("invalid value {text:?} of the logging option {key:?}");
    let max_size = match option("max-size") {
        None => base.max_size,
        Some("-1") => None,
        Some(text) => Some(bytes(text).ok_or_else(|| invalid("max-size", text))?),
    };
    let max_file = match option("max-file") {
        None => base.max_file,
        Some(text) => text.parse().ok().filter(|n| *n > 0).ok_or_else(|| invalid("max-file", text))?,
    };
    let compress = match option("compress") {
        None => base.compress && max_file > 1 && max_size.is_some(),
        Some("true") if max_file < 2 || max_size.is_none() => {
            return Err("compress cannot be true when max-file is less than 2 or max-size is not set".into());
        }
        Some(text) => text.parse().map_err(|_| invalid("compress", text))?,
    };
    let names = |key: &str| option(key).unwrap_or_default().split(',').map(str::trim).collect::<Vec<_>>();
    let mut attrs = Map::new();
    let labels = labels.iter().filter(|(name, _)| names("labels").contains(&name.as_str()));
    attrs.extend(labels.map(|(name, value)| (name.clone(), value.clone())));
    attrs.extend(env.iter().filter(|(name, _)| names("env").contains(&name.as_str())).cloned());
    attrs.extend(option("tag").filter(|tag| !tag.is_empty()).map(|tag| ("tag".into(), tag.to_string())));
    let size = option("max-buffer-size").and_then(bytes).unwrap_or(BUFFER_BYTES);
    let buffer_bytes = (option("mode") == Some("non-blocking")).then_some(size);
    Ok(LogSpec { max_size, max_file, compress, attrs, buffer_bytes, ..base })
}

/// `10m`, `512k`, `1g` or plain bytes.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match text[digits.len()..].trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(driver: &str, options: &[(&str, &str)]) -> std::result::Result<LogSpec, String> {
        let options = options.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
        let logging = Some(Logging { driver: driver.into(), options });
        let service = Service { key: "web".into(), logging, ..Service::default() };
        let labels: Map = [("team".to_string(), "red".to_string()), ("other".into(), "x".into())].into();
        let env = [("STAGE".to_string(), "test".to_string()), ("SECRET".into(), "x".into())];
        logging_of(&service, &labels, &env)
    }

    fn logging_of(
        service: &Service,
        labels: &Map,
        env: &[(String, String)],
    ) -> std::result::Result<LogSpec, String> {
        logging(service, labels, env).map_err(|finding| finding.message)
    }

    #[test]
    fn log_sizes_are_read() {
        assert_eq!(bytes("10m"), Some(10 << 20));
        assert_eq!(bytes("512kb"), Some(512 << 10));
        assert_eq!(bytes("many"), None);
        assert_eq!(spec("", &[("max-size", "-1")]).unwrap().max_size, None);
    }

    #[test]
    fn chosen_labels_variables_and_the_tag_go_with_each_line() {
        let wanted = [("labels", "team, gone"), ("env", "STAGE"), ("tag", "{{.Name}}")];
        let attrs = spec("json-file", &wanted).unwrap().attrs;
        let attrs: Vec<String> = attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(attrs, ["team=red", "STAGE=test", "tag={{.Name}}"]);
    }

    #[test]
    fn wrong_options_are_refused_as_docker_does() {
        let error = |driver: &str, options: &[(&str, &str)]| spec(driver, options).unwrap_err();
        assert_eq!(error("json-file", &[("what", "1")]), "unknown log opt 'what' for json-file log driver");
        assert_eq!(error("nope", &[]), "logger: no log driver named 'nope' is registered");
        let buffer = [("max-buffer-size", "1m")];
        let only = "max-buffer-size option is only supported with 'mode=non-blocking'";
        assert_eq!(error("", &buffer), only);
        assert_eq!(error("local", &[buffer[0], ("mode", "blocking")]), only);
        assert!(error("", &[("mode", "sometimes")]).contains("'sometimes'"));
        assert!(error("", &[("mode", "non-blocking"), ("max-buffer-size", "much")]).contains("much"));
        assert_eq!(spec("", &[("mode", "non-blocking"), buffer[0]]).unwrap().buffer_bytes, Some(1 << 20));
        assert_eq!(spec("", &[("mode", "non-blocking")]).unwrap().buffer_bytes, Some(1_000_000));
        assert_eq!(spec("", &[("mode", "blocking")]).unwrap().buffer_bytes, None);
        assert!(error("", &[("compress", "true")]).starts_with("compress cannot be true"));
        assert!(error("", &[("max-file", "0")]).contains("max-file"));
        assert!(error("", &[("max-size", "much")]).contains("max-size"));
    }

    #[test]
    fn the_local_driver_is_bounded_and_compressed() {
        let local = spec("local", &[]).unwrap();
        assert_eq!((local.max_size, local.max_file, local.compress), (Some(20 << 20), 5, true));
        assert_eq!(spec("none", &[]).unwrap().driver, "none");
    }
}
