//! `portcullis control rekey`: seals the store with another server key.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use controlplane::MasterKey;

use super::control;
use crate::{config, table};

/// What to do beside running.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Seal the embedded store with another server key, while the control plane is stopped.
    ///
    /// The key in data_dir/key is replaced. Where it is in `key_file` or PORTCULLIS_KEY, say the new one with --to,
    /// and put it there afterwards. API tokens stay good. Backups of before open with the old key only: keep it as
    /// long as them.
    Rekey {
        /// A file with the new key, as `openssl rand -base64 32` prints one; default a new one in data_dir.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// Does it, and says what to do next.
pub(super) fn run(action: &Action, config: &config::Edge) -> anyhow::Result<()> {
    let Action::Rekey { to } = action;
    if config.store.is_some() {
        bail!(
            "only the embedded store is sealed anew: all control planes of an etcd would have to change at once"
        );
    }
    if !config.control.is_empty() {
        bail!(
            "this edge follows a control plane: its key seals a copy only, and deleting both makes new ones"
        );
    }
    let options = control::options(config)?;
    let new = match to {
        None if options.key.is_some() => {
            bail!("the key is yours (key_file or PORTCULLIS_KEY): say the new one with --to FILE")
        }
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let key: MasterKey = text
                .parse()
                .with_context(|| format!("{}", path.display()))?;
            Some(key)
        }
    };
    let is_own = options.key.is_none();
    controlplane::rekey(&options, new)?;
    table::say(match is_own {
        true => {
            "sealed with a new key, which is in the data directory: copy it to where you keep it"
        }
        false => {
            "sealed with the new key: put it into key_file or PORTCULLIS_KEY before the next start"
        }
    });
    Ok(())
}
