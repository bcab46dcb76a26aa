//! Lines on standard output and standard error. Traffic and shutdown never wait for their readers:
//! a full pipe, a terminal that is paused with Ctrl-S or a selection in a terminal window blocks
//! only a thread that has no other work. Lines that do not fit in its queue are dropped and
//! counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use tracing::Level;

use crate::json_line::JsonLine;
use crate::locks::lock;
use crate::outside;

/// The most texts that wait for a reader: some hundred KiB.
const WAITING: usize = 1024;
/// How long the end of a program waits for a reader.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between checks for room in the queue.
const LOOK: Duration = Duration::from_millis(5);
/// Time between reports of lost lines: with a reader that is slightly too slow, there would
/// otherwise be one after every line.
const REPORT: Duration = Duration::from_secs(60);
/// The number of first reports without that delay.
const FIRST: u32 = 5;

enum Message {
    Text(Vec<u8>),
    /// Answered when all earlier texts are written.
    Flush(SyncSender<()>),
}

/// One of the two standard outputs, with a thread that writes to it.
pub struct Output {
    sender: Option<SyncSender<Message>>,
    lost: &'static AtomicU64,
    /// Whether each line is a JSON object.
    is_json: &'static AtomicBool,
}

/// Whether standard error has JSON alone.
static IS_JSON: AtomicBool = AtomicBool::new(false);
/// Whether standard output has; it is for people, or for who asks for `--json`.
static NEVER: AtomicBool = AtomicBool::new(false);
/// Lines of the log that nobody took in time, since the process began.
static LOST_IN_ALL: AtomicU64 = AtomicU64::new(0);

/// From now on each line on standard error is a JSON object: messages to the user too.
pub fn use_json() {
    IS_JSON.store(true, Relaxed);
}

/// The number of lines on standard error that were lost since the process began: they were not
/// read in time.
pub fn lost() -> u64 {
    LOST_IN_ALL.load(Relaxed)
}

/// Standard error: the log, and messages to the user. Or what [`redirect`] has put in its place.
pub fn stderr() -> &'static Output {
    static OUTPUT: OnceLock<Output> = OnceLock::new();
    static LOST: AtomicU64 = AtomicU64::new(0);
    OUTPUT.get_or_init(|| match lock(&REDIRECTION).take() {
        Some(sink) => Output::start("log", Levelled(sink), &LOST, &IS_JSON),
        None => Output::start("stderr", io::stderr(), &LOST, &IS_JSON),
    })
}

/// Takes one text and its level; may block.
pub type Sink = Box<dyn FnMut(Level, &str) + Send>;

static REDIRECTION: Mutex<Option<Sink>> = Mutex::new(None);
static IS_REDIRECTED: AtomicBool = AtomicBool::new(false);

/// Has a system's own log take the place of standard error, in a process that has none that is
/// read. To be called before anything is printed; later it has no effect.
pub fn redirect(sink: Sink) {
    *lock(&REDIRECTION) = Some(sink);
    IS_REDIRECTED.store(true, Relaxed);
}

/// Whether a system's own log takes the place of standard error: it has levels and times itself.
pub fn is_redirected() -> bool {
    IS_REDIRECTED.load(Relaxed)
}

/// A writer of whole texts, with their [`priority`] in front, into a [`Sink`].
struct Levelled(Sink);

impl Write for Levelled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let (level, text) = levelled(&text);
        let text = text.trim_end();
        if !text.is_empty() {
            (self.0)(level, text);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A level as a system's own log reads it in front of a line: systemd's journal (sd-daemon(3)), and
/// a [`Sink`], which gets it apart.
pub fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// A text and its level. What has none is a message to the user: a failure, or news.
fn levelled(text: &str) -> (Level, &str) {
    let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG];
    let mut found = levels
        .into_iter()
        .filter_map(|level| Some((level, text.strip_prefix(priority(level))?)));
    found.next().unwrap_or(match text.starts_with("error:") {
        true => (Level::ERROR, text),
        false => (Level::INFO, text),
    })
}

/// A line to the user as a JSON object, behind its priority if it has one.
fn as_json(line: &str) -> String {
    let (level, text) = levelled(line);
    // A line with a priority has lost it.
    let prefix = if text.len() < line.len() {
        priority(level)
    } else {
        ""
    };
    let message = text.strip_prefix("error: ").unwrap_or(text);
    format!("{prefix}{}", JsonLine::new(level, message).finish())
}

/// Standard output, unless a tunnel uses it.
pub fn stdout() -> &'static Output {
    static OUTPUT: OnceLock<Output> = OnceLock::new();
    static LOST: AtomicU64 = AtomicU64::new(0);
    OUTPUT.get_or_init(|| Output::start("stdout", io::stdout(), &LOST, &NEVER))
}

/// Waits until everything printed is written, at most one second for each output. For the end of a
/// program. Blocks.
pub fn finish() {
    stdout().flush();
    stderr().flush();
}

impl Output {
    fn start(
        name: &str,
        writer: impl Write + Send + 'static,
        lost: &'static AtomicU64,
        is_json: &'static AtomicBool,
    ) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        // The thread ends with the process: a write that blocks cannot be cancelled.
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || write_all(&receiver, writer, lost, is_json));
        Self {
            sender: thread.is_ok().then_some(sender),
            lost,
            is_json,
        }
    }

    /// Prints a line without unprintable characters; line ends in it stay.
    pub fn line(&self, line: &str) {
        self.text(&format!("{line}\n"));
    }

    /// Prints a line of ours, whose colours stay. Text from outside has no unprintable characters in
    /// it any more.
    pub fn coloured(&self, line: &str) {
        let log = Log { is_coloured: true };
        self.send(&log.clean(&format!("{line}\n")));
    }

    /// Prints whole lines without unprintable characters.
    pub fn text(&self, text: &str) {
        let text = outside::printable_lines(text);
        if self.is_json.load(Relaxed) {
            let lines = text.lines().filter(|line| !line.is_empty());
            lines.for_each(|line| self.send(&as_json(line)));
        } else {
            self.send(&text);
        }
    }

    fn send(&self, text: &str) {
        let Some(sender) = &self.sender else { return };
        let text = Message::Text(text.as_bytes().to_vec());
        if let Err(TrySendError::Full(_)) = sender.try_send(text) {
            self.lost.fetch_add(1, Relaxed);
            LOST_IN_ALL.fetch_add(1, Relaxed);
        }
    }

    fn flush(&self) {
        let Some(sender) = &self.sender else { return };
        let deadline = Instant::now() + PATIENCE;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(TrySendError::Full(again)) = sender.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = again;
            std::thread::sleep(LOOK);
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_all(
    receiver: &Receiver<Message>,
    mut writer: impl Write,
    lost: &AtomicU64,
    is_json: &AtomicBool,
) {
    let mut reports = Reports::default();
    // Continues without a reader, since the program may still have work.
    loop {
        let received = match lost.load(Relaxed) {
            0 => receiver.recv().map_err(RecvTimeoutError::from),
            _ => receiver.recv_timeout(REPORT),
        };
        let is_asked = match received {
            Ok(Message::Text(text)) => {
                let _ = writer.write_all(&text).and_then(|()| writer.flush());
                None
            }
            Ok(Message::Flush(done)) => Some(done),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if lost.load(Relaxed) > 0 && (reports.may(Instant::now()) || is_asked.is_some()) {
            let count = lost.swap(0, Relaxed);
            let mut text = format!("({count} lines were lost here: they were not read in time)\n");
            if is_json.load(Relaxed) {
                let mut line = JsonLine::new(Level::WARN, text.trim_end());
                line.value("lost", count);
                text = line.finish();
            }
            let _ = writer.write_all(text.as_bytes());
        }
        if let Some(done) = is_asked {
            let _ = done.send(());
        }
    }
}

/// Decides when lost lines are reported.
#[derive(Default)]
struct Reports {
    last: Option<Instant>,
    made: u32,
}

impl Reports {
    /// Whether a report may be written now.
    fn may(&mut self, now: Instant) -> bool {
        let passed = self.last.map_or(Duration::MAX, |last| now - last);
        if passed >= 2 * REPORT {
            self.made = 0;
        }
        let may = self.made < FIRST || passed >= REPORT;
        if may {
            self.made += 1;
            self.last = Some(now);
        }
        may
    }
}

/// Standard error as the writer of the log, which writes each line at once. Unprintable characters
/// are removed, including line ends inside a line; the log's own colours stay.
pub struct Log {
    /// Whether the log has colours. Escape characters then stay: the log itself escapes those of
    /// messages and fields.
    pub is_coloured: bool,
}

impl Log {
    fn clean(&self, line: &str) -> String {
        let (line, end) = match line.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (line, ""),
        };
        let is_plain = |c: char| !outside::is_unprintable(c) || (self.is_coloured && c == '\x1b');
        let mut clean: String = line.chars().filter(|c| is_plain(*c)).collect();
        clean.push_str(end);
        clean
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        stderr().send(&self.clean(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Blocks on each write until it is released, and records what was written.
    struct Held {
        go: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go.recv();
            let _ = self
                .written
                .send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stopped_reader_blocks_nothing_and_gets_the_number_of_lost_lines() {
        static LOST: AtomicU64 = AtomicU64::new(0);
        let (go, held) = channel();
        let (written, lines) = channel();
        let output = Output::start("test", Held { go: held, written }, &LOST, &NEVER);
        let started = Instant::now();
        for number in 0..WAITING + 100 {
            output.line(&number.to_string());
        }
        // Neither the lines nor the end of the program wait forever.
        output.flush();
        assert!(started.elapsed() < 3 * PATIENCE);
        drop(go);
        let all: Vec<String> = std::iter::from_fn(|| {
            lines
                .recv_timeout(Duration::from_secs(5))
                .ok()
                .filter(|line| line != "last\n")
        })
        .take(WAITING)
        .collect();
        assert_eq!(all[0], "0\n");
        let lost = all.iter().find(|line| line.contains("lines were lost"));
        assert!(lost.is_some(), "{:?}", all.get(1));
    }

    #[test]
    fn what_is_said_to_the_user_is_json_too() {
        let line = as_json("error: no hub");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&read["level"], &read["message"]),
            (&"ERROR".into(), &"no hub".into())
        );
        let line = as_json("<3>error: no hub");
        let read: serde_json::Value =
            serde_json::from_str(line.strip_prefix("<3>").unwrap()).unwrap();
        assert_eq!(read["message"], "no hub");
        let line = as_json("ready");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["level"], "INFO");
    }

    #[test]
    fn a_line_of_the_log_is_one_line() {
        let plain = Log { is_coloured: false };
        let coloured = Log { is_coloured: true };
        assert_eq!(
            plain.clean("a\x1b[2J\r\nforged\t\u{9b}\u{202e}\u{2028}b\n"),
            "a[2Jforgedb\n"
        );
        assert_eq!(
            coloured.clean("\x1b[33mWARN\x1b[0m a\nb\0\n"),
            "\x1b[33mWARN\x1b[0m ab\n"
        );
        assert_eq!(plain.clean("gr\u{fc}n"), "gr\u{fc}n");
    }

    #[test]
    fn a_systems_own_log_gets_each_text_with_its_level() {
        let (taken, texts) = channel();
        let sink: Sink = Box::new(move |level, text: &str| {
            let _ = taken.send((level, text.to_owned()));
        });
        let mut writer = Levelled(sink);
        let warning = priority(Level::WARN);
        for text in [
            &*format!("{warning}two\n"),
            "error: no hub\n",
            "news\n",
            "\n",
        ] {
            writer.write_all(text.as_bytes()).unwrap();
        }
        let all: Vec<(Level, String)> = texts.try_iter().collect();
        let expected = [
            (Level::WARN, "two"),
            (Level::ERROR, "error: no hub"),
            (Level::INFO, "news"),
        ];
        assert_eq!(all, expected.map(|(level, text)| (level, text.to_owned())));
    }

    #[test]
    fn lost_lines_are_reported_at_once_and_then_by_the_minute() {
        let mut reports = Reports::default();
        let start = Instant::now();
        let made = |reports: &mut Reports, from: u32, to: u32| {
            let times = (from..to).map(|second| start + Duration::from_secs(second.into()));
            times.filter(|now| reports.may(*now)).count()
        };
        assert_eq!(made(&mut reports, 0, 60), 5);
        assert_eq!(made(&mut reports, 60, 660), 10);
        // After some minutes without a report, the first ones are written at once again.
        assert_eq!(made(&mut reports, 900, 960), 5);
    }
}
