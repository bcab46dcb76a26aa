//! The files of the database: opened, refused, left as they are, and private.

use common::report::chain;

use super::*;
use crate::refusal::Refusal;

#[test]
fn many_may_open_a_new_folder_at_once() {
    let folder = Folder::new();
    let registries: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| folder.open())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let policies = |r: &SqliteRegistry| runtime.block_on(r.policies()).unwrap();
    let first = policies(&registries[0]);
    assert!(registries.iter().all(|r| policies(r) == first));
}

#[test]
fn a_later_database_is_refused() {
    let folder = Folder::new();
    let registry = folder.open();
    registry
        .writer
        .lock()
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = SqliteRegistry::open(&folder.dir).err().unwrap();
    let text = chain(&error);
    assert!(text.contains("newer"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_told() {
    let folder = Folder::new();
    std::fs::write(folder.dir.database().unwrap(), "x".repeat(5000)).unwrap();
    let error = SqliteRegistry::open(&folder.dir).err().unwrap();
    let text = chain(&error);
    assert!(
        text.contains("damaged; restore it from a backup: "),
        "{text}"
    );
}

#[tokio::test]
async fn what_sqlite_says_is_for_the_operator_only() {
    let folder = Folder::new();
    let registry = folder.open();
    let dropped = registry
        .writer
        .lock()
        .unwrap()
        .execute_batch("DROP TABLE policies");
    dropped.unwrap();
    let error = registry.policies().await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("no such table: policies"), "{text}");
    assert_eq!(error.to_string(), "the registry's store failed");
    let refusal = Refusal::from(error);
    assert_eq!(refusal.message, "the registry failed");
}

#[tokio::test]
async fn opening_it_again_writes_nothing() {
    let folder = Folder::new();
    let registry = folder.open();
    registry
        .create(&device("d"), settings(Status::Enabled))
        .await
        .unwrap();
    drop(registry);
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(folder.dir.path())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let mut content = std::fs::read(entry.path()).unwrap();
                // Shared memory, with a file only for its name and its room on the disk.
                if entry.file_name() == "hub.db-shm" {
                    content.fill(0);
                }
                (entry.file_name(), content)
            })
            .collect();
        files.sort();
        files
    };
    let before = files();
    let log = before
        .iter()
        .find(|(name, _)| name == "hub.db-wal")
        .unwrap();
    assert!(log.1.is_empty(), "all of it is in the database");
    let registry = folder.open();
    assert_eq!(
        registry.devices(None, 10).await.unwrap().identities.len(),
        1
    );
    drop(registry);
    assert!(before == files());
}

#[cfg(unix)]
#[tokio::test]
async fn every_file_of_the_database_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let registry = folder.open();
    registry
        .create(&device("d"), settings(Status::Enabled))
        .await
        .unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(folder.dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        seen += 1;
    }
    assert!(seen >= 3, "hub.db, -wal and -shm");
}
