//! What `equipoise` is told on its command line.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// A NAT load balancer in userspace whose every decision can be replayed from a capture.
#[derive(Debug, Parser)]
#[command(name = "equipoise", version, arg_required_else_help = true)]
pub struct Args {
    /// How much is logged.
    #[command(flatten)]
    pub verbosity: Verbosity,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Verbosity {
    /// Logs more, to stderr: -v flows too, -vv packets too. The variable RUST_LOG, where set, decides instead.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the gateway on a TUN device until SIGINT or SIGTERM; usually needs root.
    Run {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Checks a configuration without touching the system: exit code 0 if it is valid, 1 if not.
    Check {
        /// The configuration file (TOML).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Prints one JSON object, problems with line and column included.
        #[arg(long)]
        json: bool,
    },
}
