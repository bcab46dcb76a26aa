//! Bytes of a day.

use super::*;
use crate::quotas::{UsageRecord, Who};
use crate::registry::Usage as _;

#[tokio::test]
async fn a_day_is_stored_and_the_next_one_forgets_it() {
    let folder = Folder::new();
    let registry = folder.open();
    let record = |who, bytes| UsageRecord { who, bytes };
    let all = [
        record(Who::Device(device("d")), 1),
        record(Who::Device(module("d", "m")), 2),
        record(Who::Hub, 1 << 50),
        record(Who::Policy("p".into()), 4),
    ];
    registry.record_usage(7, all.to_vec()).await.unwrap();
    let again = record(Who::Policy("p".into()), 5);
    registry.record_usage(7, vec![again.clone()]).await.unwrap();
    drop(registry);
    let registry = folder.open();
    let mut found = registry.usage(7).await.unwrap();
    found.sort_by_key(|record| record.bytes);
    let [of_device, of_module, of_hub, _] = all;
    assert_eq!(found, [of_device, of_module, again.clone(), of_hub]);
    assert_eq!(registry.usage(8).await.unwrap(), []);
    registry.record_usage(8, vec![again.clone()]).await.unwrap();
    assert_eq!(registry.usage(7).await.unwrap(), []);
    assert_eq!(registry.usage(8).await.unwrap(), [again]);
}
