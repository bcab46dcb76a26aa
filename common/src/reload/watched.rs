//! Files, what they were like at the last look, and the watches on their folders.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Links to links: as many as Linux follows.
const LINKS: usize = 40;

/// What shows that a file is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    modified: Option<SystemTime>,
    length: u64,
    /// Which file it is, and when its owner, its mode or its name was changed.
    #[cfg(unix)]
    inode: (u64, u64, i64, i64),
}

impl Mark {
    /// None of what is no file: a pipe can be read once only.
    fn of(file: &Path) -> Option<Self> {
        let metadata = fs::metadata(file).ok().filter(Metadata::is_file)?;
        Some(Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            inode: {
                use std::os::unix::fs::MetadataExt as _;
                let changed = (metadata.ctime(), metadata.ctime_nsec());
                (metadata.dev(), metadata.ino(), changed.0, changed.1)
            },
        })
    }
}

/// Files as they were at the last look.
pub(super) struct Watched {
    marks: Vec<(PathBuf, Option<Mark>)>,
    /// Not before the first look; and none where the system has no more.
    watcher: Option<RecommendedWatcher>,
    is_new: bool,
}

impl Watched {
    /// As these files are now. Blocks.
    pub(super) fn new(files: &[PathBuf]) -> Self {
        Self {
            marks: files.iter().map(|file| marked(file)).collect(),
            watcher: None,
            is_new: true,
        }
    }

    /// Whether one of the files that were there before has changed. From now on `events` is notified
    /// of what may be a change. Blocks.
    pub(super) fn look(&mut self, files: &[PathBuf], events: &Arc<Notify>) -> bool {
        let is_same = self.marks.iter().map(|(file, _)| file).eq(files);
        if self.is_new {
            // Before the files are looked at, so that none changes in between.
            self.watcher = watch(files, events);
        }
        let marks: Vec<_> = files.iter().map(|file| marked(file)).collect();
        let is_changed = marks.iter().any(|(file, mark)| {
            let mut before = self.marks.iter();
            before.any(|(other, before)| other == file && before != mark)
        });
        if (is_changed || !is_same) && !self.is_new {
            // A folder, or a link to it, may be another one now, and its watch gone with the old one.
            self.watcher = watch(files, events);
        }
        self.is_new = false;
        self.marks = marks;
        is_changed
    }
}

fn marked(file: &Path) -> (PathBuf, Option<Mark>) {
    (file.to_owned(), Mark::of(file))
}

/// Watches the folders of these files, as far as the system can.
fn watch(files: &[PathBuf], events: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let mut places = Places::default();
    for file in files {
        places.add(file);
    }
    let Places { folders, names } = places;
    if folders.is_empty() {
        return None;
    }
    let events = Arc::clone(events);
    let tell = move |event: notify::Result<Event>| {
        if event.as_ref().map_or(true, |event| concerns(event, &names)) {
            events.notify_one();
        }
    };
    let mut watcher = match notify::recommended_watcher(tell) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::debug!("changes of files are not reported by the system: {error}");
            return None;
        }
    };
    for folder in folders {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
            let folder = folder.display();
            tracing::debug!("changes in {folder} are not reported by the system: {error}");
        }
    }
    Some(watcher)
}

/// Whether an event may be a change of files or links with these names. That a file was read is none.
fn concerns(event: &Event, names: &BTreeSet<OsString>) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    let is_ours = |path: &PathBuf| path.file_name().is_none_or(|name| names.contains(name));
    event.paths.is_empty() || event.paths.iter().any(is_ours)
}

/// Where something happens when a file changes: its own folder, and those of all links on the way.
#[derive(Debug, Default)]
struct Places {
    folders: BTreeSet<PathBuf>,
    names: BTreeSet<OsString>,
}

impl Places {
    fn add(&mut self, file: &Path) {
        let Ok(mut file) = std::path::absolute(file) else {
            return;
        };
        self.note(&file);
        for _ in 0..LINKS {
            let Some((link, to)) = first_link(&file) else {
                return;
            };
            self.note(&link);
            // What stands behind the link in the path.
            let rest = file.strip_prefix(&link).unwrap_or(Path::new(""));
            let folder = link.parent().unwrap_or(Path::new("/"));
            // Without the slash that joining nothing leaves.
            file = folder.join(to).join(rest).components().collect();
            self.note(&file);
        }
    }

    fn note(&mut self, place: &Path) {
        if let (Some(folder), Some(name)) = (place.parent(), place.file_name()) {
            self.folders.insert(folder.to_owned());
            self.names.insert(OsStr::to_owned(name));
        }
    }
}

/// The first part of a path that is a symbolic link, and where it leads.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut parts: Vec<_> = path.ancestors().collect();
    parts.reverse();
    let mut links = parts
        .into_iter()
        .filter_map(|part| Some((part.to_owned(), fs::read_link(part).ok()?)));
    links.next()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn all_links_on_the_way_are_watched() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("config/..1")).unwrap();
        fs::write(root.join("config/..1/a.toml"), "").unwrap();
        symlink("..1", root.join("config/..data")).unwrap();
        symlink("..data/a.toml", root.join("config/b.toml")).unwrap();
        symlink("config", root.join("current")).unwrap();
        let mut places = Places::default();
        places.add(&root.join("current/b.toml"));
        for name in ["", "config", "config/..1"] {
            let folder = root.join(name).components().collect::<PathBuf>();
            assert!(places.folders.contains(&folder), "{name}: {places:?}");
        }
        for name in ["current", "b.toml", "..data", "a.toml"] {
            assert!(places.names.contains(OsStr::new(name)), "{places:?}");
        }
        // A link to itself.
        symlink("loop", root.join("loop")).unwrap();
        places.add(&root.join("loop"));
    }
}
