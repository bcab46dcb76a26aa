//! The tunnels to many devices of one hub: those of a device are made when the first connection to it
//! comes, and dropped when none has come for a while. All of them share the hub's API, what it is
//! dialled with, and the room of sessions.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use common::identity::DeviceIdentity;
use common::limits::CLOSE;
use common::locks::lock;
use common::log_about;
use common::settings::session::SessionConfig;
use common::telemetry::About;
use tokio::time::{Duration, Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::Tunnels;
use crate::config::HubConfig;
use crate::hub_api::HubApi;
use crate::limits;
use crate::sample_output::SampleOutput;
use crate::session::Room;
use crate::stream::{SetupError, StreamOpener};

/// How often unused devices are looked for.
const LOOK: Duration = Duration::from_secs(60);

/// There are connections to as many devices as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("connections to {0} devices are open already; close those to another one first")]
pub struct TooManyDevices(usize);

/// The tunnels to the devices of a hub.
pub struct Devices {
    opener: Arc<StreamOpener>,
    session: Mutex<SessionConfig>,
    room: Arc<Room>,
    is_quiet: bool,
    most: usize,
    table: Mutex<HashMap<DeviceIdentity, Entry>>,
    /// Sessions that are being ended.
    ending: TaskTracker,
}

struct Entry {
    /// In use while there is another reference to them.
    tunnels: Arc<Tunnels>,
    used: Instant,
}

impl Entry {
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.tunnels) > 1
    }
}

impl std::fmt::Debug for Devices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Devices({})", self.api().hub())
    }
}

impl Devices {
    /// Of this hub, at most [`limits::DEVICES`] at once. If `is_quiet`, only failures of sessions are
    /// logged above debug.
    ///
    /// # Errors
    /// [`SetupError`] names the file at fault.
    pub fn new(
        hub: &HubConfig,
        session: SessionConfig,
        sample_output: SampleOutput,
        is_quiet: bool,
    ) -> Result<Self, SetupError> {
        let opener = StreamOpener::new(hub, sample_output)?;
        Ok(Self {
            opener: Arc::new(opener),
            room: Room::new(&session),
            session: Mutex::new(session),
            is_quiet,
            most: limits::DEVICES,
            table: Mutex::default(),
            ending: TaskTracker::new(),
        })
    }

    /// What the sessions with all devices share.
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// The hub's service API.
    pub fn api(&self) -> &HubApi {
        self.opener.api()
    }

    /// The tunnels to this device. Its sessions are kept for as long as the value is held, and some
    /// minutes longer.
    ///
    /// # Errors
    /// [`TooManyDevices`] when all that there may be are in use.
    pub fn tunnels(&self, identity: &DeviceIdentity) -> Result<Arc<Tunnels>, TooManyDevices> {
        let mut table = lock(&self.table);
        if let Some(entry) = table.get_mut(identity) {
            entry.used = Instant::now();
            return Ok(Arc::clone(&entry.tunnels));
        }
        if table.len() >= self.most {
            let unused = table.iter().filter(|(_, entry)| !entry.is_in_use());
            let oldest = unused.min_by_key(|(_, entry)| entry.used);
            let oldest = oldest.map(|(identity, _)| identity.clone());
            let entry = oldest.and_then(|identity| table.remove(&identity));
            self.end(entry.ok_or(TooManyDevices(self.most))?);
        }
        let tunnels = Arc::new(Tunnels::new(
            Arc::clone(&self.opener),
            identity.clone(),
            *lock(&self.session),
            Arc::clone(&self.room),
            self.is_quiet,
        ));
        let entry = Entry {
            tunnels: Arc::clone(&tunnels),
            used: Instant::now(),
        };
        table.insert(identity.clone(), entry);
        Ok(tunnels)
    }

    /// From now on the hub is reached as `now` says, and no longer as `before`; sessions and
    /// connections stay. `files` have other contents than before. Reads the CA file; blocks for a
    /// moment.
    ///
    /// # Errors
    /// [`SetupError`] names the file at fault; then only `session` is taken over.
    pub fn follow(
        &self,
        before: &HubConfig,
        now: &HubConfig,
        session: SessionConfig,
        files: &[PathBuf],
    ) -> Result<(), SetupError> {
        *lock(&self.session) = session;
        self.room.follow(&session);
        for entry in lock(&self.table).values() {
            entry.tunnels.sessions().follow(session);
        }
        let is_changed =
            |file: &Option<PathBuf>| file.as_ref().is_some_and(|it| files.contains(it));
        let is_dialled_anew =
            before.ca_file != now.ca_file || before.proxy != now.proxy || is_changed(&now.ca_file);
        let dialer = is_dialled_anew.then(|| now.dialer()).transpose()?;
        self.opener.follow(now, dialer.as_ref());
        Ok(())
    }

    /// Ends the sessions with a device to which nothing leads any more.
    pub fn forget(&self, identity: &DeviceIdentity) {
        let entry = lock(&self.table).remove(identity);
        if let Some(Entry { tunnels, .. }) = entry {
            self.ending
                .spawn(async move { tunnels.sessions().shut_down().await });
        }
    }

    /// Forgets devices that are not used, for as long as the future is polled. May be dropped.
    pub async fn tend(&self) -> Infallible {
        loop {
            sleep(LOOK).await;
            self.forget_unused();
        }
    }

    /// Sessions end by themselves when they are unused: here only what is left of them goes.
    fn forget_unused(&self) {
        let now = Instant::now();
        lock(&self.table).retain(|_, entry| {
            if entry.is_in_use() || !entry.tunnels.sessions().are_none() {
                entry.used = now;
            }
            entry.used + limits::SESSION_IDLE > now
        });
    }

    /// Ends the sessions of a device without connections.
    fn end(&self, Entry { tunnels, .. }: Entry) {
        let about = About::device(tunnels.identity());
        log_about!(debug, about, "forgotten: others are used more");
        self.ending
            .spawn(async move { tunnels.sessions().shut_down().await });
    }

    /// Ends all sessions: in order those without connections, the others are broken off. Takes
    /// about [`CLOSE`] at most. Dropping the future leaves them to end by themselves.
    pub async fn shut_down(&self) {
        let entries: Vec<_> = lock(&self.table).drain().map(|(_, entry)| entry).collect();
        for Entry { tunnels, .. } in entries {
            self.ending
                .spawn(async move { tunnels.sessions().shut_down().await });
        }
        self.ending.close();
        let _ = timeout(CLOSE, self.ending.wait()).await;
    }
}

#[cfg(test)]
mod tests {
    use common::identity::DeviceId;

    use super::*;
    use crate::config::unreachable_hub;

    fn devices(most: usize) -> Devices {
        let hub = unreachable_hub();
        let session = SessionConfig::default();
        Devices {
            most,
            ..Devices::new(&hub, session, SampleOutput::Off, false).unwrap()
        }
    }

    fn device(id: &str) -> DeviceIdentity {
        DeviceIdentity::of_device(DeviceId::parse(id).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_is_bounded_and_the_longest_unused_goes() {
        let devices = devices(2);
        let first = devices.tunnels(&device("a")).unwrap();
        let again = devices.tunnels(&device("a")).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        drop(again);
        let b = devices.tunnels(&device("b")).unwrap();
        let full = devices.tunnels(&device("c")).unwrap_err();
        assert!(full.to_string().contains("2 devices"), "{full}");
        drop(b);
        drop(devices.tunnels(&device("c")).unwrap());
        // Devices have case.
        drop(devices.tunnels(&device("A")).unwrap());
        let known: Vec<_> = {
            let table = lock(&devices.table);
            let mut known: Vec<_> = table.keys().map(ToString::to_string).collect();
            known.sort();
            known
        };
        assert_eq!(known, ["A", "a"]);
        assert!(Arc::ptr_eq(&first, &devices.tunnels(&device("a")).unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_unused_is_forgotten_after_a_while() {
        let devices = devices(9);
        let held = devices.tunnels(&device("held")).unwrap();
        drop(devices.tunnels(&device("unused")).unwrap());
        let count = || lock(&devices.table).len();
        let tending = async {
            tokio::select! {
                never = devices.tend() => match never {},
                () = sleep(limits::SESSION_IDLE + 2 * LOOK) => {}
            }
        };
        tending.await;
        assert_eq!(count(), 1);
        drop(held);
        tokio::time::advance(limits::SESSION_IDLE).await;
        devices.forget_unused();
        assert_eq!(count(), 0);
    }
}
