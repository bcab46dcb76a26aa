use std::num::{NonZeroU32, NonZeroU64};

use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::config::tests::config;
use crate::policy::Hours;
use crate::target::ANY;

fn policy(all: Rule, ssh: Rule) -> Policy {
    let config = config(&["--target", "ssh=127.0.0.1:22", "--target", "127.0.0.1:80"]);
    let mut policy = config.policy();
    policy.rules.all = all;
    policy.rules.named.insert("ssh".to_owned(), ssh);
    policy
}

fn admission() -> Admission {
    let config = config(&["--echo"]);
    let (_, watch) = watch::channel(Arc::new(config.policy()));
    Admission::new(&config.connection.identity, watch)
}

/// Bytes in a second, by the rules of the target and by those of all.
fn rates(admitted: &Admitted) -> [Option<u64>; 2] {
    let own = admitted.held.place.limiting();
    [
        own.and_then(|gate| gate.rate()),
        admitted.held.of_all().rate(),
    ]
}

async fn admit(admission: &Admission, policy: &Policy, name: &str) -> Result<Admitted, String> {
    let request = Request {
        name,
        target: policy.targets.select(name).unwrap(),
        caller: None,
    };
    let admitted = admission.admit(policy, &request).await;
    admitted.map_err(|denied| denied.to_string())
}

fn never() -> Hours {
    let now = Now::of_system();
    // One of two disjoint halves of the week is not now.
    for text in ["Mon-Wed 00:00-24:00", "Thu-Sun 00:00-24:00"] {
        let mut hours = Hours::default();
        hours.add(text).unwrap();
        if hours.left(&now).is_none() {
            return hours;
        }
    }
    unreachable!("it is always one of the halves")
}

#[tokio::test]
async fn the_limits_of_a_target_are_its_own_and_those_of_all_are_shared() {
    let ssh = Rule {
        connections: Some(2),
        ..Rule::default()
    };
    let all = Rule {
        new_per_second: NonZeroU32::new(4),
        ..Rule::default()
    };
    let admission = admission();
    let mut policy = policy(all, ssh);
    let first = admit(&admission, &policy, "ssh").await.unwrap();
    let _second = admit(&admission, &policy, "ssh").await.unwrap();
    let refused = admit(&admission, &policy, "ssh").await.unwrap_err();
    assert_eq!(refused, "targets.ssh.connections allows 2 at once");
    // One that was refused has taken nothing.
    for _ in 0..2 {
        admit(&admission, &policy, "other").await.unwrap();
    }
    let refused = admit(&admission, &policy, "other").await.unwrap_err();
    assert_eq!(refused, "limits.new-per-second allows 4 new ones");
    drop(first);
    // The rules have changed.
    policy.rules.all.new_per_second = None;
    let _third = admit(&admission, &policy, "ssh").await.unwrap();
    policy.rules.named.clear();
    let fourth = admit(&admission, &policy, "ssh").await.unwrap();
    assert_eq!(rates(&fourth)[1], None, "nothing slows it");
}

#[tokio::test]
async fn a_limit_that_comes_later_counts_what_is_open() {
    let admission = admission();
    let mut policy = policy(Rule::default(), Rule::default());
    policy.rules.named.clear();
    let first = admit(&admission, &policy, "ssh").await.unwrap();
    let _second = admit(&admission, &policy, "ssh").await.unwrap();
    let others = [
        admit(&admission, &policy, "one").await.unwrap(),
        admit(&admission, &policy, "two").await.unwrap(),
    ];
    admission.follow(&policy);
    let most = |connections| Rule {
        connections: Some(connections),
        ..Rule::default()
    };
    policy.rules.named = [("ssh", 2), (ANY, 3)]
        .map(|(name, connections)| (name.to_owned(), most(connections)))
        .into();
    admission.follow(&policy);
    let refused = admit(&admission, &policy, "ssh").await.unwrap_err();
    assert_eq!(refused, "targets.ssh.connections allows 2 at once");
    let _third = admit(&admission, &policy, "three").await.unwrap();
    let refused = admit(&admission, &policy, "four").await.unwrap_err();
    assert_eq!(refused, "targets.*.connections allows 3 at once");
    // They are taken away, and come back.
    let rules = policy.rules.clone();
    policy.rules.named.clear();
    admission.follow(&policy);
    drop(first);
    policy.rules = rules;
    admission.follow(&policy);
    let _again = admit(&admission, &policy, "ssh").await.unwrap();
    admit(&admission, &policy, "ssh").await.unwrap_err();
    drop(others);
    admit(&admission, &policy, "four").await.unwrap();
}

#[tokio::test]
async fn rates_change_for_what_is_open() {
    let ssh = Rule {
        bytes_per_second: NonZeroU64::new(1000),
        ..Rule::default()
    };
    let admission = admission();
    let mut policy = policy(Rule::default(), ssh);
    let admitted = admit(&admission, &policy, "ssh").await.unwrap();
    let other = admit(&admission, &policy, "other").await.unwrap();
    assert_eq!(rates(&admitted), [Some(1000), None]);
    assert_eq!(rates(&other), [None, None]);
    policy.rules.named.get_mut("ssh").unwrap().bytes_per_second = NonZeroU64::new(5000);
    admission.follow(&policy);
    assert_eq!(rates(&admitted), [Some(5000), None]);
    policy.rules.named.clear();
    admission.follow(&policy);
    assert_eq!(rates(&admitted), [None, None]);
    // Also for what was opened without any.
    let slow = |bytes| Rule {
        bytes_per_second: NonZeroU64::new(bytes),
        ..Rule::default()
    };
    policy.rules.all = slow(9000);
    policy.rules.named.insert(ANY.to_owned(), slow(2000));
    policy.rules.named.insert("ssh".to_owned(), slow(3000));
    admission.follow(&policy);
    assert_eq!(rates(&other), [Some(2000), Some(9000)]);
    assert_eq!(rates(&admitted), [Some(3000), Some(9000)]);
}

#[tokio::test]
async fn hours_are_those_of_all_and_of_the_target() {
    let closed = || Rule {
        hours: never(),
        ..Rule::default()
    };
    let admission = admission();
    let of_ssh = policy(Rule::default(), closed());
    let refused = admit(&admission, &of_ssh, "ssh").await.unwrap_err();
    assert!(
        refused.starts_with("targets.ssh.hours allows it only at "),
        "{refused}"
    );
    admit(&admission, &of_ssh, "other").await.unwrap();
    let of_all = policy(closed(), Rule::default());
    for name in ["ssh", "other"] {
        let refused = admit(&admission, &of_all, name).await.unwrap_err();
        assert!(
            refused.starts_with("access.hours allows it only at "),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn what_is_open_ends_with_the_hours_only_if_it_shall() {
    let mut closed = policy(Rule::default(), Rule::default());
    let (changes, watch) = watch::channel(Arc::new(closed.clone()));
    let target = Target::tcp("127.0.0.1", "22").unwrap();
    let over = |watch: PolicyWatch| {
        let target = target.clone();
        async move { out_of_hours(watch, "ssh", &target).await }
    };
    let short = Duration::from_millis(50);
    assert!(timeout(short, over(watch.clone())).await.is_err());
    closed.rules.named.get_mut("ssh").unwrap().hours = never();
    changes.send_replace(Arc::new(closed.clone()));
    assert!(timeout(short, over(watch.clone())).await.is_err(), "stay");
    let waiting = tokio::spawn(over(watch.clone()));
    closed.rules.at_end = AtEnd::Close;
    changes.send_replace(Arc::new(closed));
    timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap()
        .unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn what_changed_while_somebody_was_asked_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let script = format!(
        "touch {}; while ! test -e {}; do sleep 0.02; done",
        path("asked").display(),
        path("yes").display()
    );
    let asks = || Rule {
        approval: Some(Arc::new(crate::policy::Approval {
            command: ["/bin/sh", "-c", &script].map(str::to_owned).to_vec(),
            limit: Duration::from_secs(30),
            holds: Duration::ZERO,
        })),
        ..Rule::default()
    };
    let policy = policy(asks(), Rule::default());
    let mut closed = policy.clone();
    closed.rules.all.hours = never();
    let mut stopped = policy.clone();
    stopped.accept = false;
    let mut withdrawn = policy.clone();
    withdrawn.targets.replace("ssh", None);
    for (changed, refused) in [
        (closed, "access.hours allows it only at "),
        (stopped, "no new stream is accepted now"),
        (withdrawn, "no new stream is accepted now"),
        (policy.clone(), ""),
    ] {
        let (changes, watch) = watch::channel(Arc::new(policy.clone()));
        let identity = config(&["--echo"]).connection.identity;
        let admission = Admission::new(&identity, watch);
        let changing = async {
            while !path("asked").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            changes.send_replace(Arc::new(changed));
            std::fs::write(path("yes"), "").unwrap();
        };
        let (answer, ()) = tokio::join!(admit(&admission, &policy, "ssh"), changing);
        match answer {
            Ok(_) => assert_eq!(refused, ""),
            Err(denied) => {
                assert!(
                    !refused.is_empty() && denied.starts_with(refused),
                    "{denied}"
                );
            }
        }
        for name in ["asked", "yes"] {
            std::fs::remove_file(path(name)).unwrap();
        }
    }
}
