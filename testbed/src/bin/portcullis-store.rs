//! `portcullis-store`: the control plane's store at its intended size, filled, opened, served, asked.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use testbed::store::{Ask, Size, ask, fill, nodes, open, serve};

/// As the edge's: the figures are of its allocator too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The control plane's store at its intended size. `testbed/bench.sh store` calls it.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fill a new store, and leave the API token in `DIRECTORY/token`.
    Fill {
        /// Where.
        directory: PathBuf,
        #[command(flatten)]
        size: Size,
    },
    /// Open it as an edge does at its start: seconds and memory.
    Open {
        /// Where.
        directory: PathBuf,
    },
    /// Serve its API until ended.
    Serve {
        /// Where.
        directory: PathBuf,
        /// The API's address.
        address: SocketAddr,
    },
    /// Serve nodes that follow, all in this process: how long until a change is at each.
    Nodes {
        /// Where; their copies go there too.
        directory: PathBuf,
        /// How many.
        #[arg(long, default_value_t = 64)]
        nodes: usize,
        /// Changes, one after the other.
        #[arg(long, default_value_t = 400)]
        changes: u32,
    },
    /// Ask an API that is served: latencies, reads and writes a second.
    Ask(Ask),
}

fn main() -> anyhow::Result<()> {
    let lines = match Cli::parse().command {
        Command::Fill { directory, size } => fill(&directory, size).map(|()| Vec::new()),
        Command::Open { directory } => open(&directory),
        Command::Serve { directory, address } => serve(&directory, address).map(|()| Vec::new()),
        Command::Nodes {
            directory,
            nodes: count,
            changes,
        } => nodes(&directory, count, changes),
        Command::Ask(how) => ask(&how),
    }?;
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
