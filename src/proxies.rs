//! Proxies of the client's configuration: `proxies.default` in `$DOCKER_CONFIG/config.json` (else `~/.docker/config.json`) goes
//! into every container and every build, in upper and lower case. What the file says itself wins, spelling by spelling.

use serde::Deserialize;
use stack_schema::env::Env;
use stack_schema::project::{Project, Service};
use stack_schema::source::Files;
use std::path::{Path, PathBuf};

/// Names and values, as they go into a container.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<(String, String)>);

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfigFile {
    proxies: Hosts,
}

/// By engine; there is none here, so only the one for all counts.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Hosts {
    default: Settings,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Settings {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
    all_proxy: String,
}

impl Proxies {
    /// A file that is not there or cannot be read has none.
    pub fn read(environment: &Env, disk: &dyn Files) -> Self {
        let text = path(environment).and_then(|path| disk.read(&path).ok());
        let file: ConfigFile = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let Settings { http_proxy, https_proxy, no_proxy, ftp_proxy, all_proxy } = file.proxies.default;
        let named = [
            ("http_proxy", http_proxy),
            ("https_proxy", https_proxy),
            ("no_proxy", no_proxy),
            ("ftp_proxy", ftp_proxy),
            ("all_proxy", all_proxy),
        ];
        let set = named.into_iter().filter(|(_, value)| !value.is_empty());
        Self(
            set.flat_map(|(name, value)| [(name.to_uppercase(), value.clone()), (name.into(), value)])
                .collect(),
        )
    }

    /// Gives them to all services, selected or not.
    pub fn give_to(&self, project: &mut Project) {
        if !self.0.is_empty() {
            project.services.values_mut().chain(project.disabled.values_mut()).for_each(|s| self.give(s));
        }
    }

    fn give(&self, service: &mut Service) {
        for (name, value) in &self.0 {
            let value = || Some(value.clone());
            service.environment.entry(name.clone()).or_insert_with(value);
            if let Some(build) = &mut service.build {
                build.args.entry(name.clone()).or_insert_with(value);
            }
        }
    }
}

fn path(environment: &Env) -> Option<PathBuf> {
    let set = |name| environment.get(name).filter(|value| !value.is_empty()).map(Path::new);
    let directory =
        set("DOCKER_CONFIG").map(Path::to_path_buf).or_else(|| Some(set("HOME")?.join(".docker")))?;
    Some(directory.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stack_schema::project::Build;
    use std::io;

    struct One(&'static str, &'static str);

    impl Files for One {
        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            if path == Path::new(self.0) { Ok(self.1.into()) } else { Err(io::ErrorKind::NotFound.into()) }
        }
        fn is_file(&self, path: &Path) -> bool {
            path == Path::new(self.0)
        }
        fn is_dir(&self, _: &Path) -> bool {
            false
        }
    }

    const FILE: &str =
        r#"{"proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "local"}, "tcp://h": {}}}"#;

    fn environment(pairs: &[(&str, &str)]) -> Env {
        Env::process(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn proxies_of_the_client_go_where_the_file_does_not_say_otherwise() {
        let home = environment(&[("HOME", "/h")]);
        let proxies = Proxies::read(&home, &One("/h/.docker/config.json", FILE));
        let mut service = Service { build: Some(Build::default()), ..Service::default() };
        service.environment.insert("http_proxy".into(), Some("own".into()));
        let mut project = Project::default();
        project.services.insert("web".into(), service);
        proxies.give_to(&mut project);
        let web = &project.services["web"];
        let variable = |name: &str| web.environment.get(name).cloned().flatten();
        assert_eq!(variable("http_proxy").as_deref(), Some("own"));
        assert_eq!(variable("HTTP_PROXY").as_deref(), Some("http://p:1"));
        assert_eq!(variable("NO_PROXY").as_deref(), Some("local"));
        assert_eq!(variable("HTTPS_PROXY"), None);
        let args = &web.build.as_ref().expect("above").args;
        assert_eq!(args.get("http_proxy"), Some(&Some("http://p:1".into())));
        assert_eq!(args.len(), 4);
    }

    #[test]
    fn docker_config_names_the_directory() {
        let both = environment(&[("HOME", "/h"), ("DOCKER_CONFIG", "/d")]);
        assert_ne!(Proxies::read(&both, &One("/d/config.json", FILE)), Proxies::default());
        assert_eq!(Proxies::read(&both, &One("/h/.docker/config.json", FILE)), Proxies::default());
        assert_eq!(Proxies::read(&both, &One("/d/config.json", "no JSON")), Proxies::default());
    }
}
