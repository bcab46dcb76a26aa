//! The fuzz targets of parsers and of the hub on their corpora: what fuzzing has found stays found.

#[path = "../../fuzz/src/lib.rs"]
mod harness;

/// Plays each file of a target's corpus.
fn play(target: &str, story: fn(&[u8])) {
    let folder = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
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

#[test]
fn topics() {
    play("topics", harness::topics);
}

#[test]
fn sas_tokens() {
    play("sas_token", harness::sas_token);
}

#[test]
fn connection_strings() {
    play("connection_string", harness::connection_string);
}

#[test]
fn http_routes() {
    play("http_routes", harness::http_routes);
}

#[test]
fn pending_table() {
    play("pending_table", harness::pending_table);
}

#[test]
fn legs_table() {
    play("legs_table", harness::legs_table);
}
