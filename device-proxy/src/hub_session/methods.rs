//! Direct methods: what an operator can ask of this device-proxy while it is connected. Answers are
//! JSON, with a status as in HTTP. An answer that takes its time holds up nothing else, and is sent
//! on a later hub session if need be.

use std::sync::Arc;

use common::mqtt;
use common::telemetry::{self, AUDIT};
use common::wire::method::{MethodRequest, MethodResponse};
use common::{outside, settings};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Duration, timeout};

use super::status;
use crate::forwarding::{Forwardings, Open};
use crate::streams::Streams;
use crate::target::checked_name;

/// Calls whose answers take their time, at once.
const AT_ONCE: usize = 16;
/// Examinations of the targets at once: each connects to all of them.
const EXAMINATIONS: usize = 2;
/// Targets that can be named in a call.
const EXAMINED: usize = 100;
/// Streams in one answer: with the longest names they stay below the 128 KiB of an answer.
const LISTED: usize = 200;
/// How long the end of a stream is waited for: both its sides may take a while to close.
const END: Duration = Duration::from_secs(15);

/// Answers calls.
#[derive(Debug)]
pub(super) struct Methods {
    running: Arc<Semaphore>,
    examining: Arc<Semaphore>,
    answers: mpsc::Sender<Answer>,
    outbox: mpsc::Receiver<Answer>,
}

/// The answer to a call.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    response: MethodResponse,
    payload: Value,
}

impl Answer {
    /// The packet with it.
    pub(super) fn packet(&self) -> Option<Vec<u8>> {
        let payload = self.payload.to_string();
        mqtt::publish_with(&self.response.to_topic(), payload.as_bytes()).ok()
    }
}

/// What a call leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Called {
    /// This answer.
    Answer(Answer),
    /// This answer, and a new hub session after it.
    Reconnect(Answer),
    /// An answer that [`Methods::next`] returns later.
    Later,
}

/// Status and payload.
type Outcome = (i32, Value);

impl Methods {
    pub(super) fn new() -> Self {
        let (answers, outbox) = mpsc::channel(AT_ONCE + EXAMINATIONS);
        Self {
            running: Arc::new(Semaphore::new(AT_ONCE)),
            examining: Arc::new(Semaphore::new(EXAMINATIONS)),
            answers,
            outbox,
        }
    }

    /// The next answer that has taken its time. May be dropped.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        self.outbox.recv().await
    }

    /// Takes a call. `status` is what the method of this name answers.
    pub(super) fn call(
        &self,
        request: MethodRequest,
        payload: &[u8],
        streams: &Streams,
        status: impl FnOnce() -> Value,
    ) -> Called {
        let MethodRequest { name, request_id } = request;
        let answer = |(status, payload)| Answer {
            response: MethodResponse { request_id, status },
            payload,
        };
        let name = name.as_str();
        let Some(payload) = parse(payload) else {
            return Called::Answer(answer(refused(400, "the payload is not JSON")));
        };
        match name {
            "closeStream" | "setLogLevel" | "reconnect" => {
                tracing::info!(name: AUDIT, "the hub calls {name}");
            }
            _ => tracing::debug!("the hub calls a method: {}", outside::printable(name)),
        }
        let table = streams.forwardings();
        let outcome = match name {
            "ping" => (200, payload),
            "status" => (200, status()),
            "doctor" => match names(&payload) {
                Some(names) => return self.examine(names, streams, status(), answer),
                None => refused(400, "give {\"targets\": [\"NAME\"]}, or nothing"),
            },
            "listStreams" => list(table, &payload),
            "setLogLevel" => set_log_level(&payload),
            "closeStream" => match find(table, &payload) {
                Ok(open) => return self.close(open, streams, answer),
                Err(refused) => refused,
            },
            "reconnect" => return Called::Reconnect(answer((200, json!({})))),
            _ => refused(404, "device-proxy has no method of this name"),
        };
        Called::Answer(answer(outcome))
    }

    /// Has the targets examined; the answer follows.
    fn examine(
        &self,
        names: Option<Vec<String>>,
        streams: &Streams,
        status: Value,
        answer: impl FnOnce(Outcome) -> Answer + Send + 'static,
    ) -> Called {
        let Ok(permit) = Arc::clone(&self.examining).try_acquire_owned() else {
            return Called::Answer(answer(refused(
                429,
                "the targets are being examined already",
            )));
        };
        let (view, policy) = (streams.view(), streams.policy());
        let policy = Arc::clone(&policy.borrow());
        let answers = self.answers.clone();
        streams.spawn(async move {
            let document = view.document(&policy, names.as_deref(), status).await;
            // There is room: the permits are as many.
            let _ = answers.send(answer((200, document))).await;
            drop(permit);
        });
        Called::Later
    }

    /// Has a stream end; the answer follows its end.
    fn close(
        &self,
        open: Arc<Open>,
        streams: &Streams,
        answer: impl FnOnce(Outcome) -> Answer + Send + 'static,
    ) -> Called {
        let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() else {
            return Called::Answer(answer(refused(429, "too many calls at once")));
        };
        open.close();
        let (table, answers) = (Arc::clone(streams.forwardings()), self.answers.clone());
        streams.spawn(async move {
            let has_ended = timeout(END, table.ended(open.number)).await.is_ok();
            let status = if has_ended { 200 } else { 202 };
            let stream = json!({ "stream": open.id(), "closed": has_ended });
            // There is room: the permits are as many.
            let _ = answers.send(answer((status, stream))).await;
            drop(permit);
        });
        Called::Later
    }
}

/// The payload of a call; an empty one is none.
fn parse(payload: &[u8]) -> Option<Value> {
    if payload.trim_ascii().is_empty() {
        return Some(Value::Null);
    }
    serde_json::from_slice(payload).ok()
}

fn refused(status: i32, message: &str) -> Outcome {
    (status, json!({ "message": message }))
}

fn list(table: &Forwardings, payload: &Value) -> Outcome {
    let skip = match payload {
        Value::Null => Some(0),
        Value::Object(members) if members.is_empty() => Some(0),
        payload => only(payload, "skip").and_then(Value::as_u64),
    };
    let Some(skip) = skip.and_then(|skip| usize::try_from(skip).ok()) else {
        return refused(400, "give {\"skip\": NUMBER}, or nothing");
    };
    let (total, open) = table.list(skip, LISTED);
    let streams: Vec<_> = open.iter().map(|open| status::stream(open)).collect();
    (200, json!({ "total": total, "streams": streams }))
}

fn find(table: &Forwardings, payload: &Value) -> Result<Arc<Open>, Outcome> {
    let Some(id) = only(payload, "stream").and_then(Value::as_str) else {
        return Err(refused(400, "give {\"stream\": \"ID\"}, see listStreams"));
    };
    let mut found = table.find(id);
    match (found.pop(), found.is_empty()) {
        (Some(open), true) => Ok(open),
        (Some(_), false) => Err(refused(409, "several streams have this id")),
        (None, _) => Err(refused(404, "no open stream has this id")),
    }
}

fn set_log_level(payload: &Value) -> Outcome {
    let level = only(payload, "level").and_then(Value::as_str);
    let level = level.ok_or("give {\"level\": \"LEVEL\"}");
    match level.and_then(settings::log_level) {
        Ok(level) if telemetry::set_level(Some(level)) => {
            (200, json!({ "level": level.to_string().to_lowercase() }))
        }
        Ok(_) => refused(500, "the log's level cannot be changed"),
        Err(error) => refused(400, error),
    }
}

/// The names of targets that are to be examined; nothing: all of them.
fn names(payload: &Value) -> Option<Option<Vec<String>>> {
    match payload {
        Value::Null => return Some(None),
        Value::Object(members) if members.is_empty() => return Some(None),
        _ => {}
    }
    let names = only(payload, "targets")?.as_array()?.iter();
    let names = names.map(|name| {
        let name = name.as_str()?;
        checked_name(name).ok()?;
        Some(name.to_owned())
    });
    let names: Vec<String> = names.collect::<Option<_>>()?;
    (names.len() <= EXAMINED).then_some(Some(names))
}

/// The value of the only member.
fn only<'a>(payload: &'a Value, name: &str) -> Option<&'a Value> {
    let members = payload.as_object()?;
    let value = members.get(name)?;
    (members.len() == 1).then_some(value)
}

#[cfg(test)]
mod tests {
    use common::identity::{MethodName, RequestId};
    use common::session::{ConnectionId, SessionId};
    use common::wire::twin::BootId;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::forwarding::{Forwarding, Way};
    use crate::policy::Control;
    use crate::target::Target;

    fn streams(stop: &CancellationToken) -> Streams {
        let config = crate::config::tests::config(&["--echo"]);
        let policy = Control::new(config.local());
        let (answers, _) = mpsc::channel(1);
        Streams::new(
            &config,
            policy.watch(),
            BootId::random(),
            answers,
            stop.clone(),
        )
    }

    fn call(methods: &Methods, streams: &Streams, name: &str, payload: &Value) -> Called {
        let request = MethodRequest {
            name: MethodName::parse(name).unwrap(),
            request_id: RequestId::from(1),
        };
        let payload = payload.to_string();
        methods.call(request, payload.as_bytes(), streams, || json!("status"))
    }

    #[tokio::test]
    async fn the_calls_that_wait_for_an_end_are_bounded() {
        let stop = CancellationToken::new();
        let streams = streams(&stop);
        let mut methods = Methods::new();
        let open = |number: u32| {
            streams.forwardings().open(&Forwarding {
                way: Way::Session(SessionId([1; 16]), ConnectionId(number)),
                name: "echo",
                target: &Target::Echo,
            })
        };
        let at_once = u32::try_from(AT_ONCE).unwrap();
        let mut opened: Vec<_> = (0..=at_once).map(open).collect();
        for number in 0..at_once {
            let id = json!({ "stream": format!("01010101/{number}") });
            assert_eq!(call(&methods, &streams, "closeStream", &id), Called::Later);
        }
        let last = json!({ "stream": format!("01010101/{at_once}") });
        let Called::Answer(answer) = call(&methods, &streams, "closeStream", &last) else {
            panic!("one too many")
        };
        assert_eq!(answer.response.status, 429);
        // What takes no time is still answered.
        assert!(matches!(
            call(&methods, &streams, "status", &Value::Null),
            Called::Answer(answer) if answer.payload == "status"
        ));
        let (_, list) = list(streams.forwardings(), &json!({ "skip": 16 }));
        assert_eq!(list["streams"].as_array().unwrap().len(), 1);
        opened.truncate(1);
        for _ in 1..at_once {
            let answer = methods.next().await.unwrap();
            assert_eq!(answer.response.status, 200);
            assert_eq!(answer.payload["closed"], true);
        }
        assert_eq!(call(&methods, &streams, "closeStream", &last), {
            let payload = json!({ "message": "no open stream has this id" });
            let response = MethodResponse {
                request_id: RequestId::from(1),
                status: 404,
            };
            Called::Answer(Answer { response, payload })
        });
        stop.cancel();
        streams.drain().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_does_not_come_is_not_waited_for_for_ever() {
        let stop = CancellationToken::new();
        let streams = streams(&stop);
        let mut methods = Methods::new();
        let _opened = streams.forwardings().open(&Forwarding {
            way: Way::Stream(None),
            name: "echo",
            target: &Target::Echo,
        });
        let id = json!({ "stream": "stream-1" });
        assert_eq!(call(&methods, &streams, "closeStream", &id), Called::Later);
        let answer = methods.next().await.unwrap();
        assert_eq!(answer.response.status, 202);
        assert_eq!(
            answer.payload,
            json!({ "stream": "stream-1", "closed": false })
        );
    }

    #[test]
    fn a_list_of_the_longest_names_has_room_in_an_answer() {
        let table = Arc::new(Forwardings::default());
        let target = Target::tcp(&"h".repeat(253), "65535").unwrap();
        let name = "n".repeat(128);
        let open = |number| {
            table.open(&Forwarding {
                way: Way::Session(SessionId([1; 16]), ConnectionId(number)),
                name: &name,
                target: &target,
            })
        };
        let opened: Vec<_> = (0..300).map(open).collect();
        opened
            .iter()
            .for_each(|opened| opened.traffic().add_sent(1 << 40));
        let (status, list) = list(&table, &Value::Null);
        assert_eq!((status, &list["total"]), (200, &json!(300)));
        let length = list.to_string().len();
        assert!((80_000..128 << 10).contains(&length), "{length}");
    }
}
