//! The account at the CA: kept in the data folder, made when it is missing, of another CA, or unknown
//! to this one.

use instant_acme::{Account, AccountCredentials, NewAccount};
use serde_json::{Value, json};

use super::http::Client;
use super::store::Store;
use super::{AcmeError, AcmeSettings};
use crate::events::{self, Event, Events};

const DIRECTORY: &str = "directory";
const CONTACTS: &str = "contacts";
const CREDENTIALS: &str = "credentials";

/// The account that is kept; `None`: there is none at this CA. Tells the CA of changed contacts.
/// When the future is dropped, it does so again the next time.
///
/// # Errors
/// [`AcmeError`]; `NoAccount` when the CA does not know it.
pub async fn kept(
    store: &Store,
    settings: &AcmeSettings,
    client: &Client,
) -> Result<Option<Account>, AcmeError> {
    let Some(mut kept) = store.account()? else {
        return Ok(None);
    };
    if kept.get(DIRECTORY).and_then(Value::as_str) != Some(&settings.directory) {
        return Ok(None);
    }
    let credentials = kept.get(CREDENTIALS).cloned().unwrap_or_default();
    let credentials: AccountCredentials = serde_json::from_value(credentials)
        .map_err(|_| AcmeError::Unreadable(store.account_file()))?;
    let account = Account::builder_with_http(Box::new(client.clone()))
        .from_credentials(credentials)
        .await?;
    let contacts = json!(settings.contacts);
    if kept.get(CONTACTS) != Some(&contacts)
        && let Some(fields) = kept.as_object_mut()
    {
        account.update_contacts(&as_texts(settings)).await?;
        fields.insert(CONTACTS.to_owned(), contacts);
        store.set_account(&kept)?;
    }
    Ok(Some(account))
}

/// Registers a new account, and keeps it. When the future is dropped, the CA may have one that is
/// never used.
///
/// # Errors
/// [`AcmeError`].
pub async fn made(
    store: &Store,
    settings: &AcmeSettings,
    client: &Client,
    events: &Events,
) -> Result<Account, AcmeError> {
    let wanted = NewAccount {
        contact: &as_texts(settings),
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let directory = settings.directory.clone();
    let (account, credentials) = Account::builder_with_http(Box::new(client.clone()))
        .create(&wanted, directory, None)
        .await?;
    let credentials = serde_json::to_value(&credentials).map_err(instant_acme::Error::from)?;
    store.set_account(&json!({
        (DIRECTORY): settings.directory,
        (CONTACTS): settings.contacts,
        (CREDENTIALS): credentials,
    }))?;
    let file = &store.account_file();
    let directory = &settings.directory;
    events.emit(Event::Acme(events::Acme::Registered { directory, file }));
    Ok(account)
}

fn as_texts(settings: &AcmeSettings) -> Vec<&str> {
    settings.contacts.iter().map(String::as_str).collect()
}
