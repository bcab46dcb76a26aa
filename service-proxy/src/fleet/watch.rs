//! Following a job to its end: a bar on a terminal, else a line now and then.

use std::time::Duration;

use common::output;
use common::verdict::Verdict;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::job::{status, summary};
use super::{Fleet, FleetError};
use crate::hub_api::{CallError, Job};

/// Time between two looks at a job: at first, and when it runs for long.
const LOOK: Duration = Duration::from_millis(500);
const LATER_LOOK: Duration = Duration::from_secs(2);
/// From when a job runs for long.
const LONG: Duration = Duration::from_secs(20);
/// How long a hub that cannot be reached is waited for: a restart, or the network.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time between two lines while only the counts change.
const LINES: Duration = Duration::from_secs(5);

impl Fleet {
    /// The job when it is over.
    pub(super) async fn watch(
        &self,
        mut job: Job,
        stop: &CancellationToken,
    ) -> Result<Job, FleetError> {
        let started = Instant::now();
        let id = job.id().to_owned();
        let mut progress = Progress::new();
        let mut answered = started;
        progress.show(&job);
        while !job.is_over() {
            let pause = if started.elapsed() < LONG {
                LOOK
            } else {
                LATER_LOOK
            };
            let next = async {
                sleep(pause).await;
                self.api.read_job(&id).await
            };
            let next = tokio::select! {
                next = next => next,
                () = stop.cancelled() => return Err(FleetError::JobGoesOn { id }),
            };
            match next {
                Ok(next) => {
                    answered = Instant::now();
                    job = next;
                    progress.show(&job);
                }
                Err(error) if is_passing(&error) && answered.elapsed() < PATIENCE => {
                    progress.interrupted(&error);
                }
                Err(error) => return Err(self.failed(format!("read job {id}"))(error)),
            }
        }
        Ok(job)
    }
}

fn is_passing(error: &CallError) -> bool {
    error.verdict() == Verdict::Retry
}

/// How far a job is, on standard error.
struct Progress {
    bar: ProgressBar,
    status: String,
    line: String,
    printed: Option<Instant>,
    has_devices: bool,
    is_interrupted: bool,
}

/// Clears the bar, on every way out.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Progress {
    fn new() -> Self {
        Self {
            // Hidden where standard error is no terminal.
            bar: ProgressBar::new(0).with_style(style("{elapsed}  {msg}")),
            status: String::new(),
            line: String::new(),
            printed: None,
            has_devices: false,
            is_interrupted: false,
        }
    }

    fn show(&mut self, job: &Job) {
        self.is_interrupted = false;
        let counts = job.counts();
        let mut message = status(job);
        if counts.failed > 0 {
            message += &format!(", {} failed", counts.failed);
        }
        if counts.devices > 0 && !self.has_devices {
            self.has_devices = true;
            let bar = style("{bar:40} {pos}/{len} devices  {elapsed}  {msg}");
            self.bar.set_style(bar);
        }
        self.bar.set_length(counts.devices);
        self.bar.set_position(counts.succeeded + counts.failed);
        self.bar
            .set_message(common::outside::printable(&message).into_owned());
        self.bar.tick();
        if self.bar.is_hidden() {
            self.line(job);
        }
    }

    /// The end is the result, which has a line of its own.
    fn line(&mut self, job: &Job) {
        let line = summary(job, job.counts());
        if job.is_over() || line == self.line {
            return;
        }
        let is_due = self
            .printed
            .is_none_or(|printed| printed.elapsed() >= LINES);
        if is_due || job.status() != self.status {
            output::stderr().line(&line);
            job.status().clone_into(&mut self.status);
            self.line = line;
            self.printed = Some(Instant::now());
        }
    }

    /// The hub cannot be asked; once.
    fn interrupted(&mut self, error: &CallError) {
        if self.is_interrupted {
            return;
        }
        self.is_interrupted = true;
        self.bar.set_message("the hub cannot be reached");
        self.bar.tick();
        let text = common::report::chain(error);
        self.bar
            .suspend(|| output::stderr().line(&format!("still waiting for the job: {text}")));
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
