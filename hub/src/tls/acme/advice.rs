//! When the CA wants a certificate renewed (ACME Renewal Information, RFC 9773): it may move a renewal
//! to a quieter time, or ask for one at once, before it revokes.

use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier, Error};
use time::OffsetDateTime;

use super::attempts::Validity;
use super::issued::Issued;
use super::{AcmeError, LOOK};

/// How long the CA's advice holds at most, and how long we do without where it gives none.
const DAY: Duration = Duration::from_secs(86_400);

/// What the CA says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// When to renew; `None`: it does not say.
    pub renewal: Option<OffsetDateTime>,
    /// Ask again after this long.
    pub again: Duration,
}

impl Advice {
    /// Within this window, where `spread` says.
    fn within(
        start: OffsetDateTime,
        end: OffsetDateTime,
        again: Duration,
        validity: Validity,
        spread: u8,
    ) -> Self {
        let length: time::Duration = end - start;
        let part: time::Duration = length.max(time::Duration::ZERO) * i32::from(spread) / 255;
        let at: OffsetDateTime = start + part;
        Self {
            // Whatever it says, there shall be time for some attempts.
            renewal: Some(at.min(validity.latest_renewal())),
            again: again.clamp(LOOK, DAY),
        }
    }
}

/// Asks the CA. May be dropped.
///
/// # Errors
/// [`AcmeError`].
pub async fn ask(account: &Account, issued: &Issued) -> Result<Advice, AcmeError> {
    let none = Advice {
        renewal: None,
        again: DAY,
    };
    let Some(certificate) = identifier(issued) else {
        return Ok(none);
    };
    match account.renewal_info(&certificate).await {
        Ok((info, again)) => {
            let window = info.suggested_window;
            let (validity, spread) = (issued.validity, issued.spread);
            Ok(Advice::within(
                window.start,
                window.end,
                again,
                validity,
                spread,
            ))
        }
        Err(Error::Unsupported(_)) => Ok(none),
        Err(error) => Err(error.into()),
    }
}

/// By what the CA knows the certificate; `None`: by nothing.
pub fn identifier(issued: &Issued) -> Option<CertificateIdentifier<'static>> {
    let own = issued.certified.cert.first()?;
    let identifier = CertificateIdentifier::try_from(own).ok()?;
    Some(identifier.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_followed_but_not_to_the_end_of_the_certificate() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds);
        let validity = Validity {
            not_before: at(0),
            not_after: at(900),
        };
        let renewal = |start, end, spread| {
            let advice = Advice::within(at(start), at(end), Duration::ZERO, validity, spread);
            assert_eq!(advice.again, LOOK);
            advice.renewal
        };
        assert_eq!(renewal(100, 355, 0), Some(at(100)));
        assert_eq!(renewal(100, 355, 255), Some(at(355)));
        assert_eq!(renewal(100, 355, 100), Some(at(200)));
        // At once.
        assert_eq!(renewal(-500, -245, 255), Some(at(-245)));
        assert_eq!(renewal(800, 1200, 255), Some(validity.latest_renewal()));
        // A window that ends before it begins.
        assert_eq!(renewal(300, 100, 255), Some(at(300)));
        let again = |seconds| {
            let again = Duration::from_secs(seconds);
            Advice::within(at(0), at(1), again, validity, 0).again
        };
        assert_eq!(again(6 * 3600), Duration::from_secs(6 * 3600));
        assert_eq!(again(1 << 40), DAY);
    }
}
