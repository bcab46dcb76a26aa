//! `device …`: make, look at, switch and remove devices.

use common::identity::{DeviceId, DeviceIdentity};

use super::{CommandError, Session, identity, list};
use crate::cli::DeviceCommand;
use crate::registry::{IdentitySettings, IfMatch, RegistryError, Status};

/// How often a switch is tried against others who change the device at the same time.
const ATTEMPTS: usize = 5;

pub(super) async fn run(
    session: &mut Session<'_>,
    command: DeviceCommand,
) -> Result<(), CommandError> {
    let of = DeviceIdentity::of_device;
    match command {
        DeviceCommand::Create(args) => {
            let status = if args.disabled {
                Status::Disabled
            } else {
                Status::Enabled
            };
            identity::create(session, of(args.id), status, args.credential, args.form).await
        }
        DeviceCommand::List { form } => list::run(session, &list::Of::Devices, form).await,
        DeviceCommand::Show { id, form } => identity::show(session, of(id), form).await,
        DeviceCommand::ConnectionString { id, key } => {
            identity::print_connection_string(session, of(id), key).await
        }
        DeviceCommand::Enable { id } => switch(session, id, Status::Enabled).await,
        DeviceCommand::Disable { id } => switch(session, id, Status::Disabled).await,
        DeviceCommand::Delete { id } => identity::delete(session, of(id)).await,
    }
}

/// Changes the status and nothing else, also when others change the rest meanwhile.
async fn switch(
    session: &mut Session<'_>,
    id: DeviceId,
    status: Status,
) -> Result<(), CommandError> {
    let id = DeviceIdentity::of_device(id);
    for _ in 0..ATTEMPTS {
        let present = identity::find(session, id.clone()).await?;
        if present.status == status {
            session.say(&format!("{id} is {} already", status.as_str()));
            return Ok(());
        }
        let settings = IdentitySettings {
            status,
            // The reason was that of the other status.
            status_reason: None,
            ..present.settings()
        };
        let condition = IfMatch::Etag(present.etag);
        match session.registry.update(&id, settings, condition).await {
            Err(RegistryError::PreconditionFailed(_)) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                session.say(&format!("{id} is {}", status.as_str()));
                return Ok(());
            }
        }
    }
    Err(CommandError::Changed(id))
}
