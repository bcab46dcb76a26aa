use std::future::poll_fn;

use common::identity::DeviceId;

use super::*;

fn identity(name: &str) -> DeviceIdentity {
    DeviceIdentity::of_device(DeviceId::parse(name).unwrap())
}

/// How many initiations in a row there may be, of 1,000.
fn free(quotas: &Quotas, policy: &str, device: &str) -> usize {
    let device = identity(device);
    let admit = || quotas.admit(Limit::Initiations, Some(policy), Some(&device));
    (0..1_000).take_while(|_| admit().is_ok()).count()
}

fn limits(hub: u64, policy: u64, device: u64) -> Limits {
    let share = |most| Share::NONE.with(Limit::Initiations, most);
    Limits {
        hub: share(hub),
        each_policy: share(policy),
        each_device: share(device),
        ..Limits::default()
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_over_its_own_limit_takes_nothing_of_others() {
    let quotas = Quotas::new(&limits(7, 4, 1), Events::default());
    assert_eq!(free(&quotas, "p", "a"), 10);
    // Ten refused ones of a device count nowhere else.
    assert_eq!(free(&quotas, "p", "a"), 0);
    let others = |policy| -> usize {
        (0..9)
            .map(|n| free(&quotas, policy, &format!("{policy}{n}")))
            .sum()
    };
    assert_eq!(others("p"), 30);
    assert_eq!(others("q"), 30, "the hub has 70, of which 40 are gone");
    let over = quotas.admit(Limit::Initiations, Some("r"), Some(&identity("r")));
    assert_eq!(over.unwrap_err().whose, Whose::Hub);
}

#[tokio::test(start_paused = true)]
async fn exceptions_have_their_own_numbers_and_counts() {
    let few = Share::NONE.with(Limit::Initiations, 1);
    let mut limits = Limits {
        policies: vec![("batch".into(), few)],
        devices: vec![("plc-*".into(), few), ("*".into(), Share::NONE)],
        ..limits(0, 2, 3)
    };
    let quotas = Quotas::new(&limits, Events::default());
    assert_eq!(free(&quotas, "batch", "x"), 10);
    assert_eq!(free(&quotas, "service", "plc-1"), 10);
    assert_eq!(free(&quotas, "service", "plc-2"), 10, "each its own");
    assert_eq!(free(&quotas, "other", "x"), 20);
    // Other numbers for one change nothing of what the others have had.
    limits.each_policy = Share::NONE;
    quotas.set_limits(&limits);
    assert_eq!(free(&quotas, "batch", "y"), 0);
    assert_eq!(free(&quotas, "service", "plc-1"), 0);
    assert_eq!(free(&quotas, "other", "x"), 1_000);
}

#[test]
fn a_module_has_the_exception_of_its_device() {
    let few = Share::NONE.with(Limit::Initiations, 1);
    let limits = Limits {
        devices: vec![("d/m".into(), Share::NONE), ("d".into(), few)],
        ..limits(0, 0, 3)
    };
    let of = |module| {
        let module = common::identity::ModuleId::parse(module).unwrap();
        limits.exception_of(&DeviceIdentity::of_module(
            DeviceId::parse("d").unwrap(),
            module,
        ))
    };
    assert_eq!((of("m"), of("n")), (Some(0), Some(1)));
    assert_eq!(limits.exception_of(&identity("d")), Some(1));
    assert_eq!(limits.exception_of(&identity("dd")), None);
}

fn of_a_day(bytes: u64) -> Limits {
    Limits {
        each_device: Share::NONE.with(Limit::BytesPerDay, bytes),
        ..Limits::default()
    }
}

async fn spend(quotas: &Quotas, device: &str, messages: usize) -> usize {
    let [mut meter, _] = quotas.meters("p", &identity(device)).unwrap();
    for sent in 0..messages {
        if poll_fn(|cx| meter.poll_ready(cx)).await.is_err() {
            return sent;
        }
        meter.spend(1_000);
    }
    messages
}

#[tokio::test]
async fn a_day_is_remembered_across_a_restart() {
    let quotas = Quotas::new(&of_a_day(100_000), Events::default());
    assert!(quotas.meters("p", &identity("d")).is_some());
    assert_eq!(spend(&quotas, "d", 90).await, 90);
    let (day, records) = (quotas.day(), quotas.unstored(10));
    assert_eq!(
        records,
        [UsageRecord {
            who: Who::Device(identity("d")),
            bytes: 90_000
        }]
    );
    quotas.stored(&records);
    assert_eq!(quotas.unstored(10), []);
    // Nobody uses it, and yet it is not forgotten.
    quotas.trim();
    assert_eq!(quotas.accounts().of.len(), 1);

    let next = Quotas::new(&of_a_day(100_000), Events::default());
    next.load(day - 1, records.clone());
    assert!(next.accounts().of.is_empty(), "another day's");
    next.load(day, records);
    let admit = |name| next.admit(Limit::Initiations, Some("p"), Some(&identity(name)));
    assert!(admit("d").is_ok());
    assert!(spend(&next, "d", 100).await < 80);
    let over = admit("d").unwrap_err();
    assert_eq!(
        (over.limit, over.whose),
        (Limit::BytesPerDay, Whose::Device)
    );
    assert!(admit("e").is_ok());
    // A larger number is in force at once.
    next.set_limits(&of_a_day(1_000_000));
    assert!(admit("d").is_ok());
}

#[tokio::test]
async fn what_is_not_limited_costs_nothing_and_is_not_kept() {
    let quotas = Quotas::new(&Limits::default(), Events::default());
    assert!(quotas.meters("p", &identity("d")).is_none());
    assert!(quotas.accounts().of.is_empty());
    let limits = Limits {
        each_device: Share::NONE.with(Limit::BytesPerSecond, 1_000_000),
        ..Limits::default()
    };
    quotas.set_limits(&limits);
    let meters = quotas.meters("p", &identity("d"));
    assert_eq!(quotas.accounts().of.len(), 1);
    quotas.trim();
    assert_eq!(quotas.accounts().of.len(), 1, "a stream has it");
    drop(meters);
    quotas.trim();
    assert!(quotas.accounts().of.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_device_that_connects_too_fast_waits_and_only_its_newest_does() {
    let limits = Limits {
        each_device: Share::NONE.with(Limit::Connects, 6),
        ..Limits::default()
    };
    let quotas = Quotas::new(&limits, Events::default());
    let (d, other) = (identity("d"), identity("other"));
    for _ in 0..6 {
        assert!(quotas.may_connect(&d).await);
    }
    let older = quotas.may_connect(&d);
    let newer = async {
        tokio::task::yield_now().await;
        assert!(quotas.may_connect(&other).await);
        quotas.may_connect(&d).await
    };
    assert_eq!(tokio::join!(older, newer), (false, true));
}
