//! What a query reads, and which properties there are.

use super::datum::Datum;
use super::expression::{Expression, Path};

/// What stands behind FROM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The twins of devices.
    Devices,
    /// The twins of modules.
    Modules,
    /// What jobs did to each device.
    Jobs,
}

/// Properties of a twin, beside its tags and properties.
const OF_TWINS: &[&str] = &[
    "deviceId",
    "moduleId",
    "etag",
    "deviceEtag",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "connectionStateUpdatedTime",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "version",
    "tags",
    "properties",
    "capabilities",
    "deviceScope",
    "parentScopes",
    "modelId",
    "configurations",
];

/// Properties of a job's row.
const OF_JOBS: &[&str] = &[
    "deviceId",
    "moduleId",
    "jobId",
    "jobType",
    "status",
    "startTimeUtc",
    "endTimeUtc",
    "createdDateTimeUtc",
    "lastUpdatedDateTimeUtc",
    "outcome",
    "error",
];

impl Source {
    /// The source of this name, in any case.
    pub(super) fn find(names: &[String]) -> Option<Self> {
        let name = names.join(".").to_ascii_lowercase();
        match name.as_str() {
            "devices" => Some(Self::Devices),
            "devices.modules" => Some(Self::Modules),
            "devices.jobs" => Some(Self::Jobs),
            _ => None,
        }
    }

    /// Reads a path of a query: without the name of the source, and with names as the documents
    /// have them, since the first one may be in any case.
    ///
    /// # Errors
    /// Says that there is no such property.
    pub(super) fn resolve(self, path: &mut Path) -> Result<(), String> {
        let is = |name: Option<&String>, word: &str| {
            name.is_some_and(|name| name.eq_ignore_ascii_case(word))
        };
        if is(path.names.first(), "devices") {
            path.names.remove(0);
            let collection = match self {
                Self::Devices => None,
                Self::Modules => Some("modules"),
                Self::Jobs => Some("jobs"),
            };
            if collection.is_some_and(|word| is(path.names.first(), word)) {
                path.names.remove(0);
            }
        }
        let known = match self {
            Self::Devices | Self::Modules => OF_TWINS,
            Self::Jobs => OF_JOBS,
        };
        let Some(first) = path.names.first_mut() else {
            return Err("expected a property behind the name of the source".to_owned());
        };
        // The documentation's own example has it so.
        if self == Self::Jobs && first.eq_ignore_ascii_case("createdTimeUtc") {
            "createdDateTimeUtc".clone_into(first);
        }
        match known.iter().find(|name| first.eq_ignore_ascii_case(name)) {
            Some(name) => (*name).clone_into(first),
            None => return Err(format!("there is no property `{first}`")),
        }
        if first == "properties"
            && let Some(section) = path.names.get_mut(1)
        {
            match ["desired", "reported"]
                .iter()
                .find(|name| section.eq_ignore_ascii_case(name))
            {
                Some(name) => (*name).clone_into(section),
                None => return Err(format!("there is no property `properties.{section}`")),
            }
        }
        Ok(())
    }

    /// Rows of jobs have one word for a type of which the documentation has two: conditions may
    /// have either.
    pub(super) fn translate(self, expression: &mut Expression) {
        let is_job_type = |expression: &Expression| match expression {
            Expression::Path(path) => path.names == ["jobType"],
            _ => false,
        };
        if self != Self::Jobs {
            return;
        }
        match expression {
            Expression::Compare(_, sides) if sides.iter().any(is_job_type) => {
                for side in &mut **sides {
                    if let Expression::Constant(constant) = side
                        && *constant == Datum::from(OTHER_TYPE)
                    {
                        *constant = TYPE.into();
                    }
                }
            }
            Expression::In { value, list, .. }
                if is_job_type(value) && list.texts.contains(OTHER_TYPE) =>
            {
                list.texts.insert(TYPE.to_owned());
            }
            _ => {}
        }
    }
}

const TYPE: &str = "scheduleUpdateTwin";
const OTHER_TYPE: &str = "scheduleTwinUpdate";
