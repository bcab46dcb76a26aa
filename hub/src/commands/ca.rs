//! `ca …`: which CAs sign the certificates of devices.

use std::path::{Path, PathBuf};

use common::clock::unix_now;
use common::table::Columns;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::{CommandError, Session};
use crate::auth::{AuthorityError, CrlError, Crls, KnownAuthority, fingerprints};
use crate::cli::{CaAddArgs, CaCommand, Form};
use crate::iso8601;
use crate::registry::{Authority, AuthorityAdded};

/// Why a CA is not registered.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Its certificate is of no use.
    #[error("the certificate in {} cannot be a CA of devices", file.display())]
    Certificate {
        /// Where it was read from.
        file: PathBuf,
        /// Why not.
        #[source]
        reason: AuthorityError,
    },
    /// Which one is meant?
    #[error("there are {count} certificates in {}; give a file with the CA's own one only", file.display())]
    Several {
        /// Where they were read from.
        file: PathBuf,
        /// How many.
        count: usize,
    },
    /// Its revocation list is of no use.
    #[error("{} is of no use as the CA's revocation list", file.display())]
    Crl {
        /// Where it was read from.
        file: PathBuf,
        /// Why not.
        #[source]
        reason: CrlError,
    },
    /// The registry keeps paths as text.
    #[error("the path {} is not UTF-8; give the file another name", .0.display())]
    Path(PathBuf),
}

pub(super) async fn run(session: &mut Session<'_>, command: CaCommand) -> Result<(), CommandError> {
    match command {
        CaCommand::Add(args) => add(session, args).await,
        CaCommand::List { form } => list(session, form).await,
        CaCommand::Crl {
            name,
            file,
            none: _,
        } => set_crl(session, name, file).await,
        CaCommand::Remove { name } => {
            if !session.registry.remove_authority(&name).await? {
                return Err(CommandError::NoAuthority(name));
            }
            session.say(&format!(
                "removed the CA {name}; what it has signed is refused from now on"
            ));
            Ok(())
        }
    }
}

async fn add(session: &mut Session<'_>, args: CaAddArgs) -> Result<(), CommandError> {
    let CaAddArgs { name, file, crl } = args;
    let certificates = common::tls::certificates(&file)?;
    let certificate = match <[CertificateDer<'_>; 1]>::try_from(certificates) {
        Ok([certificate]) => certificate,
        Err(several) => {
            let count = several.len();
            return Err(CaError::Several { file, count }.into());
        }
    };
    let known = KnownAuthority::to_register(name.clone(), certificate, unix_now());
    let known = known.map_err(|reason| CaError::Certificate { file, reason })?;
    let crl_file = crl
        .map(|file| checked_crl(session, &file, &known))
        .transpose()?;
    let authority = Authority {
        crl_file,
        ..known.authority().clone()
    };
    match session.registry.add_authority(authority).await? {
        AuthorityAdded::Added => {}
        AuthorityAdded::NameTaken => return Err(CommandError::AuthorityExists(name)),
        AuthorityAdded::Known(name) => return Err(CommandError::AuthorityKnown(name)),
    }
    session.say(&format!(
        "added the CA {name}; make devices for it with `stream-hub device create ID --x509-ca`"
    ));
    Ok(())
}

async fn set_crl(
    session: &mut Session<'_>,
    name: String,
    file: Option<PathBuf>,
) -> Result<(), CommandError> {
    let known = session.registry.authorities().await?;
    let Some(authority) = known.into_iter().find(|authority| authority.name == name) else {
        return Err(CommandError::NoAuthority(name));
    };
    let crl_file = match file {
        None => None,
        Some(file) => {
            let known = KnownAuthority::read(authority).map_err(|reason| CaError::Certificate {
                file: file.clone(),
                reason,
            })?;
            Some(checked_crl(session, &file, &known)?)
        }
    };
    let text = match &crl_file {
        Some(file) => format!(
            "the CA {name} has its revocation list in {}",
            file.display()
        ),
        None => format!("the CA {name} has no revocation list any more"),
    };
    if !session.registry.set_authority_crl(&name, crl_file).await? {
        return Err(CommandError::NoAuthority(name));
    }
    session.say(&text);
    Ok(())
}

/// The absolute path of a revocation list that can be used.
fn checked_crl(
    session: &mut Session<'_>,
    file: &Path,
    known: &KnownAuthority,
) -> Result<PathBuf, CommandError> {
    let crls = Crls::read(file, known.subject()).map_err(|reason| CaError::Crl {
        file: file.to_owned(),
        reason,
    })?;
    if crls.next_update().is_some_and(|time| time < unix_now()) {
        session.say(&format!(
            "note: a revocation list in {} should have been replaced by now; it counts until it is",
            file.display()
        ));
    }
    let path = std::path::absolute(file)?;
    if path.to_str().is_none() {
        return Err(CaError::Path(path).into());
    }
    Ok(path)
}

async fn list(session: &mut Session<'_>, form: Form) -> Result<(), CommandError> {
    let authorities = session.registry.authorities().await?;
    let described: Vec<_> = authorities.iter().map(Described::of).collect();
    if form.json {
        let list: Value = described.iter().map(Described::json).collect();
        return session.json(&list);
    }
    if described.is_empty() {
        session.say("there are no CAs");
        return Ok(());
    }
    let rows: Vec<_> = described.iter().map(Described::row).collect();
    for line in Columns::new(&["NAME", "SUBJECT", "VALID UNTIL", "REVOCATION LIST"]).page(&rows) {
        session.line(&line)?;
    }
    Ok(())
}

/// A CA for a person.
struct Described {
    name: String,
    subject: String,
    until: String,
    thumbprint: String,
    crl_file: Option<String>,
    added: u64,
}

impl Described {
    fn of(authority: &Authority) -> Self {
        let [_, thumbprint] = fingerprints(&authority.certificate);
        let known = KnownAuthority::read(authority.clone());
        let (subject, until) = match &known {
            Ok(known) => (known.subject_text(), time(known.until())),
            Err(error) => (error.to_string(), String::new()),
        };
        Self {
            name: authority.name.clone(),
            subject,
            until,
            thumbprint,
            crl_file: authority
                .crl_file
                .as_ref()
                .map(|file| file.display().to_string()),
            added: authority.added,
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "subject": self.subject,
            "thumbprint": self.thumbprint,
            "validUntil": self.until,
            "crlFile": self.crl_file,
            "added": time(self.added),
        })
    }

    fn row(&self) -> [String; 4] {
        [
            self.name.clone(),
            self.subject.clone(),
            self.until.clone(),
            self.crl_file.clone().unwrap_or_else(|| "none".to_owned()),
        ]
    }
}

/// A time to the second.
fn time(seconds: u64) -> String {
    let text = iso8601::from_unix_micros(Some(seconds.saturating_mul(1_000_000)));
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}
