//! Whose turn it is to renew a login, and logins that are in this process's memory alone: the provider
//! has given them for older ones, and they are not stored yet.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use common::files;
use common::locks::lock;
use common::report;
use common::secret::Secret;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::error::LoginError;
use super::kept::{Kept, make_room};

/// How long another process may renew a login.
const OTHERS: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(100);
/// How long the end of the program waits for what the provider was asked for.
const AT_END: Duration = Duration::from_secs(5);

static OF_PROCESS: LazyLock<Turns> = LazyLock::new(Turns::default);

/// The turns of this process.
pub(super) fn of_process() -> &'static Turns {
    &OF_PROCESS
}

/// Tries again to store the logins that could not be stored. May be dropped.
pub async fn store_again() {
    OF_PROCESS.store_again().await;
}

/// Waits, at the end of the program and for some seconds at most, until what providers were asked for
/// is stored. From then on none is asked any more.
pub async fn finish() {
    OF_PROCESS.finish(AT_END).await;
}

/// What a process has of turns.
#[derive(Default)]
pub(super) struct Turns {
    /// Providers that are being asked.
    asking: TaskTracker,
    closing: CancellationToken,
    unstored: Mutex<Vec<Unstored>>,
}

/// A login that is in memory alone. The lock stays with it: with what is in the file, another process
/// would look like a thief to the provider.
struct Unstored {
    login_file: PathBuf,
    login: Login,
    lock: Lock,
}

/// A login that the file does not have.
struct Login {
    kept: Kept,
    /// What the file has in its place.
    instead_of: Secret,
}

/// One process at a time renews a login: a provider may take a refresh token that is used twice for a
/// stolen one. Dropped, the next may, unless the login is in memory alone.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    login_file: PathBuf,
    lock: Option<Lock>,
    login: Option<Login>,
}

/// The provider is being asked; dropped, it was.
pub(super) struct Asking(#[expect(dead_code, reason = "it is counted")] TaskTrackerToken);

impl Turns {
    /// Waits for the turn.
    ///
    /// # Errors
    /// [`LoginError`].
    pub(super) async fn take(&self, login_file: &Path) -> Result<Turn<'_>, LoginError> {
        let path = login_file.with_extension("login-lock");
        let until = Instant::now() + OTHERS;
        let mut file = None;
        loop {
            // Its lock is ours already.
            if let Some(turn) = self.of_unstored(login_file) {
                return Ok(turn);
            }
            let failed = |source: io::Error| LoginError::NotKept {
                path: path.clone(),
                source,
            };
            let open = match file.take() {
                Some(open) => open,
                None => {
                    let file = files::open_private(&path).map_err(failed)?;
                    // A service must be able to lock what root's command has made.
                    let _ = files::give_to_folder_owner(&path);
                    file
                }
            };
            match open.try_lock() {
                Ok(()) => return Ok(self.turn(login_file, Lock(open), None)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(LOOK).await,
                Err(TryLockError::WouldBlock) => return Err(LoginError::Locked),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            file = Some(open);
        }
    }

    fn turn(&self, login_file: &Path, lock: Lock, login: Option<Login>) -> Turn<'_> {
        Turn {
            turns: self,
            login_file: login_file.to_owned(),
            lock: Some(lock),
            login,
        }
    }

    fn of_unstored(&self, login_file: &Path) -> Option<Turn<'_>> {
        let mut unstored = lock(&self.unstored);
        let place = unstored.iter().position(|it| it.login_file == login_file)?;
        let found = unstored.swap_remove(place);
        Some(self.turn(login_file, found.lock, Some(found.login)))
    }

    /// Before a provider is asked.
    ///
    /// # Errors
    /// [`LoginError::Ending`].
    pub(super) fn ask(&self) -> Result<Asking, LoginError> {
        // Counted first: whoever ends the program then either is seen here, or sees this.
        let asking = Asking(self.asking.token());
        match self.closing.is_cancelled() {
            true => Err(LoginError::Ending),
            false => Ok(asking),
        }
    }

    /// Tries to store all that are in memory alone. Dropped, it is carried out nevertheless.
    async fn store_again(&'static self) {
        if lock(&self.unstored).is_empty() {
            return;
        }
        let storing = tokio::task::spawn_blocking(|| self.store_now());
        // It does not panic; if it did, the turns would have put all back.
        let _ = storing.await;
    }

    /// The same. Blocks.
    fn store_now(&self) {
        let files: Vec<_> = lock(&self.unstored)
            .iter()
            .map(|it| it.login_file.clone())
            .collect();
        for file in files {
            if let Some(mut turn) = self.of_unstored(&file)
                && let Ok(true) = turn.store()
            {
                tracing::info!("wrote {}: the login is stored again", file.display());
            }
        }
    }

    /// Waits for what providers were asked for, and for its being stored.
    async fn finish(&'static self, most: Duration) {
        self.closing.cancel();
        self.asking.close();
        if !self.asking.is_empty() {
            tracing::warn!("a login is being renewed: service-proxy ends as soon as it is stored");
        }
        let stored = async {
            self.asking.wait().await;
            self.store_again().await;
        };
        if timeout(most, stored).await.is_err() {
            tracing::warn!(
                "a login was being renewed and is not stored after {} s; if it is refused from now on, log in again with `service-proxy login --force`",
                most.as_secs()
            );
        }
        for lost in lock(&self.unstored).iter() {
            tracing::error!(
                "the login in {} could not be stored after it was renewed; log in again with `service-proxy login --force`",
                lost.login_file.display()
            );
        }
    }
}

impl Turn<'_> {
    /// The login: as the file has it, or the one of memory, which is newer. Blocks.
    ///
    /// # Errors
    /// [`LoginError::Unreadable`].
    pub(super) fn login(&mut self) -> Result<Kept, LoginError> {
        self.forget_replaced();
        match &self.login {
            Some(login) => Ok(login.kept.clone()),
            None => Kept::read(&self.login_file),
        }
    }

    /// Somebody has logged in anew: that counts.
    fn forget_replaced(&mut self) {
        if let Some(login) = &self.login
            && let Ok(in_file) = Kept::read(&self.login_file)
            && in_file.refresh_token != login.instead_of
        {
            self.login = None;
        }
    }

    /// Stores what is in memory alone; returns whether there was something. Blocks.
    ///
    /// # Errors
    /// [`LoginError::Write`]: it still is.
    pub(super) fn store(&mut self) -> Result<bool, LoginError> {
        self.forget_replaced();
        let Some(login) = &self.login else {
            return Ok(false);
        };
        login.kept.write(&self.login_file)?;
        self.login = None;
        Ok(true)
    }

    /// Sees to it that the login's next state can be stored, by storing this one in the same way. Blocks.
    ///
    /// # Errors
    /// [`LoginError::NotKept`].
    pub(super) fn make_room(&mut self, kept: &Kept) -> Result<files::Room, LoginError> {
        let room = make_room(&self.login_file, Some(kept.to_text().expose()))?;
        self.login = None;
        Ok(room)
    }

    /// Stores what the provider has given in the place of `instead_of`. If that fails, this is said, it
    /// is in memory, and the turn is over. Blocks.
    pub(super) fn keep(
        mut self,
        kept: Kept,
        instead_of: Secret,
        room: files::Room,
    ) -> Option<Self> {
        self.login = Some(Login { kept, instead_of });
        self.forget_replaced();
        let Some(login) = &self.login else {
            return Some(self);
        };
        match room.fill(login.kept.to_text().expose().as_bytes()) {
            Ok(()) => {
                self.login = None;
                Some(self)
            }
            Err(source) => {
                let error = LoginError::Write {
                    path: self.login_file.clone(),
                    source,
                };
                tracing::warn!(
                    "{}; the renewed login is in the memory of this process alone until it can be stored",
                    report::chain(&error)
                );
                None
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let (Some(login), Some(file_lock)) = (self.login.take(), self.lock.take()) {
            lock(&self.turns.unstored).push(Unstored {
                login_file: self.login_file.clone(),
                login,
                lock: file_lock,
            });
        }
    }
}

/// A file that is locked as long as it is open.
struct Lock(#[expect(dead_code, reason = "it is locked as long as it is open")] File);

#[cfg(test)]
mod tests {
    use super::*;

    fn turns() -> &'static Turns {
        Box::leak(Box::default())
    }

    fn kept(refresh_token: &str) -> Kept {
        Kept {
            issuer: "https://id.example.com".to_owned(),
            client_id: "c".to_owned(),
            client_secret: None,
            ca_file: None,
            refresh_token: Secret::new(refresh_token),
        }
    }

    /// A login in memory alone, in the place of "old".
    async fn unstored(turns: &'static Turns, file: &Path) {
        kept("old").write(file).unwrap();
        let mut turn = turns.take(file).await.unwrap();
        let old = turn.login().unwrap();
        let room = turn.make_room(&old).unwrap();
        // The room is gone with its folder.
        let folder = file.parent().unwrap();
        let away = folder.with_extension("away");
        std::fs::rename(folder, &away).unwrap();
        assert!(turn.keep(kept("new"), old.refresh_token, room).is_none());
        std::fs::rename(&away, folder).unwrap();
    }

    fn in_file(file: &Path) -> String {
        let kept = Kept::read(file).unwrap();
        kept.refresh_token.expose().to_owned()
    }

    #[tokio::test]
    async fn what_is_not_stored_is_nobody_elses_turn_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("f")).unwrap();
        let file = folder.path().join("f/hub.login");
        let turns = turns();
        unstored(turns, &file).await;
        assert_eq!(in_file(&file), "old");
        let other = files::open_private(&file.with_extension("login-lock")).unwrap();
        assert!(other.try_lock().is_err());
        // Also not after another turn that has done nothing.
        let mut turn = turns.take(&file).await.unwrap();
        assert_eq!(turn.login().unwrap().refresh_token.expose(), "new");
        drop(turn);
        assert!(other.try_lock().is_err());
        turns.store_again().await;
        assert_eq!(in_file(&file), "new");
        other.try_lock().unwrap();
    }

    #[tokio::test]
    async fn a_login_anew_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("f")).unwrap();
        let file = folder.path().join("f/hub.login");
        let turns = turns();
        unstored(turns, &file).await;
        kept("anew").write(&file).unwrap();
        turns.store_again().await;
        assert_eq!(in_file(&file), "anew");
        // Also while the provider is asked.
        let mut turn = turns.take(&file).await.unwrap();
        let old = turn.login().unwrap();
        let room = turn.make_room(&old).unwrap();
        kept("anew again").write(&file).unwrap();
        assert!(turn.keep(kept("new"), old.refresh_token, room).is_some());
        assert_eq!(in_file(&file), "anew again");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_service_can_replace_what_roots_command_has_written() {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let folder = tempfile::tempdir().unwrap();
        if chown(folder.path(), Some(65_534), Some(65_534)).is_err() {
            return println!("skipped: only root gives files away");
        }
        let file = folder.path().join("hub.login");
        kept("old").write(&file).unwrap();
        let mut turn = turns().take(&file).await.unwrap();
        let old = turn.login().unwrap();
        let room = turn.make_room(&old).unwrap();
        assert!(turn.keep(kept("new"), old.refresh_token, room).is_some());
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let owners: Vec<_> = entries
            .map(|it| it.unwrap().metadata().unwrap().uid())
            .collect();
        assert_eq!(owners, [65_534, 65_534], "the login, and its lock");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_what_was_asked_and_no_longer_than_it_may() {
        let turns = turns();
        let asking = turns.ask().unwrap();
        let ending = tokio::spawn(turns.finish(AT_END));
        tokio::task::yield_now().await;
        assert!(matches!(turns.ask(), Err(LoginError::Ending)));
        assert!(!ending.is_finished());
        drop(asking);
        let started = Instant::now();
        ending.await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO);

        let turns = self::turns();
        let _asking = turns.ask().unwrap();
        let started = Instant::now();
        turns.finish(AT_END).await;
        assert!(started.elapsed() >= AT_END);
        assert!(started.elapsed() < 2 * AT_END);
    }
}
