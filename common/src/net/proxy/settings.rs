//! The settings of a proxy, which both programs share: option, then environment, then configuration
//! file. The environment is that of curl: `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`, in lower case
//! first.

use std::path::{Path, PathBuf};

use super::credentials::Credentials;
use super::{NoProxy, Protocol, ProxyAddress, url};
use crate::places;
use crate::secret::Secret;
use crate::settings::{Key, Setting, SettingError, Sources, secret_file};

/// Instead of a URL: no proxy, whatever the layers below say.
const OFF: &str = "off";
/// SOCKS5 gives the length of a user name or password in one byte, and wants neither to be empty
/// (RFC 1929).
const SOCKS_LENGTH: usize = 255;

/// What is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// Where the proxy is; none: the hub is reached directly.
    pub address: Option<ProxyAddress>,
    /// Who we are there.
    pub credentials: Option<Credentials>,
    /// The file that the credentials came from.
    pub file: Option<PathBuf>,
    /// What is reached without it.
    pub no_proxy: NoProxy,
}

/// The names of the settings.
#[derive(Debug, Clone, Copy)]
pub struct ProxyKeys {
    /// The proxy's URL.
    pub proxy: Key,
    /// The file with the credentials.
    pub file: Key,
    /// The variable with the credentials; nothing else has this name.
    pub auth: Key,
    /// The hosts that are reached without it.
    pub no_proxy: Key,
}

/// The values of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyOptions {
    /// The proxy's URL, which may hold a password.
    pub proxy: Option<Secret>,
    /// The file with the credentials.
    pub file: Option<PathBuf>,
    /// The hosts that are reached without it.
    pub no_proxy: Option<String>,
}

impl ProxyOptions {
    /// The same as lines of a configuration file. A URL with a password in it is left out: a file
    /// for that is what [`file`](Self::file) is.
    pub fn to_lines(&self) -> String {
        let url = self.proxy.as_ref().map(Secret::expose);
        let url = url.filter(|url| !url.contains('@')).map(str::to_owned);
        let file = self.file.as_deref().map(|file| {
            let absolute = std::path::absolute(file);
            let file = absolute.as_deref().unwrap_or(file);
            file.display().to_string()
        });
        let lines = [
            ("proxy", url),
            ("proxy-auth-file", file),
            ("no-proxy", self.no_proxy.clone()),
        ];
        let lines = lines.into_iter().filter_map(|(key, value)| {
            let value = places::quoted(&value?);
            Some(format!("{key} = {value}\n"))
        });
        lines.collect()
    }
}

impl ProxySettings {
    /// Resolves them. Credentials of a file count more than those of the variable, and these more
    /// than those of the URL. Reads the file; blocks.
    ///
    /// # Errors
    /// [`SettingError`] names the place of what cannot be used, and repeats nothing of it.
    pub fn resolve(
        sources: &Sources<'_>,
        keys: ProxyKeys,
        given: ProxyOptions,
    ) -> Result<Self, SettingError> {
        let no_proxy = sources.value(
            keys.no_proxy,
            given.no_proxy.as_deref().map(NoProxy::parse),
            str::parse,
            NoProxy::default(),
        )?;
        let url = match given.proxy {
            Some(url) => Some(Setting {
                value: url,
                source: crate::settings::Source::Option(keys.proxy.name),
            }),
            None => sources.text(keys.proxy)?,
        };
        let url = url.filter(|url| url.value.expose().trim() != OFF);
        let Some(url) = url else {
            return Ok(Self::default());
        };
        let url = url.read(|url| url::parse(url.expose()))?;
        let (address, in_url) = url.value.clone();
        let in_url = in_url.map(|value| Setting {
            value,
            source: url.source,
        });
        let file = sources.path(keys.file, given.file)?;
        let in_variable = sources.variable(keys.auth)?;
        let credentials = match (&file, in_variable) {
            (Some(file), _) => {
                let text = secret_file(WHAT, &file.value)?;
                let found = Setting {
                    value: text,
                    source: file.source.clone(),
                };
                Some(found.read(|text| Credentials::parse(text.expose()))?)
            }
            (None, Some(text)) => Some(text.read(|text| Credentials::parse(text.expose()))?),
            (None, None) => in_url,
        };
        let credentials = credentials
            .map(|found| found.read(|credentials| fitting(credentials, address.protocol)))
            .transpose()?
            .map(Setting::into_value);
        Ok(Self {
            address: Some(address),
            credentials,
            file: file.map(Setting::into_value),
            no_proxy,
        })
    }
}

/// The contents of a file of credentials, for errors.
const WHAT: &str = "the proxy's user name and password";

/// Credentials that can be sent in this protocol.
fn fitting(credentials: Credentials, protocol: Protocol) -> Result<Credentials, &'static str> {
    let is_socks = matches!(protocol, Protocol::Socks5 | Protocol::Socks5Hostname);
    let fits = |text: &str| (1..=SOCKS_LENGTH).contains(&text.len());
    if is_socks && !(fits(credentials.user()) && fits(credentials.password().expose())) {
        return Err("a SOCKS5 proxy takes a user name and a password of 1 to 255 bytes each");
    }
    Ok(credentials)
}

/// Reads a file of credentials. Blocks.
///
/// # Errors
/// There are none that can be used.
pub(super) fn read_file(path: &Path) -> Result<Credentials, ()> {
    let text = secret_file(WHAT, path).map_err(drop)?;
    Credentials::parse(text.expose()).map_err(drop)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    const KEYS: ProxyKeys = ProxyKeys {
        proxy: Key::new("proxy").or(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
        file: Key::new("proxy-auth-file").or(&["AUTH_FILE"]),
        auth: Key::new("proxy-auth").or(&["AUTH"]),
        no_proxy: Key::new("no-proxy").or(&["no_proxy", "NO_PROXY"]),
    };

    fn resolve(
        given: ProxyOptions,
        environment: &[(&str, &str)],
    ) -> Result<ProxySettings, SettingError> {
        let lookup = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        ProxySettings::resolve(&Sources::new(&lookup), KEYS, given)
    }

    fn option(url: &str) -> ProxyOptions {
        ProxyOptions {
            proxy: Some(Secret::new(url)),
            ..ProxyOptions::default()
        }
    }

    fn way(settings: &ProxySettings) -> String {
        let address = settings.address.as_ref();
        let address = address.filter(|_| !settings.no_proxy.has("hub.example", 443));
        address.map_or_else(String::new, ToString::to_string)
    }

    #[test]
    fn variables_count_as_for_curl_and_an_option_more() {
        let all = [
            ("ALL_PROXY", "d:1"),
            ("all_proxy", "c:1"),
            ("HTTPS_PROXY", "b:1"),
            ("https_proxy", "a:1"),
        ];
        for (number, expected) in ["d:1", "c:1", "b:1", "a:1"].into_iter().enumerate() {
            let found = resolve(ProxyOptions::default(), &all[..=number]).unwrap();
            assert_eq!(way(&found), expected);
        }
        assert_eq!(way(&resolve(option("http://o:2"), &all).unwrap()), "o:2");
        assert_eq!(way(&resolve(option("off"), &all).unwrap()), "");
        assert_eq!(way(&resolve(ProxyOptions::default(), &[]).unwrap()), "");
        let empty = [("https_proxy", ""), ("ALL_PROXY", "d:1")];
        assert_eq!(
            way(&resolve(ProxyOptions::default(), &empty).unwrap()),
            "d:1"
        );
        let not = [("NO_PROXY", "other, .example"), ("HTTPS_PROXY", "b:1")];
        assert_eq!(way(&resolve(ProxyOptions::default(), &not).unwrap()), "");
        let given = ProxyOptions {
            no_proxy: Some("elsewhere".to_owned()),
            ..ProxyOptions::default()
        };
        assert_eq!(way(&resolve(given, &not).unwrap()), "b:1");
    }

    #[test]
    fn credentials_come_from_file_then_variable_then_url() {
        let user = |settings: &ProxySettings| {
            let credentials = settings.credentials.as_ref();
            credentials.map(|credentials| credentials.user().to_owned())
        };
        let path = std::env::temp_dir().join(format!("proxy-settings-{}", std::process::id()));
        std::fs::write(&path, "\u{feff}file:x\r\n").unwrap();
        let variables = [
            ("AUTH", "variable:x"),
            ("AUTH_FILE", path.to_str().unwrap()),
        ];
        let url = option("http://url:x@p:1");
        let found = resolve(url.clone(), &variables).unwrap();
        assert_eq!(user(&found).as_deref(), Some("file"));
        assert_eq!(found.file.as_deref(), Some(path.as_path()));
        std::fs::write(&path, "nonsense").unwrap();
        let error = resolve(url.clone(), &variables).unwrap_err().to_string();
        assert!(
            error.contains("AUTH_FILE") && error.contains("USER:PASSWORD"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(
            resolve(url.clone(), &variables),
            Err(SettingError::SecretFile { .. })
        ));
        let found = resolve(url.clone(), &variables[..1]).unwrap();
        assert_eq!(user(&found).as_deref(), Some("variable"));
        assert_eq!(user(&resolve(url, &[]).unwrap()).as_deref(), Some("url"));
        // Without a proxy nothing is read.
        assert!(resolve(ProxyOptions::default(), &variables).is_ok());
    }

    #[test]
    fn an_error_names_the_place_and_no_secret() {
        for (url, variables) in [
            ("ftp://ada:topsecret@p", &[][..]),
            ("http://ada:top secret@p", &[]),
            ("http://p", &[("AUTH", "topsecret")]),
            ("socks5://ada@p", &[]),
        ] {
            let error = resolve(option(url), variables).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(!text.contains("top"), "{text}");
            assert!(
                text.contains("--proxy") || text.contains("variable AUTH"),
                "{text}"
            );
        }
    }

    #[test]
    fn options_become_lines_without_a_password() {
        let options = ProxyOptions {
            file: Some("/etc/a \"b\"".into()),
            no_proxy: Some("a,b".to_owned()),
            ..option("http://proxy:1")
        };
        assert_eq!(
            options.to_lines(),
            "proxy = \"http://proxy:1\"\nproxy-auth-file = \"/etc/a \\\"b\\\"\"\nno-proxy = \"a,b\"\n"
        );
        assert_eq!(option("http://ada:secret@proxy:1").to_lines(), "");
    }
}
