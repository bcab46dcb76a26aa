//! What a hub is called in the configuration file, in `[hubs.NAME]`.

use std::fmt;
use std::str::FromStr;

/// Longer names are no use in lines and commands.
const LENGTH: usize = 64;
/// Longest address of a hub: a name of DNS and a port.
const ADDRESS: usize = 300;

/// A hub's name in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubName(String);

/// The text is no such name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hub's name has 1 to {LENGTH} letters, digits, - and _, as in [hubs.acme]")]
pub struct HubNameError;

impl HubName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HubName {
    type Err = HubNameError;

    fn from_str(text: &str) -> Result<Self, HubNameError> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if text.is_empty() || text.len() > LENGTH || !text.chars().all(is_good) {
            return Err(HubNameError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl HubName {
    /// The name of a table, or the address of a hub: which of these is wanted depends on the command.
    ///
    /// # Errors
    /// [`HubNameError`] when it can be neither.
    pub fn of_option(text: &str) -> Result<Self, HubNameError> {
        let is_good = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
        if text.is_empty() || text.len() > ADDRESS || !text.chars().all(is_good) {
            return Err(HubNameError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        for good in ["acme", "a-1_B"] {
            assert_eq!(good.parse::<HubName>().unwrap().to_string(), good);
        }
        for bad in ["", "a b", "a.b", "ü", &"a".repeat(65)] {
            assert_eq!(bad.parse::<HubName>(), Err(HubNameError), "{bad}");
        }
    }
}
