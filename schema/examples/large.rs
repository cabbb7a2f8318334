//! Development tool: `large DIRECTORY SERVICES` writes the stack that the benches load.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[path = "../benches/large/mod.rs"]
mod large;

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(directory), Some(Ok(services))) = (args.next(), args.next().map(|count| count.parse())) else {
        eprintln!("usage: large DIRECTORY SERVICES");
        std::process::exit(2);
    };
    let directory = PathBuf::from(directory);
    std::fs::create_dir_all(directory.join("env"))?;
    large::files(services).into_iter().try_for_each(|(name, text)| std::fs::write(directory.join(name), text))
}
