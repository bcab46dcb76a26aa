//! Which properties a query reads, so that nothing else of a document has to be made: of JSON
//! text, the rest is skipped without being stored.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A set of properties, each with everything below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    is_whole: bool,
    children: Vec<(String, Fields)>,
}

/// Every property.
static ALL: Fields = Fields {
    is_whole: true,
    children: Vec::new(),
};

impl Fields {
    /// Every property.
    pub fn all() -> Self {
        ALL.clone()
    }

    /// Adds a property by its path.
    pub(super) fn add(&mut self, names: &[String]) {
        if self.is_whole {
            return;
        }
        let Some((first, rest)) = names.split_first() else {
            self.is_whole = true;
            self.children.clear();
            return;
        };
        let known = self.children.iter().position(|(name, _)| name == first);
        let known = known.unwrap_or_else(|| {
            self.children.push((first.clone(), Self::default()));
            self.children.len() - 1
        });
        if let Some((_, child)) = self.children.get_mut(known) {
            child.add(rest);
        }
    }

    /// What is read of the property of this name; `None`: nothing.
    pub fn get(&self, name: &str) -> Option<&Self> {
        if self.is_whole {
            return Some(&ALL);
        }
        let child = self.children.iter().find(|(child, _)| child == name);
        child.map(|(_, fields)| fields)
    }

    /// The properties that are read at the top; `*` for all of them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let children = self.children.iter().map(|(name, _)| name.as_str());
        self.is_whole.then_some("*").into_iter().chain(children)
    }

    /// Whether anything of the property of this name is read.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The object in this text, with these of its properties only.
    ///
    /// # Errors
    /// The text is no JSON object. What is skipped is checked for its form alone.
    pub fn read(&self, text: &str) -> Result<Map<String, Value>, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let value = self.deserialize(&mut deserializer)?;
        deserializer.end()?;
        match value {
            Value::Object(object) => Ok(object),
            _ => Err(serde::de::Error::custom("expected an object")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &Fields {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.is_whole {
            return serde::Deserialize::deserialize(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

/// Nothing is read of what has no properties: null stands for it, and has none either.
impl<'de> Visitor<'de> for &Fields {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(entry) = entries.next_key_seed(Key(self))? {
            match entry {
                Some((name, fields)) => {
                    object.insert(name.clone(), entries.next_value_seed(fields)?);
                }
                None => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(object.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// A name in an object: the child of this name, if that is read.
struct Key<'f>(&'f Fields);

impl<'de, 'f> DeserializeSeed<'de> for Key<'f> {
    type Value = Option<&'f (String, Fields)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'f> Visitor<'_> for Key<'f> {
    type Value = Option<&'f (String, Fields)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.children.iter().find(|(child, _)| child == name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(paths: &[&str]) -> Fields {
        let mut fields = Fields::default();
        for path in paths {
            let names: Vec<String> = path.split('.').map(str::to_owned).collect();
            fields.add(&names);
        }
        fields
    }

    #[test]
    fn the_rest_is_skipped() {
        let text = r#"{"a":{"b":1,"c":[{"b":2}],"d":"x"},"e":[1],"f":null,"g":{"h":{"i":0.5}}}"#;
        for (paths, read) in [
            (
                &["a.b", "g.h"][..],
                json!({ "a": { "b": 1 }, "g": { "h": { "i": 0.5 } } }),
            ),
            (
                &["a.b.x", "e.x", "f.x", "a.d.x"],
                json!({ "a": { "b": null, "d": null }, "e": null, "f": null }),
            ),
            (
                &["a.c", "a"],
                json!({ "a": { "b": 1, "c": [{ "b": 2 }], "d": "x" } }),
            ),
            (&["x"], json!({})),
            (&[], json!({})),
        ] {
            assert_eq!(
                Value::from(fields(paths).read(text).unwrap()),
                read,
                "{paths:?}"
            );
        }
        let whole: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::from(Fields::all().read(text).unwrap()), whole);
        for damaged in ["", "[]", "1", r#"{"x":{]}"#, r#"{"x":1"#, r#"{} x"#] {
            assert!(fields(&["a"]).read(damaged).is_err(), "{damaged}");
        }
    }
}
