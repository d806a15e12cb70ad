//! `portcullis-bench`: takes measurements in, and shows them as table, Markdown and picture.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use testbed::report::{Report, Row, criterion, markdown, plot, text};

/// Takes measurements in, and shows them as table, Markdown and picture.
///
/// Results are `<bench>.json` in the directory: an array of rows {bench, case, subject, unit, median,
/// min, max, rounds}. `testbed/bench.sh` measures and calls this.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// Where the results are.
    #[arg(
        long,
        global = true,
        env = "PORTCULLIS_BENCH_DIR",
        default_value = "testbed/run/bench"
    )]
    dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take samples in, from standard input: lines of `case<TAB>subject<TAB>unit<TAB>number`.
    ///
    /// Lines of the same case, subject and unit are the rounds of one row.
    Fold {
        /// The benchmark.
        bench: String,
    },
    /// Take in what `cargo bench` left in criterion's directory.
    Criterion {
        /// The benchmark: groups named `<bench>/<case>` belong to it.
        bench: String,
        /// Criterion's directory.
        #[arg(long, default_value = "target/criterion")]
        from: PathBuf,
    },
    /// Say what a reader must know beside the numbers; what is not given stays.
    Note {
        /// The benchmark.
        bench: String,
        /// The command that measured.
        #[arg(long)]
        command: Option<String>,
        /// When, and on what machine.
        #[arg(long)]
        machine: Option<String>,
        /// A peer that was not there, as `name: why`. May be repeated; without any, none was absent.
        #[arg(long)]
        absent: Vec<String>,
    },
    /// Print results as tables.
    Show {
        /// The benchmarks; all that were run when none is named.
        bench: Vec<String>,
    },
    /// Print results as a Markdown table.
    Markdown {
        /// The benchmark.
        bench: String,
        /// Only this case. May be repeated.
        #[arg(long)]
        case: Vec<String>,
    },
    /// Write `<bench>.svg` beside the results, or elsewhere.
    Plot {
        /// The benchmark.
        bench: String,
        /// Only this case. May be repeated.
        #[arg(long)]
        case: Vec<String>,
        /// The file to write.
        #[arg(long)]
        to: Option<PathBuf>,
    },
    /// Put fresh tables into documents, between `<!-- bench:NAME -->` and `<!-- /bench -->`.
    Refresh {
        /// The documents.
        #[arg(required = true)]
        documents: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.dir, cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            drop(writeln!(std::io::stderr(), "portcullis-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Fold { bench } => {
            let mut lines = String::new();
            std::io::stdin().read_to_string(&mut lines)?;
            change(dir, &bench, |report| report.merge(fold(&bench, &lines)?))
        }
        Command::Criterion { bench, from } => {
            let rows = criterion::collect(&from, &bench)?;
            anyhow::ensure!(
                !rows.is_empty(),
                "no group '{bench}/…' below {}",
                from.display()
            );
            change(dir, &bench, |report| report.merge(rows))
        }
        Command::Note {
            bench,
            command,
            machine,
            absent,
        } => change(dir, &bench, |report| {
            let notes = &mut report.notes;
            notes.command = command.unwrap_or_else(|| std::mem::take(&mut notes.command));
            notes.machine = machine.unwrap_or_else(|| std::mem::take(&mut notes.machine));
            notes.absent = absent;
            Ok(())
        }),
        Command::Show { bench } => show(dir, bench),
        Command::Markdown { bench, case } => {
            let cases: Vec<&str> = case.iter().map(String::as_str).collect();
            say(&markdown::table(&Report::read(dir, &bench)?, &cases))
        }
        Command::Plot { bench, case, to } => {
            let cases: Vec<&str> = case.iter().map(String::as_str).collect();
            let to = to.unwrap_or_else(|| dir.join(format!("{bench}.svg")));
            let picture = plot::svg(&Report::read(dir, &bench)?, &cases);
            fs::write(&to, picture).with_context(|| format!("cannot write {}", to.display()))
        }
        Command::Refresh { documents } => documents.iter().try_for_each(|path| {
            let name = path.display();
            let old = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
            let fresh = markdown::refresh(&old, dir).with_context(|| format!("{name}"))?;
            fs::write(path, fresh).with_context(|| format!("cannot write {name}"))
        }),
    }
}

fn change(
    dir: &Path,
    bench: &str,
    with: impl FnOnce(&mut Report) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut report = Report::read(dir, bench)?;
    with(&mut report)?;
    report.write(dir)
}

/// Samples line by line, in order of appearance; a line that is none is an error with its number.
fn fold(bench: &str, lines: &str) -> anyhow::Result<Vec<Row>> {
    let mut samples: Vec<([&str; 3], Vec<f64>)> = Vec::new();
    for (number, line) in lines.lines().enumerate().filter(|(_, l)| !l.is_empty()) {
        let [case, subject, unit, value] = line.split('\t').collect::<Vec<_>>()[..] else {
            anyhow::bail!("line {}: not four fields: {line}", number + 1);
        };
        let value: f64 = value
            .trim()
            .parse()
            .with_context(|| format!("line {}: '{value}'", number + 1))?;
        let key = [case, subject, unit];
        match samples.iter_mut().find(|(k, _)| *k == key) {
            Some((_, values)) => values.push(value),
            None => samples.push((key, vec![value])),
        }
    }
    let rows = samples.iter().map(|([case, subject, unit], values)| {
        Row::of(bench, case, subject, unit, values)
            .with_context(|| format!("{case}, {subject}: not a finite number"))
    });
    rows.collect()
}

fn show(dir: &Path, mut benches: Vec<String>) -> anyhow::Result<()> {
    if benches.is_empty() {
        benches = all(dir);
        anyhow::ensure!(
            !benches.is_empty(),
            "no results in {}: run testbed/bench.sh",
            dir.display()
        );
    }
    benches
        .iter()
        .try_for_each(|bench| say(&text::table(&Report::read(dir, bench)?)))
}

/// Names of all benchmarks with results.
fn all(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".json")?.to_owned()))
        .filter(|name| !name.contains('.'))
        .collect();
    names.sort();
    names
}

/// Text on standard output; a closed pipe ends the command quietly.
fn say(text: &str) -> anyhow::Result<()> {
    match write!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
