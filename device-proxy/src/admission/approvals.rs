//! Whether somebody agrees that a connection opens: a local command is asked, and a yes is
//! remembered for as long as it holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::identity::DeviceIdentity;
use common::locks::lock;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{Denied, Request, command};
use crate::limits;
use crate::policy::Approval;

/// Asks, a few at a time, and remembers a yes for as long as it holds.
pub(super) struct Approvals {
    device: DeviceIdentity,
    running: Semaphore,
    remembered: Mutex<HashMap<Question, Arc<Answer>>>,
}

/// Who wants what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    command: Vec<String>,
    name: String,
    /// Where the name leads, which may change.
    target: String,
    policy: String,
    ip: String,
}

/// Until when it is a yes. Those who ask the same wait for one command.
type Answer = tokio::sync::Mutex<Option<Instant>>;

impl Approvals {
    pub(super) fn new(device: &DeviceIdentity) -> Self {
        Self {
            device: device.clone(),
            running: Semaphore::new(limits::APPROVALS),
            remembered: Mutex::default(),
        }
    }

    /// Asks. May be dropped: the command is then killed.
    ///
    /// # Errors
    /// [`Denied`], within the time that the command has.
    pub(super) async fn ask(
        &self,
        approval: &Approval,
        request: &Request<'_>,
    ) -> Result<(), Denied> {
        // A yes for somebody unnamed would be one for everybody.
        if approval.holds.is_zero() || request.caller.is_none() {
            return self.run(approval, request).await;
        }
        let answer = self.remembered(approval, request);
        let deadline = Instant::now() + approval.limit;
        let Ok(mut until) = timeout_at(deadline, answer.lock()).await else {
            return Err(Denied::NoAnswer(approval.limit));
        };
        if until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        *until = None;
        self.run(approval, request).await?;
        *until = Some(Instant::now() + approval.holds);
        Ok(())
    }

    fn remembered(&self, approval: &Approval, request: &Request<'_>) -> Arc<Answer> {
        let (policy, ip) = request.caller();
        let question = Question {
            command: approval.command.clone(),
            name: request.name.to_owned(),
            target: request.target.to_string(),
            policy,
            ip,
        };
        let mut all = lock(&self.remembered);
        let now = Instant::now();
        // What nobody waits for, and is no yes any more.
        all.retain(|_, answer| {
            let is_needed = || match answer.try_lock() {
                Ok(until) => until.is_some_and(|until| now < until),
                Err(_) => true,
            };
            Arc::strong_count(answer) > 1 || is_needed()
        });
        if all.len() >= limits::APPROVALS_REMEMBERED
            && !all.contains_key(&question)
            && let Some(other) = all.keys().next().cloned()
        {
            all.remove(&other);
        }
        Arc::clone(all.entry(question).or_default())
    }

    async fn run(&self, approval: &Approval, request: &Request<'_>) -> Result<(), Denied> {
        let Ok(_running) = self.running.try_acquire() else {
            return Err(Denied::TooManyApprovals);
        };
        command::ask(&self.device, approval, request).await
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::time::Duration;

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
            asked
                .ask(&approval, &request(&target, None))
                .await
                .unwrap();
        }
        assert_eq!(starts.count(), 2);
    }
}
