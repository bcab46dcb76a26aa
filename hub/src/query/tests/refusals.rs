//! What is no query, and queries that try to be too much.

use proptest::strategy::Strategy as _;

use super::twin;
use crate::query::*;

#[test]
fn errors_point_at_the_place() {
    let long = format!(
        "SELECT * FROM devices WHERE tags.x = '{}'",
        "é".repeat(8_192)
    );
    let deep = format!("SELECT * FROM devices WHERE {}1=1", "(".repeat(70));
    for (query, column, part) in [
        ("", 1, "expected SELECT, found the end of the query"),
        (
            "SELEKT * FROM devices",
            1,
            "expected SELECT, found `SELEKT`",
        ),
        (
            "SELECT * FROM device",
            15,
            "expected devices, devices.modules or devices.jobs",
        ),
        ("SELECT FROM devices", 8, "expected a value, found `FROM`"),
        ("SELECT TOP 0 * FROM devices", 12, "expected a whole number"),
        ("SELECT TOP x * FROM devices", 12, "expected a whole number"),
        (
            "SELECT * FROM devices WHERE",
            28,
            "expected a value, found the end",
        ),
        (
            "SELECT * FROM devices WHERE tags.x == 1",
            37,
            "expected a value, found `=`",
        ),
        (
            "SELECT * FROM devices WHERE tags.x = 1 = 2",
            40,
            "expected an operator or the end",
        ),
        (
            "SELECT * FROM devices WHERE tags.x = 'a",
            40,
            "expected the closing quote",
        ),
        (
            "SELECT * FROM devices WHERE tags.x = 'it''s'",
            42,
            "found a string",
        ),
        (
            "SELECT * FROM devices WHERE tags.x IN ('a')",
            39,
            "expected `[`, found `(`",
        ),
        (
            "SELECT * FROM devices WHERE tags.x IN [tags.y]",
            40,
            "expected a constant",
        ),
        (
            "SELECT * FROM devices WHERE tags.x IN ['a'",
            43,
            "expected `]`",
        ),
        (
            "SELECT * FROM devices WHERE (tags.x = 1",
            40,
            "expected `)`",
        ),
        (
            "SELECT * FROM devices WHERE tagz.x = 1",
            29,
            "there is no property `tagz`",
        ),
        (
            "SELECT * FROM devices WHERE properties.x = 1",
            29,
            "no property `properties.x`",
        ),
        (
            "SELECT * FROM devices WHERE devices = 1",
            29,
            "expected a property behind the name",
        ),
        (
            "SELECT * FROM devices WHERE FOO(1) = 1",
            29,
            "there is no function `FOO`",
        ),
        (
            "SELECT * FROM devices WHERE ABS(1, 2) = 1",
            29,
            "ABS has one argument",
        ),
        (
            "SELECT * FROM devices WHERE SUBSTRING('a') = 1",
            29,
            "SUBSTRING has 2 to 3 arguments",
        ),
        (
            "SELECT * FROM devices WHERE COUNT() > 1",
            29,
            "aggregates stand behind SELECT",
        ),
        (
            "SELECT SUM(MAX(tags.x)) FROM devices",
            12,
            "aggregates stand behind SELECT",
        ),
        (
            "SELECT SUM() FROM devices",
            8,
            "an aggregate has one argument",
        ),
        (
            "SELECT tags.x, COUNT() FROM devices",
            8,
            "`tags.x` is not in GROUP BY",
        ),
        (
            "SELECT * FROM devices GROUP BY tags.x",
            8,
            "columns are named instead of `*`",
        ),
        (
            "SELECT tags.x, tags.y.x FROM devices",
            16,
            "another column is called `x`",
        ),
        (
            "SELECT deviceId AS 'x' FROM devices",
            20,
            "expected a name behind AS",
        ),
        (
            "SELECT jobId FROM devices.jobs",
            8,
            "a query of devices.jobs is `SELECT *`",
        ),
        (
            "SELECT * FROM devices.jobs WHERE tags.x = 1",
            34,
            "there is no property `tags`",
        ),
        (
            "SELECT * FROM devices ORDER BY COUNT()",
            32,
            "aggregates stand behind SELECT",
        ),
        ("SELECT * FROM devices ORDER deviceId", 29, "expected BY"),
        (
            "SELECT * FROM devices; DROP TABLE twins",
            22,
            "this character has no meaning here",
        ),
        (
            "SELECT * FROM devices UNION SELECT * FROM policies",
            23,
            "or the end of the query",
        ),
        ("SELECT * FROM devices -- x", 23, "or the end of the query"),
        (&long, 1, "a query has at most 8192 characters"),
        (&deep, 94, "more than 64 levels"),
    ] {
        let error = Query::parse(query).expect_err(query);
        assert!(error.message.contains(part), "{query}: {error}");
        assert_eq!((error.line, error.column), (1, column), "{query}: {error}");
    }
    let error = Query::parse("SELECT *\nFROM devices\n WHERE é = 1").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the query is invalid at line 3, column 8: there is no property `é`"
    );
}

#[test]
fn long_chains_need_no_stack() {
    for (first, link) in [
        ("1=1", " OR 1=0"),
        ("1", "+1"),
        ("1=1", " AND 1=1"),
        ("1", "*1"),
    ] {
        let count = (8_192 - first.len()) / link.len();
        let condition = format!("{first}{}", link.repeat(count));
        let parsed = Condition::parse(&condition).unwrap();
        assert_eq!(parsed.matches(&twin()), first == "1=1");
    }
    for (open, close) in [
        ("(", ")"),
        ("NOT ", ""),
        ("ABS(", ")"),
        ("[", "]"),
        ("-", ""),
    ] {
        for depth in [60, 8_000 / (open.len() + close.len())] {
            let condition = format!("1 = {}1{}", open.repeat(depth), close.repeat(depth));
            let _ = Condition::parse(&condition).map(|parsed| parsed.matches(&twin()));
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_query_or_an_error(text in proptest::prop_oneof![
        2 => proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 0..24)
            .prop_map(|words| words.join(" ")),
        1 => ".{0,60}",
    ]) {
        for text in [text.clone(), format!("SELECT * FROM devices WHERE {text}")] {
            if let Ok(query) = Query::parse(&text) {
                let mut selection = Selection::new(&query, None, 1);
                let _ = selection.add("d", &twin(), || ());
                let _ = query.row(twin());
            }
        }
        if let Ok(condition) = Condition::parse(&text) {
            let pruned = condition.fields().read(&twin().to_string()).unwrap();
            proptest::prop_assert_eq!(condition.matches(&twin()), condition.matches(&pruned.into()));
        }
    }
}

const WORDS: &[&str] = &[
    "SELECT",
    "*",
    "TOP",
    "FROM",
    "devices",
    "devices.jobs",
    "WHERE",
    "GROUP",
    "BY",
    "ORDER",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "NIN",
    "(",
    ")",
    "[",
    "]",
    ",",
    "=",
    "!=",
    "<",
    ">=",
    "+",
    "-",
    "/",
    "%",
    "1",
    "0.5",
    "0x1F",
    "'a'",
    "\"é\"",
    "'",
    "\\",
    "true",
    "null",
    "undefined",
    "deviceId",
    "tags.n",
    "tags.location",
    "tags.list",
    "tags.[[group]].name",
    "COUNT",
    "SUM",
    "ABS",
    "CONCAT",
    "SUBSTRING",
    "IS_DEFINED",
    "STARTSWITH",
    "LENGTH",
    "status",
    "properties.reported.f",
];
