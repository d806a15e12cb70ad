//! The one binary: parse the command line, run a command, say on one line why it failed.

mod table;
mod api_tls;
mod client;
mod config;
mod converge;
mod admin;
mod commands;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The proxy and the API allocate, the packet path does not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Puts public hostnames in front of private IPs.
///
/// A client reaches the edge over HTTP, TCP or UDP; the last hop goes through a tunnel into a private
/// network. The origin needs no public address and no inbound firewall hole.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  portcullis edge --config /etc/portcullis/edge.toml
  portcullis site --config /etc/portcullis/site.toml
  portcullis show tunnels
  portcullis ctl route list --json

Logs go to standard error; PORTCULLIS_LOG sets what is said (error, warn, info, debug, or per module).")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an edge: proxy, router, and the control plane that drives them.
    Edge(commands::edge::Args),
    /// Run the control plane's API alone, over the same data directory.
    Control(commands::control::Args),
    /// Run the private side: a router on the customer's network.
    Site(commands::site::Args),
    /// Read and change what exists, through the HTTP API.
    Ctl(commands::ctl::Args),
    /// Show what a running edge or site does: routes, tunnels, counters.
    Show(commands::show::Args),
    /// Print a shell's completion script: portcullis completion bash >/etc/bash_completion.d/portcullis
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("PORTCULLIS_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,pingora_core=warn,pingora_proxy=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    let done = match cli.command {
        Command::Edge(args) => commands::edge::run(&args),
        Command::Control(args) => commands::control::run(&args),
        Command::Site(args) => commands::site::run(&args),
        Command::Ctl(args) => commands::ctl::run(&args),
        Command::Show(args) => commands::show::run(&args),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "portcullis", &mut script);
            table::say(&String::from_utf8_lossy(&script));
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            table::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
