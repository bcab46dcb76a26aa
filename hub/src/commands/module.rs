//! `module …`: make, look at and remove the modules of a device.

use common::identity::DeviceIdentity;

use super::{CommandError, Session, identity, list};
use crate::cli::{ModuleArgs, ModuleCommand};
use crate::registry::Status;

pub(super) async fn run(
    session: &mut Session<'_>,
    command: ModuleCommand,
) -> Result<(), CommandError> {
    let of = |args: ModuleArgs| DeviceIdentity::of_module(args.device, args.module);
    match command {
        ModuleCommand::Create {
            id,
            credential,
            form,
        } => identity::create(session, of(id), Status::Enabled, credential, form).await,
        ModuleCommand::List { device, form } => {
            identity::find(session, DeviceIdentity::of_device(device.clone())).await?;
            list::run(session, &list::Of::ModulesOf(device), form).await
        }
        ModuleCommand::Show { id, form } => identity::show(session, of(id), form).await,
        ModuleCommand::ConnectionString { id, key } => {
            identity::print_connection_string(session, of(id), key).await
        }
        ModuleCommand::Delete { id } => identity::delete(session, of(id)).await,
    }
}
