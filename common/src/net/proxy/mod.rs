//! Proxies on the way to the hub: which connections go through one ([`NoProxy`]), who we are there
//! ([`Credentials`]), and what is said to it: HTTP CONNECT or SOCKS5. [`ProxySettings`] is what is
//! configured; a `Dialer` makes a [`Proxy`] of it, which also remembers how the proxy takes
//! credentials, and whether it has refused them.

mod bypass;
pub mod connect;
mod credentials;
mod error;
mod login;
#[cfg(feature = "ntlm")]
mod ntlm;
mod settings;
pub mod socks;
mod url;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::locks::lock;

pub use bypass::NoProxy;
pub use credentials::{Credentials, CredentialsError};
pub use error::{ProxyError, ProxyStep, Schemes, SocksRefusal};
pub use login::{Login, Scheme};
pub use settings::{ProxyKeys, ProxyOptions, ProxySettings};
pub use url::{Protocol, ProxyAddress, ProxyUrlError};

/// After a refusal the same credentials are not sent for this long, and twice as long after each
/// further one: directories lock an account after some five wrong passwords, each service of a
/// device sends them again and again, and what is wrong is changed by a person.
const REFUSED_FOR: Duration = Duration::from_secs(60);
const REFUSED_LONGEST: Duration = Duration::from_secs(1800);

/// A proxy that is in use.
#[derive(Debug)]
pub(in crate::net) struct Proxy {
    pub(in crate::net) address: ProxyAddress,
    /// `HOST:PORT`, for errors.
    pub(in crate::net) name: Arc<str>,
    no_proxy: NoProxy,
    /// Read again when the proxy refuses what stands in it.
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    credentials: Option<Credentials>,
    /// How the proxy took them last time.
    scheme: Option<Scheme>,
    refused: Option<Refused>,
}

/// The proxy does not take the credentials.
#[derive(Debug, Clone, Copy)]
struct Refused {
    until: Instant,
    /// How long the next refusal holds.
    next: Duration,
}

impl Proxy {
    /// The proxy of these settings, if they have one.
    pub(in crate::net) fn new(settings: ProxySettings) -> Option<Arc<Self>> {
        let address = settings.address?;
        Some(Arc::new(Self {
            name: address.to_string().into(),
            address,
            no_proxy: settings.no_proxy,
            file: settings.file,
            state: Mutex::new(State {
                credentials: settings.credentials,
                scheme: None,
                refused: None,
            }),
        }))
    }

    /// Whether it is the way to this host.
    pub(in crate::net) fn is_for(&self, host: &str, port: u16) -> bool {
        !self.no_proxy.has(host, port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The credentials to send, and how the proxy took them last time.
    ///
    /// # Errors
    /// [`ProxyError::RefusedBefore`] while they are not to be sent.
    pub(in crate::net) async fn credentials(
        &self,
    ) -> Result<(Option<Credentials>, Option<Scheme>), ProxyError> {
        let wait = {
            let state = self.state();
            let now = Instant::now();
            match state.refused.filter(|refused| refused.until > now) {
                None => return Ok((state.credentials.clone(), state.scheme)),
                Some(refused) => refused.until - now,
            }
        };
        if self.read_again().await {
            let state = self.state();
            return Ok((state.credentials.clone(), state.scheme));
        }
        Err(ProxyError::RefusedBefore { wait })
    }

    /// The proxy has let us through.
    pub(in crate::net) fn note_accepted(&self, scheme: Option<Scheme>) {
        let mut state = self.state();
        state.scheme = scheme;
        state.refused = None;
    }

    /// The proxy has refused the credentials: whether there are others to try now.
    pub(in crate::net) async fn note_refused(&self) -> bool {
        {
            let mut state = self.state();
            let pause = state.refused.map_or(REFUSED_FOR, |refused| refused.next);
            state.scheme = None;
            state.refused = Some(Refused {
                until: Instant::now() + pause,
                next: (2 * pause).min(REFUSED_LONGEST),
            });
        }
        self.read_again().await
    }

    /// Whether the file has other credentials by now; they are used from now on.
    async fn read_again(&self) -> bool {
        let Some(file) = self.file.clone() else {
            return false;
        };
        let reading = tokio::task::spawn_blocking(move || settings::read_file(&file));
        let Ok(Ok(credentials)) = reading.await else {
            return false;
        };
        let mut state = self.state();
        if state.credentials.as_ref() == Some(&credentials) {
            return false;
        }
        state.credentials = Some(credentials);
        state.refused = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: Option<PathBuf>) -> ProxySettings {
        ProxySettings {
            address: Some(url::parse("http://proxy:3128").unwrap().0),
            credentials: Some(Credentials::parse("ada:old").unwrap()),
            file,
            no_proxy: NoProxy::parse("direct.example"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_are_not_sent_again_at_once_and_ever_more_rarely() {
        let proxy = Proxy::new(settings(None)).unwrap();
        assert!(proxy.is_for("hub.example", 443) && !proxy.is_for("direct.example", 443));
        let mut sent = 0;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3600) {
            if proxy.credentials().await.is_ok() {
                sent += 1;
                assert!(!proxy.note_refused().await);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((4..=7).contains(&sent), "{sent} times in an hour");
        proxy.note_accepted(Some(Scheme::Basic));
        let (_, scheme) = proxy.credentials().await.unwrap();
        assert_eq!(scheme, Some(Scheme::Basic));
        assert!(!proxy.note_refused().await);
        tokio::time::advance(REFUSED_FOR).await;
        let (_, scheme) = proxy.credentials().await.unwrap();
        assert_eq!(scheme, None, "asked anew");
    }

    #[tokio::test]
    async fn a_file_that_has_changed_is_used_at_once() {
        let file = std::env::temp_dir().join(format!("proxy-auth-{}", std::process::id()));
        std::fs::write(&file, "ada:old\n").unwrap();
        let proxy = Proxy::new(settings(Some(file.clone()))).unwrap();
        assert!(!proxy.note_refused().await);
        assert!(proxy.credentials().await.is_err());
        std::fs::write(&file, "ada:new\n").unwrap();
        let (credentials, _) = proxy.credentials().await.unwrap();
        assert_eq!(credentials.unwrap().password().expose(), "new");
        std::fs::write(&file, "ada:newer\n").unwrap();
        assert!(proxy.note_refused().await);
        std::fs::remove_file(&file).unwrap();
        assert!(!proxy.note_refused().await, "what was read last holds");
    }

    #[test]
    fn nothing_shows_a_password() {
        let shown = format!("{:?} {:?}", settings(None), Proxy::new(settings(None)));
        assert!(!shown.contains("old"), "{shown}");
    }
}
