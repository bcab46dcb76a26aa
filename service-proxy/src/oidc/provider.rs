//! The identity provider: its description of itself, the device flow, and renewal.

use std::fmt;

use ::http::{Request, StatusCode, header};
use common::net::{Dialer, HttpsError};
use common::outside;
use common::secret::Secret;
use oauth2::basic::{
    BasicErrorResponse, BasicErrorResponseType, BasicRevocationErrorResponse,
    BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AuthType, Client, ClientId, ClientSecret, DeviceAuthorizationUrl, EndpointNotSet, EndpointSet,
    ExtraTokenFields, RefreshToken, RequestTokenError, Scope, StandardDeviceAuthorizationResponse,
    StandardRevocableToken, StandardTokenResponse, TokenResponse as _, TokenUrl,
};
use serde::{Deserialize, Serialize};

use super::error::LoginError;
use super::http;

/// What OpenID Connect adds to an answer of OAuth 2.0.
#[derive(Clone, Serialize, Deserialize)]
struct Extra {
    id_token: Option<String>,
}

impl fmt::Debug for Extra {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extra")
    }
}

impl ExtraTokenFields for Extra {}

type Answer = StandardTokenResponse<Extra, BasicTokenType>;
type OAuth = Client<
    BasicErrorResponse,
    Answer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// What is read of the provider's description.
#[derive(Deserialize)]
struct Description {
    issuer: String,
    device_authorization_endpoint: Option<String>,
    token_endpoint: String,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// What the provider says of a person.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Signed by the provider; the hub believes it for some minutes.
    pub token: Secret,
    /// Gets another one without the person, if the provider allows that.
    pub refresh_token: Option<Secret>,
}

/// What the provider gives without the person.
pub struct Renewed {
    /// From now on gets another identity token, in the place of the one that was used.
    pub refresh_token: Option<Secret>,
    /// The identity token: the refresh token counts even without it.
    pub token: Result<Secret, LoginError>,
}

/// An identity provider that was reached.
pub struct Provider {
    issuer: String,
    oauth: OAuth,
    /// How our client shows its secret.
    showing: Showing,
    dialer: Dialer,
}

/// How a client shows its secret. A provider may know both ways, and have each client use one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Showing {
    /// It has none.
    Nothing,
    /// In one way, and there is no other.
    OneWay,
    /// By HTTP's Basic; if that is refused, in the body.
    BasicFirst,
}

impl Showing {
    /// How, and the first way, by the ways that the provider says it knows.
    fn first(has_secret: bool, methods: Option<&[String]>) -> (Self, AuthType) {
        // As it is where nothing is said (OpenID Connect Discovery 1.0, 3).
        let knows = |name| {
            methods.map_or(name == "client_secret_basic", |all| {
                all.iter().any(|it| it == name)
            })
        };
        let (basic, body) = (knows("client_secret_basic"), knows("client_secret_post"));
        match (has_secret, basic, body) {
            (false, _, _) => (Self::Nothing, AuthType::RequestBody),
            (true, true, true) => (Self::BasicFirst, AuthType::BasicAuth),
            (true, false, true) => (Self::OneWay, AuthType::RequestBody),
            (true, _, false) => (Self::OneWay, AuthType::BasicAuth),
        }
    }
}

impl Provider {
    /// Reads its description. Ends by itself; may be dropped.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn find(
        issuer: &str,
        client_id: &str,
        client_secret: Option<&Secret>,
        dialer: &Dialer,
    ) -> Result<Self, LoginError> {
        let unfit = |missing| LoginError::Unfit {
            issuer: issuer.to_owned(),
            missing,
        };
        const NONE: &str = "does not describe itself as OpenID Connect Discovery has it";
        let url = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let request = Request::get(url).header(header::ACCEPT, "application/json");
        let request = request.body(Vec::new()).map_err(|_| unfit(NONE))?;
        let answer = http::send(dialer.clone(), request).await;
        let answer = answer.map_err(|source| unreachable(issuer, source))?;
        let description = match answer.status() {
            StatusCode::OK => serde_json::from_slice::<Description>(answer.body()).ok(),
            _ => None,
        };
        let description = description.ok_or_else(|| unfit(NONE))?;
        if description.issuer != issuer {
            return Err(unfit("calls itself by another name"));
        }
        let device = description
            .device_authorization_endpoint
            .ok_or_else(|| unfit("has no device flow (RFC 8628); enable it for this client"))?;
        let device = DeviceAuthorizationUrl::new(device).map_err(|_| unfit(NONE))?;
        let token = TokenUrl::new(description.token_endpoint).map_err(|_| unfit(NONE))?;
        let methods = description.token_endpoint_auth_methods_supported;
        let (showing, first) = Showing::first(client_secret.is_some(), methods.as_deref());
        let mut oauth = Client::new(ClientId::new(client_id.to_owned()))
            .set_device_authorization_url(device)
            .set_token_uri(token)
            .set_auth_type(first);
        if let Some(secret) = client_secret {
            oauth = oauth.set_client_secret(ClientSecret::new(secret.expose().to_owned()));
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            oauth,
            showing,
            dialer: dialer.clone(),
        })
    }

    /// Has a person log in: `show` is given where, and with which code; then it is waited for them,
    /// as long as the provider does. May be dropped.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn ask_person(
        &mut self,
        scopes: &[String],
        show: impl FnOnce(&str, &str, Option<&str>),
    ) -> Result<Identity, LoginError> {
        let details: StandardDeviceAuthorizationResponse = loop {
            let send = |request| http::send(self.dialer.clone(), request);
            let asking = self.oauth.exchange_device_code();
            let asking = asking.add_scopes(scopes.iter().cloned().map(Scope::new));
            match asking.request_async(&send).await {
                Ok(details) => break details,
                Err(error) if self.shows_otherwise(&error) => {}
                Err(error) => return Err(self.error(error)),
            }
        };
        let send = |request| http::send(self.dialer.clone(), request);
        let complete = details.verification_uri_complete();
        let complete = complete.map(|url| url.secret().as_str());
        show(
            details.verification_uri().as_str(),
            details.user_code().secret(),
            complete,
        );
        let answer = self
            .oauth
            .exchange_device_access_token(&details)
            .request_async(&send, tokio::time::sleep, Some(details.expires_in()))
            .await
            .map_err(|error| self.device_error(error))?;
        self.identity(&answer)
    }

    /// The same without the person. The provider may have used up the refresh token even when this
    /// fails, or is dropped.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn renew(&mut self, refresh_token: &Secret) -> Result<Renewed, LoginError> {
        let token = RefreshToken::new(refresh_token.expose().to_owned());
        loop {
            let send = |request| http::send(self.dialer.clone(), request);
            let asking = self.oauth.exchange_refresh_token(&token);
            match asking.request_async(&send).await {
                Ok(answer) => {
                    return Ok(Renewed {
                        refresh_token: refresh_token_of(&answer),
                        token: self.identity_token(&answer),
                    });
                }
                Err(error) if self.shows_otherwise(&error) => {}
                Err(error) => return Err(self.error(error)),
            }
        }
    }

    /// Whether our client is not known as it has shown itself, and from now on does so in another way.
    /// The provider has then used up nothing.
    fn shows_otherwise(
        &mut self,
        error: &RequestTokenError<HttpsError, BasicErrorResponse>,
    ) -> bool {
        let is_unknown = matches!(
            error,
            RequestTokenError::ServerResponse(answer)
                if *answer.error() == BasicErrorResponseType::InvalidClient
        );
        let has_other = is_unknown && self.showing == Showing::BasicFirst;
        if has_other {
            self.showing = Showing::OneWay;
            self.oauth = self.oauth.clone().set_auth_type(AuthType::RequestBody);
        }
        has_other
    }

    fn identity(&self, answer: &Answer) -> Result<Identity, LoginError> {
        Ok(Identity {
            token: self.identity_token(answer)?,
            refresh_token: refresh_token_of(answer),
        })
    }

    fn identity_token(&self, answer: &Answer) -> Result<Secret, LoginError> {
        let token = answer.extra_fields().id_token.as_deref().map(Secret::new);
        token.ok_or_else(|| LoginError::Unfit {
            issuer: self.issuer.clone(),
            missing: "gives no identity token; is it asked for the scope openid?",
        })
    }

    fn error(&self, error: RequestTokenError<HttpsError, BasicErrorResponse>) -> LoginError {
        match error {
            RequestTokenError::ServerResponse(answer) => {
                self.denied(answer.error().as_ref(), answer.error_description())
            }
            RequestTokenError::Request(source) => unreachable(&self.issuer, source),
            // The library's error would quote the answer, and a token in it.
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => LoginError::Unfit {
                issuer: self.issuer.clone(),
                missing: "gives an answer that OAuth 2.0 does not have",
            },
        }
    }

    fn device_error(
        &self,
        error: RequestTokenError<HttpsError, oauth2::DeviceCodeErrorResponse>,
    ) -> LoginError {
        match error {
            RequestTokenError::ServerResponse(answer) => {
                self.denied(answer.error().as_ref(), answer.error_description())
            }
            RequestTokenError::Request(source) => unreachable(&self.issuer, source),
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => LoginError::Unfit {
                issuer: self.issuer.clone(),
                missing: "gives an answer that OAuth 2.0 does not have",
            },
        }
    }

    fn denied(&self, code: &str, description: Option<&String>) -> LoginError {
        let reason = match (code, description) {
            ("expired_token", _) => "nobody has entered the code in time".to_owned(),
            ("access_denied", _) => "the login was declined".to_owned(),
            ("invalid_client", _) => match self.showing {
                Showing::Nothing => "it does not know the client, or wants its secret, which `service-proxy login --client-secret-file` takes".to_owned(),
                Showing::OneWay | Showing::BasicFirst => {
                    "it does not know the client, or not by this secret".to_owned()
                }
            },
            (code, Some(description)) => format!("{code}, {description}"),
            (code, None) => code.to_owned(),
        };
        LoginError::Denied {
            issuer: self.issuer.clone(),
            reason: outside::printable(&reason).into_owned(),
            is_final: !matches!(
                code,
                "temporarily_unavailable" | "server_error" | "slow_down"
            ),
        }
    }
}

fn refresh_token_of(answer: &Answer) -> Option<Secret> {
    let token = answer.refresh_token();
    token.map(|token| Secret::new(token.secret().as_str()))
}

fn unreachable(issuer: &str, source: HttpsError) -> LoginError {
    LoginError::Provider {
        issuer: issuer.to_owned(),
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_as_the_provider_says() {
        use AuthType::{BasicAuth, RequestBody};
        let (basic, body) = ("client_secret_basic", "client_secret_post");
        for (methods, showing, first) in [
            (None, Showing::OneWay, BasicAuth),
            (Some(&[basic][..]), Showing::OneWay, BasicAuth),
            (Some(&["none", body]), Showing::OneWay, RequestBody),
            (Some(&[body, basic]), Showing::BasicFirst, BasicAuth),
            // Neither: by what most know.
            (Some(&["private_key_jwt"]), Showing::OneWay, BasicAuth),
        ] {
            let methods: Option<Vec<String>> =
                methods.map(|all| all.iter().map(|&it| it.to_owned()).collect());
            let (seen, way) = Showing::first(true, methods.as_deref());
            assert_eq!(seen, showing, "{methods:?}");
            assert!(matches!(
                (way, &first),
                (BasicAuth, BasicAuth) | (RequestBody, RequestBody)
            ));
            let (seen, way) = Showing::first(false, methods.as_deref());
            assert!(seen == Showing::Nothing && matches!(way, RequestBody));
        }
    }
}
