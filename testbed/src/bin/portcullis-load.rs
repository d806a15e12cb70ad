//! `portcullis-load`: stamped packets through an edge, zero-loss searches, long runs, attacks.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use dataplane::tunnel::wireguard::PrivateKey;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use testbed::load::api::Api;
use testbed::load::attack::Kind;
use testbed::load::table::Table;
use testbed::load::world::{PEERS_MAX, World};
use testbed::load::{Pair, cases, siege};

/// A routing load: stamped packets between an edge's kernel sockets and WireGuard peers.
///
/// `testbed/load.sh up` makes the namespaces and the edge and configures it with this program's
/// `configure`; then every other command works, as root. Down is from the edge to the peers, up the
/// other way. Sizes are of inner packets, with their IP header.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// What `configure` wrote.
    #[arg(
        long,
        global = true,
        env = "PORTCULLIS_LOAD_WORLD",
        default_value = "testbed/run/load.json"
    )]
    world: PathBuf,
    /// One JSON value per line instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Give an edge its tunnels and routes through its API, and write the world's file.
    Configure {
        /// The API.
        #[arg(long)]
        api: SocketAddr,
        /// The file with its token.
        #[arg(long)]
        token: PathBuf,
        /// The edge's admin socket.
        #[arg(long)]
        socket: PathBuf,
        /// The edge's process.
        #[arg(long)]
        pid: u32,
        /// The edge's program.
        #[arg(long)]
        program: PathBuf,
        /// WireGuard peers to make.
        #[arg(long, default_value_t = 257)]
        peers: usize,
    },
    /// Send as fast as comes through: rate, latency, packets per send call, processor time.
    Bulk(cases::Sweep),
    /// Search the largest rate without a loss, as in RFC 2544, with short trials.
    Search(cases::Sweep),
    /// Send very many packets both ways, and count those out of order. Fails if there are any.
    Soak {
        /// Packets, half of them each way.
        #[arg(long, default_value_t = 100_000_000)]
        packets: u64,
        /// WireGuard peers that take part.
        #[arg(long, default_value_t = 16)]
        peers: usize,
    },
    /// Attack the edge while other tunnels carry traffic; fails if they lose more than is theirs.
    Attack {
        /// What is sent; every kind without any.
        #[arg(long)]
        kind: Vec<Kind>,
        #[command(flatten)]
        siege: siege::Siege,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "where a program says why it failed")]
            {
                eprintln!("portcullis-load: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    // An attacker has thousands of sockets.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    if let Command::Configure {
        api,
        token,
        socket,
        pid,
        program,
        peers,
    } = &cli.command
    {
        ensure!(
            (1..PEERS_MAX).contains(peers),
            "--peers is from 1 to {}",
            PEERS_MAX - 1
        );
        let mut api = Api::connect(*api, &fs::read_to_string(token).context("no token")?)?;
        let keys = keys(*peers)?;
        let mut edge_key = None;
        for (number, key) in keys.iter().enumerate() {
            edge_key = Some(api.add_peer(number, key)?);
        }
        let world = World {
            edge_key: edge_key.context("no peers")?,
            peer_keys: keys,
            admin_socket: socket.clone(),
            edge_pid: *pid,
            program: program.clone(),
        };
        return world.write(&cli.world);
    }
    let world = World::read(&cli.world)?;
    let mut load = cases::Load {
        pair: Pair::start(&world)?,
        world,
        table: Table::new(cli.json),
    };
    match &cli.command {
        Command::Configure { .. } => Ok(()),
        Command::Bulk(sweep) => load.bulk(sweep),
        Command::Search(sweep) => load.search(sweep),
        Command::Soak { packets, peers } => load.soak(*packets, *peers),
        Command::Attack { kind, siege } => {
            let kinds = if kind.is_empty() {
                &Kind::ALL
            } else {
                kind.as_slice()
            };
            load.attacks(kinds, siege)
        }
    }
}

/// Private keys, from the system's randomness.
fn keys(count: usize) -> anyhow::Result<Vec<PrivateKey>> {
    use std::io::Read as _;
    let mut random = fs::File::open(Path::new("/dev/urandom"))?;
    let mut keys = vec![PrivateKey([0; 32]); count];
    for key in &mut keys {
        random.read_exact(&mut key.0)?;
    }
    Ok(keys)
}
