//! Asking again while the hub throttles.

use std::time::Duration;

use common::backoff::Backoff;
use tokio::time::{Instant, sleep};

use super::StreamFailure;
use crate::hub_api::{Endpoint, InitiateError};

/// Delays between attempts when the hub throttles and does not say for how long.
const THROTTLE_SHORTEST: Duration = Duration::from_millis(500);
const THROTTLE_LONGEST: Duration = Duration::from_secs(8);

/// Tries again while the hub throttles, after the time that it names or a jittered delay, as long
/// as the waits add up to less than `patience`. `throttled` is called before each wait with the
/// hub's reason, and whether it is the first.
pub(super) async fn retry_throttled<F>(
    patience: Duration,
    mut attempt: impl FnMut() -> F,
    mut throttled: impl FnMut(&Option<String>, Duration, bool),
) -> Result<Endpoint, StreamFailure>
where
    F: Future<Output = Result<Endpoint, InitiateError>>,
{
    let started = Instant::now();
    let mut backoff = Backoff::new(THROTTLE_SHORTEST, THROTTLE_LONGEST);
    let mut first = true;
    loop {
        let (why, retry_after) = match attempt().await {
            Err(InitiateError::Throttled { why, retry_after }) => (why, retry_after),
            result => return Ok(result?),
        };
        // Never a hot loop, even when the hub says zero.
        let delay = retry_after.unwrap_or_default().max(backoff.next_delay());
        if started.elapsed() + delay >= patience {
            return Err(StreamFailure::Throttled {
                why,
                waited: started.elapsed(),
            });
        }
        throttled(&why, delay, first);
        first = false;
        sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use common::secret::Secret;

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            url: "wss://h:1/p".into(),
            token: Secret::new("t"),
        }
    }

    fn busy(seconds: Option<u64>) -> Result<Endpoint, InitiateError> {
        Err(InitiateError::Throttled {
            why: None,
            retry_after: seconds.map(Duration::from_secs),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_stream_is_tried_again_when_the_hub_says() {
        let started = Instant::now();
        let mut answers = vec![Ok(endpoint()), busy(Some(9)), busy(Some(5))];
        let mut waits = Vec::new();
        let result = retry_throttled(
            Duration::from_secs(60),
            || ready(answers.pop().unwrap()),
            |_, delay, first| waits.push((delay.as_secs(), first)),
        )
        .await;
        assert!(result.is_ok());
        assert_eq!(waits, [(5, true), (9, false)]);
        assert_eq!(started.elapsed().as_secs(), 14);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_throttling_hub_ends() {
        let started = Instant::now();
        let mut attempts = 0;
        let result = retry_throttled(
            Duration::from_secs(60),
            || {
                attempts += 1;
                ready(busy(None))
            },
            |_, _, _| {},
        )
        .await;
        let error = result.unwrap_err();
        assert!(matches!(error, StreamFailure::Throttled { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(60));
        assert!((6..100).contains(&attempts), "{attempts}");
    }

    #[tokio::test(start_paused = true)]
    async fn other_refusals_are_final() {
        let mut attempts = 0;
        let result = retry_throttled(
            Duration::from_secs(60),
            || {
                attempts += 1;
                ready(Err(InitiateError::Rejected))
            },
            |_, _, _| {},
        )
        .await;
        assert!(result.is_err());
        assert_eq!(attempts, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_patience_nothing_is_tried_again() {
        let result = retry_throttled(Duration::ZERO, || ready(busy(Some(0))), |_, _, _| {}).await;
        assert!(matches!(result, Err(StreamFailure::Throttled { .. })));
    }
}
