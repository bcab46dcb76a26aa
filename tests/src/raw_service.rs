//! A service that a test drives by hand, HTTP request by request.

use common::clock::unix_now;
use common::connection_string::{ServiceConnectionString, ServiceCredential};
use common::net::{self, Dialer, TlsHostStream};
use common::sas_token;
use common::secret::Secret;
use common::websocket::WebSocket;
use common::wire::initiation::{self, InitiationResult};
use common::wire::problem::Problem;
use common::wire::streaming_endpoint::StreamingEndpoint;
use reqwest::{Method, RequestBuilder, Response};

use crate::TestHub;

/// A leg of the service.
pub type Leg = WebSocket<TlsHostStream>;

/// A service with a policy's key.
pub struct RawService {
    client: reqwest::Client,
    base: String,
    token: String,
    tls: std::sync::Arc<rustls::ClientConfig>,
}

/// A SAS token of this policy that expires at the given time.
pub fn token(connection: &ServiceConnectionString, expiry: u64) -> String {
    let ServiceCredential::Key(key) = &connection.credential else {
        panic!("no key")
    };
    sas_token::mint(
        connection.host.name(),
        key,
        Some(&connection.policy),
        expiry,
    )
    .expose()
    .to_owned()
}

impl RawService {
    /// A service with the policy `service`.
    pub async fn new(hub: &TestHub) -> Self {
        Self::with_policy(hub, "service").await
    }

    /// A service with this policy.
    pub async fn with_policy(hub: &TestHub, policy: &str) -> Self {
        let token = token(&hub.policy(policy).await, unix_now() + 3600);
        Self::with_token(hub, token)
    }

    /// A service that authenticates with this token.
    pub fn with_token(hub: &TestHub, token: String) -> Self {
        Self::at(hub.https.port(), hub.tls(), token)
    }

    /// The same at this port.
    pub fn at(port: u16, tls: std::sync::Arc<rustls::ClientConfig>, token: String) -> Self {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .no_proxy()
            .build()
            .unwrap();
        Self {
            client,
            base: format!("https://localhost:{port}"),
            token,
            tls,
        }
    }

    /// A request with the token.
    pub fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.base))
            .header("Authorization", &self.token)
    }

    /// Initiates a stream; time limits in seconds.
    pub async fn initiate(
        &self,
        device: &str,
        name: &str,
        connect: f32,
        response: f32,
    ) -> Response {
        self.call(
            Method::POST,
            &format!("/twins/{device}/streams/{name}?api-version=2020-09-30"),
        )
        .header(initiation::CONNECT_TIMEOUT, connect.to_string())
        .header(initiation::RESPONSE_TIMEOUT, response.to_string())
        .send()
        .await
        .unwrap()
    }

    /// Opens the service's leg of an accepted stream.
    pub async fn leg(&self, url: &str, token: &Secret) -> Leg {
        self.try_leg(url, token).await.unwrap()
    }

    /// Tries to open a leg.
    ///
    /// # Errors
    /// Why the hub did not let it.
    pub async fn try_leg(&self, url: &str, token: &Secret) -> Result<Leg, net::ConnectError> {
        let endpoint = StreamingEndpoint::parse(url)?;
        net::leg(&Dialer::new(&self.tls), &endpoint, token).await
    }
}

/// URL and token of an accepted stream's service leg.
pub fn accepted(response: &Response) -> (String, Secret) {
    assert_eq!(response.status(), 200);
    match InitiationResult::from_headers(response.headers()).unwrap() {
        InitiationResult::Accepted { url, token } => (url, token),
        InitiationResult::Rejected => panic!("rejected"),
    }
}

/// Status and error code of a refusal. Checks that the name in the header and the number in the
/// body agree.
pub async fn refusal(response: Response) -> (u16, u32) {
    let status = response.status().as_u16();
    let name = response.headers()["iothub-errorcode"]
        .to_str()
        .unwrap()
        .to_owned();
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(kind, "application/json; charset=utf-8");
    let number = Problem::from_body(&response.bytes().await.unwrap())
        .number
        .unwrap();
    let by_name = common::wire::problem::ErrorCode::by_name(&name).unwrap();
    assert_eq!(by_name.number, number);
    (status, number)
}
