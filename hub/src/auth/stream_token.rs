//! Bearer tokens for the streaming endpoint: JWTs that are good for one leg of one
//! stream, signed with a key that lives as long as this process. The table of legs
//! makes sure that each works once.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use common::identity::{Leg, StreamId};
use common::secret::Secret;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::limits;

/// `exp`, `jti` and `iothub` as the real hub writes them; `sub` binds stream and leg.
#[derive(Serialize, Deserialize)]
struct Claims {
    exp: u64,
    jti: String,
    iothub: String,
    sub: String,
}

/// A token was not good for the leg that it was shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bearer token is not valid for this leg")]
pub struct TokenRefused;

/// Mints and checks the tokens of one hub process.
pub struct StreamTokens {
    hub: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

fn subject(stream: StreamId, leg: Leg) -> String {
    format!("{stream}/{leg}")
}

impl StreamTokens {
    /// Starts with a fresh random key.
    pub fn new(hub: &str) -> Self {
        let key: [u8; 32] = common::random::bytes();
        Self {
            hub: hub.to_owned(),
            encoding: EncodingKey::from_secret(&key),
            decoding: DecodingKey::from_secret(&key),
        }
    }

    /// Mints the token of one leg; it ends at `expiry`, Unix seconds.
    ///
    /// # Errors
    /// [`TokenRefused`] when signing fails or the token would be longer than clients bear.
    pub fn mint(&self, stream: StreamId, leg: Leg, expiry: u64) -> Result<Secret, TokenRefused> {
        let claims = Claims {
            exp: expiry,
            jti: URL_SAFE_NO_PAD.encode(common::random::bytes::<32>()),
            iothub: self.hub.clone(),
            sub: subject(stream, leg),
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|_| TokenRefused)?;
        if token.len() > limits::STREAM_TOKEN_LENGTH {
            return Err(TokenRefused);
        }
        Ok(Secret::new(token))
    }

    /// Checks the `Authorization` header of a leg's upgrade.
    ///
    /// # Errors
    /// [`TokenRefused`], whatever is wrong.
    pub fn check(
        &self,
        header: Option<&str>,
        stream: StreamId,
        leg: Leg,
    ) -> Result<(), TokenRefused> {
        let (scheme, token) = header
            .and_then(|text| text.split_once(' '))
            .ok_or(TokenRefused)?;
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > limits::STREAM_TOKEN_LENGTH {
            return Err(TokenRefused);
        }
        let mut rules = Validation::new(Algorithm::HS256);
        rules.leeway = 0;
        rules.required_spec_claims = HashSet::from(["exp".to_owned()]);
        let claims = jsonwebtoken::decode::<Claims>(token.trim(), &self.decoding, &rules)
            .map_err(|_| TokenRefused)?
            .claims;
        if claims.sub == subject(stream, leg) && claims.iothub == self.hub {
            Ok(())
        } else {
            Err(TokenRefused)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_leg_only() {
        let tokens = StreamTokens::new("myhub");
        let stream = StreamId::random();
        let later = common::clock::unix_now() + 60;
        let token = tokens.mint(stream, Leg::Device, later).unwrap();
        assert!(!token.expose().contains(['/', '&', '=', '+', '#']));
        let header = format!("Bearer {}", token.expose());
        let check = |tokens: &StreamTokens, stream, leg| tokens.check(Some(&header), stream, leg);
        assert!(check(&tokens, stream, Leg::Device).is_ok());
        assert!(check(&tokens, stream, Leg::Service).is_err());
        assert!(check(&tokens, StreamId::random(), Leg::Device).is_err());
        assert!(check(&StreamTokens::new("myhub"), stream, Leg::Device).is_err());
        assert!(tokens.check(None, stream, Leg::Device).is_err());
        assert!(
            tokens
                .check(Some(token.expose()), stream, Leg::Device)
                .is_err()
        );
    }

    #[test]
    fn tokens_expire_and_stay_short() {
        let tokens = StreamTokens::new(&"h".repeat(63));
        let stream = StreamId::random();
        let past = tokens
            .mint(stream, Leg::Service, common::clock::unix_now() - 1)
            .unwrap();
        let header = format!("Bearer {}", past.expose());
        assert!(tokens.check(Some(&header), stream, Leg::Service).is_err());
        assert!(past.expose().len() < 512);
    }
}
