//! Events as lines of the log.

mod connections;
mod faults;
mod streams;

use common::log_about;
use common::report::chain;
use common::telemetry::About;

use self::connections::{write_certificate, write_connection, write_in_session};
use self::faults::write_fault;
use self::streams::{about, write_job, write_method, write_outcome};
use super::{ApprovalStep, Change, DeviceReport, Event, acme, authority};

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
            ..
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
            ..
        } => log_about!(
            warn,
            About::connection_from(&peer).transport(&transport),
            "{}",
            chain(reason)
        ),
        Event::ServiceRefused { peer, reason, .. } => log_about!(
            warn,
            About::connection_from(&peer),
            "request of a service refused: {}",
            chain(reason)
        ),
        Event::DeviceEnrolled { device, peer } => {
            log_about!(audit info, About::device(device).peer(&peer), "device enrolled");
        }
        Event::OperatorEnrolled { policy, peer } => {
            let about = About::connection_from(&peer).policy(&policy);
            log_about!(audit info, about, "operator enrolled");
        }
        Event::PersonLoggedIn {
            person,
            token,
            peer,
        } => {
            let about = About::connection_from(&peer).person(&person);
            log_about!(audit info, about, %token, "logged in");
        }
        Event::PersonRefused { peer, reason } => log_about!(
            warn,
            About::connection_from(&peer),
            "login refused: {}",
            chain(reason)
        ),
        Event::Approval {
            id,
            device,
            target,
            policy,
            step,
        } => {
            let about = About::device(device).target(&target).policy(&policy);
            match step {
                ApprovalStep::Asked { .. } => {
                    log_about!(audit info, about, approval = %id, "access was asked for");
                }
                ApprovalStep::Granted { by, .. } => {
                    log_about!(audit info, about, approval = %id, %by, "access granted");
                }
                ApprovalStep::Refused { by, .. } => {
                    log_about!(audit info, about, approval = %id, %by, "access refused");
                }
            }
        }
        Event::TokenStreamsEnded { token } => {
            log_about!(audit info, About::default(), %token, "ending its streams: the token was revoked");
        }
        Event::AccessDenied {
            device,
            name,
            policy,
            person,
            peer,
            reason,
        } => {
            let about = About::connection_from(&peer).policy(&policy);
            let about = match device {
                Some(device) => about.of(device),
                None => about,
            };
            let about = match &name {
                Some(name) => about.name(name),
                None => about,
            };
            let about = match &person {
                Some(person) => about.person(person),
                None => about,
            };
            log_about!(info, about, "access denied: {}", chain(reason));
        }
        Event::AccessFileRead { file, rules, freed } => {
            if !freed.is_empty() {
                tracing::warn!(
                    "the access file {} no longer governs shared access policies that it governed: {}; their keys open all that the policies allow. Name them in `govern` to refuse what no rule allows",
                    file.display(),
                    freed.join(", ")
                );
            }
            tracing::info!(file = %file.display(), rules, "the access file is in force");
        }
        Event::NotEnrolled { peer, reason } => log_about!(
            warn,
            About::connection_from(&peer),
            "enrolment refused: {}",
            chain(reason)
        ),
        Event::Limited {
            over,
            policy,
            device,
        } => {
            let mut about = device.map_or_else(About::default, About::device);
            if let Some(policy) = &policy {
                about = about.policy(policy);
            }
            let (limit, whose) = (over.limit, over.whose);
            log_about!(warn, about, %limit, %whose, "limit reached");
        }
        Event::AmqpRefused { peer, transport } => log_about!(
            warn,
            About::connection_from(&peer).transport(&transport),
            "a client of AMQP is refused: this hub does not speak AMQP yet; use MQTT, over WebSockets or not, for devices, and HTTPS for services"
        ),
        Event::StreamRequested(stream) => {
            log_about!(debug, about(&stream), "stream requested");
        }
        Event::Stream(stream, outcome) => write_outcome(&stream, outcome),
        Event::LegConnected { stream, leg, peer } => {
            let about = About::stream(Some(stream.id), &stream.name).of(stream.device);
            log_about!(debug, about.peer(&peer), %leg, "leg connected");
        }
        Event::Method(method, outcome) => write_method(&method, outcome),
        Event::Job(id, outcome) => write_job(id, outcome),
        Event::TwinChanged {
            device,
            policy,
            peer,
            version,
        } => log_about!(
            audit info,
            About::device(device).policy(&policy).peer(&peer),
            version,
            "twin changed"
        ),
        Event::InSession(device, event) => write_in_session(device, event),
        Event::Connection(event) => write_connection(event),
        Event::Fault(fault) => write_fault(fault),
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
        // The configuration's own line has said it.
        Event::ConfigurationChanged { .. } => {}
        Event::Changed(change) => write_change(&change),
        Event::DeviceReport(device, report) => {
            let about = About::device(device);
            match report {
                DeviceReport::Connection { target, .. } => {
                    log_about!(debug, about, target, "the device reports a connection");
                }
                DeviceReport::Lost { count } => {
                    log_about!(
                        warn,
                        about,
                        count,
                        "reports on connections were lost on the device"
                    );
                }
            }
        }
        Event::NeedsRestart { file, settings } => tracing::warn!(
            "{file} also changes {settings}: stream-hub has to be started again for that"
        ),
        Event::Stopping => tracing::info!("stopping"),
        Event::Stopped {
            streams_cut,
            in_time,
        } => tracing::info!(streams_cut, in_time, "stopped"),
        Event::Certificate(certificate) => write_certificate(certificate),
        Event::Authority(event) => authority::write(event),
        Event::Acme(event) => acme::write(event),
    }
}

/// What was changed in the registry.
fn write_change(change: &Change<'_>) {
    let Change {
        operation,
        device,
        policy,
        what,
        actor,
        ..
    } = change;
    let about = device.map_or_else(About::default, About::device);
    let about = match policy {
        Some(policy) => about.policy(policy),
        None => about,
    };
    let by = actor.unwrap_or("unknown");
    log_about!(
        debug,
        about,
        operation,
        what,
        by,
        "the registry was changed"
    );
}
