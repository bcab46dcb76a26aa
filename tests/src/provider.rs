//! An identity provider that rotates refresh tokens, and the hub that believes it. What is asked of it can
//! be held until a test has done something.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use common::clock::unix_now;
use common::wire::access::{LOGIN_PATH, members};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use crate::fake_hub::Certificate;

/// A running one; dropped, it stops.
pub struct TestProvider {
    /// Its name and port.
    pub host: String,
    state: Arc<Mutex<State>>,
    held: watch::Sender<Option<Held>>,
    folder: TempDir,
    _task: AbortOnDropHandle<()>,
}

/// What a provider may leave without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Questions for its description.
    Description,
    /// Renewals of logins.
    Renewal,
}

#[derive(Debug, Default)]
struct State {
    described: usize,
    /// The number of the refresh token that counts.
    current: usize,
    asked: usize,
    refused: usize,
    /// Answers bring no identity token.
    is_silent: bool,
}

impl TestProvider {
    /// Starts one that has given the refresh token `refresh-0`.
    pub async fn start() -> Self {
        let (chain, key, pem) = Certificate::of("CA", "CAs").make();
        let config = ServerConfig::builder_with_provider(common::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("localhost:{}", listener.local_addr().unwrap().port());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (held, is_held) = watch::channel(None);
        let serving = {
            let (state, host) = (Arc::clone(&state), host.clone());
            async move {
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    let (tls, state, host) = (tls.clone(), Arc::clone(&state), host.clone());
                    tokio::spawn(serve(tls, socket, state, is_held.clone(), host));
                }
            }
        };
        Self {
            host,
            state,
            held,
            folder,
            _task: AbortOnDropHandle::new(tokio::spawn(serving)),
        }
    }

    /// The file of its CA.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// From now on it does not answer to this, or answers to everything.
    pub fn hold(&self, held: Option<Held>) {
        self.held.send_replace(held);
    }

    /// How often it was asked for its description.
    pub fn described(&self) -> usize {
        self.state.lock().unwrap().described
    }

    /// From now on its answers bring no identity token.
    pub fn be_silent(&self, is_silent: bool) {
        self.state.lock().unwrap().is_silent = is_silent;
    }

    /// How often it was asked to renew a login.
    pub fn asked(&self) -> usize {
        self.state.lock().unwrap().asked
    }

    /// How often it has refused that.
    pub fn refused(&self) -> usize {
        self.state.lock().unwrap().refused
    }

    /// Writes what an old login has left: a connection string with a token `~t0` that is over, in the
    /// file `name`, and beside it what renews it.
    pub fn write_login(&self, folder: &Path, name: &str) -> PathBuf {
        let file = folder.join(name);
        std::fs::write(&file, connection_string(&self.host, 0, 1)).unwrap();
        let login = json!({
            "issuer": format!("https://{}", self.host),
            "clientId": "c",
            "caFile": self.ca_file(),
            "refreshToken": "refresh-0",
        });
        std::fs::write(file.with_extension("login"), login.to_string()).unwrap();
        file
    }
}

/// The refresh token beside a connection string.
pub fn refresh_token(connection_file: &Path) -> String {
    let text = std::fs::read_to_string(connection_file.with_extension("login")).unwrap();
    let login: Value = serde_json::from_str(&text).unwrap();
    login["refreshToken"].as_str().unwrap().to_owned()
}

fn connection_string(host: &str, number: usize, expires: u64) -> String {
    let name = host.split(':').next().unwrap_or_default();
    format!(
        "HostName={host};SharedAccessKeyName=~t{number};SharedAccessSignature=SharedAccessSignature sr={name}&sig=AA==&se={expires}&skn=~t{number}"
    )
}

async fn serve(
    tls: TlsAcceptor,
    socket: TcpStream,
    state: Arc<Mutex<State>>,
    mut held: watch::Receiver<Option<Held>>,
    host: String,
) {
    let Ok(stream) = tls.accept(socket).await else {
        return;
    };
    let mut stream = BufReader::new(stream);
    let Some((line, body)) = request(&mut stream).await else {
        return;
    };
    let (status, answer) = if line.contains("/.well-known/") {
        state.lock().unwrap().described += 1;
        let is_free = |it: &Option<Held>| *it != Some(Held::Description);
        if held.wait_for(is_free).await.is_err() {
            return;
        }
        let issuer = format!("https://{host}");
        let description = json!({
            "issuer": issuer,
            "device_authorization_endpoint": format!("{issuer}/device"),
            "token_endpoint": format!("{issuer}/token"),
        });
        ("200 OK", description)
    } else if line.starts_with("POST /token") {
        let (number, is_known, is_silent) = {
            let mut state = state.lock().unwrap();
            state.asked += 1;
            let mut fields = body.split('&');
            let current = format!("refresh_token=refresh-{}", state.current);
            let is_known = fields.any(|field| field == current);
            match is_known {
                true => state.current += 1,
                false => state.refused += 1,
            }
            (state.current, is_known, state.is_silent)
        };
        if held
            .wait_for(|it| *it != Some(Held::Renewal))
            .await
            .is_err()
        {
            return;
        }
        let mut tokens = json!({
            "access_token": "a",
            "token_type": "bearer",
            "refresh_token": format!("refresh-{number}"),
        });
        if !is_silent {
            tokens["id_token"] = json!("identity");
        }
        match is_known {
            true => ("200 OK", tokens),
            false => ("400 Bad Request", json!({"error": "invalid_grant"})),
        }
    } else if line.starts_with(&format!("POST {LOGIN_PATH}")) {
        let number = state.lock().unwrap().current;
        let expires = unix_now() + 3600;
        let answer = json!({
            members::CONNECTION_STRING: connection_string(&host, number, expires),
            members::PERSON: "ada@example.com",
            members::EXPIRES: expires,
        });
        ("200 OK", answer)
    } else {
        ("200 OK", json!([]))
    };
    let answer = answer.to_string();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    );
    // A client that has left needs no answer.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// The first line of a request, and its body.
async fn request(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<(String, String)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let length = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.unwrap_or_default()];
    stream.read_exact(&mut body).await.ok()?;
    Some((lines.first()?.clone(), String::from_utf8(body).ok()?))
}
