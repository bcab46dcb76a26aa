//! The forwards of a running program, and how they become those of another configuration: what
//! stays is left alone, what goes says so and ends its own connections, and what cannot be listened
//! on is reported, while all others go on.

use std::path::PathBuf;
use std::sync::Arc;

use common::telemetry::AUDIT;
use common::{limits, output, report};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::Room;
use super::bound::{Bound, Hub, Listening};
use crate::config::{HubForwards, ListenConfig};
use crate::forward::Forward;
use crate::hub_name::HubName;
use crate::status::{Board, Shown, ShownHub};
use crate::tunnel::Tunnels;

/// Another configuration.
#[derive(Debug, Clone)]
pub struct Update<T = ListenConfig> {
    /// All of it.
    pub config: T,
    /// The files beside it that say something else than before.
    pub files: Vec<PathBuf>,
}

/// A forward that accepts connections.
struct Active {
    hub: Option<HubName>,
    forward: Forward,
    addresses: Vec<Listening>,
    /// Its device's sessions are kept as long as this.
    tunnels: Arc<Tunnels>,
    removed: CancellationToken,
    accepting: Vec<JoinHandle<()>>,
    connections: TaskTracker,
}

/// All forwards, and the hubs of their devices.
pub(super) struct Running {
    hubs: Vec<Hub>,
    forwards: Vec<Active>,
    room: Room,
    board: Arc<Board>,
    /// Hubs that are gone, and devices that nothing leads to any more.
    ending: TaskTracker,
}

impl Running {
    /// Begins to accept connections.
    pub(super) fn start(hubs: Vec<(Hub, Vec<Bound>)>, room: Room, board: Arc<Board>) -> Self {
        let mut running = Self {
            hubs: Vec::new(),
            forwards: Vec::new(),
            room,
            board,
            ending: TaskTracker::new(),
        };
        for (hub, bound) in hubs {
            for bound in bound {
                running.add(hub.name.clone(), bound);
            }
            running.hubs.push(hub);
        }
        running.publish();
        running
    }

    fn add(&mut self, hub: Option<HubName>, bound: Bound) {
        let of_device = |active: &Active| Arc::ptr_eq(&active.tunnels, &bound.tunnels);
        if !self.forwards.iter().any(of_device) {
            bound.tunnels.sessions().ask_ahead();
        }
        let removed = self.room.stop.child_token();
        let connections = TaskTracker::new();
        self.forwards.push(Active {
            hub,
            forward: bound.forward.clone(),
            addresses: bound.addresses().cloned().collect(),
            tunnels: Arc::clone(&bound.tunnels),
            accepting: bound.accept(&self.room, &removed, &connections),
            removed,
            connections,
        });
    }

    /// Takes over another configuration. May be dropped when the program stops, and only then.
    pub(super) async fn follow(&mut self, Update { config, files }: Update) {
        self.room
            .set_most(config.max_connections, config.session.mode);
        // Ports first: another forward may want the same one.
        let mut kept = Vec::new();
        let mut removed = Vec::new();
        let mut wanted: Vec<(Option<HubName>, Forward)> = config
            .hubs
            .iter()
            .flat_map(|of| of.forwards.iter().map(|it| (of.name.clone(), it.clone())))
            .collect();
        for active in std::mem::take(&mut self.forwards) {
            let place = wanted
                .iter()
                .position(|(hub, forward)| *hub == active.hub && *forward == active.forward)
                .filter(|_| self.is_same_hub(&active, &config));
            match place {
                Some(place) => {
                    wanted.remove(place);
                    kept.push(active);
                }
                None => removed.push(active),
            }
        }
        self.forwards = kept;
        let gone = remove(removed).await;
        self.follow_hubs(&config, &files, gone);
        for (hub, forward) in wanted {
            self.begin(hub, &forward).await;
        }
        self.publish();
    }

    /// Shows what there is now.
    fn publish(&self) {
        let hubs = self.hubs.iter().map(|hub| ShownHub {
            name: hub.name.as_ref().map(ToString::to_string),
            host: hub.config.service.host.to_string(),
            room: Arc::clone(hub.devices.room()),
        });
        let addresses = self.forwards.iter().flat_map(|active| &active.addresses);
        self.board.publish(Shown {
            hubs: hubs.collect(),
            forwards: addresses.map(ToString::to_string).collect(),
        });
    }

    /// Whether the hub of a forward is the same one in this configuration; in another hub, devices
    /// are others, whatever they are called.
    fn is_same_hub(&self, active: &Active, config: &ListenConfig) -> bool {
        let ours = self.hubs.iter().find(|hub| hub.name == active.hub);
        let theirs = config.hubs.iter().find(|of| of.name == active.hub);
        ours.zip(theirs)
            .is_some_and(|(ours, theirs)| ours.config.is_same_hub(&theirs.hub))
    }

    /// Hubs become those of the configuration. Of those that stay, devices to which no forward leads
    /// any more are forgotten.
    fn follow_hubs(
        &mut self,
        config: &ListenConfig,
        files: &[PathBuf],
        gone: Vec<(Option<HubName>, Arc<Tunnels>)>,
    ) {
        let mut kept = Vec::new();
        for mut hub in std::mem::take(&mut self.hubs) {
            let of = config.hubs.iter().find(|of| of.name == hub.name);
            match of.filter(|of| hub.config.is_same_hub(&of.hub)) {
                Some(of) => {
                    match hub
                        .devices
                        .follow(&hub.config, &of.hub, config.session, files)
                    {
                        Ok(()) => hub.config = of.hub.clone(),
                        Err(error) => tracing::warn!(
                            "the hub {} is reached as before: {}",
                            hub.config.service.host,
                            report::chain(&error)
                        ),
                    }
                    kept.push(hub);
                }
                None => {
                    self.ending
                        .spawn(async move { hub.devices.shut_down().await });
                }
            }
        }
        self.hubs = kept;
        for (hub, tunnels) in gone {
            let is_used = |active: &Active| Arc::ptr_eq(&active.tunnels, &tunnels);
            if !self.forwards.iter().any(is_used)
                && let Some(hub) = self.hubs.iter().find(|it| it.name == hub)
            {
                hub.devices.forget(tunnels.identity());
            }
        }
        for of in &config.hubs {
            if self.hubs.iter().all(|hub| hub.name != of.name) {
                self.add_hub(of, config);
            }
        }
    }

    fn add_hub(&mut self, of: &HubForwards, config: &ListenConfig) {
        match Hub::new(of, config) {
            Ok(hub) => self.hubs.push(hub),
            Err(error) => tracing::warn!(
                "the hub {} cannot be used: {}",
                of.hub.service.host,
                report::chain(&error)
            ),
        }
    }

    /// Begins a forward; one that cannot be is reported.
    async fn begin(&mut self, name: Option<HubName>, forward: &Forward) {
        // Without it, its own error was reported.
        let Some(hub) = self.hubs.iter().find(|hub| hub.name == name) else {
            return;
        };
        match Bound::new(hub, forward).await {
            Ok(bound) => {
                for listening in bound.addresses() {
                    tracing::info!(name: AUDIT, "forward added: {listening}");
                    // As at the start, for who reads these lines.
                    output::stdout().text(&format!("listening on {listening}\n"));
                }
                self.add(name, bound);
            }
            Err(error) => tracing::warn!(
                "no forward to {} ({}): {}",
                forward.identity,
                forward.name,
                report::chain(&error)
            ),
        }
    }

    /// Cuts what is open, once the program stops; takes at most [`limits::DRAIN`] and
    /// [`limits::CLOSE`].
    pub(super) async fn finish(self) {
        self.room.tasks.close();
        let in_time = timeout(limits::DRAIN, self.room.tasks.wait()).await.is_ok();
        for hub in self.hubs {
            self.ending
                .spawn(async move { hub.devices.shut_down().await });
        }
        self.ending.close();
        self.ending.wait().await;
        tracing::debug!(in_time, "stopped listening");
    }
}

/// Closes the ports of these forwards and ends their connections. Where devices had sessions for
/// them.
async fn remove(removed: Vec<Active>) -> Vec<(Option<HubName>, Arc<Tunnels>)> {
    for active in &removed {
        let connections = active.connections.len();
        for listening in &active.addresses {
            tracing::info!(name: AUDIT, connections, "forward removed: {listening}");
        }
        active.removed.cancel();
    }
    let latest = Instant::now() + limits::CLOSE;
    let mut gone = Vec::new();
    for active in removed {
        for accepting in active.accepting {
            // The port is free when it has ended, which only a panic does not do in order.
            let _ = accepting.await;
        }
        active.connections.close();
        let ended = timeout_at(latest, active.connections.wait()).await;
        if ended.is_err() {
            tracing::debug!("connections of a removed forward are still being closed");
        }
        gone.push((active.hub, active.tunnels));
    }
    gone
}
