//! Documents as IoT Hub writes them.

use super::*;
use crate::iso8601::NEVER;
use crate::registry::{Status, credentials};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

#[test]
fn documents_are_iot_hubs() {
    let identity = Identity {
        id: id("d", None).unwrap(),
        generation_id: "637".to_owned(),
        etag: "MTIz".to_owned(),
        status: Status::Disabled,
        status_reason: None,
        status_updated: Some(1_700_000_000),
        authentication: credentials::keys(Some(KEY), Some(KEY)).unwrap(),
        iot_edge: false,
        device_scope: None,
        parent_scopes: Vec::new(),
        managed_by: Some("x".to_owned()),
        activity: Activity {
            connected: true,
            connection_state_updated: None,
            last_activity: Some(1_700_000_000_123_456),
        },
        messages: 0,
    };
    let document = write(&identity, Some(Activity::default()), Keys::Shown);
    assert_eq!(
        document,
        json!({
            "deviceId": "d", "generationId": "637", "etag": "MTIz",
            "connectionState": "Disconnected", "status": "disabled", "statusReason": null,
            "connectionStateUpdatedTime": NEVER,
            "statusUpdatedTime": "2023-11-14T22:13:20.0000000Z",
            "lastActivityTime": NEVER, "cloudToDeviceMessageCount": 0,
            "capabilities": { "iotEdge": false },
            "authentication": {
                "symmetricKey": { "primaryKey": KEY, "secondaryKey": KEY },
                "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null },
                "type": "sas",
            },
        })
    );
    let outside = write(&identity, None, Keys::LeftOut);
    assert_eq!(outside["lastActivityTime"], "2023-11-14T22:13:20.1234560Z");
    let text = outside.to_string();
    assert!(!text.contains("AAEC") && !text.contains("connectionState\""));
    let module = Identity {
        id: id("d", Some("m")).unwrap(),
        ..identity
    };
    let document = write(&module, Some(module.activity), Keys::Shown);
    assert_eq!(document["managedBy"], "x");
    assert_eq!(document["moduleId"], "m");
    assert_eq!(document["connectionState"], "Connected");
    assert!(document.get("status").is_none());
}
