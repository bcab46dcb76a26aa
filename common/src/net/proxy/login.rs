//! Proving to an HTTP proxy who we are (RFC 9110, section 11.7). The first request to a proxy has no
//! credentials: its 407 says in which way it takes them, so that a password is sent in plain text
//! only where nothing better is offered. What a proxy has taken once is used at once from then on.

use http::{HeaderMap, header};

use super::credentials::Credentials;
use super::error::{ProxyError, Schemes};
#[cfg(feature = "ntlm")]
use super::ntlm::{self, Negotiation};
use crate::secret::Secret;

/// A way to prove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// User name and password, in base64 (RFC 7617).
    Basic,
    /// NTLMv2 (MS-NTHT): three messages on one connection.
    #[cfg(feature = "ntlm")]
    Ntlm,
    /// The same messages, as servers take them under this name, too.
    #[cfg(feature = "ntlm")]
    Negotiate,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            #[cfg(feature = "ntlm")]
            Self::Ntlm => "NTLM",
            #[cfg(feature = "ntlm")]
            Self::Negotiate => "Negotiate",
        }
    }
}

/// Those that we have, the best first.
const OURS: &[Scheme] = &[
    #[cfg(feature = "ntlm")]
    Scheme::Ntlm,
    #[cfg(feature = "ntlm")]
    Scheme::Negotiate,
    Scheme::Basic,
];
/// Those that are named in errors.
const KNOWN: &[&str] = &["Basic", "Bearer", "Digest", "Negotiate", "NTLM"];

/// One attempt to be let through, over all of its requests.
pub struct Login {
    credentials: Option<Credentials>,
    step: Step,
    /// The proxy's own choice of schemes was heeded already.
    has_chosen: bool,
}

/// What the next request, or the last one, has.
enum Step {
    /// No credentials.
    Anonymous,
    /// Everything that there is in the scheme: a second 407 is a refusal.
    Complete(Scheme, Secret),
    /// The first of three messages.
    #[cfg(feature = "ntlm")]
    Begun(Scheme, Negotiation),
}

impl Login {
    /// With the scheme that the proxy took last time.
    pub fn new(credentials: Option<Credentials>, scheme: Option<Scheme>) -> Self {
        let mut login = Self {
            credentials,
            step: Step::Anonymous,
            has_chosen: false,
        };
        if let Some(scheme) = scheme {
            login.begin(scheme);
        }
        login
    }

    /// The value of `Proxy-Authorization` in the next request.
    pub(super) fn authorization(&self) -> Option<Secret> {
        match &self.step {
            Step::Anonymous => None,
            Step::Complete(_, value) => Some(value.clone()),
            #[cfg(feature = "ntlm")]
            Step::Begun(scheme, negotiation) => {
                Some(ntlm::header(scheme.name(), negotiation.message()))
            }
        }
    }

    /// What a proxy that let us through has taken.
    pub fn scheme(&self) -> Option<Scheme> {
        match &self.step {
            Step::Anonymous => None,
            Step::Complete(scheme, _) => Some(*scheme),
            #[cfg(feature = "ntlm")]
            Step::Begun(scheme, _) => Some(*scheme),
        }
    }

    /// Whether the next request must go on the same connection as the last.
    pub fn is_bound(&self) -> bool {
        #[cfg(feature = "ntlm")]
        if let Step::Complete(scheme, _) = &self.step {
            return *scheme != Scheme::Basic;
        }
        false
    }

    /// Takes a 407, and prepares the next request.
    ///
    /// # Errors
    /// [`ProxyError`], where none could be different.
    pub(super) fn challenged(&mut self, headers: &HeaderMap) -> Result<(), ProxyError> {
        let offers = Offers::of(headers);
        if self.credentials.is_none() {
            let offered = offers.names();
            return Err(ProxyError::Login { offered });
        }
        #[cfg(feature = "ntlm")]
        if let Step::Begun(scheme, negotiation) = &self.step
            && let Some(challenge) = offers.token(*scheme)
            && let Some(credentials) = &self.credentials
        {
            let (scheme, message) = (*scheme, negotiation.answer(&challenge, credentials));
            let message = message.map_err(|_| ProxyError::Malformed("a proxy that speaks NTLM"))?;
            self.step = Step::Complete(scheme, ntlm::header(scheme.name(), &message));
            return Ok(());
        }
        let is_offered = |scheme: &Scheme| offers.has(scheme.name());
        // The proxy may have changed since it took the scheme; what it offers now is tried once.
        let is_over = match self.scheme() {
            None => false,
            Some(scheme) => self.has_chosen || is_offered(&scheme),
        };
        if is_over {
            let offered = offers.names();
            return Err(ProxyError::Refused { offered });
        }
        let Some(scheme) = OURS.iter().copied().find(is_offered) else {
            let offered = offers.names();
            return Err(ProxyError::Schemes { offered });
        };
        self.has_chosen = true;
        self.begin(scheme);
        Ok(())
    }

    fn begin(&mut self, scheme: Scheme) {
        let Some(credentials) = &self.credentials else {
            return;
        };
        self.step = match scheme {
            Scheme::Basic => Step::Complete(scheme, credentials.basic()),
            #[cfg(feature = "ntlm")]
            Scheme::Ntlm | Scheme::Negotiate => Step::Begun(scheme, Negotiation::new()),
        };
    }
}

/// The challenges of a 407. Several may stand in one header, with commas between, as the parameters
/// of one of them do; only the schemes that we know are looked for.
struct Offers<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Offers<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let values = headers.get_all(header::PROXY_AUTHENTICATE).iter();
        let challenges = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|challenge| {
                let challenge = challenge.trim();
                challenge.split_once(' ').unwrap_or((challenge, ""))
            });
        Self(challenges.collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(scheme, _)| scheme.eq_ignore_ascii_case(name))
    }

    fn names(&self) -> Schemes {
        let offered = KNOWN.iter().copied().filter(|name| self.has(name));
        Schemes(offered.collect())
    }

    /// The message of a scheme of several messages.
    #[cfg(feature = "ntlm")]
    fn token(&self, scheme: Scheme) -> Option<Vec<u8>> {
        let mut challenges = self.0.iter();
        let (_, token) = challenges.find(|(name, token)| {
            name.eq_ignore_ascii_case(scheme.name()) && !token.trim().is_empty()
        })?;
        ntlm::decode(token.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::PROXY_AUTHENTICATE, value.parse().unwrap());
        }
        headers
    }

    fn ada() -> Option<Credentials> {
        Some(Credentials::parse("ada:secret").unwrap())
    }

    fn sent(login: &Login) -> String {
        let value = login.authorization();
        value.map_or_else(String::new, |value| value.expose().to_owned())
    }

    const BASIC: &str = "Basic YWRhOnNlY3JldA==";

    #[test]
    fn basic_is_sent_when_it_is_asked_for_and_once() {
        let mut login = Login::new(ada(), None);
        assert_eq!(sent(&login), "");
        login
            .challenged(&headers(&["Basic realm=\"a, b\""]))
            .unwrap();
        assert_eq!(sent(&login), BASIC);
        assert!(!login.is_bound());
        assert_eq!(login.scheme(), Some(Scheme::Basic));
        let error = login.challenged(&headers(&["Basic realm=x"])).unwrap_err();
        assert!(matches!(error, ProxyError::Refused { .. }), "{error}");
        // What it took last time is sent at once.
        let mut login = Login::new(ada(), Some(Scheme::Basic));
        assert_eq!(sent(&login), BASIC);
        let error = login.challenged(&headers(&["Basic"])).unwrap_err();
        assert!(matches!(error, ProxyError::Refused { .. }), "{error}");
    }

    #[test]
    fn errors_name_what_the_proxy_wants() {
        let mut login = Login::new(None, None);
        let error = login.challenged(&headers(&["Digest realm=x, Basic realm=y"]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("(407, Basic, Digest)"), "{text}");
        let mut login = Login::new(ada(), None);
        let error = login
            .challenged(&headers(&["Digest realm=x", "Other"]))
            .unwrap_err();
        assert!(matches!(error, ProxyError::Schemes { .. }), "{error}");
        assert!(error.to_string().contains("(Digest)"), "{error}");
        let error = Login::new(ada(), None)
            .challenged(&headers(&[]))
            .unwrap_err();
        assert!(error.to_string().contains("no known scheme"), "{error}");
    }

    #[cfg(feature = "ntlm")]
    #[test]
    fn ntlm_is_preferred_and_takes_three_messages() {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;

        let offer = headers(&["Basic realm=x", "Negotiate", "NTLM"]);
        let mut login = Login::new(ada(), None);
        login.challenged(&offer).unwrap();
        assert!(
            sent(&login).starts_with("NTLM TlRMTVNTUAAB"),
            "{}",
            sent(&login)
        );
        assert!(!login.is_bound(), "the first message begins anywhere");
        let challenge = STANDARD.encode(ntlm::tests::challenge());
        login
            .challenged(&headers(&[&format!("NTLM {challenge}")]))
            .unwrap();
        assert!(sent(&login).starts_with("NTLM TlRMTVNTUAAD"));
        assert!(login.is_bound());
        let error = login.challenged(&offer).unwrap_err();
        assert!(matches!(error, ProxyError::Refused { .. }), "{error}");

        // One that does not go on, or with something else.
        let mut login = Login::new(ada(), None);
        login.challenged(&headers(&["negotiate"])).unwrap();
        assert!(sent(&login).starts_with("Negotiate TlRM"));
        let error = login.challenged(&headers(&["Negotiate"])).unwrap_err();
        assert!(matches!(error, ProxyError::Refused { .. }), "{error}");
        for garbage in ["NTLM AAAA", "NTLM ****"] {
            let mut login = Login::new(ada(), Some(Scheme::Ntlm));
            assert!(login.challenged(&headers(&[garbage])).is_err());
        }
        // A proxy that has changed.
        let mut login = Login::new(ada(), Some(Scheme::Ntlm));
        login.challenged(&headers(&["Basic realm=x"])).unwrap();
        assert_eq!(sent(&login), BASIC);
    }
}
