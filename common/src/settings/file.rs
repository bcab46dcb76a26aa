//! A configuration file: TOML, with the names of the long options as keys. Tables are flattened:
//! `streams` in `[limits]` is the setting `limits.streams`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Key, Setting, SettingError, Source};
use crate::secret::Secret;
use crate::{outside, text_input};

/// The contents of a configuration file; empty without one.
#[derive(Debug, Default)]
pub struct File {
    entries: BTreeMap<String, Entry>,
}

/// Tables with a name of their own, as `[hubs.acme]` and `[hubs.globex]`, all of which may contain
/// the same settings.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    /// What stands before their names.
    pub kind: &'static str,
    /// The settings in each.
    pub keys: &'static [Key],
}

/// Stands for a dot in the name of a table: no key contains this character.
const DOT: &str = "\u{1}";

#[derive(Debug, Clone)]
struct Entry {
    source: Source,
    value: Value,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    /// A string or a number; any string may be a secret.
    Text(Secret),
    Flag(bool),
    List(Vec<Entry>),
    /// A table without settings.
    Empty,
    /// A date, or a table in a list: no setting has such a value.
    Other,
}

impl File {
    /// Reads a file that may contain the settings `known`, and such tables. Blocks.
    ///
    /// # Errors
    /// [`SettingError`] when it cannot be read, is not TOML, or contains other settings.
    pub fn read(path: &Path, known: &[Key], tables: &[Tables]) -> Result<Self, SettingError> {
        let text = text_input::read(path).map_err(|source| SettingError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text, known, tables)
    }

    /// The same for a file's text.
    ///
    /// # Errors
    /// [`SettingError`] when it is not TOML, or contains other settings.
    pub fn parse(
        path: &Path,
        text: &str,
        known: &[Key],
        tables: &[Tables],
    ) -> Result<Self, SettingError> {
        let table = DeTable::parse(text).map_err(|error| SettingError::Syntax {
            path: path.to_owned(),
            line: line(text, error.span()),
            // The error's Display would show the line itself, and any secret in it.
            reason: error.message().to_owned(),
        })?;
        let mut reader = Reader {
            path: Arc::from(path),
            text,
            entries: BTreeMap::new(),
        };
        reader.table("", table.into_inner());
        let is_known = |name: &str, value: &Value| {
            if is_one_of(known, name, value) {
                return true;
            }
            // A table of such tables, in which there are none.
            let is_kind = tables.iter().any(|tables| tables.kind == name);
            if is_kind && matches!(value, Value::Empty) {
                return true;
            }
            let mut tables = tables
                .iter()
                .filter_map(|tables| Some((tables, split(name, tables.kind)?)));
            match tables.next() {
                Some((_, (_, None))) => matches!(value, Value::Empty),
                Some((tables, (_, Some(inner)))) => is_one_of(tables.keys, inner, value),
                None => false,
            }
        };
        let mut entries = reader.entries.iter();
        match entries.find(|(name, entry)| !is_known(name, &entry.value)) {
            Some((_, entry)) => Err(SettingError::Unknown(entry.source.clone())),
            None => Ok(Self {
                entries: reader.entries,
            }),
        }
    }

    /// The names of the settings that have another value in `other`, or stand in one of the two
    /// only.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = String> {
        let is_same = move |name: &String| {
            let [ours, theirs] = [self, other].map(|file| file.entries.get(name));
            ours.map(|entry| &entry.value) == theirs.map(|entry| &entry.value)
        };
        let only_there = other
            .entries
            .keys()
            .filter(|name| !self.entries.contains_key(*name));
        let names = self.entries.keys().chain(only_there);
        let differing = names.filter(move |name| !is_same(name));
        differing.map(|name| name.replace(DOT, "."))
    }

    /// The names of the tables of this kind, and where each begins.
    pub(super) fn tables(&self, kind: &str) -> Vec<Setting<String>> {
        let mut found: Vec<Setting<String>> = Vec::new();
        for (name, entry) in &self.entries {
            let table = split(name, kind).map(|(table, _)| table.replace(DOT, "."));
            if let Some(table) = table
                && found.iter().all(|other| other.value != table)
            {
                found.push(Setting {
                    value: table,
                    source: entry.source.clone(),
                });
            }
        }
        found
    }

    /// What stands in one of them.
    pub(super) fn table(&self, kind: &str, table: &str) -> Self {
        let inside = |(name, entry): (&String, &Entry)| match split(name, kind)? {
            (name, Some(inner)) if name.replace(DOT, ".") == table => {
                Some((inner.to_owned(), entry.clone()))
            }
            _ => None,
        };
        Self {
            entries: self.entries.iter().filter_map(inside).collect(),
        }
    }

    /// Whether it has this setting.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// A string or number, as text.
    pub(super) fn text(&self, name: &str) -> Result<Option<Setting<Secret>>, SettingError> {
        self.entries.get(name).map(Entry::text).transpose()
    }

    /// A list of strings, or one.
    pub(super) fn list(&self, name: &str) -> Result<Vec<Setting<String>>, SettingError> {
        let entries = match self.entries.get(name) {
            None => return Ok(Vec::new()),
            Some(Entry {
                value: Value::List(entries),
                ..
            }) => entries.as_slice(),
            Some(entry) => std::slice::from_ref(entry),
        };
        let texts = entries.iter().map(|entry| {
            let text = entry.text()?;
            Ok(Setting {
                value: text.value.expose().to_owned(),
                source: text.source,
            })
        });
        texts.collect()
    }

    /// Whether the value is `true`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, SettingError> {
        match self.entries.get(name) {
            None => Ok(false),
            Some(Entry {
                value: Value::Flag(flag),
                ..
            }) => Ok(*flag),
            Some(entry) => Err(entry.is_not("true or false")),
        }
    }
}

/// Whether a setting has this name, or is in a table of this name.
fn is_one_of(keys: &[Key], name: &str, value: &Value) -> bool {
    keys.iter().any(|key| match key.name.strip_prefix(name) {
        Some("") => true,
        // A table of settings in which all are omitted.
        Some(rest) => rest.starts_with('.') && matches!(value, Value::Empty),
        None => false,
    })
}

/// Splits `KIND.TABLE` or `KIND.TABLE.SETTING`.
fn split<'a>(name: &'a str, kind: &str) -> Option<(&'a str, Option<&'a str>)> {
    let rest = name.strip_prefix(kind)?.strip_prefix('.')?;
    Some(match rest.split_once('.') {
        Some((table, setting)) => (table, Some(setting)),
        None => (rest, None),
    })
}

/// By the value: the same one on another line is no change.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Entry {
    fn text(&self) -> Result<Setting<Secret>, SettingError> {
        match &self.value {
            Value::Text(text) => Ok(Setting {
                value: text.clone(),
                source: self.source.clone(),
            }),
            _ => Err(self.is_not("a text in quotes or a number")),
        }
    }

    fn is_not(&self, wanted: &str) -> SettingError {
        SettingError::Value {
            place: self.source.clone(),
            reason: format!("give {wanted}"),
        }
    }
}

struct Reader<'a> {
    path: Arc<Path>,
    text: &'a str,
    entries: BTreeMap<String, Entry>,
}

impl Reader<'_> {
    fn table(&mut self, prefix: &str, table: DeTable<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref().replace('.', DOT));
            let span = key.span();
            match value.into_inner() {
                DeValue::Table(inner) if !inner.is_empty() => {
                    self.table(&format!("{name}."), inner);
                }
                value => {
                    let entry = self.entry(&name, span, value);
                    self.entries.insert(name, entry);
                }
            }
        }
    }

    fn entry(&self, name: &str, span: Range<usize>, value: DeValue<'_>) -> Entry {
        let value = match value {
            DeValue::String(text) => Value::Text(Secret::new(text)),
            DeValue::Integer(number) => {
                let digits = i128::from_str_radix(number.as_str(), number.radix());
                match digits {
                    Ok(number) => Value::Text(Secret::new(number.to_string())),
                    Err(_) => Value::Other,
                }
            }
            DeValue::Float(number) => Value::Text(Secret::new(number.as_str())),
            DeValue::Boolean(flag) => Value::Flag(flag),
            DeValue::Array(items) => Value::List(
                items
                    .into_iter()
                    .map(|item: Spanned<DeValue<'_>>| {
                        let span = item.span();
                        self.entry(name, span, item.into_inner())
                    })
                    .collect(),
            ),
            DeValue::Table(table) if table.is_empty() => Value::Empty,
            DeValue::Datetime(_) | DeValue::Table(_) => Value::Other,
        };
        Entry {
            source: Source::File {
                path: Arc::clone(&self.path),
                line: line(self.text, Some(span)),
                // A secret may have been pasted as a key.
                key: outside::masked(&name.replace(DOT, ".")).into_owned(),
            },
            value,
        }
    }
}

/// The number of the line at a place in the text, from 1.
fn line(text: &str, place: Option<Range<usize>>) -> usize {
    let start = place.map_or(0, |place| place.start);
    let before = text.bytes().take(start);
    before.filter(|byte| *byte == b'\n').count() + 1
}
