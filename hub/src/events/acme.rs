//! The certificate that a CA signs by ACME.

use std::path::Path;
use std::time::Duration;

use common::report::chain;
use time::OffsetDateTime;
use time::macros::format_description;

use super::Reason;

/// What happened to it.
#[derive(Clone, Copy)]
pub enum Acme<'a> {
    /// There is none yet.
    Ordering {
        /// For which host name.
        host: &'a str,
        /// The directory of the CA.
        directory: &'a str,
        /// TLS handshakes are refused until there is one; else the hub's own CA signs one.
        is_refusing: bool,
    },
    /// The CA comes to port 443, and that is not where HTTPS listens.
    OtherPort {
        /// To which host.
        host: &'a str,
        /// Where HTTPS listens.
        port: u16,
    },
    /// The CA has a new account of this hub.
    Registered {
        /// The directory of the CA.
        directory: &'a str,
        /// Where the account is kept.
        file: &'a Path,
    },
    /// The CA has signed, and the certificate is in use.
    Issued {
        /// For which host name.
        host: &'a str,
        /// Its serial number.
        serial: &'a str,
        /// It is valid until then.
        until: OffsetDateTime,
    },
    /// The certificate is in use, and not in the data folder: the next start orders another one.
    NotKept(Reason<'a>),
    /// The certificate in use has expired, while the CA has not signed another one.
    Expired {
        /// For which host name.
        host: &'a str,
        /// When.
        until: OffsetDateTime,
    },
    /// The CA has not signed; it is asked again.
    Failed {
        /// For which host name.
        host: &'a str,
        /// The directory of the CA.
        directory: &'a str,
        /// Why not.
        reason: Reason<'a>,
        /// It is asked again after this long.
        delay: Duration,
        /// When the certificate in use expires; `None`: there is none.
        until: Option<OffsetDateTime>,
        /// It has.
        is_over: bool,
    },
}

pub(super) fn write(event: Acme<'_>) {
    match event {
        Acme::Ordering {
            host,
            directory,
            is_refusing,
        } => {
            let meanwhile = match is_refusing {
                true => "TLS connections are refused",
                false => "one of the hub's own CA is shown",
            };
            tracing::info!(
                host,
                "ordering a certificate from {directory}; until there is one, {meanwhile}"
            );
        }
        Acme::OtherPort { host, port } => tracing::warn!(
            host,
            "the CA validates {host} on port 443, and HTTPS listens on port {port}: without a port forward from 443, or --https 443, there will be no certificate"
        ),
        Acme::Registered { directory, file } => tracing::info!(
            file = %file.display(),
            "registered an account at {directory}"
        ),
        Acme::Issued {
            host,
            serial,
            until,
        } => tracing::info!(
            host,
            "the CA has signed a certificate, valid until {}, serial number {serial}; it is in use",
            date(until)
        ),
        Acme::NotKept(reason) => tracing::error!(
            "the certificate cannot be kept, so the next start orders another one: {}",
            chain(reason)
        ),
        Acme::Expired { host, until } => tracing::error!(
            host,
            "THE CERTIFICATE HAS EXPIRED on {}: clients refuse this hub",
            date(until)
        ),
        Acme::Failed {
            host,
            directory,
            reason,
            delay,
            until,
            is_over,
        } => {
            let reason = chain(reason);
            let delay = humantime::format_duration(Duration::from_secs(delay.as_secs().max(1)));
            match until {
                Some(until) if is_over => tracing::error!(
                    host,
                    "THE CERTIFICATE HAS EXPIRED on {}, clients refuse this hub, and {directory} gives no new one: {reason}; trying again in {delay}",
                    date(until)
                ),
                Some(until) => tracing::warn!(
                    host,
                    "no new certificate from {directory}: {reason}; the present one is valid until {}, trying again in {delay}",
                    date(until)
                ),
                None => tracing::warn!(
                    host,
                    "no certificate from {directory} yet: {reason}; trying again in {delay}"
                ),
            }
        }
    }
}

fn date(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    time.format(format).unwrap_or_else(|_| time.to_string())
}
