//! Where a program is asked on Windows: a pipe that its own user and the administrators may open.
//!
//! All pipes of a machine are in one folder that every user can list and add to. So the name has a
//! random part, that nobody else can make it first and answer in our place. `status` finds it by a
//! file of this name, in a folder of the user's, which the system removes at the end of the program.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::windows::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::BaseStrategy as _;
use interprocess::os::windows::named_pipe::tokio::{DuplexPipeStream, PipeListener};
use interprocess::os::windows::named_pipe::{PipeListenerOptions, pipe_mode::Bytes};
use interprocess::os::windows::security_descriptor::SecurityDescriptor;
use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient};
use tokio::time::sleep;
use widestring::U16CString;

use super::PIPES;
use super::serve::BindError;
use crate::{files, random};

/// The system, its administrators and who has made the pipe may do everything, and others nothing.
/// The rights by default would let everybody read it (Microsoft, "Named Pipe Security and Access
/// Rights"). The SIDs are the same in every language.
const ACCESS: &str = "D:P(A;;GA;;;S-1-5-18)(A;;GA;;;S-1-5-32-544)(A;;GA;;;S-1-3-4)";
/// Where the files are, in the user's folder of data of this machine.
const FOLDER: &str = r"device-streams\status";
/// The same folder of the user that device-proxy's service runs as.
const OF_SERVICE: &str = r"ServiceProfiles\LocalService\AppData\Local";
/// What ends the name of a file.
const SUFFIX: &str = ".pipe";
/// Bytes that make a name unknown beforehand.
const RANDOM: usize = 16;
/// FILE_FLAG_DELETE_ON_CLOSE (winbase.h): the file is removed however the program ends.
const DELETE_ON_CLOSE: u32 = 0x0400_0000;
/// FILE_SHARE_READ (winnt.h), and no right to remove it as long as the program runs.
const SHARE_READ: u32 = 1;
/// ERROR_PIPE_BUSY (winerror.h): the program is about to make the next instance.
const BUSY: i32 = 231;
/// Time until that is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// A pipe that listens; dropped, it is gone.
pub(super) struct Listener {
    pipe: PipeListener<Bytes, Bytes>,
    /// Removed when it is closed.
    _file: Option<File>,
}

impl Listener {
    /// Makes one, for `status` to find. Blocks.
    ///
    /// # Errors
    /// [`BindError`].
    pub(super) fn usual(program: &str) -> Result<Self, BindError> {
        let folder = of_user().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        let folder = folder.map_err(BindError::nowhere)?;
        files::create_folder(&folder).map_err(BindError::nowhere)?;
        let (process, random) = (std::process::id(), random::bytes::<RANDOM>());
        let random = u128::from_be_bytes(random);
        let name = format!("{program}-{process}-{random:032x}");
        let path = pipe(&name);
        // The pipe first: whoever finds the file can connect.
        let mut listener = Self::at(&path).map_err(BindError::at(&path))?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .share_mode(SHARE_READ)
            .custom_flags(DELETE_ON_CLOSE)
            .open(folder.join(name + SUFFIX));
        listener._file = Some(file.map_err(BindError::nowhere)?);
        Ok(listener)
    }

    /// Makes the pipe of this name, which must be the first one.
    ///
    /// # Errors
    /// Any of the system.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let access = U16CString::from_str(ACCESS).map_err(io::Error::other)?;
        let access = SecurityDescriptor::deserialize(&access)?;
        // By default the first instance, for clients of this machine alone.
        let pipe = PipeListenerOptions::new()
            .path(path)
            .security_descriptor(Some(access))
            .create_tokio_duplex()?;
        Ok(Self { pipe, _file: None })
    }

    /// The next client: the system has already sent away those that may not ask. May be dropped.
    ///
    /// # Errors
    /// Any of the system; later there may be another client.
    pub(super) async fn accept(&self) -> io::Result<Option<DuplexPipeStream<Bytes>>> {
        self.pipe.accept().await.map(Some)
    }
}

/// A connection to a program.
pub(super) type Connection = NamedPipeClient;

/// Connects to a program, which may not act as this user then. Waits until it takes another client;
/// may be dropped.
///
/// # Errors
/// Any of the system, and [`io::ErrorKind::InvalidInput`] for what is no pipe of this machine.
pub(super) async fn connect(path: &Path) -> io::Result<Connection> {
    if !path.to_str().is_some_and(|path| path.starts_with(PIPES)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the name of a pipe begins with {PIPES}"),
        ));
    }
    loop {
        match ClientOptions::new().open(path) {
            Err(error) if error.raw_os_error() == Some(BUSY) => sleep(RETRY).await,
            opened => return opened,
        }
    }
}

/// The pipes of all programs of this name that this user may ask.
pub(super) fn all(program: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [of_user(), of_service()].into_iter().flatten() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries {
            let Some(path) = entry
                .file_name()
                .to_str()
                .and_then(|file| named(file, program))
            else {
                continue;
            };
            // It cannot be removed as long as its program holds it.
            let is_stale = fs::remove_file(entry.path()).is_ok();
            if !is_stale && !found.contains(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The pipe that a file stands for, if it is one of this program.
fn named(file: &str, program: &str) -> Option<PathBuf> {
    let name = file.strip_suffix(SUFFIX)?;
    let (process, random) = name
        .strip_prefix(program)?
        .strip_prefix('-')?
        .split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let is_random = random.len() == 2 * RANDOM && random.bytes().all(|it| it.is_ascii_hexdigit());
    (is_number(process) && is_random).then(|| pipe(name))
}

fn pipe(name: &str) -> PathBuf {
    format!("{PIPES}device-streams-{name}").into()
}

fn of_user() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(strategy.cache_dir().join(FOLDER))
}

/// Only administrators can open it.
fn of_service() -> Option<PathBuf> {
    let system = PathBuf::from(std::env::var_os("SystemRoot")?);
    Some(system.join(OF_SERVICE).join(FOLDER))
}

/// The name of a pipe that nobody else has, for a test.
#[cfg(test)]
pub(super) fn a_path(_: &Path) -> PathBuf {
    let random = u128::from_be_bytes(random::bytes::<RANDOM>());
    pipe(&format!("test-{random:032x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_a_pipe_of_its_program_alone() {
        let random = "00112233445566778899aabbccddeeff";
        let found = named(&format!("a-12-{random}.pipe"), "a");
        let expected = format!(r"\\.\pipe\device-streams-a-12-{random}");
        assert_eq!(found, Some(expected.into()));
        for other in [
            format!("b-12-{random}.pipe"),
            format!("a-b-12-{random}.pipe"),
            format!("a-x-{random}.pipe"),
            format!("a-12-{random}"),
            format!(r"a-12-{random}\x.pipe"),
            "a-12-.pipe".to_owned(),
        ] {
            assert_eq!(named(&other, "a"), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_file_is_there_as_long_as_its_program() {
        let folder = of_user().unwrap();
        let listener = Listener::usual("test").unwrap();
        let [path] = &all("test")[..] else {
            panic!("{:?}", all("test"));
        };
        assert!(connect(path).await.is_ok());
        drop(listener);
        assert!(all("test").is_empty());
        // A computer that lost its power has left this.
        let stale = folder.join(format!("test-1-{:032x}.pipe", 1));
        fs::write(&stale, "").unwrap();
        assert!(all("test").is_empty());
        assert!(!stale.exists());
    }

    #[tokio::test]
    async fn only_pipes_of_this_machine_are_opened() {
        for path in [r"\\server\pipe\x", r"C:\file", "x"] {
            let error = connect(Path::new(path)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
