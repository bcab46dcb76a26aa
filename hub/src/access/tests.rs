//! Access files, and what they allow.

use std::path::Path;
use std::time::Duration;

use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use common::report::chain;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

use super::{Approval, Decision, NoAccess, Rules, Wanted, Who, target_of};

const FILE: &str = r#"
token-ttl = "30m"
utc-offset = "+01:00"

[[allow]]
name = "field engineers"
groups = ["field"]
tags = "tags.site = 'berlin'"
targets = ["ssh", "web-*"]
hours = ["mon-fri 08:00-18:00"]

[[allow]]
people = ["ada@example.com"]
devices = ["edge-*"]
modules = ["m"]
targets = ["*"]
until = 2026-12-24T00:00:00Z

[[allow]]
policies = ["contractors"]
devices = ["MyDevice"]
targets = ["ssh"]
approval = { by = ["leads", "grace@example.com"], for = "2h", cut = true }

[[allow]]
groups = ["leads"]
policies = ["contractors"]
devices = ["free"]
targets = ["ssh"]

[[allow]]
groups = ["leads"]
devices = ["*"]
targets = ["ssh"]
approval = {}
"#;

fn rules(text: &str) -> Result<Rules, String> {
    Rules::parse(Path::new("a.toml"), text).map_err(|error| chain(&error))
}

fn identity(text: &str) -> DeviceIdentity {
    let (device, module) = text.split_once('/').unwrap_or((text, ""));
    DeviceIdentity {
        device: DeviceId::parse(device).unwrap(),
        module: ModuleId::parse(module).ok(),
    }
}

/// A Monday in the morning.
const MONDAY: OffsetDateTime = datetime!(2026-11-30 08:00 UTC);

struct Ask<'a> {
    who: Who<'a>,
    device: &'a str,
    target: Option<&'a str>,
    site: &'a str,
    now: OffsetDateTime,
}

impl Ask<'_> {
    fn decide(&self, rules: &Rules) -> Decision {
        let device: Value = json!({ "deviceId": self.device, "tags": { "site": self.site } });
        rules.decide(
            self.who,
            &Wanted {
                identity: &identity(self.device),
                target: self.target,
                device: &device,
                now: self.now,
            },
        )
    }
}

#[test]
fn what_no_rule_allows_is_denied() {
    let rules = rules(FILE).unwrap();
    assert_eq!(rules.token_ttl, Duration::from_secs(1_800));
    let field = ["field".to_owned()];
    let person = |name, groups| Who::Person { name, groups };
    let ask = |who, device, target, site, now| Ask {
        who,
        device,
        target: Some(target),
        site,
        now,
    };
    let engineer = person("max@example.com", &field[..]);
    let ada = person("ada@example.com", &[]);
    let denied = Decision::Denied(NoAccess::NoRule);
    let later = Decision::Denied(NoAccess::NotNow);
    for (ask, expected) in [
        (
            ask(engineer, "d", "ssh", "berlin", MONDAY),
            Decision::Allowed,
        ),
        (
            ask(engineer, "d", "web-1", "berlin", MONDAY),
            Decision::Allowed,
        ),
        (ask(engineer, "d", "SSH", "berlin", MONDAY), denied.clone()),
        (ask(engineer, "d", "ssh", "rome", MONDAY), denied.clone()),
        (ask(engineer, "d", "rdp", "berlin", MONDAY), denied.clone()),
        (
            ask(engineer, "d/m", "ssh", "berlin", MONDAY),
            denied.clone(),
        ),
        // 18:00 in the zone of the file.
        (
            ask(
                engineer,
                "d",
                "ssh",
                "berlin",
                datetime!(2026-11-30 17:00 UTC),
            ),
            later.clone(),
        ),
        (ask(ada, "edge-1", "ssh", "", MONDAY), Decision::Allowed),
        (ask(ada, "edge-1/m", "x", "", MONDAY), Decision::Allowed),
        (ask(ada, "edge-1/n", "x", "", MONDAY), denied.clone()),
        (ask(ada, "Edge-1", "x", "", MONDAY), denied.clone()),
        (
            ask(ada, "edge-1", "x", "", datetime!(2026-12-24 00:00 UTC)),
            later,
        ),
        // A policy is no person, and a person no policy.
        (
            ask(Who::Policy("ada@example.com"), "edge-1", "ssh", "", MONDAY),
            denied.clone(),
        ),
        (
            ask(person("contractors", &[]), "free", "ssh", "", MONDAY),
            denied.clone(),
        ),
        (
            ask(Who::Policy("contractors"), "free", "ssh", "", MONDAY),
            Decision::Allowed,
        ),
        (
            ask(Who::Policy("contractors"), "edge-1", "ssh", "", MONDAY),
            denied,
        ),
    ] {
        assert_eq!(
            ask.decide(&rules),
            expected,
            "{} {:?}",
            ask.device,
            ask.target
        );
    }
}

#[test]
fn the_example_is_one() {
    let example = include_str!("../../../examples/access.toml");
    let rules = rules(example).unwrap();
    assert_eq!(rules.len(), 2);
    assert!(rules.governs("contractors"));
}

#[test]
fn a_rule_without_approval_is_enough() {
    let rules = rules(FILE).unwrap();
    let leads = ["leads".to_owned()];
    let ask = |who, device| Ask {
        who,
        device,
        target: Some("ssh"),
        site: "",
        now: MONDAY,
    };
    let lead = Who::Person {
        name: "l",
        groups: &leads,
    };
    assert_eq!(ask(lead, "free").decide(&rules), Decision::Allowed);
    let expected = Approval {
        by: Vec::new(),
        lasts: Duration::from_secs(3_600),
        cuts: false,
    };
    let Decision::WithApproval(approval) = ask(lead, "other").decide(&rules) else {
        panic!("it needs none");
    };
    assert_eq!(approval, expected);
    assert!(!approval.is_by(lead));
    let contractors = Who::Policy("contractors");
    let Decision::WithApproval(approval) = ask(contractors, "MyDevice").decide(&rules) else {
        panic!("it needs none");
    };
    assert!(approval.cuts && approval.is_by(lead) && !approval.is_by(contractors));
}

#[test]
fn whom_the_file_knows() {
    let rules = rules(FILE).unwrap();
    let knows = |name, group: &str| {
        let groups = [group.to_owned()];
        let groups = &groups;
        rules.knows(Who::Person { name, groups })
    };
    assert!(knows("x", "field") && knows("ada@example.com", "") && knows("grace@example.com", ""));
    assert!(!knows("x", "Field") && !knows("contractors", "contractors"));
    assert!(rules.governs("contractors") && !rules.governs("service"));
    // Reading the twin of a device needs no hours, and some target.
    let field = ["field".to_owned()];
    let night = Ask {
        who: Who::Person {
            name: "x",
            groups: &field,
        },
        device: "d",
        target: None,
        site: "berlin",
        now: datetime!(2026-11-30 03:00 UTC),
    };
    assert_eq!(night.decide(&rules), Decision::Allowed);
    assert_ne!(
        Ask {
            site: "rome",
            ..night
        }
        .decide(&rules),
        Decision::Allowed
    );
    // An empty file: nobody may do anything.
    let nothing = super::Rules::parse(Path::new("a"), "").unwrap();
    assert!(nothing.is_empty() && !nothing.knows(Who::Policy("service")));
}

#[test]
fn sessions_of_a_target_are_for_it() {
    assert_eq!(target_of("ssh"), "ssh");
    assert_eq!(target_of("_session.ssh"), "ssh");
    assert_eq!(target_of("_session._session.ssh"), "_session._session.ssh");
    assert_eq!(target_of("_session."), "");
}

#[test]
fn one_sentence_says_what_is_wrong() {
    let rule = "[[allow]]\npeople = ['a']\ndevices = ['*']\ntargets = ['*']\n";
    let with = |line: &str| format!("{rule}{line}\n");
    for (text, said) in [
        (
            "[[allow]]\n".to_owned(),
            "rule 1 (allow 1): it is for nobody",
        ),
        (
            "[[allow]]\nname='x'\npeople=['a']\ntargets=['*']".to_owned(),
            "(x): it is about no device",
        ),
        (
            "[[allow]]\npeople=['a']\ndevices=['*']".to_owned(),
            "it is about no target",
        ),
        (with("hours = ['always']"), "hours: \"always\""),
        (with("tags = \"tags.a = \""), "tags"),
        (
            with("tags = \"properties.reported.a = 1\""),
            "only tags and deviceId",
        ),
        (
            with("tags = \"status = 'enabled' AND tags.a = 1\""),
            "only tags and deviceId",
        ),
        (
            with("tags = \"FROM devices.modules WHERE tags.a = 1\""),
            "only tags and deviceId",
        ),
        (
            with("from = 2026-12-24"),
            "from: give a date and time with an offset",
        ),
        (
            with("approval = { for = '1s' }"),
            "approval.for: give a time from 1m to 30d",
        ),
        (with("approval = { by = [] }"), "approval.by"),
        (
            with("approval = { from = 'x' }"),
            "a.toml, line 5: unknown field `from`",
        ),
        (
            with("device = ['a']"),
            "a.toml, line 5: unknown field `device`",
        ),
        (
            "token-ttl = '2d'".to_owned(),
            "a.toml: token-ttl: give a time from 1m to 1d",
        ),
        ("utc-offset = 'CET'".to_owned(), "utc-offset: \"CET\""),
        ("allow = 1".to_owned(), "a.toml, line 1"),
        ("\n[[allow]".to_owned(), "a.toml, line 2"),
    ] {
        let error = rules(&text).unwrap_err();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn a_policy_is_governed_by_name_or_with_all_others() {
    let of = |text: &str| rules(text).unwrap();
    let rule = "[[allow]]\npolicies = ['a', 'b']\ndevices = ['*']\ntargets = ['*']\n";
    let without = of("");
    let named = of("govern = ['a', 'c']");
    let both = of(&format!("govern = ['c']\n{rule}"));
    let all = of("govern = 'all'");
    let governed = |rules: &Rules| ["a", "b", "c", "d"].map(|policy| rules.governs(policy));
    assert_eq!(governed(&without), [false; 4]);
    assert_eq!(governed(&named), [true, false, true, false]);
    assert_eq!(governed(&both), [true, true, true, false]);
    assert_eq!(governed(&all), [true; 4]);
    // Without a rule that allows something, governed means refused.
    let device = json!({});
    let wanted = wanted_of(&device);
    let decision = named.decide(Who::Policy("a"), &wanted);
    assert_eq!(decision, Decision::Denied(NoAccess::NoRule));

    assert_eq!(both.freed(Some(&both)), Vec::<String>::new());
    assert_eq!(both.freed(Some(&all)), Vec::<String>::new());
    assert_eq!(both.freed(Some(&named)), ["b"]);
    assert_eq!(both.freed(Some(&without)), ["a", "b", "c"]);
    assert_eq!(both.freed(None), ["a", "b", "c"]);
    assert_eq!(all.freed(Some(&both)), ["all that it does not name"]);
    let error = rules("govern = 'everything'").unwrap_err();
    assert!(
        error.contains("govern") && error.contains("\"all\""),
        "{error}"
    );
    assert!(rules("govern = 1").is_err());
}

fn wanted_of(device: &Value) -> Wanted<'_> {
    static IDENTITY: std::sync::LazyLock<DeviceIdentity> =
        std::sync::LazyLock::new(|| identity("MyDevice"));
    Wanted {
        identity: &IDENTITY,
        target: Some("ssh"),
        device,
        now: datetime!(2026-11-30 10:00 UTC),
    }
}
