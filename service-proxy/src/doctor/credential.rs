//! Who we are at the hub, as far as that can be judged without it.

use common::clock::unix_now;
use common::connection_string::ServiceCredential;
use common::doctor::{Check, Examination, secret_files};
use common::sas_token::SasToken;
use common::wire::initiation::encode_segment;

use crate::config::DoctorConfig;

const ID: &str = "credential";

/// What it is.
pub(super) fn kind(credential: &ServiceCredential) -> &'static str {
    match credential {
        ServiceCredential::Key(_) => "a key",
        ServiceCredential::Token(_) => "a SAS token",
    }
}

/// Examines it, and the rights of the files with it.
pub(super) fn examine(config: &DoctorConfig, examination: &mut Examination<'_>) {
    let service = &config.hub.service;
    let check = match &service.credential {
        ServiceCredential::Key(_) => Check::ok(
            ID,
            format!(
                "the key of policy `{}`, for the whole hub, which does not expire",
                service.policy
            ),
        ),
        ServiceCredential::Token(token) => match SasToken::parse(token.expose()) {
            Ok(token) => of_token(config, &token),
            Err(error) => Check::failed(ID, format!("the SAS token is none: {error}")),
        },
    };
    examination.add(check);
    let files = [&config.hub.connection_file, &config.hub.proxy.file];
    if let Some(check) = secret_files(files.into_iter().filter_map(Option::as_deref)) {
        examination.add(check);
    }
}

fn of_token(config: &DoctorConfig, token: &SasToken) -> Check {
    let hub = &config.hub.service.host;
    let policy = token.policy().unwrap_or("none");
    let path = token.path();
    let scope = match path {
        "" => "the whole hub".to_owned(),
        path => path.to_owned(),
    };
    let about = format!("a SAS token of policy `{policy}` for {scope}");
    if !hub.is_named_by(token.host()) {
        return Check::failed(
            ID,
            format!(
                "the SAS token is for the hub {}, and not for {hub}",
                token.host()
            ),
        )
        .remedy("give the token and the HostName of the same hub");
    }
    if let Some(wanted) = outside_of(config, path) {
        return Check::failed(ID, format!("{about}, and not for {wanted}")).remedy(
            "ask for a token for this device and target, as `stream-hub token create` prints it",
        );
    }
    let now = unix_now();
    match token.expiry().checked_sub(now) {
        None | Some(0) => Check::failed(
            ID,
            format!("{about} that expired {} s ago", now - token.expiry()),
        )
        .remedy("ask for another one, as `stream-hub token create` prints it"),
        Some(left) => Check::ok(ID, format!("{about}, valid for {} more min", left / 60)),
    }
}

/// What is asked for that a token for this path does not allow.
fn outside_of(config: &DoctorConfig, path: &str) -> Option<String> {
    let identity = config.identity.as_ref()?;
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let device = encode_segment(identity.device.as_str()).to_string();
    let is_device = |part: &str| part == identity.device.as_str() || part == device;
    match parts.as_slice() {
        [] | ["twins"] => None,
        ["twins", named, rest @ ..] if is_device(named) => match (rest, &config.target) {
            (["streams", target], Some(wanted)) if *target != wanted.as_str() => {
                Some(format!("the target {wanted}"))
            }
            _ => None,
        },
        _ => Some(format!("the device {identity}")),
    }
}

/// The only target that the credential is for.
pub(super) fn token_target(config: &DoctorConfig) -> Option<String> {
    let ServiceCredential::Token(token) = &config.hub.service.credential else {
        return None;
    };
    let token = SasToken::parse(token.expose()).ok()?;
    only_target(token.path()).map(str::to_owned)
}

/// The only target that a token for this path leads to, if it is that narrow.
fn only_target(path: &str) -> Option<&str> {
    let (_, target) = path.rsplit_once("/streams/")?;
    (!target.is_empty() && !target.contains('/')).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_token_names_its_target() {
        assert_eq!(only_target("twins/d/streams/ssh"), Some("ssh"));
        assert_eq!(only_target("twins/d/modules/m/streams/ssh"), Some("ssh"));
        assert_eq!(only_target("twins/d"), None);
        assert_eq!(only_target(""), None);
    }
}
