//! A plain stream: select the target, dial it, answer, open our leg, pump. Accepting is a promise,
//! so the target is dialled first.

use common::identity::StreamId;
use common::report;
use common::tunnel::{LocalSocket, Traffic, pump};
use common::wire::stream::StreamRequest;
use common::wire::streaming_endpoint::StreamingEndpoint;

use crate::forwarding::{Forwarding, Way};
use crate::policy::Policy;
use crate::requests::{Answer, Desk, stream_id};
use crate::target::Target;
use crate::{echo, sample_output};

/// Serves a request for a plain stream to its end.
pub(crate) async fn serve(
    desk: &Desk,
    policy: &Policy,
    (request, endpoint): (&StreamRequest, StreamingEndpoint),
    name: &str,
) {
    if desk.sample_output {
        sample_output::request(name);
    }
    let Some(target) = policy.targets.select(&request.name) else {
        tracing::warn!(
            %name,
            stream = stream_id(request),
            "rejected a stream: no target has this name"
        );
        return desk.answer(request, Answer::Reject).await;
    };
    // Held to the end of the tunnel.
    let Some(_permit) = desk.permit() else {
        tracing::warn!(%name, %target, stream = stream_id(request), "rejected a stream: too many at once");
        return desk.answer(request, Answer::Reject).await;
    };
    match target {
        Target::Echo => {
            let echo = Box::new(echo::socket(desk.sample_output));
            tunnel(desk, (request, endpoint), name, target, echo).await;
        }
        Target::Tcp { host, port } => {
            let dialled = tokio::select! {
                dialled = Box::pin(Target::dial(desk.dialer(), host, *port)) => dialled,
                () = desk.stop.cancelled() => return,
            };
            match dialled {
                Ok(socket) => {
                    tunnel(desk, (request, endpoint), name, target, Box::new(socket)).await
                }
                Err(error) => {
                    tracing::warn!(
                        %name,
                        stream = stream_id(request),
                        "rejected a stream: {}",
                        report::chain(&error)
                    );
                    desk.answer(request, Answer::Reject).await;
                }
            }
        }
    }
}

async fn tunnel(
    desk: &Desk,
    (request, endpoint): (&StreamRequest, StreamingEndpoint),
    name: &str,
    target: &Target,
    local: Box<dyn LocalSocket>,
) {
    // Without a stream the target's connection is reset: it has not ended normally.
    local.arm();
    // What it needs is given back before the tunnel's long life.
    let leg = match Box::pin(desk.open_leg(request, endpoint)).await {
        Some(Ok(leg)) => leg,
        None => return,
        Some(Err(error)) => {
            tracing::warn!(%name, %target, stream = stream_id(request), "accepted a stream, but: {}", report::chain(&error));
            return;
        }
    };
    let forwarding = Forwarding {
        way: Way::Stream(StreamId::of_url(&request.url)),
        name,
        target,
    };
    forwarding.log_opened();
    let traffic = Traffic::default();
    let pumping = pump(local, leg, &traffic, &desk.stop);
    let outcome = if desk.sample_output {
        sample_output::around(&traffic, pumping).await
    } else {
        pumping.await
    };
    forwarding.log_ended(&outcome, outcome.end.is_normal());
}
