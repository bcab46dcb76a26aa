//! Twins (`docs/protocol.md`, "Twins"). The model has no I/O and no clock: the store keeps what
//! comes out of it.

use async_trait::async_trait;
use common::identity::DeviceIdentity;
use serde_json::{Map, Value, json};

use super::rules::{Change, size};
use super::{Identity, IfMatch, RegistryError, TwinChange, TwinPatch, TwinRuleError};
use crate::iso8601::NEVER;
use crate::limits;

/// The twins of identities. Every change is durable when its call returns.
#[async_trait]
pub trait Twins: Send + Sync + 'static {
    /// The twin of an identity; `None` when there is no such identity. May be dropped.
    async fn twin(&self, id: &DeviceIdentity) -> Result<Option<Twin>, RegistryError>;

    /// An identity and its twin, of one moment; `None` when there is no such identity. May be
    /// dropped.
    async fn device_twin(&self, id: &DeviceIdentity) -> Result<Option<DeviceTwin>, RegistryError>;

    /// Changes tags and desired properties of an identity's twin, both or neither. `desired` is
    /// given the change of the desired properties, if there is one, once it is stored: of all
    /// changes in the order of their versions, so it must not block. Dropped, the change is
    /// carried out all the same.
    async fn change_twin(
        &self,
        id: &DeviceIdentity,
        change: TwinChange,
        condition: IfMatch,
        desired: OnDesired,
    ) -> Result<DeviceTwin, RegistryError>;

    /// Merges a patch into the reported properties of an identity's twin, whole or not
    /// at all, and returns their new version. No change in the sense of
    /// [`ChangeLog::changes_since`](super::ChangeLog::changes_since). Dropped, it is carried out
    /// all the same if its turn to wait for the disk has come.
    async fn patch_reported(
        &self,
        id: &DeviceIdentity,
        patch: TwinPatch,
    ) -> Result<u64, RegistryError>;
}

/// Called with a change of desired properties that is stored.
pub type OnDesired = Box<dyn FnOnce(DesiredChange) + Send>;

/// Devices, or the modules of all devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Members {
    /// The devices themselves.
    Devices,
    /// Their modules.
    Modules,
}

/// An identity with its twin.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceTwin {
    /// The device or module.
    pub identity: Identity,
    /// Its twin.
    pub twin: Twin,
}

/// A change of desired properties, for the device.
#[derive(Debug, Clone, PartialEq)]
pub struct DesiredChange {
    /// Their version after it.
    pub version: u64,
    /// A JSON merge patch from the version before: null removes a property.
    pub patch: Map<String, Value>,
}

/// When a property, or anything below it, was last changed.
const LAST_UPDATED: &str = "$lastUpdated";

/// The twin of one identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Twin {
    /// Goes up by one with every change of any part.
    pub version: u64,
    /// Changes with every change of any part: unquoted base64 text.
    pub etag: String,
    /// What the service notes about the device, which does not see it.
    pub tags: Map<String, Value>,
    /// What the service wants.
    pub desired: Section,
    /// What the device says.
    pub reported: Section,
}

impl Twin {
    /// The twin of an identity that was never written to.
    pub(super) fn untouched(etag: String) -> Self {
        Self {
            version: 1,
            etag,
            tags: Map::new(),
            desired: Section::default(),
            reported: Section::default(),
        }
    }

    /// Changes tags and desired properties, and returns what the device has to know of it; `now`
    /// is the time that the changed properties get.
    ///
    /// # Errors
    /// [`TwinRuleError`] when a part would be too large; the twin is then of no more use.
    pub(super) fn change(
        &mut self,
        change: TwinChange,
        now: &str,
    ) -> Result<Option<DesiredChange>, TwinRuleError> {
        match change.tags {
            Some(Change::Merge(TwinPatch(patch))) => merge_plain(&mut self.tags, patch),
            Some(Change::Replace(TwinPatch(tags))) => self.tags = without_nulls(tags),
            None => {}
        }
        if size(&self.tags) > limits::TWIN_TAGS {
            return Err(TwinRuleError::TagsTooLarge);
        }
        let patch = match change.desired {
            Some(Change::Merge(patch)) => {
                self.desired.apply(patch.clone(), now)?;
                patch.0
            }
            Some(Change::Replace(TwinPatch(desired))) => self.desired.replace(desired, now)?,
            None => return Ok(None),
        };
        let version = self.desired.version;
        Ok(Some(DesiredChange { version, patch }))
    }

    /// The document that the device gets.
    pub fn for_device(&self) -> Value {
        json!({
            "desired": self.desired.document(Metadata::LeftOut),
            "reported": self.reported.document(Metadata::LeftOut),
        })
    }
}

/// Whether a document tells when its properties were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// It does: for services.
    Shown,
    /// It does not: for the device.
    LeftOut,
}

/// Desired or reported properties.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// The properties themselves.
    pub properties: Map<String, Value>,
    /// For each property, and for the whole, when it was last changed.
    pub metadata: Map<String, Value>,
    /// Goes up by one with every change.
    pub version: u64,
}

impl Default for Section {
    /// No properties: version 1, never changed.
    fn default() -> Self {
        Self {
            properties: Map::new(),
            metadata: touched(NEVER),
            version: 1,
        }
    }
}

impl Section {
    /// The properties with `$version`, as clients read them.
    pub fn document(&self, metadata: Metadata) -> Value {
        let mut document = self.properties.clone();
        if metadata == Metadata::Shown {
            document.insert("$metadata".to_owned(), self.metadata.clone().into());
        }
        document.insert("$version".to_owned(), self.version.into());
        document.into()
    }

    /// Merges a patch; `now` is the time that the changed properties get.
    ///
    /// # Errors
    /// [`TwinRuleError::SectionTooLarge`]; the section is then of no more use.
    pub(super) fn apply(&mut self, patch: TwinPatch, now: &str) -> Result<(), TwinRuleError> {
        merge(&mut self.properties, &mut self.metadata, patch.0, now);
        self.stepped()
    }

    /// Puts these in the place of all properties, and returns the merge patch that does the same:
    /// all of them, and null for those that are gone.
    ///
    /// # Errors
    /// [`TwinRuleError::SectionTooLarge`]; the section is then of no more use.
    fn replace(
        &mut self,
        properties: Map<String, Value>,
        now: &str,
    ) -> Result<Map<String, Value>, TwinRuleError> {
        let properties = without_nulls(properties);
        let old = std::mem::take(self);
        let mut patch = properties.clone();
        remove_others(&mut patch, &old.properties);
        self.version = old.version;
        self.apply(TwinPatch(properties), now)?;
        Ok(patch)
    }

    fn stepped(&mut self) -> Result<(), TwinRuleError> {
        self.version += 1;
        if size(&self.properties) > limits::TWIN_SECTION {
            return Err(TwinRuleError::SectionTooLarge);
        }
        Ok(())
    }
}

/// Nulls in a whole mean that there is nothing.
fn without_nulls(object: Map<String, Value>) -> Map<String, Value> {
    let mut kept = Map::new();
    merge_plain(&mut kept, object);
    kept
}

/// Adds to a patch what removes the properties of `old` that it does not have.
fn remove_others(patch: &mut Map<String, Value>, old: &Map<String, Value>) {
    for (key, value) in old {
        match (patch.get_mut(key), value) {
            (None, _) => drop(patch.insert(key.clone(), Value::Null)),
            (Some(Value::Object(patch)), Value::Object(old)) => remove_others(patch, old),
            (Some(_), _) => {}
        }
    }
}

/// JSON merge patch (RFC 7386). Goes no deeper than the patch, whose depth is bounded.
fn merge_plain(object: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => drop(object.remove(&key)),
            Value::Object(patch) => {
                let inner = object.entry(key).or_insert_with(|| Map::new().into());
                if !inner.is_object() {
                    *inner = Map::new().into();
                }
                if let Value::Object(inner) = inner {
                    merge_plain(inner, patch);
                }
            }
            value => drop(object.insert(key, value)),
        }
    }
}

fn touched(now: &str) -> Map<String, Value> {
    Map::from_iter([(LAST_UPDATED.to_owned(), now.into())])
}

/// JSON merge patch (RFC 7386), with the metadata beside it. Goes no deeper than the
/// patch, whose depth is bounded.
fn merge(
    properties: &mut Map<String, Value>,
    metadata: &mut Map<String, Value>,
    patch: Map<String, Value>,
    now: &str,
) {
    metadata.insert(LAST_UPDATED.to_owned(), now.into());
    for (key, value) in patch {
        match value {
            Value::Null => {
                properties.remove(&key);
                metadata.remove(&key);
            }
            Value::Object(patch) => {
                if !properties.get(&key).is_some_and(Value::is_object) {
                    properties.insert(key.clone(), Map::new().into());
                    metadata.insert(key.clone(), touched(now).into());
                }
                let inner = properties.get_mut(&key).and_then(Value::as_object_mut);
                let told = metadata.entry(key).or_insert_with(|| touched(now).into());
                if let (Some(inner), Some(told)) = (inner, told.as_object_mut()) {
                    merge(inner, told, patch, now);
                }
            }
            value => {
                metadata.insert(key.clone(), touched(now).into());
                properties.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(patch: &Value) -> Result<TwinPatch, TwinRuleError> {
        TwinPatch::parse(patch.to_string().as_bytes())
    }

    fn applied(patches: &[Value]) -> Section {
        let mut section = Section::default();
        for (now, patch) in patches.iter().enumerate() {
            let patch = parse(patch).unwrap();
            section.apply(patch, &now.to_string()).unwrap();
        }
        section
    }

    #[test]
    fn patches_merge_and_the_metadata_follows() {
        let section = applied(&[
            json!({ "a": 1, "b": { "c": true, "d": "x" }, "gone": [1] }),
            json!({ "b": { "c": null, "e": { "f": 1.5 } }, "gone": null, "never": null }),
            json!({ "a": { "n": null } }),
        ]);
        assert_eq!(
            section.document(Metadata::LeftOut),
            json!({ "a": {}, "b": { "d": "x", "e": { "f": 1.5 } }, "$version": 4 })
        );
        assert_eq!(
            Value::from(section.metadata),
            json!({
                "$lastUpdated": "2",
                "a": { "$lastUpdated": "2" },
                "b": {
                    "$lastUpdated": "1",
                    "d": { "$lastUpdated": "0" },
                    "e": { "$lastUpdated": "1", "f": { "$lastUpdated": "1" } },
                },
            })
        );
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // Those whose patch is an object and whose result is one (RFC 7386, appendix A).
        for (original, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            assert_eq!(Value::from(applied(&[original, patch]).properties), result);
        }
    }

    #[test]
    fn an_untouched_twin_has_both_sections() {
        let twin = Twin::untouched("e".to_owned());
        assert_eq!(
            twin.for_device(),
            json!({ "desired": { "$version": 1 }, "reported": { "$version": 1 } })
        );
    }

    #[test]
    fn a_section_has_a_largest_size() {
        let part = |key: &str, size| parse(&json!({ key: vec!["x".repeat(4000); size] })).unwrap();
        let mut section = Section::default();
        section.apply(part("a", 5), "0").unwrap();
        let error = section.clone().apply(part("b", 5), "0").unwrap_err();
        assert_eq!(error.code().number, 413_001);
        section.apply(part("a", 8), "0").unwrap();
    }

    proptest! {
        /// Every property has its metadata, and the other way round.
        #[test]
        fn metadata_mirrors(patches in proptest::collection::vec(patch(), 1..6)) {
            fn mirrors(properties: &Map<String, Value>, metadata: &Map<String, Value>) -> bool {
                metadata.len() == properties.len() + 1
                    && properties.iter().all(|(key, value)| {
                        let told = metadata.get(key).and_then(Value::as_object).unwrap();
                        match value {
                            Value::Object(inner) => mirrors(inner, told),
                            _ => told.len() == 1,
                        }
                    })
            }
            let section = applied(&patches);
            prop_assert!(mirrors(&section.properties, &section.metadata), "{:?}", section);
        }
    }

    fn patch() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!([{ "a": 1 }]))];
        let object = |inner: BoxedStrategy<Value>| {
            proptest::collection::btree_map("[ab]", inner, 0..3)
                .prop_map(|map| Value::from(Map::from_iter(map)))
        };
        let inner = leaf.prop_recursive(3, 16, 3, move |inner| object(inner.boxed()));
        proptest::collection::btree_map("[ab]", inner, 0..3)
            .prop_map(|map| Value::from(Map::from_iter(map)))
    }
}
