//! Where a command finds the code that it was given.

use std::io::{self, Read as _};

use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::{CodeError, Invitation};
use crate::secret::Secret;
use crate::text_input;

/// Bytes that are read from stdin: a code has some hundred at most.
const STDIN: u64 = 4 << 10;

/// Why there is no code. No variant repeats any of it.
#[derive(Debug, thiserror::Error)]
pub enum GivenError {
    /// None was given.
    #[error(
        "give the code that `stream-hub enrol` has printed, as an argument or in {0}; `-` reads it from stdin"
    )]
    None(&'static str),
    /// Standard input cannot be read.
    #[error("cannot read the code from stdin")]
    Stdin(#[source] io::Error),
    /// The variable or standard input is not text.
    #[error("{0} is not text")]
    NotText(&'static str),
    /// It is no code.
    #[error(transparent)]
    Code(#[from] CodeError),
}

/// The invitation of an argument, where `-` stands for stdin, or else of this environment variable.
/// Stdin is read in a thread of its own, which may go on when the future is dropped.
///
/// # Errors
/// [`GivenError`]: one sentence on what to give.
pub async fn given(
    argument: Option<Secret>,
    variable: &'static str,
) -> Result<Invitation, GivenError> {
    let text = match argument {
        Some(text) if text.expose() == "-" => spawn_blocking(of_stdin)
            .await
            .map_err(|error| GivenError::Stdin(error.into()))??,
        Some(text) => text,
        None => {
            let text = std::env::var_os(variable).ok_or(GivenError::None(variable))?;
            let text = text.into_string();
            Secret::new(text.map_err(|_| GivenError::NotText(variable))?)
        }
    };
    Ok(text_input::value(text.expose()).parse()?)
}

fn of_stdin() -> Result<Secret, GivenError> {
    let mut bytes = Zeroizing::new(Vec::new());
    io::stdin()
        .take(STDIN)
        .read_to_end(&mut bytes)
        .map_err(GivenError::Stdin)?;
    let text = text_input::decode(&bytes).ok_or(GivenError::NotText("stdin"))?;
    Ok(Secret::new(text))
}
