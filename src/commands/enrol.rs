//! `portcullis control enrol`: an identity for an edge that follows this control plane.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use controlplane::model::HexId;
use serde_json::json;

use super::control;
use crate::{client, config, table};

/// What to do beside running.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Make a node, or give one another certificate, and write what its edge needs into a file; the
    /// control plane may run.
    ///
    /// The file holds the node's private key, which is kept nowhere else: it is readable by its owner only.
    /// A certificate that the node had before is worth nothing from then on, and `portcullis ctl node
    /// delete NAME` takes this one back.
    Enrol {
        /// The node's name: 1 to 63 lower-case letters, digits and hyphens.
        name: String,
        /// The file; it must not exist.
        file: PathBuf,
        /// The account that runs the node; default the oldest.
        #[arg(long, value_name = "ID")]
        account: Option<HexId>,
        /// Say what was done as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Does it, and says what was done.
pub(super) fn run(action: &Action, config: &config::Edge) -> anyhow::Result<()> {
    let Action::Enrol {
        name,
        file,
        account,
        json,
    } = action;
    if file.exists() {
        bail!("{} exists: name another file", file.display());
    }
    let asked = json!({"name": name, "account": account});
    let runtime = super::admin_runtime()?;
    let socket = config.admin_socket();
    let answer = runtime.block_on(client::admin_post(&socket, "/nodes", &asked))?;
    let bundle = match answer {
        Some(answer) if answer.status.is_success() => {
            String::from_utf8(answer.body.to_vec()).context("the identity is not text")?
        }
        Some(answer) => bail!("{}", String::from_utf8_lossy(&answer.body)),
        None => control::open(config)?.enrol(name, *account)?,
    };
    control::write_secret(file, &bundle)?;
    if *json {
        table::json(&json!({"done": "enrolled", "name": name, "file": file}));
    } else {
        table::say(&format!(
            "enrolled {name}: give {} to its edge, as --identity",
            file.display()
        ));
    }
    Ok(())
}
