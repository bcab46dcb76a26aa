//! Renewing a login without the person.

use std::path::{Path, PathBuf};

use common::connection_string::{ServiceConnectionString, ServiceCredential};
use common::hub_address::HubAddress;
use common::net::Dialer;
use common::secret::Secret;
use common::tls::client_config;

use super::error::{LoginError, NotRenewed};
use super::exchange;
use super::kept::{Kept, Lock, file_of, write};
use super::provider::Provider;

/// Gets another token of the hub into the connection string's file, unless another process has done
/// that already: then it is not the one of the id `known` any more. Ends by itself. Dropped, the
/// provider may have used up what renews the login: have it run to its end.
///
/// # Errors
/// [`NotRenewed`].
pub async fn renew(
    hub: &HubAddress,
    connection_file: &Path,
    known: &str,
    dialer: &Dialer,
) -> Result<(), NotRenewed> {
    renew_once(hub, connection_file, known, dialer)
        .await
        .map_err(|source| NotRenewed {
            hub: hub.without_default_port().to_string(),
            source,
        })
}

async fn renew_once(
    hub: &HubAddress,
    connection_file: &Path,
    known: &str,
    dialer: &Dialer,
) -> Result<(), LoginError> {
    let login_file = file_of(connection_file);
    let _lock = Lock::take(&login_file).await?;
    let files = (connection_file.to_owned(), login_file.clone());
    let known = known.to_owned();
    let read = move || -> Result<_, LoginError> {
        if token_id(&files.0).is_some_and(|id| id != known) {
            return Ok(None);
        }
        let kept = Kept::read(&files.1)?;
        let tls = client_config(kept.ca_file.as_deref(), None)?;
        Ok(Some((kept, tls)))
    };
    let Some((mut kept, tls)) = blocking(read).await? else {
        return Ok(());
    };
    let to_provider = dialer.trusting(&tls);
    let secret = kept.client_secret.as_ref();
    let mut provider = Provider::find(&kept.issuer, &kept.client_id, secret, &to_provider).await?;
    let identity = provider.renew(&kept.refresh_token).await?;
    if let Some(next) = identity.refresh_token {
        // At once: the old one may be of no more use.
        kept.refresh_token = next;
        blocking(move || kept.write(&login_file)).await?;
    }
    let issued = exchange(hub, &identity.token, dialer).await?;
    let path: PathBuf = connection_file.to_owned();
    let text = Secret::new(format!("{}\n", issued.connection_string.expose()));
    blocking(move || write(&path, &text)).await
}

/// Which token is in a connection string's file. Blocks.
fn token_id(connection_file: &Path) -> Option<String> {
    let text = common::text_input::read(connection_file).ok()?;
    let service = ServiceConnectionString::parse(common::text_input::value(&text).as_str()).ok()?;
    match service.credential {
        ServiceCredential::Token(_) => Some(service.policy),
        ServiceCredential::Key(_) => None,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoginError> + Send + 'static,
) -> Result<T, LoginError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(LoginError::Locked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_one_second_are_told_apart() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let id = |credential: &str| {
            let text = format!("HostName=h.example;SharedAccessKeyName=~b;{credential}\n");
            std::fs::write(file.path(), text).unwrap();
            token_id(file.path())
        };
        let token = "SharedAccessSignature=SharedAccessSignature sr=h.example&sig=AA==&se=1&skn=~b";
        assert_eq!(id(token).as_deref(), Some("~b"));
        // A key is nothing that was renewed.
        assert_eq!(
            id("SharedAccessKey=ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="),
            None
        );
        assert_eq!(token_id(Path::new("/no such file")), None);
    }
}
