use proptest::prelude::*;

use super::*;

/// A CHALLENGE with the target information of the specification's example (MS-NLMP, 4.2.4), and
/// with what is added.
fn challenge_with(more: &[u8]) -> Vec<u8> {
    let mut info = Vec::new();
    for (kind, value) in [(2u16, utf16("Domain")), (1, utf16("Server"))] {
        info.extend(kind.to_le_bytes());
        info.extend((value.len() as u16).to_le_bytes());
        info.extend(value);
    }
    info.extend(more);
    info.extend([0; 4]);
    let mut message = SIGNATURE.to_vec();
    message.extend(2u32.to_le_bytes());
    message.extend([0; 8]);
    message.extend(FLAGS.to_le_bytes());
    message.extend([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
    message.extend([0; 8]);
    message.extend((info.len() as u16).to_le_bytes());
    message.extend((info.len() as u16).to_le_bytes());
    message.extend(48u32.to_le_bytes());
    message.extend(info);
    message
}

pub(in crate::net::proxy) fn challenge() -> Vec<u8> {
    challenge_with(&[])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn credentials() -> Credentials {
    Credentials::parse("Domain\\User:Password").unwrap()
}

/// The bytes of a field of AUTHENTICATE.
fn field(message: &[u8], at: usize) -> &[u8] {
    let length = usize::from(u16::from_le_bytes(*piece(message, at).unwrap()));
    let start = number(message, at + 4).unwrap() as usize;
    &message[start..start + length]
}

#[test]
fn the_specifications_example() {
    let (domain, user) = ("Domain", "User");
    let key = response_key(&credentials(), domain, user);
    assert_eq!(hex(&*key), "0c868a403bfd7a93a3001ef22ef02e3f");
    let challenge = Challenge::parse(&challenge()).unwrap();
    let proof = Proof::new(&key, &challenge, [0xaa; 8], [0; 8]);
    assert_eq!(
        hex(&proof.response[..16]),
        "68cd0ab851e51c96aabc927bebef6a1c"
    );
    assert_eq!(hex(&*proof.session_key), "8de40ccadbc14a82f15cb0ad0de95ca3");
}

#[test]
fn what_is_sent_has_the_names_and_both_responses() {
    let negotiation = Negotiation::new();
    assert_eq!(negotiation.message().len(), 32);
    let answer = negotiation
        .answer_with(&challenge(), &credentials(), [0xaa; 8], [0; 8])
        .unwrap();
    assert_eq!(
        hex(field(&answer, 12)),
        "86c35097ac9cec102554764a57cccc19aaaaaaaaaaaaaaaa"
    );
    assert!(hex(field(&answer, 20)).starts_with("68cd0ab851e51c96aabc927bebef6a1c"));
    assert_eq!(field(&answer, 28), utf16("Domain"));
    assert_eq!(field(&answer, 36), utf16("User"));
    assert_eq!(answer[MIC..HEAD], [0; 16]);
}

#[test]
fn a_server_that_gives_the_time_gets_a_code_over_all_messages() {
    let mut timestamp = vec![7, 0, 8, 0];
    timestamp.extend(5u64.to_le_bytes());
    let message = challenge_with(&timestamp);
    let negotiation = Negotiation::new();
    let answer = negotiation
        .answer_with(&message, &credentials(), [0xaa; 8], [0; 8])
        .unwrap();
    assert_eq!(field(&answer, 12), [0; 24]);
    let response = field(&answer, 20);
    assert_eq!(response[24..32], 5u64.to_le_bytes());
    assert!(hex(response).contains("0600040002000000"));
    let mut without = answer.to_vec();
    without[MIC..HEAD].fill(0);
    let parsed = Challenge::parse(&message).unwrap();
    let key = response_key(&credentials(), "Domain", "User");
    let proof = Proof::new(&key, &parsed, [0xaa; 8], 5u64.to_le_bytes());
    let parts: [&[u8]; 3] = [negotiation.message(), &message, &without];
    assert_eq!(answer[MIC..HEAD], *hmac_md5(&proof.session_key, &parts));
}

#[test]
fn a_user_without_a_domain_is_sent_as_it_is() {
    let user = Credentials::parse("ada@corp.example:x").unwrap();
    let answer = Negotiation::new().answer(&challenge(), &user).unwrap();
    assert_eq!(field(&answer, 28), [0; 0]);
    assert_eq!(field(&answer, 36), utf16("ada@corp.example"));
}

proptest! {
    #[test]
    fn no_challenge_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Negotiation::new().answer(&bytes, &credentials());
    }

    #[test]
    fn no_damaged_challenge_panics(
        at in 0usize..100,
        value: u8,
        length in 0usize..100,
    ) {
        let mut message = challenge();
        if let Some(byte) = message.get_mut(at) {
            *byte = value;
        }
        message.truncate(length.max(40));
        let _ = Negotiation::new().answer(&message, &credentials());
    }
}
