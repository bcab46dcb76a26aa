//! The rules for targets: the tables `[access]`, `[limits]` and `[targets.NAME]` of the
//! configuration file.

use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use common::settings::{self, SettingError, Sources};

use super::ConfigError;
use super::keys::{self, RuleKeys};
use crate::limits;
use crate::policy::{Addresses, Allowed, Approval, Hours, Rule, Rules};
use crate::target::{Targets, checked_name};

/// The rules of the file; those of a single target for one that there is, or that the cloud may
/// name.
pub(super) fn rules(
    sources: &Sources<'_>,
    targets: &Targets,
    allowed: &Allowed,
) -> Result<Rules, ConfigError> {
    let all = rule(sources, &keys::OF_ALL)?;
    let mut rules = Rules {
        all,
        at_end: sources.value(
            keys::AT_END_OF_HOURS,
            None,
            settings::choice,
            Default::default(),
        )?,
        ..Rules::default()
    };
    for table in sources.tables(keys::TARGETS.kind) {
        let name = table.value.clone();
        let known = table.read(|name| match targets.configured(&name).is_some() {
            true => Ok(()),
            false if !allowed.is_empty() => checked_name(&name).map_err(|error| error.to_string()),
            false => Err(format!("there is no target {name:?} that it could be for")),
        });
        known?;
        let sources = sources.of_table(keys::TARGETS.kind, &name, keys::OF_TARGET);
        rules.named.insert(name, rule(&sources, &keys::OF_ONE)?);
    }
    Ok(rules)
}

fn rule(sources: &Sources<'_>, keys: &RuleKeys) -> Result<Rule, SettingError> {
    let mut hours = Hours::default();
    for text in sources.list(keys.hours, Vec::new())? {
        text.read(|text| hours.add(&text))?;
    }
    let new_per_second = sources.setting(keys.new_per_second, None, |text| {
        settings::number(text, 1..=1_000_000)
    })?;
    let bytes_per_second = sources.setting(keys.bytes_per_second, None, |text| {
        settings::number(text, 1..=1 << 40)
    })?;
    let connections = match keys.connections {
        None => None,
        Some(key) => sources.setting(key, None, |text| settings::number(text, 1..=1_000_000))?,
    };
    Ok(Rule {
        connections: connections.map(settings::Setting::into_value),
        new_per_second: new_per_second.and_then(|most| NonZeroU32::new(most.value)),
        bytes_per_second: bytes_per_second.and_then(|most| NonZeroU64::new(most.value)),
        hours,
        approval: approval(sources, keys)?.map(Arc::new),
    })
}

fn approval(sources: &Sources<'_>, keys: &RuleKeys) -> Result<Option<Approval>, SettingError> {
    let command = sources.list(keys.approve_command, Vec::new())?;
    let seconds = |key, most: u64, default| {
        let parse = |text: &str| settings::number(text, 0..=most);
        let seconds = sources.value(key, None, parse, default);
        seconds.map(Duration::from_secs)
    };
    let longest = limits::APPROVAL.as_secs();
    let limit = seconds(keys.approve_seconds, longest, longest)?;
    let holds = seconds(keys.approve_for, 7 * 24 * 3600, 0)?;
    let Some(first) = command.first().cloned() else {
        return Ok(None);
    };
    first.read(|program| match program.is_empty() {
        true => Err("give the program and its arguments as a list of texts"),
        false => Ok(()),
    })?;
    let command = command.into_iter().map(settings::Setting::into_value);
    Ok(Some(Approval {
        command: command.collect(),
        limit: limit.max(Duration::from_secs(1)),
        holds,
    }))
}

/// The addresses that targets may have: the list of the highest layer that has one.
pub(super) fn addresses(
    options: Vec<String>,
    sources: &Sources<'_>,
    targets: &Targets,
) -> Result<Addresses, ConfigError> {
    let mut addresses = Addresses::default();
    let variable = match options.is_empty() {
        true => sources.variable(keys::ALLOW_ADDRESSES)?,
        false => None,
    };
    if let Some(variable) = variable {
        variable.read(|list| {
            let networks = list.expose().split(',').map(str::trim);
            let mut networks = networks.filter(|network| !network.is_empty());
            networks.try_for_each(|network| addresses.add(network))
        })?;
    } else {
        for network in sources.list(keys::ALLOW_ADDRESSES, options)? {
            network.read(|text| addresses.add(&text))?;
        }
    }
    match targets.all().find(|target| addresses.contradicts(target)) {
        Some(target) => Err(ConfigError::NotAnAddress(target.clone())),
        None => Ok(addresses),
    }
}
