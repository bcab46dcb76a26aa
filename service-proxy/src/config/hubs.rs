//! Hubs with names of their own, in `[hubs.NAME]` of the configuration file. What such a table does
//! not say is as outside of it, except what makes it this hub: the connection string, and what leads
//! to its devices.

use common::settings::Sources;
use common::settings::connection_string;

use super::forwards::{self, Places};
use super::settings::Settings;
use super::{Config, ConfigError, ListenConfig, keys};
use crate::cli::Options;
use crate::hub_name::HubName;

/// The hubs of the file.
///
/// # Errors
/// [`ConfigError::Setting`] when a name is none.
pub(super) fn names(sources: &Sources<'_>) -> Result<Vec<HubName>, ConfigError> {
    let names = sources.tables(keys::HUBS.kind).into_iter().map(|name| {
        let name = name.read(|text| text.parse::<HubName>())?;
        Ok(name.into_value())
    });
    names.collect()
}

/// The hub that is meant, if it is one of those: the one that is named, or the only one where there is
/// no other.
///
/// # Errors
/// [`ConfigError::NoSuchHub`], or [`ConfigError::SeveralHubs`].
pub(super) fn select(
    given: Option<&HubName>,
    names: &[HubName],
    has_other: bool,
) -> Result<Option<HubName>, ConfigError> {
    match (given, names) {
        (Some(name), _) if names.contains(name) => Ok(Some(name.clone())),
        (Some(name), _) => Err(ConfigError::NoSuchHub(name.clone(), names.to_vec())),
        (None, _) if has_other => Ok(None),
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(only.clone())),
        (None, _) => Err(ConfigError::SeveralHubs(names.to_vec())),
    }
}

/// What is said of a hub.
pub(super) fn sources_of<'a>(name: &HubName, sources: &Sources<'a>) -> Sources<'a> {
    sources.of_table(keys::HUBS.kind, name.as_str(), keys::OF_HUB_ALONE)
}

/// The settings of a hub of the file.
fn settings(
    name: &HubName,
    options: &Options,
    sources: &Sources<'_>,
) -> Result<Settings, ConfigError> {
    let found = connection_string::of_sources(
        sources,
        keys::CONNECTION_STRING,
        keys::CONNECTION_STRING_FILE,
    )?;
    let found = found.ok_or_else(|| ConfigError::NoConnectionStringOf(name.clone()))?;
    let options = Options {
        hub: Some(name.clone()),
        ..options.clone()
    };
    Settings::resolve(options, Some(found), sources)
}

/// Listening for all hubs of the file, and for the one without a name, of these settings, if there is
/// one. A hub without forwards is there for other commands.
///
/// # Errors
/// [`ConfigError`].
pub(super) fn listen_for_all(
    unnamed: Option<Settings>,
    options: &Options,
    names: &[HubName],
    sources: &Sources<'_>,
) -> Result<Config, ConfigError> {
    let mut all = Vec::new();
    if let Some(settings) = unnamed {
        all.push((None, settings, sources.clone()));
    }
    for name in names {
        let sources = sources_of(name, sources);
        let settings = settings(name, options, &sources)?;
        all.push((Some(name.clone()), settings, sources));
    }
    let mut found: Option<ListenConfig> = None;
    let mut places = Places::default();
    for (name, settings, sources) in all {
        let given = match forwards::given(&sources) {
            Err(ConfigError::NoPort) => continue,
            given => given?,
        };
        let device = forwards::device(&sources)?;
        let config = settings.listen(name, device, given, &mut places)?;
        match &mut found {
            Some(found) => found.hubs.extend(config.hubs),
            None => found = Some(config),
        }
    }
    Ok(Config::Listen(found.ok_or(ConfigError::NoPort)?))
}

#[cfg(test)]
mod tests {
    use super::super::HubForwards;
    use super::super::tests::{cs, file, port, resolved};
    use super::*;

    fn two_hubs(rest: &str) -> String {
        let [acme, globex] = ["acme.example", "globex.example"].map(cs);
        format!(
            "{rest}\n[hubs.acme]\nconnection-string = '{acme}'\nca-file = 'acme.pem'\n\
             forward = ['Plc1/2222:ssh', 'Plc2/2223:ssh']\n[hubs.globex]\n\
             connection-string = '{globex}'\ndevice = 'Robot'\nforward = '3390:rdp'"
        )
    }

    fn listen(words: &[&str], variables: &[(&str, &str)]) -> Vec<HubForwards> {
        match resolved(words, variables).unwrap() {
            Config::Listen(config) => config.hubs,
            other => panic!("{other:?}"),
        }
    }

    fn error(text: &str, words: &[&str]) -> String {
        let (_file, path) = file(text);
        let words = [words, &["--config", &path]].concat();
        let error = resolved(&words, &[]).unwrap_err().to_string();
        error.replace(&path, "f.toml")
    }

    #[test]
    fn each_hub_has_its_own_forwards() {
        let (_file, path) = file(&two_hubs("ca-file = 'all.pem'\nconnect-timeout = 7"));
        let config = ["--config", &path];
        let hubs = listen(&config, &[("DEVICE_ID", "other"), ("LOCAL_PORT", "9")]);
        let facts: Vec<_> = hubs
            .iter()
            .flat_map(|of| of.forwards.iter().map(move |forward| (of, forward)))
            .map(|(of, forward)| {
                let hub = of.name.as_ref().map(HubName::as_str);
                let host = of.hub.service.host.to_string();
                (hub, host, forward.identity.to_string(), port(forward))
            })
            .collect();
        let fact = |hub, device: &str, port| {
            (Some(hub), format!("{hub}.example"), device.to_owned(), port)
        };
        assert_eq!(
            facts,
            [
                fact("acme", "Plc1", 2222),
                fact("acme", "Plc2", 2223),
                fact("globex", "Robot", 3390)
            ]
        );
        let files: Vec<_> = hubs
            .iter()
            .map(|of| of.hub.ca_file.clone().unwrap())
            .collect();
        assert_eq!(files, ["acme.pem", "all.pem"].map(std::path::PathBuf::from));
        assert!(hubs.iter().all(|of| of.hub.timeouts.connect.as_secs() == 7));
        // An option is for all of them; the environment is for what they do not say.
        let options = [&config[..], &["--ca-file", "option.pem"]].concat();
        let hubs = listen(&options, &[]);
        assert!(
            hubs.iter()
                .all(|of| of.hub.ca_file == Some("option.pem".into()))
        );
        let hubs = listen(&config, &[("SERVICE_PROXY_CA_FILE", "variable.pem")]);
        let files: Vec<_> = hubs
            .iter()
            .map(|of| of.hub.ca_file.clone().unwrap())
            .collect();
        assert_eq!(
            files,
            ["acme.pem", "variable.pem"].map(std::path::PathBuf::from)
        );
    }

    #[test]
    fn the_hub_without_a_name_is_one_of_them() {
        let own = format!(
            "connection-string = '{}'\ndevice = 'd'\nforward = '1'",
            cs("own")
        );
        let (_file, path) = file(&two_hubs(&own));
        let hubs = listen(&["--config", &path], &[]);
        let names: Vec<_> = hubs
            .iter()
            .map(|of| of.name.clone().map(|it| it.to_string()))
            .collect();
        assert_eq!(
            names,
            [None, Some("acme".to_owned()), Some("globex".to_owned())]
        );
        // Arguments are about that one alone.
        let hubs = listen(&["--config", &path, "e", "5"], &[]);
        assert_eq!(hubs.len(), 1);
        assert_eq!(hubs[0].hub.service.host.to_string(), "own");
        assert_eq!(port(&hubs[0].forwards[0]), 5);
    }

    #[test]
    fn a_command_names_its_hub() {
        let (_file, path) = file(&two_hubs(""));
        let host = |words: &[&str]| {
            let words = [words, &["--config", &path]].concat();
            match resolved(&words, &[]) {
                Ok(Config::Connect(config)) => Ok(config.hub.service.host.to_string()),
                Ok(Config::Listen(config)) => Ok(config.hubs[0].hub.service.host.to_string()),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            }
        };
        let connect = ["connect", "d", "ssh"];
        let named = [&connect[..], &["--hub", "globex"]].concat();
        assert_eq!(host(&named).unwrap(), "globex.example");
        assert_eq!(host(&["--hub", "acme"]).unwrap(), "acme.example");
        assert_eq!(host(&["--hub", "acme", "d", "7"]).unwrap(), "acme.example");
        let several = host(&connect).unwrap_err();
        assert_eq!(
            several,
            "there are several hubs: give --hub with one of acme, globex"
        );
        let unknown = host(&["--hub", "x"]).unwrap_err();
        assert_eq!(
            unknown,
            "there is no hub x; the configuration file has acme, globex"
        );
        // The only one needs no name; and ssh's own service-proxy gets it.
        let one = format!("[hubs.acme]\nconnection-string = '{}'", cs("only"));
        let (_file, path) = file(&one);
        let words = ["ssh-config", "--config", &path];
        match resolved(&words, &[]).unwrap() {
            Config::SshConfig(config, hub) => {
                assert_eq!(hub.service.host.to_string(), "only");
                let options = config.connection.options;
                let place = options.iter().position(|it| it == "--hub").unwrap();
                assert_eq!(options[place + 1], "acme");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_example_can_be_used() {
        let text = include_str!("../../../examples/service-proxy-hubs.toml");
        let strings = ["acme", "globex"].map(|name| file(&cs(&format!("{name}.example"))));
        let mut text = text.to_owned();
        for (name, (_file, path)) in ["acme", "globex"].iter().zip(&strings) {
            text = text.replace(&format!("/etc/device-streams/{name}.cs"), path);
        }
        // There are no Unix sockets everywhere.
        if cfg!(not(unix)) {
            text = text.replace(", \"/run/user/1000/robot.sock:docker\"", "");
        }
        let (_file, path) = file(&text);
        let hubs = listen(&["--config", &path], &[]);
        assert_eq!(hubs.len(), 2);
        assert!(hubs[1].hub.proxy.address.is_some() && hubs[0].hub.proxy.address.is_none());
    }

    #[test]
    fn mistakes_are_named() {
        let two = two_hubs("");
        let twice = two.replace("3390:rdp", "127.0.0.1:2223:rdp");
        assert_eq!(
            error(&twice, &[]),
            "f.toml, line 9: hubs.globex.forward: 127.0.0.1:2223 is taken by f.toml, line 5: hubs.acme.forward; give each forward a place of its own"
        );
        assert_eq!(
            error(&two.replace("device", "devise"), &[]),
            "f.toml, line 8: hubs.globex.devise is no setting; a setting has the name of its option, see --help"
        );
        assert_eq!(
            error("[hubs.acme]\nforward = 'd/1'\n[hubs.b]", &[]),
            "the hub acme has no connection string: give connection-string-file in [hubs.acme] of the configuration file"
        );
        let name = error("[hubs.'a b']\nforward = '1'", &[]);
        assert!(
            name.starts_with("f.toml, line 2: hubs.a b.forward: a hub's name"),
            "{name}"
        );
        let no_device = two.replace("device = 'Robot'", "");
        assert!(error(&no_device, &[]).starts_with("no device"));
        let twice = error(
            &format!("connection-string = '{}'", cs("h")),
            &["listen", "d", "5", "5:x"],
        );
        assert!(
            twice.starts_with("the command line: 5 is taken by the command line"),
            "{twice}"
        );
    }
}
