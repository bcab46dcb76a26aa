use std::fs;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

/// Far below [`LOOK`]: what is reported in this time is the system's report.
const SOON: Duration = Duration::from_secs(20);

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.toml");
    fs::write(&file, "one").unwrap();
    (folder, file)
}

/// Waits for a change that `change` makes once the watch is there.
async fn noticed(reloads: &mut Reloads, change: impl FnOnce()) {
    // The first look.
    let nothing = timeout(Duration::from_millis(500), reloads.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    change();
    let cause = timeout(SOON, reloads.next()).await.unwrap();
    assert_eq!(cause, Cause::Changed);
}

#[tokio::test]
async fn a_file_that_is_written_removed_and_made_again_is_noticed() {
    let (folder, file) = file();
    let mut reloads = Reloads::new(vec![file.clone()]);
    noticed(&mut reloads, || fs::write(&file, "two!").unwrap()).await;
    // What is beside it is of no interest.
    fs::write(folder.path().join("b.toml"), "b").unwrap();
    noticed(&mut reloads, || fs::remove_file(&file).unwrap()).await;
    noticed(&mut reloads, || fs::write(&file, "three").unwrap()).await;
}

#[tokio::test]
async fn a_file_that_is_renamed_over_it_is_noticed() {
    let (folder, file) = file();
    let mut reloads = Reloads::new(vec![file.clone()]);
    let new = folder.path().join("new");
    for text in ["two", "for"] {
        fs::write(&new, text).unwrap();
        noticed(&mut reloads, || fs::rename(&new, &file).unwrap()).await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_is_swapped_is_noticed() {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    let folder = tempfile::tempdir().unwrap();
    // As Kubernetes mounts a ConfigMap.
    let version = |name: &str| {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("a.toml"), name).unwrap();
    };
    let swap = |to: &Path| {
        let new = folder.path().join("..data_tmp");
        symlink(to, &new).unwrap();
        fs::rename(new, folder.path().join("..data")).unwrap();
    };
    version("..1");
    swap("..1".as_ref());
    let file = folder.path().join("a.toml");
    symlink("..data/a.toml", &file).unwrap();
    let mut reloads = Reloads::new(vec![file.clone()]);
    for (old, new) in [("..1", "..2"), ("..2", "..3")] {
        version(new);
        noticed(&mut reloads, || swap(new.as_ref())).await;
        fs::remove_dir_all(folder.path().join(old)).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), new);
    }
}

#[tokio::test]
async fn what_changes_before_the_first_look_is_noticed() {
    let (_folder, file) = file();
    let mut reloads = Reloads::new(vec![file.clone()]);
    fs::write(&file, "another").unwrap();
    let cause = timeout(SOON, reloads.next()).await.unwrap();
    assert_eq!(cause, Cause::Changed);
}

#[tokio::test]
async fn other_files_are_followed_from_then_on() {
    let (folder, file) = file();
    let mut reloads = Reloads::new(vec![file.clone()]);
    let other = folder.path().join("other");
    fs::write(&other, "").unwrap();
    noticed(&mut reloads, || fs::write(&file, "two!").unwrap()).await;
    reloads.follow(vec![other.clone()]);
    noticed(&mut reloads, || fs::write(&other, "two!").unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_watch_files_are_looked_at_once_in_a_while() {
    let (_folder, file) = file();
    let mut reloads = Reloads::new(vec![file.clone()]);
    reloads.look().await;
    // No event can come.
    reloads.events = Arc::default();
    fs::write(&file, "two!").unwrap();
    assert_eq!(reloads.next().await, Cause::Changed);
}
