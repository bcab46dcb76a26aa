//! Where configuration files are, when no option names one.

use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;

/// The folder's name in every place.
const FOLDER: &str = "device-streams";

/// The folder of this user's configuration: `$XDG_CONFIG_HOME` or `~/.config`, on Windows
/// `%APPDATA%`, and `device-streams` in it. `None`: the user has no home.
pub fn of_user() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(strategy.config_dir().join(FOLDER))
}

/// The folder of the machine's configuration: `/etc/device-streams`, on Windows
/// `%ProgramData%\device-streams`.
pub fn of_system() -> PathBuf {
    base().join(FOLDER)
}

/// The folder of the hub's configuration: `/etc/stream-hub`, on Windows
/// `%ProgramData%\stream-hub`. Not that of the proxies, which may belong to the user that
/// device-proxy runs as.
pub fn of_hub() -> PathBuf {
    base().join("stream-hub")
}

fn base() -> PathBuf {
    #[cfg(windows)]
    let base =
        std::env::var_os("ProgramData").map_or_else(|| r"C:\ProgramData".into(), PathBuf::from);
    #[cfg(not(windows))]
    let base = Path::new("/etc").to_owned();
    base
}

/// The configuration file of this name that is used without an option: the user's if there is one,
/// else the machine's if there is one.
pub fn configuration(name: &str) -> Option<PathBuf> {
    let of_user = of_user().into_iter();
    let mut files = of_user.chain([of_system()]).map(|folder| folder.join(name));
    files.find(|file| is_there(file))
}

fn is_there(file: &Path) -> bool {
    file.try_exists().unwrap_or(true)
}

/// A text as a string of TOML: JSON's escapes are all TOML's, too, which wants one more.
pub fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_quoted_text_is_read_as_it_was(text in ".*") {
            let document = format!("key = {}", quoted(&text));
            let read = toml::de::DeTable::parse(&document).unwrap();
            let value = read.get_ref().get("key").unwrap();
            prop_assert_eq!(value.get_ref().as_str(), Some(&*text));
        }
    }
}
