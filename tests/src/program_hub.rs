//! A hub and its proxies as the real programs, for tests that kill a process.

use std::sync::Arc;

use rustls::ClientConfig;
use tokio::net::TcpListener;

use crate::programs::{DIRECT, Program, binary, run};

/// A hub in a folder of its own, on ports that stay the same when it is started again.
pub struct ProgramHub {
    folder: tempfile::TempDir,
    /// Its port for HTTPS.
    pub https: u16,
    /// Its port for MQTT over TLS.
    pub mqtts: u16,
    /// Environment of all three programs.
    log_level: &'static str,
    /// The hub's limit of descriptors.
    descriptors: Option<u32>,
    /// The running hub.
    pub program: Program,
}

/// A port that nothing listens on. It lies outside the range that systems give to outgoing
/// connections, so that it stays free until it is bound.
pub async fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
}

impl ProgramHub {
    /// Starts one that is known as `localhost`.
    pub async fn start() -> Self {
        Self::start_as("localhost").await
    }

    /// Starts one with this host name.
    pub async fn start_as(hostname: &str) -> Self {
        Self::start_with(hostname, "trace", None).await
    }

    /// Starts one with the default log level, which its proxies get as well.
    pub async fn start_quiet() -> Self {
        Self::start_with("localhost", "info", None).await
    }

    /// Starts one with a limit of descriptors.
    #[cfg(unix)]
    pub async fn start_limited(descriptors: u32) -> Self {
        Self::start_with("localhost", "trace", Some(descriptors)).await
    }

    async fn start_with(hostname: &str, log_level: &'static str, descriptors: Option<u32>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (https, mqtts) = (free_port().await, free_port().await);
        let program = Self::serve(&folder, hostname, https, mqtts, log_level, descriptors).await;
        Self {
            folder,
            https,
            mqtts,
            log_level,
            descriptors,
            program,
        }
    }

    async fn serve(
        folder: &tempfile::TempDir,
        hostname: &str,
        https: u16,
        mqtts: u16,
        log_level: &str,
        descriptors: Option<u32>,
    ) -> Program {
        let (https, mqtts) = (format!("127.0.0.1:{https}"), format!("127.0.0.1:{mqtts}"));
        let data_dir = folder.path().join("hub-data");
        let arguments = [
            "serve",
            "--https",
            &https,
            "--mqtts",
            &mqtts,
            "--log-level",
            log_level,
        ];
        let environment = [
            ("STREAM_HUB_DATA_DIR", data_dir.to_str().unwrap()),
            ("STREAM_HUB_HOSTNAME", hostname),
        ];
        let program = match descriptors {
            None => Program::start("stream-hub", &arguments, &environment),
            #[cfg(unix)]
            Some(most) => Program::start_limited("stream-hub", most, &arguments, &environment),
            #[cfg(not(unix))]
            Some(_) => unreachable!("there is no such limit"),
        };
        program.line("ready").await;
        program
    }

    /// Starts it again after its end, with the same folder and ports.
    pub async fn start_again(&mut self) {
        self.program = Self::serve(
            &self.folder,
            "localhost",
            self.https,
            self.mqtts,
            self.log_level,
            self.descriptors,
        )
        .await;
    }

    /// The data folder.
    pub fn data_dir(&self) -> String {
        self.folder
            .path()
            .join("hub-data")
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// The CA's certificate.
    pub fn ca_file(&self) -> String {
        format!("{}/tls/ca.pem", self.data_dir())
    }

    /// Runs an admin command, which must succeed, and returns its stdout.
    pub fn admin(&self, arguments: &[&str]) -> String {
        let data_dir = self.data_dir();
        let line = [arguments, &["--data-dir", &data_dir]].concat();
        let (ok, out, talk) = run("stream-hub", &line);
        assert!(ok, "{line:?}: {talk}");
        out.trim_end().to_owned()
    }

    /// A device-proxy with this target, which also echoes.
    pub fn device(&self, connection: &str, target: &str) -> Program {
        let arguments = [
            "--target",
            target,
            "--echo",
            "--ca-file",
            &self.ca_file(),
            "--log-level",
            self.log_level,
        ];
        Program::start(
            "device-proxy",
            &arguments,
            &[("IOTHUB_DEVICE_CONNECTION_STRING", connection)],
        )
    }

    /// A service-proxy and the port on which it listens.
    pub async fn service(&self, arguments: &[&str]) -> (Program, u16) {
        let program = self.service_program(arguments);
        let line = program.line("listening on 127.0.0.1:").await;
        let rest = line.split("127.0.0.1:").nth(1).unwrap();
        let port = rest.split(' ').next().unwrap().parse().unwrap();
        (program, port)
    }

    /// A service-proxy that carries one connection over stdin and stdout.
    pub fn connect(&self, arguments: &[&str]) -> Program {
        self.service_program(&[&["connect"], arguments].concat())
    }

    /// A command of service-proxy, for pipes other than [`Program`]'s.
    pub fn service_command(&self, name: &str, arguments: &[&str]) -> tokio::process::Command {
        let connection = self.admin(&["policy", "connection-string", "service"]);
        let mut command = tokio::process::Command::new(binary("service-proxy"));
        command
            .arg(name)
            .args(arguments)
            .args(["--ca-file", &self.ca_file()])
            .envs(DIRECT)
            .env("IOTHUB_CONNECTION_STRING", connection)
            .kill_on_drop(true);
        command
    }

    /// TLS that trusts this hub.
    pub fn tls(&self) -> Arc<ClientConfig> {
        common::tls::client_config(Some(self.ca_file().as_ref()), None).unwrap()
    }

    fn service_program(&self, arguments: &[&str]) -> Program {
        let connection = self.admin(&["policy", "connection-string", "service"]);
        let ca_file = self.ca_file();
        let line = [
            arguments,
            &["--ca-file", &ca_file, "--log-level", self.log_level],
        ]
        .concat();
        Program::start(
            "service-proxy",
            &line,
            &[("IOTHUB_CONNECTION_STRING", &connection)],
        )
    }
}
