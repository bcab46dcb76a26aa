//! The status on the whole terminal, drawn again each second, with the course of the last minute. A
//! few escape sequences are enough for that, so that no library for terminals has to be on a device
//! with Unix.

#[cfg(windows)]
mod console;
#[cfg(unix)]
mod terminal;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

#[cfg(windows)]
use self::console::Terminal;
#[cfg(unix)]
use self::terminal::Terminal;
use super::client::Client;
use super::print::{bytes, cut, list, number, print};
use super::{Asked, StatusError, local};

/// From one drawing to the next.
const TICK: Duration = Duration::from_secs(1);
/// Samples that are kept: more columns than terminals have.
const SAMPLES: usize = 512;
/// What stands before a line of samples, and behind it.
const LABEL: usize = 11;
const VALUE: usize = 12;

/// Draws until `q` is typed. Dropped, it leaves the terminal as it was.
///
/// # Errors
/// [`StatusError`].
pub(super) async fn run(program: &'static str, asked: &Asked) -> Result<(), StatusError> {
    let mut screen = Screen::open().map_err(StatusError::NoTerminal)?;
    let mut watched = Watched::new(program, asked.socket.clone());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut text = Drawing::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => text = watched.look().await,
            input = screen.terminal.input() => match input {
                Ok(Input::Key('q' | 'Q')) => return Ok(()),
                Ok(Input::Key(_)) => continue,
                Ok(Input::Resized) => {}
                // The terminal is gone.
                Err(_) => return Ok(()),
            },
        }
        screen.draw(&text);
    }
}

/// What is watched: programs may come and go.
struct Watched {
    program: &'static str,
    socket: Option<PathBuf>,
    clients: Vec<(PathBuf, Client)>,
    before: Option<(Instant, [u64; 2])>,
    courses: [Course; 3],
}

/// What is to be drawn.
#[derive(Default)]
struct Drawing {
    documents: Vec<Value>,
    nothing: Option<String>,
    courses: [Course; 3],
}

/// The last values of a figure.
#[derive(Debug, Clone, Default)]
struct Course(VecDeque<f64>);

impl Course {
    fn push(&mut self, value: f64) {
        if self.0.len() >= SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    /// The last ones, from nothing to the highest, in so many columns.
    fn line(&self, columns: usize, bars: &[char]) -> String {
        let skipped = self.0.len().saturating_sub(columns);
        let shown = || self.0.iter().skip(skipped);
        let highest = shown().copied().fold(f64::MIN_POSITIVE, f64::max);
        let bar = |value: &f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "between 0 and the number of bars"
            )]
            let place = (value / highest * (bars.len() - 1) as f64).ceil() as usize;
            bars.get(place).copied().unwrap_or(' ')
        };
        shown().map(bar).collect()
    }

    fn last(&self) -> f64 {
        self.0.back().copied().unwrap_or_default()
    }
}

impl Watched {
    fn new(program: &'static str, socket: Option<PathBuf>) -> Self {
        Self {
            program,
            socket,
            clients: Vec::new(),
            before: None,
            courses: Default::default(),
        }
    }

    /// Asks all programs, and notes what has changed since the last time.
    async fn look(&mut self) -> Drawing {
        let paths = match &self.socket {
            Some(path) => vec![path.clone()],
            None => local::all(self.program),
        };
        self.clients.retain(|(path, _)| paths.contains(path));
        for path in paths {
            let is_known = self.clients.iter().any(|(known, _)| *known == path);
            if !is_known && let Ok(client) = Client::connect(&path).await {
                self.clients.push((path, client));
            }
        }
        let mut documents = Vec::new();
        let mut answering = Vec::new();
        for (path, mut client) in std::mem::take(&mut self.clients) {
            if let Ok(document) = client.next().await {
                documents.push(document);
                answering.push((path, client));
            }
        }
        self.clients = answering;
        self.note(&documents);
        let nothing = documents
            .is_empty()
            .then(|| StatusError::None(self.program).to_string());
        Drawing {
            documents,
            nothing,
            courses: self.courses.clone(),
        }
    }

    fn note(&mut self, documents: &[Value]) {
        let sum = |member: &str| {
            let totals = documents.iter().filter_map(|it| it.get("totals"));
            totals.map(|totals| number(totals, member)).sum()
        };
        let (now, totals) = (Instant::now(), [sum("sent"), sum("received")]);
        if let Some((at, before)) = self.before.replace((now, totals)) {
            let passed = now.saturating_duration_since(at).as_secs_f64().max(0.001);
            let rates = totals.iter().zip(before);
            for (course, (total, before)) in self.courses.iter_mut().zip(rates) {
                #[expect(clippy::cast_precision_loss, reason = "it is drawn in eight heights")]
                course.push(total.saturating_sub(before) as f64 / passed);
            }
        }
        let sessions = documents.iter().flat_map(|it| list(it, "sessions"));
        let trips = sessions.filter_map(|it| it.get("roundTripMs")?.as_f64());
        let [_, _, course] = &mut self.courses;
        course.push(trips.fold(0.0, f64::max));
    }
}

impl Drawing {
    /// At most so many lines of so many columns.
    fn lines(&self, columns: usize, rows: usize, bars: &[char]) -> Vec<String> {
        let mut lines = Vec::new();
        let room = columns.saturating_sub(LABEL + VALUE + 1).min(SAMPLES);
        for (name, course) in ["sent", "received", "round trip"].iter().zip(&self.courses) {
            let value = match *name {
                "round trip" => format!("{:.1} ms", course.last()),
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate is neither negative nor above that"
                )]
                _ => format!("{}/s", bytes(course.last() as u64)),
            };
            let samples = course.line(room, bars);
            let mut line = String::new();
            let _ = write!(line, "{name:LABEL$}{samples:room$} {value:>VALUE$}");
            lines.push(cut(&line, columns));
        }
        lines.push(String::new());
        let text = print(&self.documents, Some(columns));
        lines.extend(text.lines().map(str::to_owned));
        lines.extend(self.nothing.as_ref().map(|text| cut(text, columns)));
        let room = rows.saturating_sub(2);
        if lines.len() > room {
            let hidden = lines.len() - room + 1;
            lines.truncate(room.saturating_sub(1));
            lines.push(format!("… and {hidden} more lines"));
        }
        lines.resize(room.max(lines.len()), String::new());
        lines.push(cut("q: quit", columns));
        lines
    }
}

/// What comes from a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// A key; those without a character are a NUL.
    Key(char),
    /// It has another size.
    Resized,
}

/// The terminal, as long as it is drawn on.
struct Screen {
    terminal: Terminal,
    bars: &'static [char],
}

impl Screen {
    fn open() -> io::Result<Self> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(io::Error::other("standard input or output is none"));
        }
        let terminal = Terminal::open()?;
        // Another screen, without a cursor.
        print_out("\x1b[?1049h\x1b[?25l\x1b[2J");
        Ok(Self {
            bars: bars(terminal.is_unicode()),
            terminal,
        })
    }

    fn draw(&self, drawing: &Drawing) {
        let (columns, rows) = self.terminal.size().unwrap_or((80, 24));
        let mut text = "\x1b[H".to_owned();
        for (index, line) in drawing.lines(columns, rows, self.bars).iter().enumerate() {
            if index > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            // What was longer, and below.
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        print_out(&text);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print_out("\x1b[?25h\x1b[?1049l");
    }
}

fn print_out(text: &str) {
    let mut output = io::stdout().lock();
    let _ = output.write_all(text.as_bytes());
    let _ = output.flush();
}

/// From nothing to the highest.
fn bars(is_unicode: bool) -> &'static [char] {
    match is_unicode {
        true => &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
        false => &[' ', '.', ':', '-', '=', '+', '*', '%', '#'],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_is_drawn_from_nothing_to_the_highest() {
        let mut course = Course::default();
        for value in [9.0, 0.0, 1.0, 2.0, 4.0] {
            course.push(value);
        }
        let bars = [' ', '1', '2', '3', '4'];
        assert_eq!(course.line(4, &bars), " 124");
        assert_eq!(course.line(9, &bars), "4 112");
        assert_eq!(Course::default().line(9, &bars), "");
        let mut still = Course::default();
        still.push(0.0);
        assert_eq!(still.line(9, &bars), " ");
    }

    #[test]
    fn a_drawing_fits_any_terminal() {
        let mut drawing = Drawing {
            nothing: Some("nothing runs".to_owned()),
            ..Drawing::default()
        };
        for course in &mut drawing.courses {
            (0..600).for_each(|value| course.push(f64::from(value)));
        }
        for (columns, rows) in [(80, 24), (20, 5), (500, 100), (1, 1), (5, 2)] {
            let lines = drawing.lines(columns, rows, &[' ', '#']);
            assert!(lines.len() <= rows.max(2), "{} {rows}", lines.len());
            if columns >= 20 {
                let longest = lines.iter().map(|line| line.chars().count()).max();
                assert!(longest <= Some(columns), "{longest:?} {columns}");
            }
        }
    }
}
