//! `stack login` and `stack logout`: passwords of registries, kept where `docker` keeps them.

use super::Context;
use super::image::of_image;
use crate::failure::{Failure, Kind, Result, failed};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use stack_runtime::image::login::{self, Kept};
use std::io::{BufRead, IsTerminal, Read};

const HUB: &str = "docker.io";
/// More is no password.
const PASSWORD_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// User name
    #[arg(short, long)]
    username: Option<String>,
    /// Password or token
    #[arg(short, long)]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
    /// Registry [default: Docker Hub]
    server: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct LogoutArgs {
    /// Registry [default: Docker Hub]
    server: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    context.needs_network("signing in")?;
    let server = name(args.server.as_deref());
    let wrong = |message: &str| Failure::new(Kind::Usage, message);
    let user = match args.username {
        Some(user) => user,
        None if args.password_stdin => return Err(wrong("--password-stdin needs --username")),
        None => asked(context, "Username: ", false)?,
    };
    let password = match args.password {
        Some(password) => {
            context
                .ui
                .remark("warning: a password on the command line is seen by others: use --password-stdin");
            password
        }
        None if args.password_stdin => piped()?,
        None => asked(context, "Password: ", true)?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(wrong("a user name and a password are needed"));
    }
    if let Kept::File(path) = login::login(&server, &user, &password).await.map_err(of_image)? {
        let hint = "Configure a credential helper (`credsStore`) to change that.";
        context
            .ui
            .remark(&format!("warning: the password is stored unencrypted in {}. {hint}", path.display()));
    }
    context.ui.data("Login Succeeded\n");
    Ok(())
}

pub(super) fn logout(args: &LogoutArgs, context: &Context) -> Result<()> {
    let server = name(args.server.as_deref());
    let said = match login::logout(&server).map_err(of_image)? {
        true => format!("Removing login credentials for {server}\n"),
        false => format!("Not logged in to {server}\n"),
    };
    context.ui.data(&said);
    Ok(())
}

/// A host; addresses are taken, too.
fn name(server: Option<&str>) -> String {
    let server = server.unwrap_or(HUB);
    let host = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let host = host.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => HUB.to_string(),
        host => host.to_string(),
    }
}

fn piped() -> Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().take(PASSWORD_BYTES_MAX).read_to_string(&mut text);
    read.map_err(failed("read the password"))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_string())
}

fn asked(context: &Context, question: &str, is_hidden: bool) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let failure = Failure::new(Kind::Usage, "cannot ask for a password: standard input is no terminal");
        return Err(failure.hint("Give --username and --password-stdin."));
    }
    context.ui.data_err(question);
    let before = tcgetattr(&stdin).map_err(failed("ask"))?;
    if is_hidden {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(failed("ask"))?;
    }
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    if is_hidden {
        tcsetattr(&stdin, OptionalActions::Now, &before).map_err(failed("ask"))?;
        context.ui.data_err("\n");
    }
    read.map_err(failed("read the answer"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn registries_by_any_of_their_names() {
        assert_eq!(name(None), "docker.io");
        assert_eq!(name(Some("https://index.docker.io/v1/")), "docker.io");
        assert_eq!(name(Some("https://ghcr.io/v2/")), "ghcr.io");
        assert_eq!(name(Some("localhost:5000")), "localhost:5000");
    }
}
