//! The real [`Doer`]: containers through `home`, hooks through the supervisor, everything else as intents of the verb.

use super::session::Doer;
use super::sync::{Replica, Root};
use crate::failure::{self, Failure};
use crate::host::HostEngine;
use crate::host::process::ProcessMark;
use crate::host::record::{ContainerDir, ContainerRecord, container_ids};
use crate::host::streams::Streams;
use crate::plan::intent::{Building, Intent, Recreate, Up};
use crate::plan::label;
use stack_runtime::container::{ids_of, root_at_rest};
use stack_runtime::monitor::RunRecord;
use stack_runtime::spec::ExecSpec;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::AsFd;

/// What the verb that watches lends to its session.
pub trait Verb: Send + Sync {
    /// Observe, plan, apply, report: one straight line for this intent.
    fn converge(&self, intent: Intent) -> impl Future<Output = Result<(), Failure>> + Send;
    /// One line for the user.
    fn say(&self, line: &str);
    /// A step that did not succeed.
    fn complain(&self, failure: &Failure);
}

/// See the module.
pub struct HostDoer<V> {
    pub engine: HostEngine,
    pub project: String,
    pub verb: V,
}

impl<V: Verb> Doer for HostDoer<V> {
    async fn replicas(&self, service: &str) -> Result<Vec<Replica>, Failure> {
        let all = self.look(service).map_err(|e| failed(service, &e))?;
        let replicas = all.into_iter().map(|(record, run)| self.replica(&record, run.as_ref()));
        replicas.collect::<io::Result<_>>().map_err(|e| failed(service, &e))
    }

    async fn rebuild(&self, services: &[String]) -> Result<(), Failure> {
        let intent = Intent::Up(Up {
            services: services.to_vec(),
            dependencies: false,
            build: Building::Always,
            recreate: Recreate::Always,
            ignore_orphans: true,
            ..Up::default()
        });
        self.verb.converge(intent).await
    }

    async fn restart(&self, services: &[String]) -> Result<(), Failure> {
        let intent = Intent::Restart { services: services.to_vec(), grace: None, dependents: true };
        self.verb.converge(intent).await
    }

    async fn exec(&self, service: &str, command: &[String]) -> Result<(), Failure> {
        let spec = ExecSpec { args: command.to_vec(), ..ExecSpec::default() };
        for (record, run) in self.look(service).map_err(|e| failed(service, &e))? {
            if run.is_none() {
                continue;
            }
            let code = self.exec_in(&record.id, &spec).await?;
            if code != 0 {
                let name = record.spec.name;
                return Err(Failure::other(format!(
                    "hook of sync+exec in {name} ended with exit code {code}"
                )));
            }
        }
        Ok(())
    }

    fn say(&self, line: &str) {
        self.verb.say(line);
    }

    fn complain(&self, failure: &Failure) {
        self.verb.complain(failure);
    }
}

impl<V: Verb> HostDoer<V> {
    /// The service's containers, with their run while they run; those of `stack run` are not part of it.
    fn look(&self, service: &str) -> io::Result<Vec<(ContainerRecord, Option<RunRecord>)>> {
        let mut found = Vec::new();
        for id in container_ids(self.engine.home(), &self.project)? {
            let dir = self.dir(&id);
            let Some(record) = dir.record()?.filter(|record| belongs_to(record, service)) else { continue };
            let run = RunRecord::read(dir.path())?.filter(RunRecord::is_alive);
            found.push((record, run));
        }
        Ok(found)
    }

    fn dir(&self, id: &str) -> ContainerDir {
        ContainerDir::new(self.engine.home(), &self.project, id)
    }

    /// A stopped container gets the files too: the next start, perhaps of this very batch, is to find them.
    fn replica(&self, record: &ContainerRecord, run: Option<&RunRecord>) -> io::Result<Replica> {
        let (spec, name) = (&record.spec, record.spec.name.clone());
        let user = Some(spec.user.as_str()).filter(|user| !runs_as_root(user));
        if let Some(run) = run {
            match Root::of_process(ProcessMark { pid: run.pid, start: run.start_time }) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                root => {
                    return Ok(Replica {
                        name,
                        root: root?,
                        owner: user.map(|_| ids_of_process(run.pid)).transpose()?,
                    });
                }
            }
        }
        let dir = self.dir(&record.id);
        let root = root_at_rest(self.engine.home(), &spec.chain_id, dir.path())?;
        let owner = user.map(|user| ids_of(&root, user)).transpose()?;
        Ok(Replica { name, root: Root::of(root), owner })
    }

    /// Its output goes to ours.
    async fn exec_in(&self, id: &str, spec: &ExecSpec) -> Result<i32, Failure> {
        let nothing = File::open("/dev/null").map_err(failure::failed("open /dev/null"))?;
        let streams = Streams::open(nothing.as_fd()).map_err(failure::failed("prepare the streams"))?;
        let client = self.engine.client(&self.project).await?;
        let code = client.exec(id, spec, Some(streams.sides()), (0, 0)).await?.wait().await?;
        streams.finish().await;
        Ok(code)
    }
}

fn belongs_to(record: &ContainerRecord, service: &str) -> bool {
    let labels = &record.spec.labels;
    label::of(labels, label::SERVICE) == service
        && !label::of(labels, label::ONE_OFF).eq_ignore_ascii_case("true")
}

fn runs_as_root(user: &str) -> bool {
    matches!(user.split(':').next(), None | Some("" | "0" | "root"))
}

/// User and group of the first process, which an ordinary user cannot have changed since its start.
fn ids_of_process(pid: i32) -> io::Result<(u32, u32)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let id = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
    };
    id("Uid:")
        .zip(id("Gid:"))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/status is damaged"))
}

fn failed(service: &str, reason: &io::Error) -> Failure {
    Failure::other(format!("failed to find the containers of {service}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_ids_are_those_of_our_process() {
        let own = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        assert_eq!(ids_of_process(i32::try_from(std::process::id()).unwrap()).unwrap(), own);
    }

    #[test]
    fn root_has_three_names() {
        assert!(["", "0", "root", "0:0", "root:adm"].iter().all(|user| runs_as_root(user)));
        assert!(!["app", "1000", "10001:0"].iter().any(|user| runs_as_root(user)));
    }
}
