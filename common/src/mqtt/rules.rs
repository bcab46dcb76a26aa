//! Rules of MQTT 3.1.1 for packets of devices that the codec does not check. A truncated packet is
//! left to the codec, which refuses it.

/// Whether the bytes after a packet's fixed header follow the rules for its type.
pub(super) fn are_kept(packet_type: u8, data: &[u8]) -> bool {
    match packet_type {
        1 => connect(data),
        // 2.3.1: packet ids are not zero; 3.8.3: the upper bits of the QoS are reserved.
        8 => !data.starts_with(&[0, 0]) && subscribe(data),
        10 => !data.starts_with(&[0, 0]),
        _ => true,
    }
}

const RESERVED: u8 = 1;
const WILL: u8 = 1 << 2;
const WILL_QOS: u8 = 3 << 3;
const WILL_RETAIN: u8 = 1 << 5;

/// 3.1.2 and 1.5.3: the flags, and texts without U+0000.
fn connect(data: &[u8]) -> bool {
    let mut rest = data.get(2 + 4 + 1..).unwrap_or_default();
    let Some(flags) = rest.first().copied() else {
        return true;
    };
    if flags & RESERVED != 0
        || (flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0)
        || flags & WILL_QOS == WILL_QOS
    {
        return false;
    }
    // Flags and keep-alive, then the client id.
    rest = rest.get(3..).unwrap_or_default();
    let Some(client_id) = field(&mut rest) else {
        return true;
    };
    let mut texts = vec![client_id];
    if flags & WILL != 0 {
        let Some(topic) = field(&mut rest) else {
            return true;
        };
        // 3.3.2.1 and 4.7.3: topics of messages.
        if topic.is_empty() || topic.iter().any(|byte| matches!(byte, b'#' | b'+')) {
            return false;
        }
        texts.push(topic);
        field(&mut rest);
    }
    if flags & (1 << 7) != 0 {
        texts.extend(field(&mut rest));
    }
    !texts.iter().any(|text| text.contains(&0))
}

fn subscribe(data: &[u8]) -> bool {
    let mut rest = data.get(2..).unwrap_or_default();
    while field(&mut rest).is_some() {
        let Some((qos, behind)) = rest.split_first() else {
            return true;
        };
        if *qos > 2 {
            return false;
        }
        rest = behind;
    }
    true
}

/// Takes a text or binary value, which is preceded by its length.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<2>()?;
    let (value, behind) = behind.split_at_checked(u16::from_be_bytes(*length).into())?;
    *rest = behind;
    Some(value)
}
