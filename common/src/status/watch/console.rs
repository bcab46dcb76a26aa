//! The console of Windows: keys without Enter, and its size.

use std::io;
use std::time::Duration;

use console::{Key, Term};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Input;

/// Keys that may wait to be read.
const KEYS: usize = 16;
/// How often its size is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The console of standard input and output.
pub(super) struct Terminal {
    keys: mpsc::Receiver<char>,
    term: Term,
    size: Option<(usize, usize)>,
}

impl Terminal {
    /// Has keys come at once, and escape sequences work; Ctrl-C still ends the program.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn open() -> io::Result<Self> {
        // It also sees to standard error, which need not be a console: what it answers says nothing.
        let _ = anstyle_query::windows::enable_ansi_colors();
        let (sender, keys) = mpsc::channel(KEYS);
        let term = Term::stdout();
        let reader = term.clone();
        // A wait for a key cannot be given up: this thread ends with the process, which does not wait
        // for it, as it would for one of the runtime's.
        std::thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || {
                while let Ok(key) = reader.read_key() {
                    let key = match key {
                        Key::Char(key) => key,
                        _ => '\0',
                    };
                    if sender.blocking_send(key).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            keys,
            size: size_of(&term),
            term,
        })
    }

    /// What comes next. May be dropped.
    ///
    /// # Errors
    /// When the console is gone.
    pub(super) async fn input(&mut self) -> io::Result<Input> {
        loop {
            tokio::select! {
                key = self.keys.recv() => {
                    let key = key.map(Input::Key);
                    return key.ok_or_else(|| io::ErrorKind::BrokenPipe.into());
                }
                () = sleep(LOOK) => {
                    let size = self.size();
                    if std::mem::replace(&mut self.size, size) != size {
                        return Ok(Input::Resized);
                    }
                }
            }
        }
    }

    /// Its columns and rows, if it says them.
    pub(super) fn size(&self) -> Option<(usize, usize)> {
        size_of(&self.term)
    }

    /// Whether it shows more than ASCII: what is written to it is UTF-16.
    pub(super) fn is_unicode(&self) -> bool {
        true
    }
}

/// Columns and rows.
fn size_of(term: &Term) -> Option<(usize, usize)> {
    let (rows, columns) = term.size_checked()?;
    Some((columns.into(), rows.into()))
}
