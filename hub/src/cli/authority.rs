//! `ca`: which CAs sign the certificates of devices.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Form, name};

/// `ca …`
#[derive(Debug, Clone, Subcommand)]
pub enum CaCommand {
    /// Register a CA: from then on devices of type `certificateAuthority` can connect with
    /// certificates that it, or an intermediate CA below it, has signed.
    Add(CaAddArgs),
    /// List the CAs.
    List {
        #[command(flatten)]
        form: Form,
    },
    /// Name another file with revocation lists, or none.
    Crl {
        /// The CA.
        #[arg(value_name = "NAME", value_parser = ca_name)]
        name: String,
        /// The file, in PEM or DER; see `ca add --crl`.
        #[arg(value_name = "FILE", required_unless_present = "none")]
        file: Option<PathBuf>,
        /// No file: nothing that the CA signed is revoked.
        #[arg(long, conflicts_with = "file")]
        none: bool,
    },
    /// Remove a CA, and end the sessions that its certificates opened. Streams that are open go on.
    Remove {
        /// The CA.
        #[arg(value_name = "NAME", value_parser = ca_name)]
        name: String,
    },
}

/// Options of `ca add`.
#[derive(Debug, Clone, Args)]
pub struct CaAddArgs {
    /// What you call it: letters, digits, `-`, `_` and `.`; 64 at most.
    #[arg(value_name = "NAME", value_parser = ca_name)]
    pub name: String,

    /// PEM file of the CA's own certificate.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// File with the CA's revocation list, in PEM or DER, and those of all intermediate CAs below
    /// it, in PEM. It is read again when it changes.
    #[arg(long, value_name = "FILE")]
    pub crl: Option<PathBuf>,
}

fn ca_name(text: &str) -> Result<String, &'static str> {
    name(text).ok_or("a CA's name has 1 to 64 letters, digits, `-`, `_` and `.`")
}
