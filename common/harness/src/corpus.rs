//! The corpora of the fuzz targets (`fuzz/corpus/`).

/// Runs a fuzz target's code on each file of its corpus.
///
/// # Panics
/// When the corpus has fewer than ten files, or `run` panics.
pub fn play(target: &str, run: fn(&[u8])) {
    let folder = format!("{}/../../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        eprintln!("{}", path.display());
        run(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{folder} has {count} files");
}
