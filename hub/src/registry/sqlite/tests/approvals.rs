//! Requests for access in a real database.

use common::identity::StreamName;

use super::*;
use crate::registry::{
    ApprovalAsk, ApprovalOutcome, ApprovalRequest, ApprovalVerdict, Approvals as _, Decider, Login,
    Notes as _,
};

const NOW: u64 = 1_800_000_000;

fn ask(lasts: u64, now: u64) -> ApprovalAsk {
    ApprovalAsk {
        caller: "oidc:eve".to_owned(),
        person: Some(Login {
            issuer: "https://id.example.com".to_owned(),
            subject: "1".to_owned(),
            name: "eve".to_owned(),
            groups: vec!["guests".to_owned()],
        }),
        identity: device("d"),
        target: StreamName::parse("ssh").unwrap(),
        reason: None,
        by: vec!["leads".to_owned()],
        lasts,
        most: 86_400,
        waits_until: now + 40,
    }
}

async fn decide(registry: &SqliteRegistry, id: &str, verdict: ApprovalVerdict, now: u64) {
    let decided = registry.decide_approval(id, verdict, local(), now).await;
    assert!(matches!(decided.unwrap(), ApprovalOutcome::Decided(request) if request.id == id));
}

fn local() -> Decider {
    Decider {
        name: "local:me".to_owned(),
        through: None,
    }
}

#[tokio::test]
async fn asking_for_more_takes_nothing_away() {
    let folder = Folder::new();
    let registry = folder.open();
    let stream = async |now| {
        let asked = registry.ask_approval(ask(3600, now), false, now).await;
        asked.unwrap()
    };
    let ahead = async |lasts, now| {
        let asked = registry.ask_approval(ask(lasts, now), true, now).await;
        asked.unwrap()
    };
    let first = stream(NOW).await;
    let until = NOW + 1800;
    decide(&registry, &first.id, ApprovalVerdict::Granted(until), NOW).await;
    let is_granted = |request: &ApprovalRequest| request.granted_until(NOW) == Some(until);
    assert!(is_granted(&stream(NOW + 1).await));
    // What is granted is enough for this.
    assert!(is_granted(&ahead(1800, NOW + 1).await));

    let longer = ahead(3600, NOW + 2).await;
    assert!(longer.id != first.id && longer.waits(NOW + 2));
    assert_eq!(ahead(3600, NOW + 3).await.id, longer.id);
    assert!(is_granted(&stream(NOW + 3).await), "it waits");
    let refused = ApprovalVerdict::Refused(None);
    decide(&registry, &longer.id, refused.clone(), NOW + 4).await;
    assert!(is_granted(&stream(NOW + 5).await), "it is refused");
    // Once it is over the refusal stands, and then somebody is asked anew.
    decide(&registry, &longer.id, refused.clone(), until - 1).await;
    assert_eq!(stream(until).await.id, longer.id);
    let anew = stream(until + 300).await;
    assert!(anew.waits(until + 300) && ![&first.id, &longer.id].contains(&&anew.id));

    // What is granted for longer counts, and what is taken back does not.
    let (now, until) = (until + 301, until + 5000);
    decide(&registry, &anew.id, ApprovalVerdict::Granted(until), now).await;
    let longest = ahead(7200, now + 1).await;
    let verdict = ApprovalVerdict::Granted(until + 2000);
    decide(&registry, &longest.id, verdict, now + 2).await;
    assert_eq!(stream(now + 3).await.id, longest.id);
    decide(&registry, &longest.id, refused.clone(), now + 4).await;
    assert_eq!(stream(now + 5).await.id, anew.id);
    decide(&registry, &anew.id, refused, now + 6).await;
    assert!(stream(now + 7).await.was_refused());
}

#[tokio::test]
async fn what_was_granted_counts_as_long_as_the_rule_lets_it() {
    let folder = Folder::new();
    let registry = folder.open();
    let stream = async |by: &[&str], most, now| {
        let ask = ApprovalAsk {
            by: by.iter().map(|&name| name.to_owned()).collect(),
            most,
            ..ask(3600, now)
        };
        registry.ask_approval(ask, false, now).await.unwrap()
    };
    let first = stream(&["leads", "lea"], 3600, NOW).await;
    let lea = Decider {
        name: "oidc:lea".to_owned(),
        through: Some(vec!["leads".to_owned()]),
    };
    let verdict = ApprovalVerdict::Granted(NOW + 3600);
    let decided = registry.decide_approval(&first.id, verdict, lea, NOW).await;
    assert!(matches!(decided.unwrap(), ApprovalOutcome::Decided(_)));
    let at = NOW + 100;
    assert_eq!(stream(&["leads"], 3600, at).await.id, first.id);
    assert_eq!(stream(&["others", "leads"], 200, at).await.id, first.id);
    // The rule lets it last less long now.
    let shorter = stream(&["leads"], 100, at).await;
    assert!(shorter.id != first.id && shorter.waits(at));
    // Who has granted it may not approve any more.
    let other = stream(&["others"], 3600, at).await;
    assert!(other.id == shorter.id && other.ask.by == ["others"]);
    assert_eq!(stream(&["leads"], 3600, at).await.id, first.id);
    // Whoever has the hub's folder always may.
    decide(&registry, &other.id, ApprovalVerdict::Granted(at + 60), at).await;
    let found = stream(&["others"], 3600, at).await;
    assert_eq!(found.granted_under(&[], 30, at), Some(at + 30));
}

#[tokio::test]
async fn only_what_waits_is_granted() {
    let folder = Folder::new();
    let registry = folder.open();
    let grant = |now| ApprovalVerdict::Granted(now + 60);
    let refuse = || ApprovalVerdict::Refused(None);
    let decided = async |id: &str, verdict, now| {
        let deciding = registry.decide_approval(id, verdict, local(), now);
        matches!(deciding.await.unwrap(), ApprovalOutcome::Decided(_))
    };
    let asked = async |now| {
        let asked = registry.ask_approval(ask(60, now), true, now).await;
        asked.unwrap().id
    };
    let id = asked(NOW).await;
    assert!(!decided(&id, grant(NOW + 40), NOW + 40).await, "withdrawn");
    assert!(!decided(&id, refuse(), NOW + 40).await);
    let id = asked(NOW + 50).await;
    assert!(decided(&id, grant(NOW + 51), NOW + 51).await);
    assert!(!decided(&id, grant(NOW + 52), NOW + 52).await, "granted");
    assert!(decided(&id, refuse(), NOW + 53).await, "it is taken back");
    assert!(!decided(&id, grant(NOW + 54), NOW + 54).await, "refused");
    let id = asked(NOW + 60).await;
    assert!(decided(&id, grant(NOW + 60), NOW + 60).await);
    assert!(!decided(&id, grant(NOW + 200), NOW + 200).await, "over");
    let nothing = registry.decide_approval("nothing", refuse(), local(), NOW);
    assert_eq!(nothing.await.unwrap(), ApprovalOutcome::Unknown);
}

#[tokio::test]
async fn each_request_and_each_decision_is_noted_and_a_message() {
    let folder = Folder::new();
    let registry = folder.open();
    let asked = registry.ask_approval(ask(60, NOW), false, NOW).await;
    let id = asked.unwrap().id;
    // All in one second, and asked for again meanwhile, which is no news.
    decide(&registry, &id, ApprovalVerdict::Granted(NOW + 60), NOW).await;
    registry
        .ask_approval(ask(60, NOW), false, NOW)
        .await
        .unwrap();
    let refused = ApprovalVerdict::Refused(Some("no".to_owned()));
    decide(&registry, &id, refused, NOW).await;
    // As a hub finds it that is started after a kill.
    drop(registry);
    let registry = folder.open();
    let notes = registry.notes(100).await.unwrap();
    let notes = notes.iter().filter(|note| note.device.is_some());
    let found: Vec<_> = notes
        .map(|note| {
            let what: Value = serde_json::from_str(&note.what).unwrap();
            assert_eq!((&what["id"], &what["target"]), (&json!(id), &json!("ssh")));
            let by = what["by"].as_str().unwrap_or_default().to_owned();
            (note.operation.clone(), note.policy.clone().unwrap(), by)
        })
        .collect();
    let note = |operation: &str, by: &str| {
        let caller = "oidc:eve".to_owned();
        (operation.to_owned(), caller, by.to_owned())
    };
    let expected = [
        note("ApprovalRequested", ""),
        note("ApprovalGranted", "local:me"),
        note("ApprovalRefused", "local:me"),
    ];
    assert_eq!(found, expected);

    // The messages come one after the other, each as it was.
    let other = registry.ask_approval(
        ApprovalAsk {
            target: StreamName::parse("web").unwrap(),
            ..ask(60, NOW)
        },
        false,
        NOW,
    );
    let other = other.await.unwrap().id;
    let due = async |now| {
        let news = registry.approval_news(now, 10).await.unwrap();
        let words = news.iter().map(|it| {
            let request = &it.request;
            (request.id.clone(), request.word(NOW), it.attempts)
        });
        (words.collect::<Vec<_>>(), news.first().map(|it| it.id))
    };
    let (words, first) = due(NOW).await;
    let of_other = (other.clone(), "waiting", 0);
    assert_eq!(words, [(id.clone(), "waiting", 0), of_other.clone()]);
    let postponed = registry.postpone_approval_news(first.unwrap(), NOW + 5);
    postponed.await.unwrap();
    assert_eq!(due(NOW + 4).await.0, std::slice::from_ref(&of_other));
    let registry = folder.open();
    let forget = async |id| registry.forget_approval_news(id).await.unwrap();
    assert_eq!(
        due(NOW + 5).await.0,
        [of_other.clone(), (id.clone(), "waiting", 1)]
    );
    forget(first).await;
    assert_eq!(
        due(NOW + 5).await.0,
        [(id.clone(), "granted", 0), of_other.clone()]
    );
    forget(due(NOW + 5).await.1).await;
    assert_eq!(due(NOW + 5).await.0, [(id.clone(), "refused", 0), of_other]);
    forget(None).await;
    assert_eq!(due(NOW + 5).await.0, []);
}

#[tokio::test]
async fn an_older_database_keeps_what_was_not_reported() {
    let folder = Folder::new();
    let path = folder.dir.database().unwrap();
    let mut old = schema::connect(&path).unwrap();
    schema::migrate_to(&mut old, 15).unwrap();
    old.execute_batch(
        "INSERT INTO approvals (id, caller, device, module, target, approvers, lasts, waits_until, \
         asked, decided_by, decided, until, told) VALUES \
         ('a', 'p', 'd', '', 'ssh', '[\"leads\"]', 60, 1, 1, NULL, NULL, NULL, 1), \
         ('b', 'p', 'd', '', 'ssh', '[\"leads\"]', 60, 2, 2, 'oidc:lea', 2, 9, 1), \
         ('c', 'p', 'd', '', 'ssh', '[\"leads\"]', 60, 3, 3, 'local:me', 3, NULL, 0)",
    )
    .unwrap();
    drop(old);
    let registry = folder.open();
    let notes = registry.notes(100).await.unwrap();
    let of_approvals = notes.iter().filter(|note| note.device.is_some());
    let operations: Vec<_> = of_approvals.map(|note| note.operation.as_str()).collect();
    let expected = ["ApprovalRequested", "ApprovalGranted", "ApprovalRefused"];
    assert_eq!(operations, expected);
    let found = registry.approval("b").await.unwrap().unwrap();
    let leads = ["leads".to_owned()];
    assert_eq!(found.granted_under(&leads, 60, 3), Some(9));
    assert_eq!(found.granted_under(&[], 60, 3), None);
}
