//! What is listened on: forwards as they were given, their devices, and no place twice.

use common::identity::DeviceId;
use common::settings::{Setting, Source, Sources};

use super::settings::Settings;
use super::{ConfigError, HubForwards, ListenConfig, keys};
use crate::forward::{Forward, ForwardSpec, Local};
use crate::hub_name::HubName;
use crate::sample_output::SampleOutput;

/// A forward as it was given, and where; on the command line without a place.
pub(super) type Given = (ForwardSpec, Option<Source>);

/// The device of the environment, or of the configuration file.
///
/// # Errors
/// [`ConfigError::Setting`] when it is none.
pub(super) fn device(sources: &Sources<'_>) -> Result<Option<DeviceId>, ConfigError> {
    let device = sources.setting(keys::DEVICE, None, |text| DeviceId::parse(text.trim()))?;
    Ok(device.map(Setting::into_value))
}

/// The local port of the environment, or the local ports of the configuration file.
///
/// # Errors
/// [`ConfigError::NoPort`], or the place of what cannot be read.
pub(super) fn given(sources: &Sources<'_>) -> Result<Vec<Given>, ConfigError> {
    if let Some(port) = sources.variable(keys::FORWARD)? {
        let spec = port.read(|text| text.expose().trim().parse::<ForwardSpec>())?;
        return Ok(vec![(spec.value, Some(spec.source))]);
    }
    let forwards = sources.list(keys::FORWARD, Vec::new())?;
    if forwards.is_empty() {
        return Err(ConfigError::NoPort);
    }
    let forwards = forwards.into_iter().map(|forward| {
        let spec = forward.read(|text| text.trim().parse::<ForwardSpec>())?;
        Ok((spec.value, Some(spec.source)))
    });
    forwards.collect()
}

impl Settings {
    /// `device` is that of the forwards that name none.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub(super) fn listen(
        self,
        name: Option<HubName>,
        device: Option<DeviceId>,
        given: Vec<Given>,
        places: &mut Places,
    ) -> Result<ListenConfig, ConfigError> {
        let forwards = given.into_iter().map(|(spec, source)| {
            places.take(&spec.local, source)?;
            let device = spec.device.or_else(|| device.clone());
            Ok::<_, ConfigError>(Forward {
                identity: self.identity(device.ok_or(ConfigError::NoDevice)?),
                local: spec.local,
                name: match spec.target {
                    Some(target) => self.usable(target)?,
                    None => self.usable(self.default_stream()?)?,
                },
            })
        });
        Ok(ListenConfig {
            hubs: vec![HubForwards {
                name,
                forwards: forwards.collect::<Result<_, _>>()?,
                hub: self.hub,
            }],
            session: self.session,
            max_connections: self.max_connections,
            sample_output: SampleOutput::on_stdout(self.sample_output),
        })
    }
}

/// The places that are taken by forwards.
#[derive(Default)]
pub(super) struct Places(Vec<(Local, Option<Source>)>);

impl Places {
    /// Takes a place.
    ///
    /// # Errors
    /// [`ConfigError::SamePlace`] when it is taken.
    fn take(&mut self, local: &Local, source: Option<Source>) -> Result<(), ConfigError> {
        let name = |source: &Option<Source>| match source {
            Some(source) => source.to_string(),
            None => "the command line".to_owned(),
        };
        if let Some((_, first)) = self.0.iter().find(|(other, _)| other.overlaps(local)) {
            return Err(ConfigError::SamePlace {
                place: local.to_string(),
                first: name(first),
                second: name(&source),
            });
        }
        self.0.push((local.clone(), source));
        Ok(())
    }
}
