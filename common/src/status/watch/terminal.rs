//! The terminal of Unix: keys without Enter, and its size.

use std::io;
use std::time::Duration;

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::Input;

/// How often keys are looked for.
const KEYS: Duration = Duration::from_millis(50);

/// The terminal of standard input and output. Dropped, it is as it was.
pub(super) struct Terminal {
    before: Termios,
    resized: Signal,
}

impl Terminal {
    /// Has keys come at once; Ctrl-C is still a signal.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub(super) fn open() -> io::Result<Self> {
        let input = io::stdin();
        let before = termios::tcgetattr(&input)?;
        let resized = signal(SignalKind::window_change())?;
        let mut raw = before.clone();
        raw.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO);
        // A read returns at once, whatever there is.
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(&input, OptionalActions::Now, &raw)?;
        Ok(Self { before, resized })
    }

    /// What comes next. May be dropped.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(super) async fn input(&mut self) -> io::Result<Input> {
        loop {
            let mut key = [0];
            if rustix::io::read(io::stdin(), &mut key)? > 0 {
                let [key] = key;
                return Ok(Input::Key(char::from(key)));
            }
            tokio::select! {
                () = sleep(KEYS) => {}
                _ = self.resized.recv() => return Ok(Input::Resized),
            }
        }
    }

    /// Its columns and rows, if it says them.
    pub(super) fn size(&self) -> Option<(usize, usize)> {
        let size = termios::tcgetwinsize(io::stdout()).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
    }

    /// Whether it shows more than ASCII.
    pub(super) fn is_unicode(&self) -> bool {
        let variables = ["LC_ALL", "LC_CTYPE", "LANG"];
        let language = variables.iter().find_map(|name| {
            let value = std::env::var(name).ok()?;
            (!value.is_empty()).then_some(value)
        });
        let language = language.unwrap_or_default().to_ascii_lowercase();
        language.contains("utf-8") || language.contains("utf8")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
