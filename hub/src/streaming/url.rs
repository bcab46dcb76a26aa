//! Where legs come: the streaming endpoint's URLs (`docs/protocol.md`, "Streaming endpoints").

use common::hub_address::HubAddress;
use common::identity::{DeviceIdentity, Leg, StreamId};
use common::wire::initiation::encode_segment;

/// The path of a leg, of which `stream` and `leg` count.
pub const PATH: &str = "/bridges/ih/{hub}/d/{device}/sid/{stream}/r/{leg}";

/// The URL of one leg: an explicit port and no query, as the C client needs it; the
/// form is the one seen in May 2019 (`docs/protocol.md`, "Streaming endpoints").
pub fn url(hub: &HubAddress, identity: &DeviceIdentity, stream: StreamId, leg: Leg) -> String {
    format!(
        "wss://{}:{}/bridges/ih/{}/d/{}/sid/{stream}/r/{leg}",
        hub.url_host(),
        hub.https_port(),
        encode_segment(hub.hub_name()),
        encode_segment(identity.device.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use common::identity::DeviceId;

    use super::*;

    #[test]
    fn urls_have_a_port_and_no_query() {
        let hub = HubAddress::parse("myhub.example.net").unwrap();
        let identity = DeviceIdentity::of_device(DeviceId::parse("a+b%c").unwrap());
        let url = url(&hub, &identity, StreamId::random(), Leg::Device);
        assert!(url.starts_with("wss://myhub.example.net:443/bridges/"));
        assert!(!url.contains('?'));
    }
}
