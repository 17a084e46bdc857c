//! Manual pages and shell completions of `equipoise` and `eqctl`, made from their command lines for the package.
//!
//! `manuals DIR` writes `DIR/man/*.8` and `DIR/completions/{NAME.bash,_NAME,NAME.fish}`. Which commands they have follows the
//! features that it is built with.

#[allow(dead_code, unreachable_pub, reason = "only the command line of it is used here")]
#[path = "../eqctl/args.rs"]
mod eqctl;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// The section of the manual: administration and daemons.
const SECTION: &str = "8";

/// What no command line says, at the end of the first page of each command.
const MORE: [(&str, &str); 2] = [
    (
        "equipoise",
        r#".SH FILES
.TP
\fI/etc/equipoise/equipoise.toml\fR
Configuration of the service \fIequipoise.service\fR.
.TP
\fI/usr/share/doc/equipoise/examples/gateway.toml\fR
Every key with its range and default.
.TP
\fI/run/equipoise/control.sock\fR
The default control socket, for \fBeqctl\fR(8).
.SH ENVIRONMENT
.TP
\fBRUST_LOG\fR
What is logged, instead of \fB\-v\fR: \fIdebug\fR, \fIequipoise::gateway=trace\fR.
.TP
\fBNOTIFY_SOCKET\fR, \fBWATCHDOG_USEC\fR, \fBWATCHDOG_PID\fR
Set by a service manager, to which \fBequipoise run\fR reports that it is ready, reloads, stops and is alive: \fBsd_notify\fR(3).
.SH EXIT STATUS
0 for success, 1 for a failure, which is explained on stderr, 2 for a wrong command line.
.SH SEE ALSO
\fBeqctl\fR(8), \fBsystemctl\fR(1), \fI/usr/share/doc/equipoise/\fR
"#,
    ),
    (
        "eqctl",
        r#".SH FILES
.TP
\fI/run/equipoise/control.sock\fR
The default control socket; only its owner and root may use it.
.SH EXIT STATUS
0 for success, 1 for a failure, which is explained on stderr, 2 for a wrong command line; 3 as \fBeqctl-status\fR(8) says.
.SH SEE ALSO
\fBequipoise\fR(8)
"#,
    ),
];

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: manuals DIR\n\nWrites the manual pages and shell completions of equipoise and eqctl to DIR.");
        return ExitCode::from(2);
    };
    match write_all(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manuals: cannot write to {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn write_all(dir: &Path) -> io::Result<()> {
    let (man, completions) = (dir.join("man"), dir.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    for mut command in [equipoise::cli::command(), eqctl::Args::command()] {
        let name = command.get_name().to_owned();
        let mut documented = command.clone().disable_help_subcommand(true);
        documented.build();
        pages(&documented, &man)?;
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut command, &name, &completions)?;
        }
        let mut first = OpenOptions::new().append(true).open(man.join(format!("{name}.{SECTION}")))?;
        for (_, text) in MORE.iter().filter(|(of, _)| *of == name) {
            first.write_all(text.as_bytes())?;
        }
    }
    Ok(())
}

/// Writes the page of a command and those of the commands below it.
fn pages(command: &Command, dir: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, dir)?;
    }
    let page = Man::new(command.clone()).section(SECTION).manual("Equipoise").source(format!("equipoise {VERSION}"));
    let mut file = File::create(dir.join(page.get_filename()))?;
    page.render(&mut file)
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
