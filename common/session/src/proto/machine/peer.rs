//! The peer's frames about connections.

use super::{Role, Session, Violation};
use crate::limits;
use crate::proto::connection::Connection;
use crate::proto::inner::{ConnectionId, Inner, RefusedCode};

impl Session {
    pub(super) fn inner_frame(&mut self, id: ConnectionId, frame: Inner) -> Result<(), Violation> {
        if frame == Inner::Open {
            return self.incoming(id);
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            // Frames that were in flight when the connection ended here.
            return if id.0 != 0 && id.0 <= self.last {
                Ok(())
            } else {
                Err(Violation("a connection that was never opened"))
            };
        };
        match frame {
            Inner::Open => {}
            Inner::Opened | Inner::Refused { .. } if self.role == Role::Device => {
                return Err(Violation("a service does not open targets"));
            }
            Inner::Opened => connection.opened = true,
            Inner::Refused { code, text } => connection.refused(code, text),
            Inner::Data(bytes) => {
                let before = connection.loose();
                connection
                    .deliver(bytes)
                    .map_err(|_| Violation("more than it had credit for"))?;
                self.loose += connection.loose() - before;
            }
            Inner::Fin => connection.peer_fin = true,
            Inner::Rst => {
                connection.broken = true;
                connection.discard();
                if connection.released {
                    // The peer does not need the last bytes any more.
                    connection.owed.clear();
                }
            }
            Inner::Credit(limit) => connection.credited(limit),
        }
        self.touch(id);
        self.settle(id);
        Ok(())
    }

    pub(super) fn touch(&mut self, id: ConnectionId) {
        if self.touched.last() != Some(&id) {
            self.touched.push(id);
        }
    }

    pub(super) fn incoming(&mut self, id: ConnectionId) -> Result<(), Violation> {
        if self.role == Role::Service || id.0 <= self.last {
            return Err(Violation("a connection opened out of turn"));
        }
        // The limit is reached, and as many refusals were not even sent: a peer that respects the
        // limit cannot open more.
        if self.connections.len() >= 2 * limits::CONNECTIONS {
            return Err(Violation("too many connections"));
        }
        self.last = id.0;
        self.connections.insert(id, Connection::new(&self.account));
        if self.connections.len() > limits::CONNECTIONS {
            let text = format!("{} in this session", limits::CONNECTIONS);
            self.refuse(id, RefusedCode::Limit, text);
        } else {
            self.incoming.push_back(id);
        }
        Ok(())
    }
}
