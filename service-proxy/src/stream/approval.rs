//! Asking again while an approver is waited for.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::StreamFailure;
use crate::hub_api::{Endpoint, InitiateError};

/// Never a hot loop, whatever the hub says; and the hub forgets who does not ask for longer.
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// When a hub is asked again that is away.
const AWAY: Duration = Duration::from_secs(1);

/// Tries again while the hub has somebody decide, for `wait` at most. `waiting` is called each time,
/// with the request and whether it is the first that it hears of.
pub(super) async fn wait_for_approval<F>(
    wait: Duration,
    mut attempt: impl FnMut() -> F,
    mut waiting: impl FnMut(&str, bool),
) -> Result<Endpoint, StreamFailure>
where
    F: Future<Output = Result<Endpoint, StreamFailure>>,
{
    let started = Instant::now();
    let mut known = None;
    loop {
        let (id, retry_after) = match (attempt().await, &known) {
            (
                Err(StreamFailure::Initiate(InitiateError::ApprovalPending { id, retry_after })),
                _,
            ) => (id, retry_after),
            // The hub is started again, and knows the request then.
            (Err(failure), Some(known)) if is_away(&failure) => (String::clone(known), AWAY),
            (result, _) => return result,
        };
        waiting(&id, known.as_ref() != Some(&id));
        let delay = retry_after.clamp(SHORTEST, LONGEST);
        if started.elapsed() + delay >= wait {
            return Err(StreamFailure::Unapproved {
                id,
                waited: started.elapsed(),
            });
        }
        known = Some(id);
        sleep(delay).await;
    }
}

/// Whether the hub does not answer.
fn is_away(failure: &StreamFailure) -> bool {
    match failure {
        StreamFailure::Initiate(
            InitiateError::Unreachable { .. }
            | InitiateError::Silent { .. }
            | InitiateError::Proxy(_)
            | InitiateError::NotRenewed(_),
        ) => true,
        StreamFailure::Initiate(InitiateError::Refused { status, .. }) => status.is_server_error(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use common::secret::Secret;

    use super::*;

    fn pending(id: &str) -> Result<Endpoint, StreamFailure> {
        Err(StreamFailure::Initiate(InitiateError::ApprovalPending {
            id: id.to_owned(),
            retry_after: Duration::from_secs(1),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn each_request_is_named_once_and_the_grant_is_used() {
        let endpoint = Endpoint {
            url: "wss://h:1/p".into(),
            token: Secret::new("t"),
        };
        let mut answers = vec![Ok(endpoint), pending("b"), pending("a"), pending("a")];
        let mut named = Vec::new();
        let result = wait_for_approval(
            Duration::from_secs(600),
            || ready(answers.pop().unwrap()),
            |id, first| named.push((id.to_owned(), first)),
        )
        .await;
        assert!(result.is_ok());
        let named: Vec<_> = named.iter().map(|(id, first)| (&**id, *first)).collect();
        assert_eq!(named, [("a", true), ("a", false), ("b", true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends() {
        let started = Instant::now();
        let result =
            wait_for_approval(Duration::from_secs(300), || ready(pending("a")), |_, _| {}).await;
        let error = result.unwrap_err();
        assert!(error.to_string().contains("request a within 29"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_is_away_is_waited_for_once_it_has_the_request() {
        let away = || {
            let limit = Duration::from_secs(1);
            let hub = "h:1".to_owned();
            Err(StreamFailure::Initiate(InitiateError::Silent {
                hub,
                limit,
            }))
        };
        let mut answers = vec![Err(InitiateError::Rejected.into()), away(), pending("a")];
        let wait = Duration::from_secs(600);
        let result = wait_for_approval(wait, || ready(answers.pop().unwrap()), |_, _| {}).await;
        assert!(result.is_err_and(|error| error.is_reject()));
        let mut answers = vec![pending("a"), away()];
        let result = wait_for_approval(wait, || ready(answers.pop().unwrap()), |_, _| {}).await;
        assert!(result.is_err() && answers.len() == 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_final() {
        let mut attempts = 0;
        let result = wait_for_approval(
            Duration::from_secs(300),
            || {
                attempts += 1;
                let refused = InitiateError::ApprovalRefused("by ada".to_owned());
                ready(Err(StreamFailure::Initiate(refused)))
            },
            |_, _| {},
        )
        .await;
        assert!(result.is_err());
        assert_eq!(attempts, 1);
    }
}
