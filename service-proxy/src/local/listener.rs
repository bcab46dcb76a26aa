//! Local ports and Unix sockets that lead to one target of one device each: a forward each
//! ([`super::bound`]). They may change while the program runs ([`super::running`]).

use std::fmt::Write as _;
use std::pin::pin;
use std::sync::Arc;

use common::session_mode::SessionMode;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::accept::Room;
pub use super::bound::{Address, ListenError, Listening};
use super::bound::{Bound, Hub};
use super::running::{Running, Update};
use crate::config::ListenConfig;
use crate::status::Board;

/// Bound ports and Unix sockets, ready to run.
#[derive(Debug)]
pub struct Listener {
    hubs: Vec<(Hub, Vec<Bound>)>,
    max_connections: usize,
    mode: SessionMode,
    board: Arc<Board>,
}

impl Listener {
    /// Binds every port and socket; all of them, or it fails. Dropping the future closes those that
    /// are bound.
    ///
    /// # Errors
    /// [`ListenError`] names the port, the socket or the file at fault.
    pub async fn bind(config: ListenConfig) -> Result<Self, ListenError> {
        let mut hubs = Vec::new();
        for of in &config.hubs {
            let hub = Hub::new(of, &config)?;
            let mut bound = Vec::new();
            for forward in &of.forwards {
                bound.push(Bound::new(&hub, forward).await?);
            }
            hubs.push((hub, bound));
        }
        Ok(Self {
            hubs,
            max_connections: config.max_connections,
            mode: config.session.mode,
            board: Arc::default(),
        })
    }

    /// Shows what there is and what goes on, while it serves.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Every address that is listened on.
    pub fn addresses(&self) -> impl Iterator<Item = &Listening> {
        let bound = self.hubs.iter().flat_map(|(_, bound)| bound);
        bound.flat_map(Bound::addresses)
    }

    /// One line per address, for stdout.
    pub fn announcement(&self) -> String {
        let mut text = String::new();
        for listening in self.addresses() {
            let _ = writeln!(text, "listening on {listening}");
        }
        text
    }

    /// Serves until `stop` is cancelled, or until it was retired (SIGUSR1) and carries nothing; then
    /// open tunnels are cut, which takes at most [`DRAIN`](common::limits::DRAIN). Dropping the future
    /// leaves what is open to run by itself: cancel `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (_, none) = mpsc::channel(1);
        self.run_following(none, stop).await;
    }

    /// The same, with forwards and hubs that become those of each update; a forward that stays, and
    /// its connections, do not notice. The future is to be dropped as that of [`run`](Self::run).
    pub async fn run_following(self, mut updates: mpsc::Receiver<Update>, stop: CancellationToken) {
        let room = Room::new(self.max_connections, self.mode, stop);
        let ended = room.clone();
        let mut ended = pin!(ended.ended());
        let mut running = Running::start(self.hubs, room, self.board);
        loop {
            tokio::select! {
                () = &mut ended => break,
                Some(update) = updates.recv() => tokio::select! {
                    () = &mut ended => break,
                    () = running.follow(update) => {}
                },
            }
        }
        running.finish().await;
    }
}
