//! The layers, and their errors.

use std::collections::HashMap;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;

use super::*;

const SIZE: Key = Key::new("size").or(&["SIZE", "OLD_SIZE"]);
const NAME: Key = Key::new("name");
const NAMES: Key = Key::new("names");
const DRY: Key = Key::new("dry");
const INNER: Key = Key::new("limits.inner");
const KNOWN: &[Key] = &[SIZE, NAME, NAMES, DRY, INNER];

fn file(text: &str) -> Result<File, SettingError> {
    File::parse(Path::new("f.toml"), text, KNOWN, &[])
}

/// The result of `look` with these variables and this file.
fn found<T>(
    variables: &[(&str, &str)],
    text: &str,
    look: impl FnOnce(&Sources<'_>) -> Result<T, SettingError>,
) -> Result<T, String> {
    let table: HashMap<&str, &str> = variables.iter().copied().collect();
    let environment = |name: &str| table.get(name).map(OsString::from);
    let mut sources = Sources::new(&environment);
    sources.file = Arc::new(file(text).map_err(|error| error.to_string())?);
    look(&sources).map_err(|error| error.to_string())
}

fn size(given: Option<u32>, variables: &[(&str, &str)], text: &str) -> Result<u32, String> {
    found(variables, text, |sources| {
        sources.value(SIZE, given, |text| number(text, 1..=100), 7)
    })
}

#[test]
fn each_layer_takes_precedence_over_those_below_it() {
    assert_eq!(size(None, &[], "").unwrap(), 7);
    assert_eq!(size(None, &[], "size = 8").unwrap(), 8);
    assert_eq!(size(None, &[("SIZE", "9")], "size = 8").unwrap(), 9);
    assert_eq!(size(Some(10), &[("SIZE", "9")], "size = 8").unwrap(), 10);
    // An empty variable counts as unset, and the first of two is used.
    assert_eq!(size(None, &[("SIZE", " ")], "size = 8").unwrap(), 8);
    let both = [("SIZE", "\"9\"\r"), ("OLD_SIZE", "11")];
    assert_eq!(size(None, &both, "").unwrap(), 9);
    assert_eq!(size(None, &both[1..], "").unwrap(), 11);
    // A number may be given as text.
    assert_eq!(size(None, &[], "size = '12'").unwrap(), 12);
    assert_eq!(size(None, &[], "size = 0x1_0").unwrap(), 16);
}

#[test]
fn an_error_names_the_place() {
    let error = size(None, &[("SIZE", "x")], "").unwrap_err();
    assert_eq!(
        error,
        "the environment variable SIZE: give a whole number from 1 to 100"
    );
    let error = size(None, &[], "name = 'n'\n\nsize = 101").unwrap_err();
    assert_eq!(
        error,
        "f.toml, line 3: size: give a whole number from 1 to 100"
    );
    let error = size(None, &[], "size = true").unwrap_err();
    assert!(
        error.starts_with("f.toml, line 1: size: give a text"),
        "{error}"
    );
    let error = size(None, &[], "[limits]\ninner = 1\nsize = 3").unwrap_err();
    assert_eq!(
        error,
        "f.toml, line 3: limits.size is no setting; a setting has the name of its option, see --help"
    );
    assert_eq!(size(None, &[], "[limits]").unwrap(), 7);
    for unknown in [
        "sizes = 1",
        "[other]",
        "[limit]",
        "limits = 1",
        "[size]\nx = 1",
        "size.x = 1",
    ] {
        let error = size(None, &[], unknown).unwrap_err();
        assert!(
            error.contains("is no setting") || error.contains("give a text"),
            "{error}"
        );
    }
    let error = size(None, &[], "size = 1\nsize = 2").unwrap_err();
    assert!(error.starts_with("f.toml, line 2: "), "{error}");
}

#[test]
fn no_error_repeats_a_text_of_the_file() {
    for text in [
        "HostName=h;SharedAccessKey=TOPSECRET",
        "'HostName=h;SharedAccessKey=TOPSECRET' = 1",
        "name = TOPSECRET",
        "name = 'TOPSECRET",
        "name = \"TOPSECRET\\q\"",
        "dry = 'TOPSECRET'",
        "name = ['TOPSECRET']",
        "size = 'TOPSECRET'",
        "names = [['TOPSECRET']]",
    ] {
        let look = |sources: &Sources<'_>| {
            sources.flag(DRY, false)?;
            sources.text(NAME)?;
            sources.list(NAMES, Vec::new())?;
            sources.value(SIZE, None, |text| number(text, 1..=9), 1)
        };
        let error = found(&[], text, look).unwrap_err();
        assert!(error.starts_with("f.toml, line 1"), "{error}");
        assert!(!error.contains("TOPSECRET"), "{error}");
    }
    let held = file("name = 'TOPSECRET'").unwrap();
    assert!(!format!("{held:?}").contains("TOPSECRET"));
}

#[test]
fn lists_and_flags() {
    let names = |given: &[&str], text: &str| {
        let given = given.iter().map(|&name| name.to_owned()).collect();
        found(&[], text, |sources| sources.list(NAMES, given)).map(|names| {
            let names = names.into_iter().map(|name| name.value);
            names.collect::<Vec<_>>()
        })
    };
    let text = "names = [\n  'a',\n  'b',\n]";
    assert_eq!(names(&[], text).unwrap(), ["a", "b"]);
    assert_eq!(names(&["c"], text).unwrap(), ["c"]);
    assert_eq!(names(&[], "names = 'a'").unwrap(), ["a"]);
    assert!(names(&[], "").unwrap().is_empty());
    let error = names(&[], "names = ['a',\n true]").unwrap_err();
    assert!(error.starts_with("f.toml, line 2: names: "), "{error}");

    let dry = |given, text| found(&[], text, |sources| sources.flag(DRY, given));
    assert!(!dry(false, "").unwrap() && !dry(false, "dry = false").unwrap());
    assert!(dry(false, "dry = true").unwrap() && dry(true, "dry = false").unwrap());
    assert!(dry(false, "dry = 1").is_err());
}

#[test]
fn paths_and_files() {
    let folder = std::env::temp_dir().join(format!("settings-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("f.toml");
    std::fs::write(&path, "name = 'n'\r\n").unwrap();
    let key = Key::new("config").or(&["CONFIG"]);
    let text = path.to_str().unwrap().to_owned();
    let environment = |name: &str| (name == "CONFIG").then(|| OsString::from(&text));
    let sources = Sources::open(key, None, &environment, KNOWN).unwrap();
    let name = sources.text(NAME).unwrap().unwrap();
    assert_eq!(name.value.expose(), "n");
    let missing = Some(folder.join("none.toml"));
    let error = Sources::open(key, missing, &environment, KNOWN).err();
    assert!(matches!(error, Some(SettingError::Unreadable { .. })));

    std::fs::write(&path, "\u{feff}\"secret\"\r\n").unwrap();
    assert_eq!(secret_file("a key", &path).unwrap().expose(), "secret");
    let error = secret_file("a key", &folder.join("none")).unwrap_err();
    assert!(error.to_string().starts_with("cannot read a key from "));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[cfg(unix)]
#[test]
fn a_path_need_not_be_text_but_a_value_must() {
    use std::os::unix::ffi::OsStringExt as _;
    let environment = |_: &str| Some(OsString::from_vec(vec![b'/', 0xff]));
    let sources = Sources::new(&environment);
    let path = sources.path(SIZE, None).unwrap().unwrap();
    assert_eq!(path.value.as_os_str().len(), 2);
    assert!(matches!(
        sources.text(SIZE),
        Err(SettingError::NotText("SIZE"))
    ));
}

#[test]
fn words_and_levels() {
    #[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
    enum Colour {
        Red,
        DarkBlue,
    }
    assert_eq!(choice::<Colour>("dark-blue"), Ok(Colour::DarkBlue));
    assert_eq!(
        choice::<Colour>("green"),
        Err("give one of red, dark-blue".to_owned())
    );
    assert_eq!(log_level("WARN"), Ok(LevelFilter::WARN));
    assert!(log_level("loud").is_err() && log_level("").is_err());
}

#[test]
fn differing_settings_are_named() {
    let old = file("name = \"a\"\nnames = [\"a\", \"b\"]\n[limits]\ninner = 1").unwrap();
    let moved = file("limits.inner = 1\nnames = [\"a\", \"b\"]\n\nname = \"a\"").unwrap();
    assert_eq!(old.differing(&moved).count(), 0);
    let other = file("names = [\"b\", \"a\"]\ndry = true\nlimits.inner = 2").unwrap();
    let mut names: Vec<_> = old.differing(&other).collect();
    names.sort_unstable();
    assert_eq!(names, ["dry", "limits.inner", "name", "names"]);
}

#[test]
fn tables_have_names_of_their_own() {
    const NAME: Key = Key::new("name").or(&["NAME"]);
    const NAMES: Key = Key::new("names").or(&["NAMES"]);
    const DRY: Key = Key::new("dry");
    const TABLES: Tables = Tables {
        kind: "sites",
        keys: &[NAME, NAMES],
    };
    let parse = |text: &str| File::parse(Path::new("f.toml"), text, KNOWN, &[TABLES]);
    let text = "name = \"all\"\ndry = true\n[sites.b]\nname = \"of b\"\n[sites.a]\n[sites.c]\nnames = [\"x\"]";
    let file = Arc::new(parse(text).unwrap());
    let environment = |name: &str| (name == "NAME").then(|| "variable".into());
    let sources = Sources {
        file: Arc::clone(&file),
        ..Sources::new(&environment)
    };
    let names: Vec<_> = sources.tables("sites").into_iter().collect();
    let names: Vec<_> = names.iter().map(|it| it.value.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let name = |sources: &Sources<'_>| {
        let found = sources.text(NAME).unwrap();
        found.map(|it| it.value.expose().to_owned())
    };
    assert_eq!(name(&sources).as_deref(), Some("variable"));
    let b = sources.of_table("sites", "b", &[NAMES]);
    assert_eq!(name(&b).as_deref(), Some("of b"));
    assert!(b.flag(DRY, false).unwrap(), "as for all");
    let c = sources.of_table("sites", "c", &[NAME]);
    assert_eq!(name(&c), None, "its own only");
    assert_eq!(c.list(NAMES, Vec::new()).unwrap().len(), 1);
    assert_eq!(c.path(NAME, None).unwrap(), None);
    for (wrong, place) in [
        (
            "[sites.b]\nnam = 1",
            "f.toml, line 2: sites.b.nam is no setting",
        ),
        (
            "[sites.b.name]\nx = 1",
            "f.toml, line 2: sites.b.name.x is no",
        ),
        ("sites = 1", "f.toml, line 1: sites is no setting"),
        ("sites.b = 1", "f.toml, line 1: sites.b is no setting"),
        ("[sites.b]\ndry = true", "f.toml, line 2: sites.b.dry is no"),
    ] {
        let error = parse(wrong).unwrap_err().to_string();
        assert!(error.starts_with(place), "{error}");
    }
    // A name may have dots.
    let dotted = Arc::new(parse("[sites.\"a.b\"]\nname = \"x\"\n[sites.\"a.c\"]").unwrap());
    let sources = Sources {
        file: Arc::clone(&dotted),
        ..Sources::new(&environment)
    };
    let names: Vec<_> = sources.tables("sites").into_iter().collect();
    let names: Vec<_> = names.iter().map(|it| it.value.as_str()).collect();
    assert_eq!(names, ["a.b", "a.c"]);
    let found = sources.of_table("sites", "a.b", &[NAME]).text(NAME);
    let found = found.unwrap().unwrap();
    assert_eq!(found.value.expose(), "x");
    assert!(found.source.to_string().ends_with("sites.a.b.name"));
    let none = parse("[sites]").unwrap();
    let mut differing: Vec<_> = dotted.differing(&none).collect();
    differing.sort_unstable();
    assert_eq!(differing, ["sites", "sites.a.b.name", "sites.a.c"]);
    let other = parse("name = \"all\"\ndry = true\n[sites.b]\nname = \"new\"").unwrap();
    let mut differing: Vec<_> = file.differing(&other).collect();
    differing.sort_unstable();
    assert_eq!(differing, ["sites.a", "sites.b.name", "sites.c.names"]);
}
