//! Stream initiation with a device and a service driven by hand.

use reqwest::Method;
use tests::messages::{receive, send};
use tests::raw_service::{accepted, refusal};
use tests::{RawDevice, RawService, TestHub, soon, wait};

#[tokio::test]
async fn a_stream_from_request_to_bytes() {
    let hub = TestHub::start().await;
    let connection = hub.create("My-Device").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = RawService::new(&hub).await;
    let (response, request) = tokio::join!(
        service.initiate("My-Device", "TestStream", 30.0, 30.0),
        async {
            let request = device.request().await;
            assert_eq!(request.name, "TestStream");
            device.answer(&request, true).await;
            request
        }
    );
    let (url, token) = accepted(&response);
    assert!(
        url.starts_with(&format!("wss://localhost:{}/", hub.https.port())),
        "{url}"
    );
    let mut theirs = service.leg(&url, &token).await;
    // The echo samples send at once, before the other leg is there.
    send(&mut theirs, "first").await;
    let mut ours = device.leg(&request).await;
    assert_eq!(receive(&mut ours).await, "first");
    send(&mut ours, "back").await;
    assert_eq!(receive(&mut theirs).await, "back");
}

#[tokio::test]
async fn the_devices_leg_may_come_before_its_accept() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = RawService::new(&hub).await;
    let (response, mut ours) = tokio::join!(service.initiate("d", "s", 5.0, 5.0), async {
        let request = device.request().await;
        let mut leg = device.leg(&request).await;
        send(&mut leg, "early").await;
        device.answer(&request, true).await;
        leg
    });
    let (url, token) = accepted(&response);
    let mut theirs = service.leg(&url, &token).await;
    assert_eq!(receive(&mut theirs).await, "early");
    send(&mut theirs, "hello").await;
    assert_eq!(receive(&mut ours).await, "hello");
}

#[tokio::test]
async fn a_reject_is_a_plain_no() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = RawService::new(&hub).await;
    let (response, ()) = tokio::join!(service.initiate("d", "s", 5.0, 5.0), async {
        let request = device.request().await;
        device.answer(&request, false).await;
    });
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["iothub-streaming-is-accepted"], "False");
    assert!(!response.headers().contains_key("iothub-streaming-url"));
    assert_eq!(hub.state.legs.count(), 0);
}

#[tokio::test]
async fn refusals_have_iot_hubs_codes() {
    let hub = TestHub::start().await;
    hub.create("offline").await;
    let service = RawService::new(&hub).await;
    assert_eq!(
        refusal(service.initiate("nobody", "s", 1.0, 1.0).await).await,
        (404, 404_001)
    );
    let module = service.call(
        Method::POST,
        "/twins/offline/modules/m/streams/s?api-version=x",
    );
    assert_eq!(refusal(module.send().await.unwrap()).await, (404, 404_010));

    // Zero means: do not wait for the device.
    let at_once = soon("a refusal", service.initiate("offline", "s", 0.0, 30.0)).await;
    assert_eq!(refusal(at_once).await, (404, 404_103));
    assert_eq!(
        refusal(service.initiate("offline", "s", 0.2, 30.0).await).await,
        (404, 404_103)
    );

    assert_eq!(
        refusal(service.initiate("offline", "bad%20name", 0.0, 0.0).await).await,
        (400, 400_004)
    );
    let nonsense = service
        .call(Method::POST, "/twins/offline/streams/s?api-version=x")
        .header("iothub-streaming-connect-timeout-in-seconds", "soon");
    assert_eq!(
        refusal(nonsense.send().await.unwrap()).await,
        (400, 400_004)
    );
    let get = service.call(Method::GET, "/twins/offline/streams/s?api-version=x");
    assert_eq!(refusal(get.send().await.unwrap()).await, (405, 405_000));
    let elsewhere = service.call(Method::GET, "/elsewhere");
    assert_eq!(
        refusal(elsewhere.send().await.unwrap()).await,
        (404, 404_000)
    );
}

#[tokio::test]
async fn a_silent_device_times_out() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = RawService::new(&hub).await;
    let (response, request) = tokio::join!(service.initiate("d", "s", 5.0, 0.3), device.request());
    assert_eq!(refusal(response).await, (504, 504_101));
    assert_eq!(hub.state.legs.count(), 0);
    // A late answer has no effect.
    device.answer(&request, true).await;
    let refused = service.try_leg(&request.url, &request.token).await;
    assert!(refused.is_err(), "the stream is over");
}

#[tokio::test]
async fn a_request_waits_for_a_device_that_comes_in_time() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let service = RawService::new(&hub).await;
    let late = async {
        wait("the stream request", || hub.state.legs.count() == 1).await;
        let mut device = RawDevice::connect(&hub, &connection).await;
        let request = device.request().await;
        device.answer(&request, true).await;
        device
    };
    let (response, _device) = tokio::join!(service.initiate("d", "s", 20.0, 20.0), late);
    accepted(&response);
}

#[tokio::test]
async fn a_pending_request_survives_a_takeover() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut first = RawDevice::connect(&hub, &connection).await;
    let service = RawService::new(&hub).await;
    let device = async {
        let request = first.request().await;
        let mut second = RawDevice::connect(&hub, &connection).await;
        first.ended().await;
        assert_eq!(
            second.request().await,
            request,
            "the new session is asked too"
        );
        second.answer(&request, true).await;
        second
    };
    let (response, _device) = tokio::join!(service.initiate("d", "s", 20.0, 20.0), device);
    accepted(&response);
}

#[tokio::test]
async fn subscribing_again_and_again_changes_nothing() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    for _ in 0..3 {
        device.subscribe().await;
    }
    let service = RawService::new(&hub).await;
    let (response, ()) = tokio::join!(service.initiate("d", "s", 5.0, 5.0), async {
        let request = device.request().await;
        // Subscribed in the middle of a request: it is not sent a second time.
        device.subscribe().await;
        device.answer(&request, true).await;
    });
    accepted(&response);
}

#[tokio::test]
async fn a_service_that_gives_up_leaves_nothing_behind() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let service = RawService::new(&hub).await;
    let request = tokio::select! {
        _ = service.initiate("d", "s", 30.0, 30.0) => panic!("an answer without the device"),
        request = device.request() => request,
    };
    drop(service);
    wait("the stream to be given up", || hub.state.legs.count() == 0).await;
    device.answer(&request, true).await;
    assert_eq!(hub.state.legs.count(), 0);
}

#[tokio::test]
async fn modules_have_streams_of_their_own() {
    let hub = TestHub::start().await;
    hub.create("d").await;
    let connection = hub.create("d/m").await;
    let mut module = RawDevice::connect(&hub, &connection).await;
    let service = RawService::new(&hub).await;
    let call = service.call(Method::POST, "/twins/d/modules/m/streams/s?api-version=x");
    let (response, ()) = tokio::join!(call.send(), async {
        let request = module.request().await;
        module.answer(&request, true).await;
    });
    accepted(&response.unwrap());
    assert_eq!(
        refusal(service.initiate("d", "s", 0.0, 1.0).await).await,
        (404, 404_103)
    );
}
