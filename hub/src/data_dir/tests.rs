//! A folder in a temporary place.

use super::*;
use crate::tls::ca::CA_KEY;

#[test]
fn addresses_are_kept() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("a/b");
    let dir = DataDir::open(&path).unwrap();
    assert!(dir.is_new());
    assert_eq!(dir.address().unwrap().to_string(), "localhost");
    assert_eq!(dir.stored_address().unwrap(), None);
    dir.store_address(&HubAddress::parse("localhost:8443").unwrap())
        .unwrap();
    let again = DataDir::open(&path).unwrap();
    assert!(!again.is_new());
    let address = again.address().unwrap();
    assert_eq!(address.to_string(), "localhost:8443");
    let written = || {
        std::fs::metadata(path.join(ADDRESS))
            .unwrap()
            .modified()
            .unwrap()
    };
    let before = written();
    again.store_address(&address).unwrap();
    assert_eq!(written(), before, "it is stored already");
    std::fs::write(path.join(ADDRESS), "a b").unwrap();
    assert!(matches!(again.address(), Err(DataDirError::BadAddress(_))));
}

#[test]
fn one_hub_at_a_time() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = DataDir::open(temporary.path()).unwrap();
    assert!(!dir.is_served().unwrap());
    let lock = dir.lock().unwrap();
    assert!(dir.is_served().unwrap());
    let error = dir.lock().unwrap_err();
    assert!(error.to_string().contains("another stream-hub"), "{error}");
    drop(lock);
    assert!(!dir.is_served().unwrap());
    dir.lock().unwrap();
}

#[test]
fn a_file_is_no_folder() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("f");
    std::fs::write(&path, "").unwrap();
    assert!(matches!(
        DataDir::open(&path),
        Err(DataDirError::NotAFolder(_))
    ));
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_look_inside() {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let open_up = |path: &Path| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("new");
    let dir = DataDir::open(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&dir.database().unwrap()), 0o600);
    assert_eq!(mode(&dir.tls().unwrap()), 0o700);

    for open in [path.clone(), path.join(TLS)] {
        open_up(&open);
        let error = DataDir::open(&path).unwrap_err();
        let command = format!("`chmod 700 {}`", open.display());
        assert!(error.to_string().contains(&command), "{error}");
        assert_eq!(mode(&open), 0o755, "it is left for a person to judge");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    DataDir::open(&path).unwrap();

    let empty = temporary.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    open_up(&empty);
    DataDir::open(&empty).unwrap();
    assert_eq!(mode(&empty), 0o700, "nothing was in it to be read");

    let foreign = temporary.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("something"), "").unwrap();
    open_up(&foreign);
    let error = DataDir::open(&foreign).unwrap_err();
    assert!(matches!(error, DataDirError::Foreign(_)), "{error}");
    assert_eq!(mode(&foreign), 0o755, "it is left alone");
}

/// Only root can give a file away, so only root can try.
#[cfg(unix)]
#[test]
fn what_belongs_to_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("data");
    let dir = DataDir::open(&path).unwrap();
    dir.database().unwrap();
    dir.tls().unwrap();
    std::fs::write(path.join(TLS).join(CA_KEY), "").unwrap();
    let own = |path: &Path, user| std::os::unix::fs::chown(path, Some(user), None).unwrap();
    for foreign in ["", DATABASE, TLS, "tls/ca.key"] {
        let foreign = path.join(foreign);
        own(&foreign, 4321);
        let error = DataDir::open(&path).unwrap_err();
        assert!(matches!(error, DataDirError::Owner { .. }), "{error}");
        let command = format!("`chown -R 0 {}`", path.display());
        assert!(error.to_string().contains(&command), "{error}");
        own(&foreign, 0);
    }
    DataDir::open(&path).unwrap();
}

#[test]
fn an_empty_database_beside_a_ca_is_a_loss() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = DataDir::open(&temporary.path().join("data")).unwrap();
    let path = dir.database().unwrap();
    // A first start that did not come far.
    dir.database().unwrap();
    std::fs::write(dir.tls().unwrap().join(CA_CERTIFICATE), "a CA").unwrap();
    let error = dir.database().unwrap_err();
    assert!(matches!(error, DataDirError::EmptyDatabase(_)), "{error}");
    let tls = dir.tls().unwrap();
    std::fs::remove_file(tls.join(CA_CERTIFICATE)).unwrap();
    dir.database().unwrap();
    std::fs::create_dir(tls.join(acme::FOLDER)).unwrap();
    std::fs::write(tls.join(acme::FOLDER).join(acme::KEY), "a key").unwrap();
    let error = dir.database().unwrap_err();
    assert!(matches!(error, DataDirError::EmptyDatabase(_)), "{error}");
    let log = path.with_file_name("hub.db-wal");
    std::fs::write(&log, "a change").unwrap();
    dir.database().unwrap();
    std::fs::remove_file(&log).unwrap();
    std::fs::remove_file(&path).unwrap();
    dir.database().unwrap();
}
