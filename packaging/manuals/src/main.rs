//! Writes the man pages and the shell completions of the programs into a folder, from the same
//! definitions that parse their command lines.
//!
//! ```text
//! manuals DIR    DIR/man/device-proxy.1, DIR/man/stream-hub-device-create.1, …
//!                DIR/bash/device-proxy, DIR/zsh/_device-proxy, DIR/fish/device-proxy.fish, …
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: manuals DIR");
        return ExitCode::from(2);
    };
    match write(&PathBuf::from(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: cannot write the manuals: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> io::Result<()> {
    let programs = [
        device_proxy::cli::Cli::command(),
        service_proxy::cli::Cli::command(),
        hub::cli::Cli::command(),
    ];
    let inside = |name: &str| {
        let inner = folder.join(name);
        fs::create_dir_all(&inner).map(|()| inner)
    };
    let man = inside("man")?;
    for program in programs {
        let name = program.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            let completions = inside(&shell.to_string())?;
            let written = generate_to(shell, &mut program.clone(), &name, &completions)?;
            if shell == Shell::Bash {
                // bash-completion looks for the command's own name.
                fs::rename(written, completions.join(&name))?;
            }
        }
        clap_mangen::generate_to(program, &man)?;
    }
    Ok(())
}
