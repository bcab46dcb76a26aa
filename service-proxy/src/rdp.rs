//! `rdp`: an RDP client, to a device by its id. A free port of this machine leads to the device for as
//! long as the client runs.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::SocketAddr;

use common::identity::DeviceId;
use common::output;
use tempfile::NamedTempFile;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::config::RdpConfig;
use crate::exit_code;
use crate::local::listener::{ListenError, Listener};

/// Why an RDP client was not run to a good end.
#[derive(Debug, thiserror::Error)]
pub enum RdpError {
    /// The port could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The file for the client could not be written.
    #[error("cannot write a file for the RDP client")]
    File(#[source] io::Error),
    /// The client cannot be started.
    #[error("the RDP client {0} cannot be started")]
    Client(String, #[source] io::Error),
    /// The client ended with this exit code, and has said why.
    #[error("the RDP client ended with exit code {0}")]
    Ended(u8),
}

/// Runs a client to its end, or until `stop` is cancelled; without a client, tells a person what to
/// connect to and waits. Dropping the future ends the client.
///
/// # Errors
/// [`RdpError`].
pub async fn run(config: RdpConfig, stop: CancellationToken) -> Result<(), RdpError> {
    let listener = Listener::bind(config.listen).await?;
    let port = listener.addresses().find_map(|it| it.address.port());
    let address = SocketAddr::from(([127, 0, 0, 1], port.unwrap_or_default()));
    let file = file(&address, config.user.as_deref()).map_err(RdpError::File)?;
    let client = start(
        config.client.as_deref(),
        &config.device,
        &file,
        &config.arguments,
    )?;
    let done = stop.child_token();
    // Ends with the client, and the port with it.
    let _guard = done.clone().drop_guard();
    let listening = listener.run(done.clone());
    tokio::pin!(listening);
    let Some(mut client) = client else {
        let path = file.path().display();
        output::stdout().text(&format!(
            "no RDP client was found; connect one to {address}, or open {path}; Ctrl-C closes the port\n"
        ));
        listening.await;
        return Ok(());
    };
    let status = tokio::select! {
        status = client.wait() => Some(status),
        () = &mut listening => None,
    };
    let Some(status) = status else {
        // Stopped.
        let _ = client.kill().await;
        return Ok(());
    };
    done.cancel();
    listening.await;
    let status = status.map_err(|error| RdpError::Client("in use".to_owned(), error))?;
    match exit_code::of(status) {
        0 => Ok(()),
        code => Err(RdpError::Ended(code)),
    }
}

/// A file that RDP clients open; it is removed with the value.
fn file(address: &SocketAddr, user: Option<&str>) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix("service-proxy-")
        .suffix(".rdp")
        .tempfile()?;
    file.write_all(settings(address, user).as_bytes())?;
    file.flush()?;
    Ok(file)
}

/// The file's lines: name, type and value.
fn settings(address: &SocketAddr, user: Option<&str>) -> String {
    let user = user.map(|user| format!("username:s:{user}\r\n"));
    format!(
        "full address:s:{address}\r\n{}",
        user.as_deref().unwrap_or_default()
    )
}

/// Starts the first client that there is; `None` if there is none.
fn start(
    wanted: Option<&str>,
    device: &DeviceId,
    file: &NamedTempFile,
    arguments: &[OsString],
) -> Result<Option<Child>, RdpError> {
    let known: &[&str] = match wanted {
        Some(_) => &[],
        None if cfg!(windows) => &["mstsc"],
        None => &["xfreerdp3", "xfreerdp"],
    };
    for name in wanted.iter().chain(known) {
        let mut command = Command::new(name);
        command.arg(file.path());
        if name.contains("freerdp") {
            // The address would be the title, and says nothing.
            command.arg(format!("/t:{device}"));
        }
        match command.args(arguments).kill_on_drop(true).spawn() {
            Ok(client) => return Ok(Some(client)),
            Err(error) if error.kind() == io::ErrorKind::NotFound && wanted.is_none() => {}
            Err(error) => return Err(RdpError::Client((*name).to_owned(), error)),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_names_address_and_user() {
        let address = "127.0.0.1:40000".parse().unwrap();
        assert_eq!(
            settings(&address, Some("ada")),
            "full address:s:127.0.0.1:40000\r\nusername:s:ada\r\n"
        );
        let file = file(&address, None).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "full address:s:127.0.0.1:40000\r\n");
    }

    #[tokio::test]
    async fn a_client_that_is_named_must_be_there() {
        let address = "127.0.0.1:1".parse().unwrap();
        let file = file(&address, None).unwrap();
        let device = DeviceId::parse("d").unwrap();
        let error = start(Some("no-such-rdp-client"), &device, &file, &[]).unwrap_err();
        assert!(error.to_string().contains("no-such-rdp-client"), "{error}");
    }
}
