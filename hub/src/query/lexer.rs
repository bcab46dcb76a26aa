//! From the text to tokens. A path, as `tags.[[group]].name`, is one token.

use std::fmt;

use winnow::ascii::{digit1, hex_digit1, multispace0};
use winnow::combinator::{
    alt, cut_err, delimited, dispatch, fail, not, opt, peek, preceded, repeat, separated,
};
use winnow::error::{ContextError, StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::stream::{LocatingSlice, Location as _};
use winnow::token::{any, one_of, take_until, take_while};

use super::QueryError;

/// A token, and the byte at which it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spanned {
    pub(super) token: Token,
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// One name without quotes: a keyword, a function or a property.
    Word(String),
    /// Names with dots between them, or one in `[[` and `]]`.
    Path(Vec<String>),
    Text(String),
    Number(f64),
    Symbol(&'static str),
    /// Behind the last one.
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(name) => write!(f, "`{name}`"),
            Self::Path(names) => write!(f, "`{}`", names.join(".")),
            Self::Text(_) => f.write_str("a string"),
            Self::Number(number) => write!(f, "`{number}`"),
            Self::Symbol(symbol) => write!(f, "`{symbol}`"),
            Self::End => f.write_str("the end of the query"),
        }
    }
}

type Input<'a> = LocatingSlice<&'a str>;
type Parsed<T> = ModalResult<T, ContextError>;

/// All tokens, the last of which is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned>, QueryError> {
    let mut input = LocatingSlice::new(text);
    let mut tokens = Vec::new();
    loop {
        // It accepts any text.
        let _: Parsed<&str> = multispace0.parse_next(&mut input);
        let at = input.current_token_start();
        if input.is_empty() {
            let token = Token::End;
            tokens.push(Spanned { token, at });
            return Ok(tokens);
        }
        match token(&mut input) {
            Ok(token) => tokens.push(Spanned { token, at }),
            Err(error) => {
                let at = input.current_token_start();
                return Err(QueryError::at(text, at, reason(error.into_inner().ok())));
            }
        }
    }
}

fn reason(error: Option<ContextError>) -> String {
    let expected = error.as_ref().and_then(|error| {
        error.context().find_map(|context| match context {
            StrContext::Expected(StrContextValue::Description(what)) => Some(*what),
            _ => None,
        })
    });
    match expected {
        Some(expected) => format!("expected {expected}"),
        None => "this character has no meaning here".to_owned(),
    }
}

fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

fn token(input: &mut Input<'_>) -> Parsed<Token> {
    dispatch! { peek(any);
        '\'' | '"' => text.map(Token::Text),
        '0'..='9' => number.map(Token::Number),
        '[' => alt((path, symbol)),
        first if starts_name(first) => path,
        _ => symbol,
    }
    .parse_next(input)
}

/// The longer ones first, with the name that each has from here on.
const SYMBOLS: &[(&str, &str)] = &[
    ("<>", "!="),
    ("!=", "!="),
    ("<=", "<="),
    (">=", ">="),
    ("<", "<"),
    (">", ">"),
    ("=", "="),
    ("+", "+"),
    ("-", "-"),
    ("*", "*"),
    ("/", "/"),
    ("%", "%"),
    ("(", "("),
    (")", ")"),
    ("[", "["),
    ("]", "]"),
    (",", ","),
];

fn symbol(input: &mut Input<'_>) -> Parsed<Token> {
    for (text, name) in SYMBOLS {
        if opt(*text).parse_next(input)?.is_some() {
            return Ok(Token::Symbol(name));
        }
    }
    fail.parse_next(input)
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || matches!(c, '_' | '$')
}

fn continues_name(c: char) -> bool {
    starts_name(c) || c.is_alphanumeric()
}

fn path(input: &mut Input<'_>) -> Parsed<Token> {
    let first = alt((
        (one_of(starts_name), take_while(0.., continues_name))
            .take()
            .map(|name: &str| (name.to_owned(), false)),
        quoted.map(|name| (name, true)),
    ))
    .parse_next(input)?;
    let further = alt((take_while(1.., continues_name).map(str::to_owned), quoted));
    let further = cut_err(further).context(expected("a name behind the dot"));
    let further: Vec<String> = repeat(0.., preceded('.', further)).parse_next(input)?;
    let (first, is_quoted) = first;
    if further.is_empty() && !is_quoted {
        return Ok(Token::Word(first));
    }
    Ok(Token::Path(std::iter::once(first).chain(further).collect()))
}

/// `[[name]]`: for names with other characters.
fn quoted(input: &mut Input<'_>) -> Parsed<String> {
    let name = cut_err(take_until(1.., "]]")).context(expected("a name and `]]` behind `[[`"));
    delimited("[[", name, "]]")
        .map(str::to_owned)
        .parse_next(input)
}

fn number(input: &mut Input<'_>) -> Parsed<f64> {
    let hexadecimal = preceded(alt(("0x", "0X")), cut_err(hex_digit1))
        .verify_map(|digits: &str| u64::from_str_radix(digits, 16).ok())
        .map(|number| number as f64);
    let decimal = (
        digit1,
        opt(('.', digit1)),
        opt((one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1)),
    )
        .take()
        .verify_map(|text: &str| text.parse().ok().filter(|number: &f64| number.is_finite()));
    let whole = peek(not(one_of(|c| continues_name(c) || c == '.')));
    cut_err((alt((hexadecimal, decimal)), whole))
        .context(expected("a number, as 12, 1.5e3 or 0x1F"))
        .map(|(number, ())| number)
        .parse_next(input)
}

fn text(input: &mut Input<'_>) -> Parsed<String> {
    let quote = one_of(['\'', '"']).parse_next(input)?;
    let plain = take_while(1.., move |c| c != quote && c != '\\').map(str::to_owned);
    let content = repeat(0.., alt((plain, escape))).fold(String::new, |mut text, part: String| {
        text.push_str(&part);
        text
    });
    let end = cut_err(quote).context(expected("the closing quote of the string"));
    (content, end).map(|(text, _)| text).parse_next(input)
}

fn escape(input: &mut Input<'_>) -> Parsed<String> {
    let itself = one_of(['\'', '"', '\\']).map(String::from);
    preceded('\\', cut_err(alt((itself, preceded('u', unicode)))))
        .context(expected("one of the escapes \\', \\\", \\\\ and \\uXXXX"))
        .parse_next(input)
}

/// Four digits, and four more behind `\u` where a character has two halves in UTF-16.
fn unicode(input: &mut Input<'_>) -> Parsed<String> {
    let digits = || {
        take_while(4, |c: char| c.is_ascii_hexdigit())
            .verify_map(|digits: &str| u16::from_str_radix(digits, 16).ok())
    };
    let single = digits().verify_map(|unit| String::from_utf16(&[unit]).ok());
    let pair =
        separated(2, digits(), "\\u").verify_map(|units: Vec<u16>| String::from_utf16(&units).ok());
    alt((single, pair)).parse_next(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<Token> {
        let tokens = tokens(text).unwrap();
        tokens.into_iter().map(|spanned| spanned.token).collect()
    }

    fn wrong(text: &str) -> (usize, String) {
        let error = tokens(text).unwrap_err();
        (error.column, error.message)
    }

    #[test]
    fn every_kind_of_token() {
        let path = |names: &[&str]| Token::Path(names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(
            of("SELECT tags.a_1.2nd, tags.[[a b.c]] ,[[x]]<>0x1F -1.5e+2 [ 'é' ]"),
            [
                Token::Word("SELECT".to_owned()),
                path(&["tags", "a_1", "2nd"]),
                Token::Symbol(","),
                path(&["tags", "a b.c"]),
                Token::Symbol(","),
                path(&["x"]),
                Token::Symbol("!="),
                Token::Number(31.0),
                Token::Symbol("-"),
                Token::Number(150.0),
                Token::Symbol("["),
                Token::Text("é".to_owned()),
                Token::Symbol("]"),
                Token::End,
            ]
        );
    }

    #[test]
    fn strings_and_their_escapes() {
        for (text, content) in [
            (r"''", ""),
            (r#"'a"b'"#, "a\"b"),
            (r#""a'b""#, "a'b"),
            (r#"'\'\"\\'"#, "'\"\\"),
            (r"'\u00e9\uD83D\uDE00'", "é😀"),
            ("'a\nb'", "a\nb"),
        ] {
            assert_eq!(of(text), [Token::Text(content.to_owned()), Token::End]);
        }
        assert_eq!(wrong("x = 'abc").0, 9);
        for text in [
            r"'\n'",
            r"'\u12'",
            r"'\u12é4'",
            r"'\uD83D'",
            r"'\uDE00\uD83D'",
        ] {
            assert!((3..=9).contains(&wrong(text).0), "{text}");
        }
    }

    #[test]
    fn what_is_no_token() {
        assert_eq!(
            wrong("a ? b"),
            (3, "this character has no meaning here".to_owned())
        );
        assert_eq!(
            wrong("tags. x"),
            (6, "expected a name behind the dot".to_owned())
        );
        assert_eq!(wrong("tags.[[x").0, 8);
        for number in [
            "12a",
            "1.",
            "0x",
            "0xg",
            "1e",
            "1e999",
            "0x11112222333344445",
            "1.2.3",
        ] {
            assert_eq!(
                wrong(number).1,
                "expected a number, as 12, 1.5e3 or 0x1F",
                "{number}"
            );
        }
        assert_eq!(
            tokens("a\n b ;").unwrap_err().to_string(),
            "the query is invalid at line 2, column 4: this character has no meaning here"
        );
    }
}
