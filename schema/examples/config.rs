//! Development tool: `config [--json] [-p NAME] [--profile P]… FILE… [-- SERVICE…]` prints what `load` makes of Compose files.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use stack_schema::env::{Env, parse_dotenv};
use stack_schema::load::{LoadRequest, load, read_source, render};
use stack_schema::source::{Disk, Files};
use std::path::PathBuf;

fn main() -> std::process::ExitCode {
    let cwd = std::env::current_dir().expect("a current directory");
    let mut request = LoadRequest { display_base: cwd.clone(), ..LoadRequest::default() };
    let mut as_json = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => as_json = true,
            "--no-interpolate" => request.no_interpolate = true,
            "-p" => request.project_name = args.next(),
            "--profile" => request.profiles.extend(args.next()),
            "--" => request.services.extend(args.by_ref()),
            file => request.files.push(cwd.join(file)),
        }
    }
    request.project_directory =
        request.files.first().and_then(|file| file.parent()).map_or(cwd.clone(), PathBuf::from);
    request.environment = Env::process(std::env::vars());
    let dotenv = request.project_directory.join(".env");
    if Disk.is_file(&dotenv) {
        let source = read_source(&Disk, &dotenv, &cwd).expect("readable .env");
        let outer = request.environment.clone();
        let parsed = parse_dotenv(&source, &|name| outer.get(name).map(str::to_owned));
        request.environment.fill(&parsed.variables);
    }
    let loaded = load(&request, &Disk);
    for diagnostic in &loaded.diagnostics {
        eprint!("{}", diagnostic.render());
    }
    print!("{}", if as_json { render::json(&loaded) } else { render::yaml(&loaded) });
    std::process::ExitCode::from(u8::from(loaded.has_errors()))
}
