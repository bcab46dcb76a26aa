//! All targets of a device, and the rule by which a stream's name selects one.

use std::collections::{BTreeMap, BTreeSet};

use super::{ANY, ECHO, Target, TargetError};

/// All targets, and the rule by which a stream's name selects one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    named: BTreeMap<String, Target>,
    unnamed: Option<Target>,
    echo: bool,
    /// Names that reach nothing, not even the unnamed target.
    withdrawn: BTreeSet<String>,
    /// Changed by the cloud: the echo target no longer serves all names by itself.
    is_changed: bool,
}

impl Targets {
    /// Starts with the `--target` options and `--echo`.
    ///
    /// # Errors
    /// [`TargetError`] names the option at fault.
    pub fn parse(options: &[String], echo: bool) -> Result<Self, TargetError> {
        let mut targets = Self {
            echo,
            ..Self::default()
        };
        for option in options {
            targets.add(option)?;
        }
        Ok(targets)
    }

    /// What people want to reach of a machine, as options: SSH, of a Windows machine RDP.
    pub fn usual() -> Vec<String> {
        let (name, port) = if cfg!(windows) {
            ("rdp", 3389)
        } else {
            ("ssh", 22)
        };
        // The second name is what service-proxy and the official samples ask for without another.
        [name, "TestStream"]
            .map(|name| format!("{name}=localhost:{port}"))
            .to_vec()
    }

    /// Adds a target from `[NAME=]HOST:PORT`.
    ///
    /// # Errors
    /// [`TargetError`], also when there is one of this name.
    pub fn add(&mut self, text: &str) -> Result<(), TargetError> {
        match Target::parse(text)? {
            (None, target) => self.set_unnamed(target),
            (Some(name), target) => {
                let is_taken = self.echo && name == ECHO;
                if self.named.insert(name.clone(), target).is_some() || is_taken {
                    return Err(TargetError::Repeated(name));
                }
                Ok(())
            }
        }
    }

    /// Adds the target for streams of all other names.
    ///
    /// # Errors
    /// [`TargetError::TwoUnnamed`] when there is one.
    pub fn set_unnamed(&mut self, target: Target) -> Result<(), TargetError> {
        match self.unnamed.replace(target) {
            None => Ok(()),
            Some(_) => Err(TargetError::TwoUnnamed),
        }
    }

    /// Whether there is nothing to reach.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.unnamed.is_none() && !self.echo
    }

    /// The target of a stream: exact name first, then the unnamed target. A stream
    /// named `echo` never falls to the unnamed target; with only the echo target,
    /// every name echoes. `None`: reject.
    pub fn select(&self, name: &str) -> Option<&Target> {
        if let Some(target) = self.named.get(name) {
            return Some(target);
        }
        if self.withdrawn.contains(name) {
            return None;
        }
        if self.echo && name == ECHO || self.is_only_echo() {
            return Some(&Target::Echo);
        }
        if name == ECHO {
            return None;
        }
        self.unnamed.as_ref()
    }

    fn is_only_echo(&self) -> bool {
        self.echo && !self.is_changed && self.named.is_empty() && self.unnamed.is_none()
    }

    /// The target that was configured under this name, where `*` is the unnamed one.
    pub fn configured(&self, name: &str) -> Option<&Target> {
        if name == ANY {
            return self
                .unnamed
                .as_ref()
                .or(self.is_only_echo().then_some(&Target::Echo));
        }
        self.named
            .get(name)
            .or((self.echo && name == ECHO).then_some(&Target::Echo))
    }

    /// Has streams of this name lead to another target, or to none. `*` is the unnamed target.
    pub fn replace(&mut self, name: &str, target: Option<Target>) {
        if self.is_only_echo() {
            self.unnamed = Some(Target::Echo);
        }
        self.is_changed = true;
        if name == ANY {
            self.unnamed = target;
            return;
        }
        match target {
            Some(target) => {
                self.named.insert(name.to_owned(), target);
            }
            None => {
                self.named.remove(name);
                self.withdrawn.insert(name.to_owned());
            }
        }
    }

    /// Whether a target has this name; else streams of it reach the unnamed one, if any.
    pub fn is_named(&self, name: &str) -> bool {
        self.named.contains_key(name) || self.echo && name == ECHO
    }

    /// All TCP services and Unix sockets.
    pub fn all(&self) -> impl Iterator<Item = &Target> {
        self.named.values().chain(&self.unnamed)
    }

    /// The names of what can be reached, in their order; `*` for the unnamed target.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = [ANY, ECHO].into_iter();
        let names = names.filter(|name| {
            !self.withdrawn.contains(*name)
                && !self.named.contains_key(*name)
                && self.configured(name).is_some()
        });
        names.chain(self.named.keys().map(String::as_str))
    }

    /// One line for the log: what can be reached.
    pub fn summary(&self) -> String {
        self.lines().join(", ")
    }

    /// What can be reached, each for itself.
    pub fn lines(&self) -> Vec<String> {
        let mut parts: Vec<String> = self
            .named
            .iter()
            .map(|(name, target)| format!("{name} -> {target}"))
            .collect();
        if let Some(target) = &self.unnamed {
            parts.push(format!("any other name -> {target}"));
        }
        if self.echo && !self.withdrawn.contains(ECHO) && !self.named.contains_key(ECHO) {
            parts.push(format!("{ECHO} -> {}", Target::Echo));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::target::Target;

    fn targets(options: &[&str], echo: bool) -> Result<Targets, TargetError> {
        let options: Vec<String> = options.iter().map(|&text| text.to_owned()).collect();
        Targets::parse(&options, echo)
    }

    fn shown(targets: &Targets, name: &str) -> Option<String> {
        targets.select(name).map(ToString::to_string)
    }

    #[test]
    fn names_select() {
        let both = targets(&["ssh=localhost:22", "[::1]:3389"], false).unwrap();
        assert_eq!(shown(&both, "ssh").unwrap(), "localhost:22");
        assert_eq!(
            shown(&both, "SSH").unwrap(),
            "[::1]:3389",
            "names have case"
        );
        assert_eq!(shown(&both, "TestStream").unwrap(), "[::1]:3389");
        assert_eq!(
            shown(&both, "echo"),
            None,
            "echo never falls to the unnamed target"
        );
        let named = targets(&["ssh=localhost:22"], true).unwrap();
        assert_eq!(shown(&named, "TestStream"), None);
        assert_eq!(named.select("echo"), Some(&Target::Echo));
        let echo = targets(&[], true).unwrap();
        assert_eq!(echo.select("TestStream"), Some(&Target::Echo));
        #[cfg(unix)]
        {
            let docker =
                targets(&["docker=unix:/run/docker.sock", "unix:/run/a=b:1"], false).unwrap();
            assert_eq!(shown(&docker, "docker").unwrap(), "unix:/run/docker.sock");
            assert_eq!(shown(&docker, "x").unwrap(), "unix:/run/a=b:1");
        }
        let own = targets(&["echo=localhost:7"], false).unwrap();
        assert_eq!(shown(&own, "echo").unwrap(), "localhost:7");
    }

    #[test]
    fn what_was_replaced_leads_elsewhere_or_nowhere() {
        let names = |targets: &Targets| targets.names().map(str::to_owned).collect::<Vec<_>>();
        let mut some = targets(&["ssh=localhost:22", "localhost:80"], true).unwrap();
        assert_eq!(names(&some), ["*", "echo", "ssh"]);
        some.replace("ssh", None);
        some.replace("echo", None);
        some.replace("other", None);
        some.replace("web", Some(Target::tcp("localhost", "8080").unwrap()));
        for (name, leads_to) in [
            ("ssh", None),
            ("echo", None),
            ("other", None),
            ("web", Some("localhost:8080")),
            ("x", Some("localhost:80")),
        ] {
            assert_eq!(shown(&some, name).as_deref(), leads_to, "{name}");
        }
        assert_eq!(names(&some), ["*", "web"]);
        assert_eq!(
            some.summary(),
            "web -> localhost:8080, any other name -> localhost:80"
        );
        some.replace(ANY, None);
        assert_eq!(
            (shown(&some, "x"), names(&some)),
            (None, vec!["web".into()])
        );
        assert_eq!(names(&targets(&[], true).unwrap()), ["*", "echo"]);
    }

    #[test]
    fn mistakes_are_named() {
        use TargetError as E;
        let error = |text: &str| targets(&[text], false).unwrap_err();
        assert!(matches!(error("localhost"), E::Form(_)));
        assert!(matches!(error("::1:22"), E::Form(_)));
        assert!(matches!(error("a b=h:1"), E::Name(_)));
        assert!(matches!(error("=h:1"), E::Name(_)));
        assert!(matches!(error("_session.x=h:1"), E::Reserved(_)));
        assert!(matches!(error("h:0"), E::Port(_)));
        assert!(matches!(error("h:ssh"), E::Port(_)));
        assert!(matches!(error(":22"), E::Form(_)));
        #[cfg(unix)]
        for bad in ["unix:", "docker=unix:run/x", "unix:/run/../x", "unix:/run/"] {
            assert!(matches!(error(bad), E::Path(_)), "{bad}");
        }
        assert_eq!(targets(&["h:1", "h:2"], false), Err(E::TwoUnnamed));
        assert_eq!(
            targets(&["a=h:1", "a=h:2"], false),
            Err(E::Repeated("a".into()))
        );
        assert_eq!(
            targets(&["echo=h:1"], true),
            Err(E::Repeated("echo".into()))
        );
        assert!(targets(&[], false).unwrap().is_empty());
    }
}
