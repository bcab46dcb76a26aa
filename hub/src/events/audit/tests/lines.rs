//! Lines, hashes and signatures alone.

use proptest::prelude::*;

use super::super::file;
use super::super::verify::{self, Verifier};
use super::*;

fn key() -> (TempDir, SigningKey) {
    let folder = tempfile::tempdir().unwrap();
    let key = SigningKey::ensure(folder.path()).unwrap();
    (folder, key)
}

/// A chain of so many lines, with a head at its beginning, at every fifth line, and at its end.
fn lines(count: usize, key: &SigningKey) -> (Vec<String>, Link) {
    let (mut link, mut lines) = (Link::START, Vec::new());
    for number in 0..count {
        let (line, next) = if number % 5 == 0 || number + 1 == count {
            let head = Record::new("Audit", "SignedHead").with("key", key.public().id());
            link.seal_signed(&now(), &head, key)
        } else {
            link.seal(
                &now(),
                &Record::new("A", "B").with("name", format!("dév {number}")),
            )
        };
        lines.push(line);
        link = next;
    }
    (lines, link)
}

/// Whether something is found in these lines.
fn verify(lines: &[impl AsRef<[u8]>], key: &PublicKey, known: Link) -> Result<(), Finding> {
    let mut verifier = Verifier::new(Some(key), Some(known));
    for line in lines {
        let line = line.as_ref();
        verifier.line(line.strip_suffix(b"\n").unwrap_or(line))?;
    }
    verifier.finish().map(|_| ())
}

#[test]
fn a_number_that_no_hub_comes_to_is_none() {
    // Anybody can number lines, and hash them.
    let record = Record::new("A", "B");
    for seq in [u64::MAX - 1, u64::MAX / 2] {
        let before = Link { seq, hash: [7; 32] };
        let (line, _) = before.seal(&now(), &record);
        let read = chain::read(line.trim_end().as_bytes(), None);
        assert_eq!(read, Err(chain::LineError::Malformed), "{line}");
    }
    let (_folder, key) = key();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let (last, _) = Link {
        seq: u64::MAX - 1,
        hash: [7; 32],
    }
    .seal(&now(), &record);
    let (first, end) = lines(1, &key);
    std::fs::write(&path, format!("{}{last}", first[0])).unwrap();
    // A hub goes on behind the last line that can have been its own.
    let mut file = file::LogFile::open(&path).unwrap();
    let found = file.check(key.public(), None).unwrap();
    assert_eq!(found.last, Some(end));
    assert!(matches!(found.wrong, Some((2, Finding::Line(_)))));
}

#[test]
fn every_changed_byte_is_found() {
    let (_folder, key) = key();
    let (lines, end) = lines(7, &key);
    assert_eq!(verify(&lines, key.public(), end), Ok(()));
    for at in 0..lines.len() {
        for place in 0..lines[at].len() - 1 {
            for change in [1, 0x20, 0x80] {
                let mut changed: Vec<Vec<u8>> =
                    lines.iter().map(|line| line.clone().into_bytes()).collect();
                changed[at][place] ^= change;
                let found = verify(&changed, key.public(), end);
                assert!(found.is_err(), "line {at}, byte {place} ^ {change}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_removed_doubled_or_moved_line_is_found(count in 2..40_usize, a: usize, b: usize) {
        let (_folder, key) = key();
        let (lines, end) = lines(count, &key);
        prop_assert_eq!(verify(&lines, key.public(), end), Ok(()));
        let (a, b) = (a % count, b % count);

        let mut removed = lines.clone();
        removed.remove(a);
        prop_assert!(verify(&removed, key.public(), end).is_err());

        let mut doubled = lines.clone();
        doubled.insert(b, lines[a].clone());
        prop_assert!(verify(&doubled, key.public(), end).is_err());

        let mut swapped = lines.clone();
        swapped.swap(a, b);
        prop_assert_eq!(verify(&swapped, key.public(), end).is_err(), a != b);

        prop_assert!(verify(&lines[..a], key.public(), end).is_err(), "cut off");
        let beginning = verify(&lines[a..], key.public(), end);
        prop_assert_eq!(beginning.is_err(), a != 0);
    }

    #[test]
    fn a_chain_that_was_made_anew_has_no_signatures(count in 3..20_usize, at: usize) {
        let (_folder, key) = key();
        let (_other_folder, other) = self::key();
        let (lines, end) = lines(count, &key);
        // All that somebody can make who has no key: a chain with his own.
        let at = 1 + at % (count - 1);
        let (mut forged, mut link) = (lines[..at].to_vec(), Link::START);
        for line in &forged {
            link = chain::read(line.trim_end().as_bytes(), None).unwrap().link;
        }
        let (line, next) = link.seal(&now(), &Record::new("A", "Forged"));
        forged.push(line);
        let unsigned = verify(&forged, key.public(), end);
        prop_assert!(unsigned.is_err(), "the data folder knows another end");
        let (line, _) = next.seal_signed(&now(), &Record::new("Audit", "SignedHead"), &other);
        forged.push(line);
        let mut verifier = Verifier::new(Some(key.public()), None);
        let found: Result<Vec<()>, Finding> =
            forged.iter().map(|line| verifier.line(line.trim_end().as_bytes())).collect();
        prop_assert!(found.is_err(), "signed by another key");
    }
}

#[test]
fn lines_without_heads_are_found() {
    let (_folder, key) = key();
    let (mut link, mut verifier) = (Link::START, Verifier::new(Some(key.public()), None));
    let mut next = |is_signed: bool| {
        let record = Record::new("A", "B");
        let (line, next) = match is_signed {
            true => link.seal_signed(&now(), &record, &key),
            false => link.seal(&now(), &record),
        };
        link = next;
        line
    };
    verifier.line(next(true).trim_end().as_bytes()).unwrap();
    for _ in 0..verify::MOST_UNSIGNED {
        verifier.line(next(false).trim_end().as_bytes()).unwrap();
    }
    let found = verifier.line(next(false).trim_end().as_bytes());
    assert_eq!(found, Err(Finding::Unsigned));
}

#[test]
fn the_public_key_survives_pem() {
    let (folder, key) = key();
    let file = folder.path().join("public.pem");
    std::fs::write(&file, key.public().to_pem()).unwrap();
    assert_eq!(PublicKey::read(&file).unwrap(), *key.public());
    std::fs::write(&file, "no key").unwrap();
    assert!(PublicKey::read(&file).is_err());
    let again = SigningKey::ensure(folder.path()).unwrap();
    assert_eq!(again.public(), key.public());
}
