//! Renewing a login without the person.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use common::connection_string::ServiceConnectionString;
use common::files::Room;
use common::hub_address::HubAddress;
use common::net::Dialer;
use common::secret::Secret;
use common::text_input::TextError;
use common::tls::client_config;

use super::error::{LoginError, NotRenewed};
use super::exchange;
use super::kept::{file_of, make_room};
use super::provider::Provider;
use super::turn;

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
    let turns = turn::of_process();
    let mut turn = turns.take(&file_of(connection_file)).await?;
    let token = Token {
        file: connection_file.to_owned(),
        known: known.to_owned(),
    };
    let read = move || -> Result<_, LoginError> {
        if !token.is_there() {
            turn.store()?;
            return Ok(None);
        }
        let kept = turn.login()?;
        let tls = client_config(kept.ca_file.as_deref(), None)?;
        Ok(Some((turn, token, kept, tls)))
    };
    let Some((mut turn, token, kept, tls)) = blocking(read).await? else {
        return Ok(());
    };
    let to_provider = dialer.trusting(&tls);
    let secret = kept.client_secret.as_ref();
    let mut provider = Provider::find(&kept.issuer, &kept.client_id, secret, &to_provider).await?;
    // The provider may take back what is stored as soon as it is asked: before, it must be sure that
    // what it gives can be stored.
    let prepare = move || -> Result<_, LoginError> {
        // Somebody may have logged in anew while the provider was looked for.
        if turn.login()?.refresh_token != kept.refresh_token {
            return Ok(None);
        }
        let room = turn.make_room(&kept)?;
        let token_room = token.make_room()?;
        Ok(Some((turn, kept, room, token, token_room)))
    };
    let Some((turn, mut kept, room, token, token_room)) = blocking(prepare).await? else {
        return Ok(());
    };
    let asking = turns.ask()?;
    let renewed = provider.renew(&kept.refresh_token).await?;
    let turn = match renewed.refresh_token {
        Some(next) => {
            let store = move || {
                let instead_of = std::mem::replace(&mut kept.refresh_token, next);
                Ok(turn.keep(kept, instead_of, room))
            };
            blocking(store).await?
        }
        None => Some(turn),
    };
    drop(asking);
    let issued = exchange(hub, &renewed.token?, dialer).await?;
    let text = Secret::new(format!("{}\n", issued.connection_string.expose()));
    blocking(move || token.replace(token_room, &text)).await?;
    drop(turn);
    Ok(())
}

/// The token that is renewed.
struct Token {
    /// The file of its connection string.
    file: PathBuf,
    known: String,
}

impl Token {
    /// Whether no other is there, of another process or of another login. Blocks.
    fn is_there(&self) -> bool {
        policy(&self.file).is_none_or(|policy| policy == self.known)
    }

    /// Sees to it that the next one can be stored. Blocks.
    fn make_room(&self) -> Result<Room, LoginError> {
        match common::text_input::read(&self.file) {
            Ok(text) => make_room(&self.file, Some(text.as_str())),
            Err(TextError::Io(source)) if source.kind() != ErrorKind::NotFound => {
                Err(LoginError::NotKept {
                    path: self.file.clone(),
                    source,
                })
            }
            Err(_) => make_room(&self.file, None),
        }
    }

    /// Stores the next one, unless there is another by now. Blocks.
    fn replace(&self, room: Room, next: &Secret) -> Result<(), LoginError> {
        if !self.is_there() {
            return Ok(());
        }
        room.fill(next.expose().as_bytes())
            .map_err(|source| LoginError::Write {
                path: self.file.clone(),
                source,
            })
    }
}

/// Which token, or whose key, is in a connection string's file. Blocks.
fn policy(connection_file: &Path) -> Option<String> {
    let text = common::text_input::read(connection_file).ok()?;
    let service = ServiceConnectionString::parse(common::text_input::value(&text).as_str()).ok()?;
    Some(service.policy)
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
            policy(file.path())
        };
        let token = "SharedAccessSignature=SharedAccessSignature sr=h.example&sig=AA==&se=1&skn=~b";
        assert_eq!(id(token).as_deref(), Some("~b"));
        assert_eq!(policy(Path::new("/no such file")), None);
    }
}
