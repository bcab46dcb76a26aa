//! A plain stream: select the target, dial it, answer, open our leg, pump. Accepting is a promise,
//! so the target is dialled first.

use common::boxed::boxed;
use common::tunnel::{End, LocalSocket, pump, stopped};
use common::wire::stream::StreamRequest;
use common::wire::streaming_endpoint::StreamingEndpoint;
use common::{log_about, report};

use crate::admission::{Request, out_of_hours};
use crate::counts::Rejection;
use crate::forwarding::{Forwarding, Opening, Way};
use crate::policy::Policy;
use crate::requests::{Answer, Desk, Requested};
use crate::sample_output;
use crate::target::Target;

/// Serves a request for a plain stream to its end.
pub(crate) async fn serve(
    desk: &Desk,
    policy: &Policy,
    (request, endpoint): (&StreamRequest, StreamingEndpoint),
    stream: &Requested<'_>,
) {
    if desk.sample_output {
        sample_output::request(stream.name);
    }
    let about = stream.about();
    let Some(target) = policy.targets.select(&request.name) else {
        log_about!(warn, about, "rejected a stream: no target has this name");
        desk.failed(stream, Rejection::NoTarget, "no target has this name");
        return boxed(|| desk.answer(request, Answer::Reject)).await;
    };
    // Held to the end of the tunnel.
    let Some(_permit) = desk.permit() else {
        log_about!(
            warn,
            about.target(target),
            "rejected a stream: too many at once"
        );
        desk.failed(stream, Rejection::Limit, "too many streams at once");
        return boxed(|| desk.answer(request, Answer::Reject)).await;
    };
    let about_to_open = desk.forwardings.opening();
    let opening = async {
        let wanted = Request {
            name: stream.name,
            target,
            caller: request.initiator.as_ref(),
        };
        let admitted = desk.admission.admit(policy, &wanted).await;
        let admitted = admitted.map_err(|denied| (Rejection::Rule, report::chain(&denied)))?;
        let permits = |address| policy.addresses.permit(target, address);
        let reached = target.reach(desk.dialer(), &permits, desk.sample_output);
        let reached = reached
            .await
            .map_err(|error| (Rejection::Unreachable, report::chain(&error)))?;
        Ok::<_, (Rejection, String)>((admitted.pace(reached), admitted))
    };
    let opened = tokio::select! {
        opened = boxed(|| opening) => opened,
        () = desk.stop.cancelled() => return,
    };
    match opened {
        // Held to the end of the tunnel, too.
        Ok((socket, _admitted)) => {
            let local = (socket, about_to_open);
            tunnel(desk, (request, endpoint), stream, target, local).await;
        }
        Err((rejection, error)) => {
            log_about!(warn, about.target(target), "rejected a stream: {error}");
            desk.failed(stream, rejection, &error);
            boxed(|| desk.answer(request, Answer::Reject)).await;
        }
    }
}

async fn tunnel(
    desk: &Desk,
    (request, endpoint): (&StreamRequest, StreamingEndpoint),
    stream: &Requested<'_>,
    target: &Target,
    (local, about_to_open): (Box<dyn LocalSocket>, Opening),
) {
    // Without a stream the target's connection is reset: it has not ended normally.
    local.arm();
    // What it needs is given back before the tunnel's long life.
    let leg = match boxed(|| desk.open_leg(request, endpoint)).await {
        Some(Ok(leg)) => leg,
        None => return,
        Some(Err(error)) => {
            let error = report::chain(&error);
            log_about!(
                warn,
                stream.about().target(target),
                "accepted a stream, but: {error}"
            );
            desk.failed(stream, Rejection::Leg, &error);
            return;
        }
    };
    desk.expect_another();
    let opened = desk.forwardings.open(&Forwarding {
        way: Way::Stream(stream.id),
        name: stream.name,
        target,
    });
    drop(about_to_open);
    let ended = async {
        tokio::select! {
            end = stopped(&desk.stop) => end,
            () = desk.withdrawn(&request.name, target) => End::Withdrawn,
            () = out_of_hours(desk.watch(), &request.name, target) => End::OutOfHours,
            () = opened.closed() => End::ByOperator,
        }
    };
    let pumping = boxed(|| pump(local, leg, opened.traffic(), ended));
    let outcome = if desk.sample_output {
        sample_output::around(opened.traffic(), pumping).await
    } else {
        pumping.await
    };
    let is_caused = matches!(
        outcome.end,
        End::Stopped | End::Withdrawn | End::OutOfHours | End::ByOperator
    );
    opened.log_ended(&outcome, outcome.end.is_normal(), is_caused);
}
