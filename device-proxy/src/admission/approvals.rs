//! Whether somebody agrees that a connection opens: a local command is asked, and a yes is
//! remembered for as long as it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::identity::DeviceIdentity;
use common::locks::lock;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::command::{self, Question};
use super::{Denied, Request};
use crate::limits;
use crate::policy::Approval;

/// Asks, a few at a time, and remembers a yes for as long as it holds.
pub(super) struct Approvals {
    device: DeviceIdentity,
    running: Arc<Semaphore>,
    answers: Arc<Mutex<HashMap<Question, Answer>>>,
}

/// A command that is asked, for all who wait for it. It is killed when nobody does any more.
type Asking = BoxFuture<'static, Result<(), Denied>>;

/// What is known of a question that may be asked again.
enum Answer {
    /// The command is asked now.
    Awaited(WeakShared<Asking>),
    /// It was a yes at that time, for so long.
    Yes(Instant, Duration),
}

impl Answer {
    /// When it is a yes no more; `None` while it is awaited.
    fn until(&self) -> Option<Instant> {
        match self {
            Self::Awaited(_) => None,
            Self::Yes(at, holds) => Some(*at + *holds),
        }
    }

    fn is_needed(&self, now: Instant) -> bool {
        match self {
            Self::Awaited(asking) => asking.upgrade().is_some(),
            Self::Yes(at, holds) => now < *at + *holds,
        }
    }
}

impl Approvals {
    pub(super) fn new(device: &DeviceIdentity) -> Self {
        Self {
            device: device.clone(),
            running: Arc::new(Semaphore::new(limits::APPROVALS)),
            answers: Arc::default(),
        }
    }

    /// Asks. Those who ask the same wait for one command, and its answer is that of all of them.
    /// May be dropped: when nobody waits for it, the command is killed.
    ///
    /// # Errors
    /// [`Denied`], within the time that the command has.
    pub(super) async fn ask(
        &self,
        approval: &Approval,
        request: &Request<'_>,
    ) -> Result<(), Denied> {
        let question = Question::of(approval, request);
        // A yes for somebody unnamed would be one for everybody.
        if approval.holds.is_zero() || request.caller.is_none() {
            let _running = self.one_more()?;
            return command::ask(&self.device, &question, approval.limit).await;
        }
        let Some(asking) = self.shared(question, approval)? else {
            return Ok(());
        };
        // The rules may give it less time than those under which the command was started.
        let answer = timeout(approval.limit, asking).await;
        answer.unwrap_or(Err(Denied::NoAnswer(approval.limit)))
    }

    /// Counts one more command that runs.
    fn one_more(&self) -> Result<OwnedSemaphorePermit, Denied> {
        let running = Arc::clone(&self.running).try_acquire_owned();
        running.map_err(|_| Denied::TooManyApprovals)
    }

    /// The command that is asked this, started if it is not; `None`: it has said yes.
    fn shared(
        &self,
        question: Question,
        approval: &Approval,
    ) -> Result<Option<Shared<Asking>>, Denied> {
        let now = Instant::now();
        let mut answers = lock(&self.answers);
        answers.retain(|_, answer| answer.is_needed(now));
        match answers.get(&question) {
            // The rules may have changed since.
            Some(Answer::Yes(at, holds)) if now < *at + approval.holds.min(*holds) => {
                return Ok(None);
            }
            Some(Answer::Awaited(asking)) => {
                if let Some(asking) = asking.upgrade() {
                    return Ok(Some(asking));
                }
            }
            Some(Answer::Yes(..)) | None => {}
        }
        let running = self.one_more()?;
        if answers.len() >= limits::APPROVALS_REMEMBERED {
            let ends = answers.iter();
            let ends = ends.filter_map(|(question, answer)| Some((answer.until()?, question)));
            let soonest = ends.min_by_key(|(until, _)| *until);
            if let Some(soonest) = soonest.map(|(_, question)| question.clone()) {
                answers.remove(&soonest);
            }
        }
        let (device, remembered) = (self.device.clone(), Arc::clone(&self.answers));
        let (limit, holds, asked) = (approval.limit, approval.holds, question.clone());
        let asking = async move {
            let answer = command::ask(&device, &asked, limit).await;
            drop(running);
            let mut answers = lock(&remembered);
            match answer {
                Ok(()) => answers.insert(asked, Answer::Yes(Instant::now(), holds)),
                // Who asks from now on asks anew.
                Err(_) => answers.remove(&asked),
            };
            answer
        };
        let asking = asking.boxed().shared();
        if let Some(weak) = asking.downgrade() {
            answers.insert(question, Answer::Awaited(weak));
        }
        Ok(Some(asking))
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use common::identity::{DeviceId, ModuleId};
    use common::wire::stream::Initiator;

    use super::*;
    use crate::target::Target;

    fn shell(script: &str, seconds: u64, holds: u64) -> Approval {
        Approval {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            limit: Duration::from_secs(seconds),
            holds: Duration::from_secs(holds),
        }
    }

    fn request<'a>(target: &'a Target, caller: Option<&'a Initiator>) -> Request<'a> {
        Request {
            name: "ssh",
            target,
            caller,
        }
    }

    fn approvals() -> Approvals {
        let module = ModuleId::parse("m").unwrap();
        let device = DeviceId::parse("MyDevice").unwrap();
        Approvals::new(&DeviceIdentity::of_module(device, module))
    }

    #[tokio::test]
    async fn a_yes_holds_for_the_same_caller_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("asked");
        let approval = shell(&format!("echo x >> {}", file.display()), 20, 3600);
        let target = Target::tcp("localhost", "22").unwrap();
        let caller = |policy: &str| Initiator {
            ip: "192.0.2.7".parse().unwrap(),
            policy: policy.to_owned(),
        };
        let (ada, eve) = (caller("ada"), caller("eve"));
        let asked = approvals();
        let all = [&ada, &ada, &eve, &ada].map(|caller| request(&target, Some(caller)));
        let all = all.each_ref().map(|request| asked.ask(&approval, request));
        for answer in futures_join(all).await {
            answer.unwrap();
        }
        let times = std::fs::read_to_string(&file).unwrap().lines().count();
        assert_eq!(times, 2);
    }

    async fn futures_join<T>(all: [impl Future<Output = T>; 4]) -> [T; 4] {
        let [a, b, c, d] = all;
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        [a, b, c, d]
    }

    /// A file in which each command that was started has left a line.
    struct Starts(tempfile::TempDir);

    impl Starts {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// A command that leaves a line.
        fn shell(&self, script: &str, seconds: u64, holds: u64) -> Approval {
            let file = self.0.path().join("asked");
            shell(
                &format!("echo x >> {}; {script}", file.display()),
                seconds,
                holds,
            )
        }

        fn count(&self) -> usize {
            let lines = std::fs::read_to_string(self.0.path().join("asked"));
            lines.unwrap_or_default().lines().count()
        }

        async fn reached(&self, count: usize) {
            let reached = async {
                while self.count() < count {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(Duration::from_secs(30), reached).await.unwrap();
        }
    }

    fn ada() -> Initiator {
        Initiator {
            ip: "192.0.2.7".parse().unwrap(),
            policy: "ada".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_yes_is_good_for_the_same_place_only() {
        let starts = Starts::new();
        let approval = starts.shell("exit 0", 20, 3600);
        let asked = approvals();
        let caller = ada();
        for port in ["22", "23", "22"] {
            let target = Target::tcp("localhost", port).unwrap();
            let request = request(&target, Some(&caller));
            asked.ask(&approval, &request).await.unwrap();
        }
        assert_eq!(starts.count(), 2);
    }

    #[tokio::test]
    async fn a_yes_for_somebody_unnamed_is_no_yes_for_the_next() {
        let starts = Starts::new();
        let approval = starts.shell("exit 0", 20, 3600);
        let asked = approvals();
        let target = Target::tcp("localhost", "22").unwrap();
        for _ in 0..2 {
            asked.ask(&approval, &request(&target, None)).await.unwrap();
        }
        assert_eq!(starts.count(), 2);
    }

    #[tokio::test]
    async fn those_who_wait_share_a_no_and_the_next_asks_again() {
        let starts = Starts::new();
        let go = starts.0.path().join("go");
        let script = format!(
            "while ! test -e {}; do sleep 0.02; done; echo no; exit 1",
            go.display()
        );
        let approval = starts.shell(&script, 20, 3600);
        let asked = approvals();
        let target = Target::tcp("localhost", "22").unwrap();
        let caller = ada();
        let request = request(&target, Some(&caller));
        let all = [(); 4].map(|()| asked.ask(&approval, &request));
        let (answers, ()) = tokio::join!(futures_join(all), async {
            starts.reached(1).await;
            std::fs::write(&go, "").unwrap();
        });
        for answer in answers {
            let denied = answer.unwrap_err().to_string();
            assert_eq!(denied, "the approval command has denied it: no");
        }
        assert_eq!(starts.count(), 1);
        asked.ask(&approval, &request).await.unwrap_err();
        assert_eq!(starts.count(), 2);
    }

    #[tokio::test]
    async fn who_joins_waits_one_limit_at_most() {
        let starts = Starts::new();
        let approval = starts.shell("exec sleep 60", 1, 3600);
        let asked = approvals();
        let target = Target::tcp("localhost", "22").unwrap();
        let caller = ada();
        let request = request(&target, Some(&caller));
        let (first, second) = tokio::join!(asked.ask(&approval, &request), async {
            starts.reached(1).await;
            // Long enough that a limit of its own would end later.
            tokio::time::sleep(approval.limit / 4).await;
            asked.ask(&approval, &request).await
        });
        for answer in [first, second] {
            let denied = answer.unwrap_err();
            assert!(matches!(denied, Denied::NoAnswer(_)), "{denied}");
        }
        assert_eq!(starts.count(), 1, "nobody is asked for the one who joined");
    }

    #[tokio::test]
    async fn the_command_goes_on_for_the_others_when_one_gives_up() {
        let starts = Starts::new();
        let go = starts.0.path().join("go");
        let script = format!("while ! test -e {}; do sleep 0.02; done", go.display());
        let approval = starts.shell(&script, 20, 3600);
        let asked = approvals();
        let target = Target::tcp("localhost", "22").unwrap();
        let caller = ada();
        let here = request(&target, Some(&caller));
        let first = async {
            tokio::select! {
                answer = asked.ask(&approval, &here) => answer.unwrap(),
                () = starts.reached(1) => {}
            }
            std::fs::write(&go, "").unwrap();
        };
        let (second, ()) = tokio::join!(asked.ask(&approval, &here), first);
        second.unwrap();
        assert_eq!(starts.count(), 1);
        // When nobody is left, it ends, and the next asks again.
        std::fs::remove_file(&go).unwrap();
        let other = Target::tcp("localhost", "23").unwrap();
        let there = request(&other, Some(&caller));
        tokio::select! {
            answer = asked.ask(&approval, &there) => answer.unwrap(),
            () = starts.reached(2) => {}
        }
        std::fs::write(&go, "").unwrap();
        asked.ask(&approval, &there).await.unwrap();
        assert_eq!(starts.count(), 3);
    }

    #[tokio::test]
    async fn a_yes_holds_no_longer_than_the_rules_say_now() {
        let starts = Starts::new();
        let asked = approvals();
        let target = Target::tcp("localhost", "22").unwrap();
        let caller = ada();
        let request = request(&target, Some(&caller));
        let ask = async |holds| {
            let approval = starts.shell("exit 0", 20, holds);
            asked.ask(&approval, &request).await.unwrap();
            starts.count()
        };
        assert_eq!(ask(3600).await, 1);
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::time::resume();
        assert_eq!(ask(3600).await, 1);
        assert_eq!(ask(30).await, 2);
    }
}
