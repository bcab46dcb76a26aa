//! `enrol`: a one-time code with which a device registers itself, or an operator gets a connection
//! string. Nothing is registered before it is redeemed.

use common::clock::unix_now;
use common::enrolment::{Code, Invitation};

use super::{CommandError, Session};
use crate::cli::EnrolArgs;
use crate::registry::{Enrolment, EnrolmentOf};

pub(super) async fn run(session: &mut Session<'_>, args: EnrolArgs) -> Result<(), CommandError> {
    let now = unix_now();
    if args.revoke {
        let revoked = session.registry.revoke_enrolments(now).await?;
        let codes = if revoked == 1 { "code" } else { "codes" };
        session.say(&format!("revoked {revoked} {codes}"));
        return Ok(());
    }
    let fingerprint = session.fingerprint.ok_or(CommandError::NotServedYet)?;
    let of = match args.operator {
        false => EnrolmentOf::Device(args.device),
        true => {
            let found = session.registry.policy(&args.policy).await?;
            let policy = found.ok_or(CommandError::NoPolicy(args.policy))?.name;
            EnrolmentOf::Operator { policy }
        }
    };
    let redeem = match &of {
        EnrolmentOf::Device(Some(device)) => format!("on {device}: device-proxy enrol"),
        EnrolmentOf::Device(None) => "on the device: device-proxy enrol".to_owned(),
        EnrolmentOf::Operator { .. } => "on the operator's machine: service-proxy login".to_owned(),
    };
    let invitation = Invitation {
        code: Code::random(fingerprint),
        hub: session.address.without_default_port(),
    };
    let enrolment = Enrolment {
        of,
        expires: now + args.ttl.as_secs(),
    };
    let digest = Code::digest_of(invitation.code.secret().expose());
    session
        .registry
        .add_enrolment(digest, enrolment, now)
        .await?;
    session.say(&format!(
        "valid once, for {}; {redeem} CODE",
        humantime::format_duration(args.ttl)
    ));
    session.line(invitation.to_text().expose())
}
