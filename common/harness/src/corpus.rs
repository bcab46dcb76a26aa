//! What the fuzz targets have found worth keeping (`fuzz/corpus/`).

/// Plays each file of a target's corpus.
///
/// # Panics
/// When it has fewer than ten, or a story fails.
pub fn play(target: &str, story: fn(&[u8])) {
    let folder = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        eprintln!("{}", path.display());
        story(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{folder} has {count} files");
}
