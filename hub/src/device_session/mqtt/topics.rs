//! Which topics and topic filters MQTT allows at all, before it matters what they mean
//! (`common::wire::topics`).

use common::identity::DeviceIdentity;

/// MQTT 3.1.1, 3.3.2.1 and 4.7.3: a topic name has no wildcards, no U+0000, and a length.
pub(super) fn is_topic(identity: &DeviceIdentity, topic: &str) -> bool {
    let free = without_own_path(identity, topic);
    !topic.is_empty() && !free.contains(['#', '+', '\0'])
}

/// MQTT 3.1.1, 4.7.1 and 4.7.3: a wildcard is a level of its own, and `#` the last one.
pub(super) fn is_filter(identity: &DeviceIdentity, filter: &str) -> bool {
    let free = without_own_path(identity, filter);
    let mut levels = free.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_alone = level.len() == 1;
        let is_last = levels.peek().is_none();
        if (level.contains('#') && !(is_alone && is_last)) || (level.contains('+') && !is_alone) {
            return false;
        }
    }
    !filter.is_empty() && !free.contains('\0')
}

/// What follows the identity's own path. Ids stand raw in topics, and may contain `#` and
/// `+`, which mean nothing there.
fn without_own_path<'a>(identity: &DeviceIdentity, topic: &'a str) -> &'a str {
    topic
        .strip_prefix(&identity.resource_path())
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(topic)
}

#[cfg(test)]
mod tests {
    use common::identity::DeviceId;

    use super::*;

    #[test]
    fn an_id_with_wildcards_means_itself_in_its_own_topics() {
        let id = DeviceIdentity::of_device(DeviceId::parse("a+b#c").unwrap());
        assert!(is_topic(&id, "devices/a+b#c/messages/events/"));
        assert!(!is_topic(&id, "devices/a+b#cd/messages/events/"));
        assert!(!is_topic(&id, "devices/a+b#c/messages/events/x=+"));
        assert!(is_filter(&id, "devices/a+b#c/messages/devicebound/#"));
    }

    #[test]
    fn wildcards_are_levels_of_their_own() {
        let id = DeviceIdentity::of_device(DeviceId::parse("d").unwrap());
        for good in ["#", "+", "a/+/b/#", "a", "/"] {
            assert!(is_filter(&id, good), "{good}");
        }
        for bad in ["", "a#", "#/a", "a+/b", "a/\0"] {
            assert!(!is_filter(&id, bad), "{bad:?}");
        }
    }
}
