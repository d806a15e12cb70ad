//! `portcullis control token`: another unrestricted token, for when all others are lost.

use anyhow::{Context as _, bail};
use serde_json::json;

use super::control;
use crate::{client, config, table};

/// What to do beside running.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Make another API token that may do everything, and print its secret once; the control plane may run.
    ///
    /// It needs what only the owner of the data directory has: the admin socket, or the store and its key. The
    /// others stay good: `portcullis ctl token delete NAME` ends one that somebody else may have found.
    Token {
        /// The token's name.
        #[arg(long, default_value = "recovered")]
        name: String,
        /// Print the secret in JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Does it, and prints the secret.
pub(super) fn run(action: &Action, config: &config::Edge) -> anyhow::Result<()> {
    let Action::Token { name, json } = action;
    if name.trim().is_empty() || name.chars().count() > 120 {
        bail!("a token's name has 1 to 120 characters");
    }
    if !config.control.is_empty() {
        bail!("this edge follows a control plane: tokens are made there");
    }
    let runtime = super::admin_runtime()?;
    let socket = config.admin_socket();
    let asked = json!({"name": name});
    let secret = match runtime.block_on(client::admin_post(&socket, "/tokens", &asked))? {
        Some(answer) if answer.status.is_success() => {
            String::from_utf8(answer.body.to_vec()).context("the token is not text")?
        }
        Some(answer) => bail!("{}", String::from_utf8_lossy(&answer.body)),
        None => control::open(config)?.new_token(name)?,
    };
    if *json {
        table::json(&json!({"name": name, "value": secret}));
    } else {
        table::say(&secret);
    }
    Ok(())
}
