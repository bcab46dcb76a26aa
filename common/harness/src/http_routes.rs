//! Requests to the hub's HTTPS port: any method and path gives a call or a refusal.

use http::Method;
use hub::api::router::{self, Route};

/// Routes a request line of HTTP. Any method and any path give a call or a refusal, and a device's
/// own credential only permits calls below that device.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let (method, path) = text.split_once(' ').unwrap_or(("GET", text));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else {
        return;
    };
    let Ok(Route::Rest(target)) = router::route(&method, path) else {
        return;
    };
    let access = &target.access;
    if let Some(device) = &access.owner {
        assert!(
            access
                .scope
                .below
                .starts_with(&format!("devices/{device}/"))
        );
    }
    if let Err(refusal) = &target.call {
        let status = refusal.code.status().as_u16();
        assert!([400, 404, 405, 501].contains(&status));
        assert_eq!(refusal.allow.is_some(), status == 405);
    }
}
