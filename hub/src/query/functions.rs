//! The functions of the language. Arguments that do not fit make the result undefined.

use std::ops::RangeInclusive;

use super::datum::Datum;

/// A function, by any of its names.
pub(super) struct Function {
    /// In capitals. The documentation, and hubs, differ in some underscores.
    names: &'static [&'static str],
    /// How many arguments it has.
    pub(super) arguments: RangeInclusive<usize>,
    compute: fn(&[Datum<'_>]) -> Datum<'static>,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.names.fmt(f)
    }
}

impl Function {
    /// The function of this name, in any case.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        let is_it = |known: &&str| known.eq_ignore_ascii_case(name);
        FUNCTIONS
            .iter()
            .find(|function| function.names.iter().any(is_it))
    }

    /// The result.
    pub(super) fn apply(&self, arguments: &[Datum<'_>]) -> Datum<'static> {
        (self.compute)(arguments)
    }
}

const fn function(
    names: &'static [&'static str],
    arguments: RangeInclusive<usize>,
    compute: fn(&[Datum<'_>]) -> Datum<'static>,
) -> Function {
    Function {
        names,
        arguments,
        compute,
    }
}

static FUNCTIONS: &[Function] = &[
    // Types.
    function(&["IS_DEFINED"], 1..=1, |a| {
        is(a, |d| !matches!(d, Datum::Undefined))
    }),
    function(&["IS_NULL"], 1..=1, |a| is(a, |d| matches!(d, Datum::Null))),
    function(&["IS_BOOL"], 1..=1, |a| {
        is(a, |d| matches!(d, Datum::Bool(_)))
    }),
    function(&["IS_NUMBER"], 1..=1, |a| {
        is(a, |d| matches!(d, Datum::Number(_)))
    }),
    function(&["IS_STRING"], 1..=1, |a| {
        is(a, |d| matches!(d, Datum::Text(_)))
    }),
    function(&["IS_ARRAY"], 1..=1, |a| {
        is(a, |d| matches!(d, Datum::Json(j) if j.is_array()))
    }),
    function(&["IS_OBJECT"], 1..=1, |a| {
        is(a, |d| matches!(d, Datum::Json(j) if j.is_object()))
    }),
    function(&["IS_PRIMITIVE"], 1..=1, |a| is(a, |d| d.is_primitive())),
    function(&["AS_NUMBER"], 1..=1, |a| match a {
        [Datum::Number(number)] => Datum::Number(*number),
        [Datum::Text(text)] => text.parse().map_or(Datum::Undefined, Datum::number),
        _ => Datum::Undefined,
    }),
    // Numbers.
    function(&["ABS"], 1..=1, |a| number(a, f64::abs)),
    function(&["CEILING"], 1..=1, |a| number(a, f64::ceil)),
    function(&["EXP"], 1..=1, |a| number(a, f64::exp)),
    function(&["FLOOR"], 1..=1, |a| number(a, f64::floor)),
    function(&["SIGN"], 1..=1, |a| {
        number(a, |x| if x == 0.0 { 0.0 } else { x.signum() })
    }),
    function(&["SQRT"], 1..=1, |a| number(a, f64::sqrt)),
    function(&["SQUARE"], 1..=1, |a| number(a, |x| x * x)),
    function(&["POWER"], 2..=2, |a| match a {
        [Datum::Number(base), Datum::Number(exponent)] => Datum::number(base.powf(*exponent)),
        _ => Datum::Undefined,
    }),
    // Strings.
    function(&["CONCAT"], 2..=usize::MAX, concat),
    function(&["CONTAINS"], 2..=2, |a| {
        texts(a, |x, y| x.contains(y).into())
    }),
    function(&["STARTSWITH", "STARTS_WITH"], 2..=2, |a| {
        texts(a, |x, y| x.starts_with(y).into())
    }),
    function(&["ENDSWITH", "ENDS_WITH"], 2..=2, |a| {
        texts(a, |x, y| x.ends_with(y).into())
    }),
    function(&["INDEX_OF"], 2..=2, |a| {
        texts(a, |x, y| {
            let before = x.split_once(y).map(|(before, _)| before.chars().count());
            Datum::Number(before.map_or(-1.0, |count| count as f64))
        })
    }),
    function(&["LENGTH"], 1..=1, |a| {
        text(a, |x| Datum::Number(x.chars().count() as f64))
    }),
    function(&["LOWER"], 1..=1, |a| {
        text(a, |x| x.to_lowercase().as_str().into())
    }),
    function(&["UPPER"], 1..=1, |a| {
        text(a, |x| x.to_uppercase().as_str().into())
    }),
    function(&["SUBSTRING"], 2..=3, substring),
];

fn is(arguments: &[Datum<'_>], test: fn(&Datum<'_>) -> bool) -> Datum<'static> {
    arguments.first().map(test).into()
}

fn number(arguments: &[Datum<'_>], compute: fn(f64) -> f64) -> Datum<'static> {
    match arguments {
        [Datum::Number(number)] => Datum::number(compute(*number)),
        _ => Datum::Undefined,
    }
}

fn text(arguments: &[Datum<'_>], compute: fn(&str) -> Datum<'static>) -> Datum<'static> {
    match arguments {
        [Datum::Text(text)] => compute(text),
        _ => Datum::Undefined,
    }
}

fn texts(arguments: &[Datum<'_>], compute: fn(&str, &str) -> Datum<'static>) -> Datum<'static> {
    match arguments {
        [Datum::Text(first), Datum::Text(second)] => compute(first, second),
        _ => Datum::Undefined,
    }
}

fn concat(arguments: &[Datum<'_>]) -> Datum<'static> {
    let mut whole = String::new();
    for argument in arguments {
        match argument {
            Datum::Text(text) => whole.push_str(text),
            _ => return Datum::Undefined,
        }
    }
    whole.as_str().into()
}

/// From a place, counted in characters from 0, and so many characters or all that follow.
fn substring(arguments: &[Datum<'_>]) -> Datum<'static> {
    let (text, start, length) = match arguments {
        [Datum::Text(text), start] => (text, count(start), Some(usize::MAX)),
        [Datum::Text(text), start, length] => (text, count(start), count(length)),
        _ => return Datum::Undefined,
    };
    let (Some(start), Some(length)) = (start, length) else {
        return Datum::Undefined;
    };
    let part: String = text.chars().skip(start).take(length).collect();
    part.as_str().into()
}

fn count(datum: &Datum<'_>) -> Option<usize> {
    match datum {
        // Beyond the largest `usize` there is no string either.
        Datum::Number(number) if *number >= 0.0 && number.fract() == 0.0 => Some(*number as usize),
        _ => None,
    }
}
