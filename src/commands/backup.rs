//! `portcullis control backup` and `restore`: everything that exists, into one file and back.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use controlplane::store::backup::{self, Summary};
use serde_json::json;

use super::control;
use crate::{client, config, table};

/// What to do beside running.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Write everything that exists into a file, as it is at one moment; the control plane may run.
    ///
    /// Private keys in it are sealed with the control plane's key, which is not in it: keep a copy of
    /// that apart. The file is readable by its owner only.
    Backup {
        /// The file; it must not exist.
        file: PathBuf,
        /// Say what was done as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put a backup into the store of a control plane that does not run.
    ///
    /// It opens with the key of the control plane that the backup is of: `data_dir/key` or `key_file`
    /// there.
    Restore {
        /// The file.
        file: PathBuf,
        /// Replace what the store holds.
        #[arg(long)]
        replace: bool,
        /// Say what was done as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Does it, and says what was done.
pub(super) fn run(action: &Action, config: &config::Edge) -> anyhow::Result<()> {
    match action {
        Action::Backup { file, json } => {
            let (summary, from) = back_up(file, config)?;
            report(*json, "backed up", file, &summary, from);
        }
        Action::Restore {
            file,
            replace,
            json,
        } => {
            let from =
                File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
            let store = control::store(config)?;
            let summary = backup::restore(&*store, &mut BufReader::new(from), *replace)
                .with_context(|| format!("{} was not restored; nothing changed", file.display()))?;
            report(
                *json,
                "restored",
                file,
                &summary,
                "the stopped control plane",
            );
        }
    }
    Ok(())
}

fn report(is_json: bool, done: &str, file: &Path, summary: &Summary, with: &str) {
    if is_json {
        table::json(&json!({
            "done": done, "file": file, "with": with, "revision": summary.revision,
            "objects": summary.objects, "sha256": summary.sha256,
        }));
    } else {
        table::say(&format!(
            "{done} {} objects at revision {} with {with}: {} (SHA-256 {})",
            summary.objects,
            summary.revision,
            file.display(),
            summary.sha256
        ));
    }
}

/// Asks the control plane that runs; opens the store when none does. The file appears whole.
fn back_up(file: &Path, config: &config::Edge) -> anyhow::Result<(Summary, &'static str)> {
    if file.exists() {
        bail!("{} exists: name another file", file.display());
    }
    let mut name = file.file_name().context("name a file")?.to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    let done = fill(&part, config);
    match done {
        Ok(done) => {
            std::fs::rename(&part, file)
                .with_context(|| format!("cannot name the backup {}", file.display()))?;
            Ok(done)
        }
        Err(error) => {
            // What is half there is no use; that it cannot be removed is no second failure.
            let _is_removed = std::fs::remove_file(&part);
            Err(error)
        }
    }
}

fn fill(part: &Path, config: &config::Edge) -> anyhow::Result<(Summary, &'static str)> {
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let opened = options.open(part);
    let opened = opened.with_context(|| format!("cannot write {}", part.display()))?;
    let mut out = BufWriter::new(opened);
    let socket = config.admin_socket();
    let runtime = super::admin_runtime()?;
    let from = match runtime.block_on(client::admin_stream(&socket, "/backup", &mut out))? {
        Some(()) => "the running control plane",
        None => {
            let store = control::store(config)?;
            backup::write(&*store, &mut out)?;
            "the stopped control plane"
        }
    };
    out.flush()?;
    out.get_ref().sync_all()?;
    // Read back: what is reported is what can be restored.
    let written = File::open(part).context("cannot read the backup back")?;
    let summary = backup::check(&mut BufReader::new(written))?;
    Ok((summary, from))
}
