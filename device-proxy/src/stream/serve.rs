//! Select the target, dial it, answer, open the streaming endpoint, pump. Accepting
//! is a promise, so the target is dialled first.

use common::report;
use common::session::{STREAM_PREFIX, target_of};
use common::telemetry::AUDIT;
use common::tunnel::{LocalSocket, Outcome, Traffic, pump};
use common::wire::stream::StreamRequest;

use std::sync::Arc;

use super::{Shared, echo, printable};
use crate::target::Target;
use crate::{sample_output, session};
use common::session_mode::SessionMode;

/// Serves one request to its end.
pub(super) async fn serve(shared: &Arc<Shared>, request: StreamRequest) {
    let name = printable(&request.name);
    if let Err(error) = shared.check(&request) {
        tracing::warn!(name, "rejected a stream: {error}");
        return shared.answer(&request, false).await;
    }
    if shared.session_mode != SessionMode::Never
        && let Some(target) = target_of(&name)
    {
        return Box::pin(session::serve(shared, &request, target)).await;
    }
    let is_session = name.starts_with(STREAM_PREFIX);
    if is_session || shared.session_mode == SessionMode::Always {
        let which = if is_session {
            "session mode"
        } else {
            "plain streams"
        };
        tracing::warn!(
            name,
            "rejected a stream: {which} may not be used (--session)"
        );
        return shared.answer(&request, false).await;
    }
    if shared.sample_output {
        sample_output::request(&name);
    }
    let Some(target) = shared.targets.select(&request.name) else {
        tracing::warn!(name, "rejected a stream: no target has this name");
        return shared.answer(&request, false).await;
    };
    // Held to the end of the tunnel.
    let Ok(_permit) = shared.permits.try_acquire() else {
        tracing::warn!(name, %target, "rejected a stream: too many at once");
        return shared.answer(&request, false).await;
    };
    match target {
        Target::Echo => {
            let echo = Box::new(echo::socket(shared.sample_output));
            carry(shared, &request, &name, target, echo).await;
        }
        Target::Tcp { host, port } => {
            let dialled = tokio::select! {
                dialled = Box::pin(Target::dial(host, *port)) => dialled,
                () = shared.stop.cancelled() => return,
            };
            match dialled {
                Ok(socket) => carry(shared, &request, &name, target, Box::new(socket)).await,
                Err(error) => {
                    tracing::warn!(name, "rejected a stream: {}", report::chain(&error));
                    shared.answer(&request, false).await;
                }
            }
        }
    }
}

async fn carry(
    shared: &Shared,
    request: &StreamRequest,
    name: &str,
    target: &Target,
    local: Box<dyn LocalSocket>,
) {
    // A stream that comes to nothing is no end of the target's connection in due form.
    local.arm();
    // What it needs is given back before the tunnel's long life.
    let stream = match Box::pin(shared.open_leg(request)).await {
        Some(Ok(stream)) => stream,
        None => return,
        Some(Err(error)) => {
            tracing::warn!(name, %target, "accepted a stream, but: {}", report::chain(&error));
            return;
        }
    };
    tracing::info!(name: AUDIT, name, %target, "stream opened");
    let traffic = Traffic::default();
    let tunnel = pump(local, stream, &traffic, &shared.stop);
    let outcome = if shared.sample_output {
        sample_output::around(&traffic, tunnel).await
    } else {
        tunnel.await
    };
    report_outcome(name, target, &outcome);
}

fn report_outcome(name: &str, target: &Target, outcome: &Outcome) {
    let Outcome {
        sent,
        received,
        duration,
        end,
    } = outcome;
    let seconds = format!("{:.1}", duration.as_secs_f32());
    let how = report::chain(end);
    if end.is_normal() {
        tracing::info!(name: AUDIT, name, %target, sent, received, seconds = %seconds, "stream closed: {how}");
    } else {
        tracing::warn!(name: AUDIT, name, %target, sent, received, seconds = %seconds, "stream broken: {how}");
    }
}
