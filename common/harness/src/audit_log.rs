//! The audit log as somebody may have changed it: whatever was done to its lines is found.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use hub::events::audit::chain::{self, Link};
use hub::events::audit::keys::SigningKey;
use hub::events::audit::record::Record;
use hub::events::audit::verify::Verifier;

/// Most steps of one input.
const STEPS: usize = 64;
const TIME: &str = "2030-01-02T03:04:05.678Z";

/// A line, and whether it is the first of a file.
#[derive(Clone, PartialEq)]
struct Line {
    bytes: Vec<u8>,
    begins_file: bool,
}

/// A log that is written, and what was done to it afterwards.
struct Log {
    lines: Vec<Line>,
    end: Link,
    /// Somebody with the hub's own key has numbered lines as no hub does.
    is_renumbered: bool,
}

/// Reads steps: bytes that write records and heads, and then change the lines in each way that there
/// is. The rest of the input is read as lines by itself.
pub fn run(input: &[u8]) {
    thread_local! {
        static KEY: SigningKey = key();
    }
    KEY.with(|key| {
        for line in input.split(|byte| *byte == b'\n') {
            let _ = chain::read(line, Some(key.public()));
        }
        let mut steps = Steps(input);
        let log = written(&mut steps, key);
        let whole = log.lines.clone();
        let changed = changed(&mut steps, whole.clone());
        let is_whole = |lines: &[Line], known| judge(lines, key, known);
        if !log.is_renumbered {
            assert!(
                is_whole(&whole, Some(log.end)),
                "a log as the hub writes it"
            );
            // With the end that the data folder knows, every change is found.
            assert_eq!(is_whole(&changed, Some(log.end)), changed == whole);
        }
        let _ = is_whole(&changed, None);
    });
}

/// Takes bytes of the input, and zeros when it is at its end.
struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        u64::from_be_bytes([(); 8].map(|()| self.byte()))
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.byte()).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    /// One of so many.
    fn place(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }
}

fn written(steps: &mut Steps<'_>, key: &SigningKey) -> Log {
    let mut log = Log {
        lines: Vec::new(),
        end: Link::START,
        is_renumbered: false,
    };
    let head = |removed: Option<u64>| {
        Record::new("Audit", "AuditHead")
            .with("key", key.public().id())
            .maybe("removedThrough", removed)
    };
    let push = |log: &mut Log, (line, end): (String, Link), begins_file| {
        let bytes = line.into_bytes();
        let bytes = bytes.strip_suffix(b"\n").expect("a line").to_vec();
        log.lines.push(Line { bytes, begins_file });
        log.end = end;
    };
    // A file begins with a head.
    let first = log.end.seal_signed(TIME, &head(None), key);
    push(&mut log, first, true);
    for _ in 0..STEPS {
        if log.end.seq == u64::MAX {
            break;
        }
        let sealed = match steps.byte() % 8 {
            0 => break,
            1 => {
                let sealed = log.end.seal_signed(TIME, &head(None), key);
                push(&mut log, sealed, true);
                continue;
            }
            2 => log.end.seal_signed(TIME, &head(None), key),
            3 => {
                log.is_renumbered = true;
                let removed = Some(steps.number());
                log.end.seal_signed(TIME, &head(removed), key)
            }
            4 => {
                log.is_renumbered = true;
                // The next line has the number behind this one.
                log.end.seq = steps.number().min(u64::MAX - 1);
                log.end.seal(TIME, &Record::new("c", "o"))
            }
            _ => {
                let (name, text) = (steps.text(), steps.text());
                let record = Record::new("DeviceStreams", &name);
                log.end.seal(TIME, &record.with("text", text).success())
            }
        };
        push(&mut log, sealed, false);
    }
    log
}

fn changed(steps: &mut Steps<'_>, mut lines: Vec<Line>) -> Vec<Line> {
    for _ in 0..STEPS {
        if lines.is_empty() {
            break;
        }
        let step = steps.byte() % 8;
        let place = steps.place(lines.len());
        let other = steps.place(lines.len());
        match step {
            0 => break,
            1 => {
                lines.remove(place);
            }
            2 => {
                let line = lines[place].clone();
                lines.insert(other, line);
            }
            3 => lines.swap(place, other),
            4 => {
                let (at, with) = (steps.byte(), steps.byte());
                let bytes = &mut lines[place].bytes;
                if !bytes.is_empty() {
                    let at = (usize::from(at) << 2 | usize::from(with & 3)) % bytes.len();
                    bytes[at] ^= with;
                }
            }
            5 => {
                let left = usize::from(steps.byte());
                lines[place].bytes.truncate(left);
            }
            6 => {
                let text = steps.text().into_bytes();
                lines[place].bytes.extend(text);
            }
            _ => {
                let text = steps.text().into_bytes();
                lines[place].bytes = text;
            }
        }
    }
    lines
}

fn judge(lines: &[Line], key: &SigningKey, known: Option<Link>) -> bool {
    let mut verifier = Verifier::new(Some(key.public()), known);
    for line in lines {
        if line.begins_file {
            verifier.start_file();
        }
        if verifier.line(&line.bytes).is_err() {
            return false;
        }
    }
    let finished = match known {
        Some(_) => verifier.finish(),
        None => verifier.finish_part(),
    };
    if let Ok(Some(verified)) = &finished {
        assert_eq!(verified.lines, lines.len() as u64);
        assert_eq!(verified.last.seq - verified.first + 1, verified.lines);
    }
    finished.is_ok()
}

/// A key of this process, in a folder that is removed at once.
fn key() -> SigningKey {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder: PathBuf =
        std::env::temp_dir().join(format!("audit-log-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let key = SigningKey::ensure(&folder).expect("a key");
    let _ = std::fs::remove_dir_all(&folder);
    key
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus() {
        crate::corpus::play("audit_log", super::run);
    }
}
