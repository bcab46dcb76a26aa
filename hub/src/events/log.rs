//! Events as lines of the log.

use common::log_about;
use common::report::chain;
use common::telemetry::{self, About};

use super::{Certificate, Event, Outcome, Stream};

/// Writes an event. Marked as audit is what somebody with valid credentials did, once for each.
pub(super) fn write(event: Event<'_>) {
    match event {
        Event::DeviceConnected {
            device,
            peer,
            transport,
        } => {
            let about = About::device(device).peer(&peer).transport(&transport);
            log_about!(audit info, about, "device connected");
        }
        Event::DeviceDisconnected {
            device,
            peer,
            telemetry,
            end,
        } => {
            let about = About::device(device).peer(&peer);
            let telemetry = (telemetry > 0).then_some(telemetry);
            log_about!(audit info, about, telemetry, "device disconnected: {}", chain(end));
        }
        Event::SessionNotOpened {
            device,
            peer,
            reason,
        } => log_about!(
            warn,
            About::device(device).peer(&peer),
            "session not opened: {}",
            chain(reason)
        ),
        Event::DeviceRefused {
            peer,
            transport,
            reason,
        } => log_about!(
            warn,
            About::connection_from(&peer).transport(&transport),
            "{}",
            chain(reason)
        ),
        Event::ServiceRefused { peer, reason } => log_about!(
            warn,
            About::connection_from(&peer),
            "request of a service refused: {}",
            chain(reason)
        ),
        Event::AmqpRefused { peer, transport } => log_about!(
            warn,
            About::connection_from(&peer).transport(&transport),
            "a client of AMQP is refused: this hub does not speak AMQP yet; use MQTT, over WebSockets or not, for devices, and HTTPS for services"
        ),
        Event::StreamRequested(stream) => {
            log_about!(debug, about(&stream), "stream requested");
        }
        Event::Stream(stream, outcome) => write_outcome(&stream, outcome),
        Event::IdentityChanged { device } => {
            log_about!(
                debug,
                About::device(device),
                "the identity was changed in the registry"
            );
        }
        Event::SessionRevoked { device } => log_about!(
            debug,
            About::device(device),
            "ending its session: disabled, deleted, damaged or given other keys"
        ),
        Event::StreamsRevoked { device } => log_about!(
            audit info,
            About::device(device),
            "ending its streams: disabled, deleted or damaged"
        ),
        Event::ListenerStarted { protocol, address } => {
            tracing::debug!("listening for {protocol} on {address}");
        }
        Event::AmqpListenerStarted { address } => {
            tracing::info!("clients of AMQP on {address} are refused and referred to MQTT");
        }
        Event::Stopping => tracing::info!("stopping"),
        Event::Stopped {
            streams_cut,
            in_time,
        } => tracing::info!(streams_cut, in_time, "stopped"),
        Event::Certificate(certificate) => write_certificate(certificate),
    }
}

/// The outcome of a stream, with who has asked for it.
fn write_outcome(stream: &Stream<'_>, outcome: Outcome<'_>) {
    let about = about(stream);
    match outcome {
        Outcome::Accepted => log_about!(audit info, about, "stream accepted"),
        // A service can cause it without end.
        Outcome::Rejected => log_about!(info, about, "stream rejected"),
        Outcome::NotAnswered(reason) => log_about!(debug, about, "no stream: {}", chain(reason)),
        Outcome::Established => log_about!(debug, about, "stream established"),
        Outcome::Unpaired => log_about!(
            audit info,
            about,
            "stream ended before its other leg came"
        ),
        Outcome::Closed {
            to_device,
            to_service,
            duration,
            end,
        } => log_about!(
            audit info,
            about,
            to_device,
            to_service,
            seconds = telemetry::seconds(duration),
            "stream closed: {}", chain(end)
        ),
    }
}

/// What concerns the server's certificate, and the CA that proxies and SDK clients need.
fn write_certificate(certificate: Certificate<'_>) {
    match certificate {
        Certificate::CaMade {
            file,
            host,
            is_replaced: true,
        } => {
            tracing::warn!(ca = %file.display(), host, "made a new CA, since the old one is not for this host name or about to expire: give this file to all proxies and SDK clients, the old one is of no more use");
        }
        Certificate::CaMade {
            file,
            host,
            is_replaced: false,
        } => {
            tracing::info!(ca = %file.display(), host, "made a new CA: give this file to proxies and SDK clients");
        }
        Certificate::Renewed => tracing::info!("the TLS certificate was renewed"),
        Certificate::CaRenewed { file } => {
            tracing::warn!(ca = %file.display(), "the CA is a new one: give this file to proxies and SDK clients");
        }
        Certificate::NotRenewed(reason) => {
            tracing::error!("cannot renew the TLS certificate: {}", chain(reason));
        }
        Certificate::Reloaded => tracing::info!("the TLS certificate was read again"),
        Certificate::NotReloaded(reason) => {
            tracing::warn!("the changed TLS files cannot be used: {}", chain(reason));
        }
    }
}

fn about<'a>(stream: &'a Stream<'a>) -> About<'a> {
    About::stream(Some(stream.id), &stream.name)
        .of(stream.device)
        .policy(&stream.policy)
        .peer(stream.peer)
}
