//! Parsers for kinds of values that several settings have, in variables and in files.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;

/// A whole number in these bounds, in decimal digits.
///
/// # Errors
/// A sentence with the bounds.
pub fn number<T>(text: &str, bounds: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let number = text.parse().ok().filter(|number| bounds.contains(number));
    number.ok_or_else(|| {
        format!(
            "give a whole number from {} to {}",
            bounds.start(),
            bounds.end()
        )
    })
}

/// One of a set of words, as for the option.
///
/// # Errors
/// A sentence with all of them.
pub fn choice<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let words = T::value_variants()
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .map(|value| value.get_name().to_owned())
            .collect::<Vec<_>>();
        format!("give one of {}", words.join(", "))
    })
}

/// A log level.
///
/// # Errors
/// A sentence with all levels.
pub fn log_level(text: &str) -> Result<LevelFilter, &'static str> {
    // tracing parses an empty text as a level.
    let level = text.parse().ok().filter(|_| !text.is_empty());
    level.ok_or("give off, error, warn, info, debug or trace")
}
