//! `service-proxy login --hub HUB`: the person logs in at the organisation's identity provider, and
//! gets a token of the hub for what they may do there.

use std::path::{Path, PathBuf};

use common::enrolment::{Folder, FolderError};
use common::files::Access;
use common::hub_address::HubAddress;
use common::net::Dialer;
use common::output;
use common::places::quoted;
use common::secret::Secret;
use common::text_input;
use common::tls::client_config;

use super::{AUTHORITIES, CONNECTION_STRING, LoginConfig, LoginError, SECRET_VARIABLE};
use crate::config;
use crate::oidc::{Kept, Provider, exchange, file_of, parameters};

/// The CA of the identity provider, if it has one of its own.
const PROVIDER_AUTHORITIES: &str = "provider-ca.pem";

/// Has the person log in, writes the files, and prints what to do next. Dropped, it has written
/// nothing, or nothing that is used.
pub(super) async fn run(hub: &HubAddress, config: &LoginConfig) -> Result<(), LoginError> {
    let client_secret = client_secret(config.args.client_secret_file.as_deref())?;
    let folder = config
        .args
        .dir
        .clone()
        .map_or_else(common::places::of_user, Some);
    let folder = Folder::open(
        &folder.ok_or(FolderError::Nowhere)?,
        config::FILE,
        config.args.force,
    )?;
    let tls = client_config(config.ca_file.as_deref(), None)?;
    let dialer = Dialer::new(&tls).through(config.proxy.clone());
    let found = parameters(hub, &dialer).await?;
    let provider_ca = match &found.authorities {
        Some(pem) => {
            folder.write(PROVIDER_AUTHORITIES, pem, Access::Public)?;
            Some(folder.file(PROVIDER_AUTHORITIES))
        }
        None => None,
    };
    let to_provider = dialer.trusting(&client_config(provider_ca.as_deref(), None)?);
    let (issuer, client_id) = (&found.issuer, &found.client_id);
    let mut provider =
        Provider::find(issuer, client_id, client_secret.as_ref(), &to_provider).await?;
    let identity = provider.ask_person(&found.scopes, show).await?;
    let issued = exchange(hub, &identity.token, &dialer).await?;
    let kept = identity.refresh_token.map(|refresh_token| Kept {
        issuer: found.issuer.clone(),
        client_id: found.client_id.clone(),
        client_secret,
        ca_file: provider_ca,
        refresh_token,
    });
    let is_renewed = kept.is_some();
    let written = write(&folder, &issued.connection_string, kept, config)?;
    let renewal = match is_renewed {
        true => "it is renewed without you, as long as the provider allows that",
        false => "the provider gives nothing to renew it with: log in again after that",
    };
    let text = format!(
        "logged in at {} as {}; wrote {}\nthe token works until {}; {renewal}\n",
        hub.without_default_port(),
        common::outside::printable(&issued.person),
        written.display(),
        moment(issued.expires),
    );
    output::stdout().text(&text);
    Ok(())
}

/// The secret of our client at the provider, if one is given: of a file, or else of the environment.
fn client_secret(file: Option<&Path>) -> Result<Option<Secret>, LoginError> {
    let (text, place) = match (file, std::env::var_os(SECRET_VARIABLE)) {
        (Some(path), _) => {
            let text = text_input::read(path).map_err(|source| LoginError::Secret {
                path: path.to_owned(),
                source,
            })?;
            (Some(Secret::new(text.as_str())), path.display().to_string())
        }
        (None, Some(text)) => {
            let text = text.into_string().ok().map(Secret::new);
            (text, SECRET_VARIABLE.to_owned())
        }
        (None, None) => return Ok(None),
    };
    // It may be any text: nothing but the end of its line is taken off.
    let text = text.as_ref().map(Secret::expose);
    let text = text.map(|text| text.trim_end_matches(['\r', '\n']));
    match text.filter(|text| !text.is_empty()) {
        Some(text) => Ok(Some(Secret::new(text))),
        None => Err(LoginError::NoSecret(place)),
    }
}

/// Shows the person where to go. Nothing is opened by itself: the machine may have no browser, or
/// belong to somebody else.
fn show(url: &str, code: &str, complete: Option<&str>) {
    let printable = common::outside::printable;
    let mut text = format!(
        "to log in, open {} on any device and enter the code {}\n",
        printable(url),
        printable(code)
    );
    if let Some(complete) = complete {
        text += &format!("or open {}\n", printable(complete));
    }
    output::stderr().text(&text);
}

/// A moment as UTC.
fn moment(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_else(|| "an unknown time".to_owned())
}

fn write(
    folder: &Folder,
    connection_string: &Secret,
    kept: Option<Kept>,
    config: &LoginConfig,
) -> Result<PathBuf, LoginError> {
    let file = folder.file(CONNECTION_STRING);
    let login_file = file_of(&file);
    match kept {
        Some(kept) => kept.write(&login_file).map_err(LoginError::ByName)?,
        // That of an earlier login would renew somebody else's.
        None => drop(std::fs::remove_file(&login_file)),
    }
    let text = format!("{}\n", connection_string.expose());
    folder.write(CONNECTION_STRING, &text, Access::Private)?;
    let mut text = format!(
        "# Written by `service-proxy login`, and used when no other connection string is given.\n\
         # `service-proxy --help` explains the settings.\n\
         connection-string-file = {}\n",
        folder.quoted(CONNECTION_STRING),
    );
    if let Some(ca_file) = &config.ca_file {
        text += &ca_line(folder, ca_file)?;
    }
    text += &config.proxy_options.to_lines();
    Ok(folder.write_configuration(&text)?)
}

/// The CA is copied: the file that was given may be somewhere for the moment.
fn ca_line(folder: &Folder, ca_file: &Path) -> Result<String, LoginError> {
    let text = std::fs::read_to_string(ca_file).map_err(FolderError::at(ca_file))?;
    folder.write(AUTHORITIES, &text, Access::Public)?;
    let path = folder.file(AUTHORITIES);
    Ok(format!(
        "ca-file = {}\n",
        quoted(&path.display().to_string())
    ))
}
