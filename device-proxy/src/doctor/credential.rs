//! With what the device proves who it is, as far as that can be judged without the hub.

use common::clock::unix_now;
use common::connection_string::DeviceCredential;
use common::doctor::{Check, Examination, secret_files};
use common::sas_token::SasToken;
use common::tls;

use crate::config::Config;

const ID: &str = "credential";

/// What it is.
pub(super) fn kind(config: &Config) -> &'static str {
    match &config.connection.credential {
        DeviceCredential::Key { policy: None, .. } => "its own key",
        DeviceCredential::Key {
            policy: Some(_), ..
        } => "a policy's key",
        DeviceCredential::Token(_) => "a SAS token",
        DeviceCredential::X509 => "an X.509 certificate",
    }
}

/// Examines it, and the rights of the files with it.
pub(super) fn examine(config: &Config, examination: &mut Examination<'_>) {
    let check = match &config.connection.credential {
        DeviceCredential::Token(token) => match SasToken::parse(token.expose()) {
            Ok(token) => of_token(config, &token),
            Err(error) => Check::failed(ID, format!("the SAS token is none: {error}")),
        },
        DeviceCredential::X509 => of_certificate(config),
        DeviceCredential::Key { .. } => {
            Check::ok(ID, format!("{}, which does not expire", kind(config)))
        }
    };
    examination.add(check);
    let key = config.key_file.as_deref();
    let files = config.connection_file.as_deref().into_iter().chain(key);
    if let Some(check) = secret_files(files.chain(config.proxy.file.as_deref())) {
        examination.add(check);
    }
}

fn of_token(config: &Config, token: &SasToken) -> Check {
    let connection = &config.connection;
    let now = unix_now();
    let path = connection.identity.resource_path();
    if !connection.host.is_named_by(token.host()) {
        return Check::failed(
            ID,
            format!(
                "the SAS token is for the hub {}, and not for {}",
                token.host(),
                connection.host
            ),
        )
        .remedy("give the token and the HostName of the same hub");
    }
    if !token.covers(&connection.host, &path) {
        return Check::failed(
            ID,
            format!("the SAS token is for {}, and not for {path}", token.path()),
        )
        .remedy("get a token for this device");
    }
    match token.expiry().checked_sub(now) {
        None | Some(0) => Check::failed(
            ID,
            format!("the SAS token expired {} s ago", now - token.expiry()),
        )
        .remedy("get a new token, or use a key, of which device-proxy makes tokens itself"),
        Some(left) => Check::ok(ID, format!("a SAS token, valid for {} more min", left / 60)),
    }
}

fn of_certificate(config: &Config) -> Check {
    let links = config
        .certificate_file
        .as_deref()
        .and_then(|path| tls::certificates(path).ok())
        .map(|found| tls::links(&found))
        .unwrap_or_default();
    let Some(own) = links.first() else {
        return Check::ok(ID, "an X.509 certificate");
    };
    let now = i64::try_from(unix_now()).unwrap_or(i64::MAX);
    let subject = &own.subject;
    if now > own.not_after {
        Check::failed(
            ID,
            format!("the X.509 certificate of {subject} has expired"),
        )
        .remedy("enrol this device again, or renew its certificate")
    } else if now < own.not_before {
        Check::failed(
            ID,
            format!("the X.509 certificate of {subject} is not valid yet"),
        )
        .remedy("is this machine's clock right?")
    } else {
        let days = (own.not_after - now) / 86_400;
        Check::ok(
            ID,
            format!("the X.509 certificate of {subject}, valid for {days} more days"),
        )
    }
}
