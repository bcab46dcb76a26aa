//! Every message of the device streams handshake, of twins and of direct methods.
//!
//! | message | from → to | transport | file |
//! | --- | --- | --- | --- |
//! | stream initiation | service → hub | HTTPS `POST /twins/…/streams/{name}` | [`initiation`] |
//! | stream initiation result | hub → service | HTTP headers `iothub-streaming-…` | [`initiation`] |
//! | stream request | hub → device | MQTT topic `$iothub/streams/POST/…` | [`stream`] |
//! | accept, reject | device → hub | MQTT topic `$iothub/streams/res/…` | [`stream`] |
//! | twin: read, report | device → hub, and the answer | MQTT topics `$iothub/twin/…` | [`twin`] |
//! | twin: desired properties have changed | hub → device | MQTT topic `$iothub/twin/PATCH/…` | [`twin`] |
//! | message to a device | hub → device | MQTT topic `devices/{id}/messages/devicebound/…` | [`message`] |
//! | direct method: call, answer | hub → device, device → hub | MQTT topics `$iothub/methods/…` | [`method`] |
//! | refusal | hub → service | HTTP status and JSON body | [`problem`] |
//!
//! [`topics`] has the rest of the MQTT topic grammar, and [`streaming_endpoint`] the URL of the
//! legs.

pub mod access;
pub mod initiation;
pub mod message;
pub mod method;
pub mod problem;
mod properties;
pub mod report;
pub mod stream;
pub mod streaming_endpoint;
pub mod topics;
pub mod twin;
