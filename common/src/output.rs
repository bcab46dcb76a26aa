//! Lines for the readers of standard output and standard error. Traffic and shutdown never wait for
//! them: a full pipe, a terminal that is held with Ctrl-S or a window in which somebody selects
//! text blocks a thread that has nothing else to do. What then does not fit is dropped, and
//! counted.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use crate::outside;

/// Texts that wait for a reader, at most: some hundred KiB.
const WAITING: usize = 1024;
/// The most that the end of a program waits for a reader.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether there is room.
const LOOK: Duration = Duration::from_millis(5);
/// Between two reports of lost lines: a reader that is a little too slow all the time would
/// otherwise read one behind every line.
const REPORT: Duration = Duration::from_secs(60);
/// So many reports are made at once before that.
const FIRST: u32 = 5;

enum Message {
    Text(Vec<u8>),
    /// Answered when all before it is written.
    Flush(SyncSender<()>),
}

/// One of the two standard outputs, with a thread that writes to it.
pub struct Output {
    sender: Option<SyncSender<Message>>,
    lost: &'static AtomicU64,
}

/// Standard error: the log, and messages for a person.
pub fn stderr() -> &'static Output {
    static OUTPUT: OnceLock<Output> = OnceLock::new();
    static LOST: AtomicU64 = AtomicU64::new(0);
    OUTPUT.get_or_init(|| Output::start("stderr", io::stderr(), &LOST))
}

/// Standard output, where it is not a tunnel's.
pub fn stdout() -> &'static Output {
    static OUTPUT: OnceLock<Output> = OnceLock::new();
    static LOST: AtomicU64 = AtomicU64::new(0);
    OUTPUT.get_or_init(|| Output::start("stdout", io::stdout(), &LOST))
}

/// Waits until all that was printed is written, for a second and output at most. For the end of
/// a program. Blocks.
pub fn finish() {
    stdout().flush();
    stderr().flush();
}

impl Output {
    fn start(name: &str, writer: impl Write + Send + 'static, lost: &'static AtomicU64) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        // It ends with the process: a write that blocks cannot be called back.
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || write_all(&receiver, writer, lost));
        Self {
            sender: thread.is_ok().then_some(sender),
            lost,
        }
    }

    /// Prints a line, without characters that change how it reads but the line ends in it.
    pub fn line(&self, line: &str) {
        self.text(&format!("{line}\n"));
    }

    /// Prints whole lines, without characters that change how they read.
    pub fn text(&self, text: &str) {
        self.send(&outside::printable_lines(text));
    }

    fn send(&self, text: &str) {
        let Some(sender) = &self.sender else { return };
        let text = Message::Text(text.as_bytes().to_vec());
        if let Err(TrySendError::Full(_)) = sender.try_send(text) {
            self.lost.fetch_add(1, Relaxed);
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

fn write_all(receiver: &Receiver<Message>, mut writer: impl Write, lost: &AtomicU64) {
    let mut reports = Reports::default();
    // A reader that is gone is no reason to end: the program may serve on.
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
            let text = format!("({count} lines were lost here: they were not read in time)\n");
            let _ = writer.write_all(text.as_bytes());
        }
        if let Some(done) = is_asked {
            let _ = done.send(());
        }
    }
}

/// When lost lines are reported.
#[derive(Default)]
struct Reports {
    last: Option<Instant>,
    made: u32,
}

impl Reports {
    /// Whether one may be made now.
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

/// Standard error as a writer of a log that gives each line at once. Characters that change how a
/// line reads are left out, within it line ends, too; only the log's own colours stay.
pub struct Log {
    /// Whether it has colours: what then is left of others' escape characters is up to the log,
    /// which writes them out.
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

    /// Blocks on each write until it is let go; then passes it on.
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
    fn a_reader_that_has_stopped_stops_nobody_and_learns_what_it_missed() {
        static LOST: AtomicU64 = AtomicU64::new(0);
        let (go, held) = channel();
        let (written, lines) = channel();
        let output = Output::start("test", Held { go: held, written }, &LOST);
        let started = Instant::now();
        for number in 0..WAITING + 100 {
            output.line(&number.to_string());
        }
        // Neither the lines nor the end of the program wait for ever.
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
    fn lost_lines_are_reported_at_once_and_then_by_the_minute() {
        let mut reports = Reports::default();
        let start = Instant::now();
        let made = |reports: &mut Reports, from: u32, to: u32| {
            let times = (from..to).map(|second| start + Duration::from_secs(second.into()));
            times.filter(|now| reports.may(*now)).count()
        };
        assert_eq!(made(&mut reports, 0, 60), 5);
        assert_eq!(made(&mut reports, 60, 660), 10);
        // After some quiet minutes they are reported at once again.
        assert_eq!(made(&mut reports, 900, 960), 5);
    }
}
