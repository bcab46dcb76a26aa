//! Events as lines of the log.

use common::identity::DeviceIdentity;
use common::log_about;
use common::report::chain;
use common::telemetry::{self, AUDIT, About};

use super::audit::WhenFull;
use super::{
    AuditFault, Certificate, Change, Connection, DeviceReport, Event, Fault, InSession, JobOutcome,
    Method, MethodOutcome, Outcome, Stream, acme, authority,
};

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
            decision,
        } => {
            let about = About::device(device).target(&target).policy(&policy);
            match decision {
                None => log_about!(audit info, about, approval = %id, "access was asked for"),
                Some((by, true)) => {
                    log_about!(audit info, about, approval = %id, %by, "access granted");
                }
                Some((by, false)) => {
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

/// What is wrong with the audit log.
fn write_audit_fault(fault: AuditFault<'_>) {
    match fault {
        AuditFault::NotWritten {
            reason,
            full: WhenFull::Stop,
        } => tracing::error!(
            "THE AUDIT LOG CANNOT BE WRITTEN, and new streams are refused until it can: {}",
            chain(reason)
        ),
        AuditFault::NotWritten {
            reason,
            full: WhenFull::Continue,
        } => tracing::error!(
            "THE AUDIT LOG CANNOT BE WRITTEN; streams are opened all the same, as configured: {}",
            chain(reason)
        ),
        AuditFault::Stalled { since, full } => {
            let seconds = since.as_secs();
            let streams = match full {
                WhenFull::Stop => "new streams are refused until it is",
                WhenFull::Continue => "streams are opened all the same, as configured",
            };
            tracing::error!(
                "THE AUDIT LOG IS NOT WRITTEN: its disk, or who reads standard output, has taken nothing for {seconds} s; {streams}"
            );
        }
        AuditFault::WrittenAgain { lost } => {
            tracing::warn!(lost, "the audit log is written again");
        }
        AuditFault::NotFinished => {
            tracing::error!("the last records of the audit log are not on the disk");
        }
        AuditFault::EndNotStored(reason) => tracing::error!(
            "how far the audit log goes cannot be stored, so that nobody could find its end cut off: {}",
            chain(reason)
        ),
        AuditFault::NotRotated(reason) => {
            tracing::error!(
                "a file of the audit log cannot be put aside or removed: {}",
                chain(reason)
            );
        }
        AuditFault::Missing { file, finding } => tracing::error!(
            "older files of the audit log {file} are missing, and none is removed behind them: {}",
            chain(finding)
        ),
        AuditFault::Broken {
            file,
            line,
            finding,
        } => tracing::error!(
            "the audit log is not as the hub has left it: {file}, line {line}: {}",
            chain(finding)
        ),
    }
}

fn write_job(job: &str, outcome: JobOutcome<'_>) {
    match outcome {
        JobOutcome::Made { policy } => {
            log_about!(audit info, About::default().policy(&policy), job, "job made");
        }
        JobOutcome::Cancelled { policy } => {
            log_about!(audit info, About::default().policy(&policy), job, "job cancelled");
        }
        JobOutcome::Ended {
            status,
            succeeded,
            failed,
        } => log_about!(
            audit info,
            About::default(),
            job,
            succeeded,
            failed,
            "job {status}"
        ),
    }
}

/// The outcome of a call of a direct method, with who has called it.
fn write_method(method: &Method<'_>, outcome: MethodOutcome<'_>) {
    let Method {
        name,
        device,
        policy,
        peer,
    } = method;
    let about = About::stream(None, name).of(device).policy(policy);
    let about = match peer {
        Some(peer) => about.peer(peer),
        None => about,
    };
    match outcome {
        MethodOutcome::Answered { status } => {
            log_about!(audit info, about, status, "direct method answered");
        }
        MethodOutcome::NotAnswered(reason) => {
            log_about!(info, about, "direct method not answered: {}", chain(reason));
        }
        MethodOutcome::GivenUp => log_about!(
            info,
            about,
            "direct method given up before the device answered"
        ),
    }
}

/// The outcome of a stream, with who has asked for it.
fn write_outcome(stream: &Stream<'_>, outcome: Outcome<'_>) {
    let about = about(stream);
    match outcome {
        Outcome::Accepted => log_about!(audit info, about, "stream accepted"),
        // A service can cause it without end.
        Outcome::Rejected => log_about!(info, about, "stream rejected"),
        Outcome::NotAnswered { reason, .. } => {
            log_about!(debug, about, "no stream: {}", chain(reason));
        }
        Outcome::GivenUp => log_about!(
            debug,
            about,
            "no stream: given up before the device answered"
        ),
        Outcome::Established { .. } => log_about!(debug, about, "stream established"),
        Outcome::Unpaired {
            has_leg: true,
            reason,
            ..
        } => log_about!(
            audit info,
            about,
            "stream ended before its other leg came: {}",
            chain(reason)
        ),
        Outcome::Unpaired {
            has_leg: false,
            reason,
            ..
        } => log_about!(
            audit info,
            about,
            "stream ended before its legs came: {}",
            chain(reason)
        ),
        Outcome::Closed {
            to_device,
            to_service,
            duration,
            end,
            ..
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
        Certificate::NotPublished(reason) => {
            tracing::warn!(
                "enrolment codes cannot be made, since the certificate's fingerprint cannot be written: {}",
                chain(reason)
            );
        }
        Certificate::IsCa { file } => {
            tracing::warn!(file = %file.display(), "the TLS certificate is a CA's own, which device-proxy and service-proxy refuse: give a certificate that a CA has signed, or leave --tls-cert out and let the hub make both");
        }
        Certificate::OtherHost { file, host } => {
            tracing::warn!(file = %file.display(), host, "the TLS certificate is not for the host name that this hub is known by, so proxies and SDK clients will refuse it: give one that is, or name the right host with --hostname");
        }
    }
}

/// What a device does in its session, and what goes to it.
fn write_in_session(device: &DeviceIdentity, event: InSession<'_>) {
    let about = About::device(device);
    match event {
        InSession::StreamRequest {
            stream,
            name,
            request,
        } => {
            let about = About::stream(stream, &name).of(device);
            log_about!(debug, about, %request, "stream request");
        }
        InSession::StreamAnswer {
            request,
            is_accepted: accepted,
            is_known: known,
        } => log_about!(debug, about, %request, accepted, known, "stream answer"),
        InSession::MethodCall { name, request } => {
            let about = About::stream(None, &name).of(device);
            log_about!(debug, about, %request, "direct method called");
        }
        InSession::MethodAnswer {
            request,
            status,
            is_known: known,
        } => log_about!(debug, about, %request, status, known, "direct method answered"),
        InSession::Reported { version } => {
            log_about!(debug, about, version, "reported properties");
        }
        InSession::TwinRefused { code, reason } => {
            log_about!(
                debug,
                about,
                code,
                "twin request refused: {}",
                chain(reason)
            );
        }
        InSession::Telemetry => log_about!(
            info,
            about,
            "the device sends telemetry; this hub keeps the latest of it and routes none"
        ),
        InSession::MessagesFailed(reason) => log_about!(
            warn,
            about,
            "messages to it are delivered later or again: {}",
            chain(reason)
        ),
        InSession::SubscriptionsDamaged(reason) => log_about!(warn, about, "{}", chain(reason)),
        InSession::SubscriptionsNotStored(reason) => log_about!(
            warn,
            about,
            "its subscriptions hold for this connection only: {}",
            chain(reason)
        ),
    }
}

/// What happens on a connection.
fn write_connection(event: Connection<'_>) {
    match event {
        Connection::TlsFailed(reason) => {
            tracing::debug!("a TLS handshake failed: {}", chain(reason));
        }
        Connection::TlsTooSlow => tracing::debug!("a TLS handshake took too long"),
        Connection::NoConnect {
            peer,
            transport,
            reason,
        } => log_about!(
            debug,
            About::connection_from(&peer).transport(&transport),
            "{}",
            chain(reason)
        ),
        Connection::AmqpNotRefused {
            peer,
            transport,
            reason,
        } => log_about!(
            debug,
            About::connection_from(&peer).transport(&transport),
            "refusing AMQP: {}",
            chain(reason)
        ),
        Connection::HttpDisplaced { peer } => log_about!(
            debug,
            About::connection_from(&peer),
            "closed before a request was authorised: others need its place"
        ),
        Connection::HttpFailed { peer, reason } => log_about!(
            debug,
            About::connection_from(&peer),
            "HTTP connection ended: {}",
            chain(reason)
        ),
        Connection::RequestRefused { peer, code, reason } => log_about!(
            debug,
            About::connection_from(&peer),
            code,
            "request refused: {}",
            chain(reason)
        ),
    }
}

/// What failed. What lists leave out comes once for each, and so is never summed up.
fn write_fault(fault: Fault<'_>) {
    match fault {
        Fault::NotAccepted { delay, reason } => {
            tracing::warn!(?delay, "cannot accept a connection: {}", chain(reason));
        }
        Fault::Pattern { pattern, reason } => {
            tracing::error!("{pattern} cannot be served: {}", chain(reason));
        }
        Fault::NotInMqtt(reason) => {
            tracing::error!("what the hub has for a device cannot be written in MQTT: {reason:?}");
        }
        Fault::Registry(reason) => tracing::error!("the registry failed: {}", chain(reason)),
        Fault::Damaged(reason) => tracing::error!("{}", chain(reason)),
        Fault::LeftOut(reason) => {
            tracing::error!(name: AUDIT, "left out of lists: {}", chain(reason));
        }
        Fault::ChangesNotFollowed(reason) => {
            tracing::error!("cannot follow the registry's changes: {}", chain(reason));
        }
        Fault::JobsNotRun(reason) => {
            tracing::error!("jobs wait, since the registry failed: {}", chain(reason));
        }
        Fault::UsageNotStored(reason) => tracing::warn!(
            "cannot store or read how many bytes were moved today: {}; retrying",
            chain(reason)
        ),
        Fault::Audit(fault) => write_audit_fault(fault),
        Fault::ActivityNotStored {
            reason,
            is_retried: true,
        } => tracing::warn!(
            "cannot store when devices were connected: {}; retrying",
            chain(reason)
        ),
        Fault::ActivityNotStored {
            reason,
            is_retried: false,
        } => tracing::warn!(
            "cannot store when devices were connected: {}",
            chain(reason)
        ),
        Fault::WebhookNotTold {
            reason,
            is_given_up: false,
        } => tracing::warn!(
            "the webhook of approvals does not take a message, it is tried again: {}",
            chain(reason)
        ),
        Fault::WebhookNotTold {
            reason,
            is_given_up: true,
        } => tracing::warn!(
            "the webhook of approvals does not take a message, it is given up: {}",
            chain(reason)
        ),
        Fault::ApprovalsNotFollowed(reason) => {
            tracing::error!("cannot look for approvals: {}", chain(reason));
        }
        Fault::WritesNotStored => {
            tracing::warn!("what devices have written last is not stored: the disk is busy");
        }
    }
}

fn about<'a>(stream: &'a Stream<'a>) -> About<'a> {
    let about = About::stream(Some(stream.id), &stream.name)
        .of(stream.device)
        .policy(&stream.policy)
        .peer(stream.peer);
    match &stream.person {
        Some(person) => about.person(person),
        None => about,
    }
}
