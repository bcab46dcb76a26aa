//! The same rows, the same question, SQLite's answer: for what both languages have. A missing
//! property is NULL there, which goes through comparisons, arithmetic and logic as undefined does
//! here.

use proptest::prelude::*;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Map, Value, json};

use crate::query::*;

/// An expression in both languages.
type Both = (String, String);

const NUMBERS: [&str; 2] = ["n", "m"];
const TEXTS: [&str; 2] = ["s", "t"];

#[derive(Debug, Clone)]
struct Row {
    numbers: [Option<f64>; 2],
    texts: [Option<String>; 2],
}

fn number() -> impl Strategy<Value = f64> {
    (-6_i32..=6).prop_map(|half| f64::from(half) / 2.0)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[abAB]{0,3}", "[aé😀]{0,2}"]
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        [
            proptest::option::of(number()),
            proptest::option::of(number()),
        ],
        [proptest::option::of(text()), proptest::option::of(text())],
    );
    proptest::collection::vec(
        row.prop_map(|(numbers, texts)| Row { numbers, texts }),
        0..12,
    )
}

fn constant(number: f64) -> Both {
    // A float in both: SQLite divides integers without a fraction.
    (format!("{number:?}"), format!("{number:?}"))
}

fn literal(text: &str) -> Both {
    (format!("'{text}'"), format!("'{text}'"))
}

fn property(name: &str) -> Both {
    (format!("tags.{name}"), name.to_owned())
}

fn combine(form: [&str; 2], parts: &[Both]) -> Both {
    let fill = |form: &str, of: fn(&Both) -> &str| {
        parts.iter().fold(form.to_owned(), |text, part| {
            text.replacen('#', of(part), 1)
        })
    };
    (fill(form[0], |part| &part.0), fill(form[1], |part| &part.1))
}

fn numeric() -> BoxedStrategy<Both> {
    let leaf = prop_oneof![
        number().prop_map(constant),
        proptest::sample::select(&NUMBERS[..]).prop_map(property),
        textual().prop_map(|part| combine(["LENGTH(#)", "length(#)"], &[part])),
        [textual(), textual()]
            .prop_map(|parts| combine(["INDEX_OF(#, #)", "(instr(#, #) - 1)"], &parts)),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        let operators = [
            ["(# + #)", "(# + #)"],
            ["(# - #)", "(# - #)"],
            ["(# * #)", "(# * #)"],
            ["(# / #)", "(CAST(# AS REAL) / #)"],
        ];
        prop_oneof![
            (
                proptest::sample::select(operators.to_vec()),
                [inner.clone(), inner.clone()]
            )
                .prop_map(|(form, parts)| combine(form, &parts)),
            inner
                .clone()
                .prop_map(|part| combine(["-(#)", "-(#)"], &[part])),
            inner.prop_map(|part| combine(["ABS(#)", "abs(#)"], &[part])),
        ]
    })
    .boxed()
}

fn textual() -> BoxedStrategy<Both> {
    let leaf = prop_oneof![
        text().prop_map(|text| literal(&text)),
        proptest::sample::select(&TEXTS[..]).prop_map(property),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            [inner.clone(), inner.clone()]
                .prop_map(|parts| combine(["CONCAT(#, #)", "(# || #)"], &parts)),
            (inner, 0..3_usize, 0..3_usize).prop_map(|(part, start, length)| combine(
                [
                    &format!("SUBSTRING(#, {start}, {length})"),
                    &format!("substr(#, {}, {length})", start + 1)
                ],
                &[part]
            )),
        ]
    })
    .boxed()
}

fn condition() -> BoxedStrategy<Both> {
    let comparisons = ["=", "!=", "<>", "<", "<=", ">", ">="];
    let compare = |side: fn() -> BoxedStrategy<Both>| {
        (
            proptest::sample::select(comparisons.to_vec()),
            [side(), side()],
        )
            .prop_map(|(operator, parts)| {
                let form = format!("# {operator} #");
                combine([&form, &form], &parts)
            })
    };
    let listed = |list: Vec<String>, part: Both, is_in: bool| {
        let list = list.join(", ");
        let (here, there) = if is_in {
            ("IN", "IN")
        } else {
            ("NIN", "NOT IN")
        };
        combine(
            [
                &format!("# {here} [{list}]"),
                &format!("# {there} ({list})"),
            ],
            &[part],
        )
    };
    let numbers = proptest::collection::vec(number().prop_map(|n| format!("{n:?}")), 1..4);
    let texts = proptest::collection::vec(text().prop_map(|t| format!("'{t}'")), 1..4);
    let leaf = prop_oneof![
        3 => compare(numeric),
        3 => compare(textual),
        1 => (numbers, numeric(), any::<bool>()).prop_map(move |(list, part, is_in)| listed(list, part, is_in)),
        1 => (texts, textual(), any::<bool>()).prop_map(move |(list, part, is_in)| listed(list, part, is_in)),
        1 => numeric().prop_map(|part| combine(["IS_DEFINED(#)", "(#) IS NOT NULL"], &[part])),
        1 => [textual(), textual()].prop_map(|[x, y]| {
            // It has the second one twice there.
            let (here, _) = combine(["STARTSWITH(#, #)", ""], &[x.clone(), y.clone()]);
            let (_, there) = combine(["", "substr(#, 1, length(#)) = #"], &[x, y.clone(), y]);
            (here, there)
        }),
        1 => [textual(), textual()].prop_map(|parts| combine(["CONTAINS(#, #)", "instr(#, #) > 0"], &parts)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            [inner.clone(), inner.clone()]
                .prop_map(|parts| combine(["(# AND #)", "(# AND #)"], &parts)),
            [inner.clone(), inner.clone()]
                .prop_map(|parts| combine(["(# OR #)", "(# OR #)"], &parts)),
            inner.prop_map(|part| combine(["NOT (#)", "NOT (#)"], &[part])),
        ]
    })
    .boxed()
}

fn database(rows: &[Row]) -> Connection {
    let database = Connection::open_in_memory().unwrap();
    database
        .execute_batch("CREATE TABLE twins (id TEXT, n REAL, m REAL, s TEXT, t TEXT)")
        .unwrap();
    for (index, Row { numbers, texts }) in rows.iter().enumerate() {
        let [n, m] = numbers;
        let [s, t] = texts;
        database
            .execute(
                "INSERT INTO twins VALUES (?1, ?2, ?3, ?4, ?5)",
                (name(index), n, m, s, t),
            )
            .unwrap();
    }
    database
}

fn name(index: usize) -> String {
    format!("d{index:02}")
}

fn documents(rows: &[Row]) -> Vec<(String, Value)> {
    let document = |(index, row): (usize, &Row)| {
        let mut tags = Map::new();
        for (key, number) in NUMBERS.iter().zip(row.numbers) {
            number.map(|number| tags.insert((*key).to_owned(), json!(number)));
        }
        for (key, text) in TEXTS.iter().zip(&row.texts) {
            text.as_ref()
                .map(|text| tags.insert((*key).to_owned(), json!(text)));
        }
        (
            name(index),
            json!({ "deviceId": name(index), "tags": tags }),
        )
    };
    rows.iter().enumerate().map(document).collect()
}

/// Rows of SQLite's result, with a number or text for each column, or nothing.
fn theirs(database: &Connection, text: &str) -> Vec<Vec<Option<Value>>> {
    let mut statement = database
        .prepare(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    let count = statement.column_count();
    let none: [&str; 0] = [];
    let rows = statement.query_map(params_from_iter(none), |row| {
        (0..count)
            .map(|column| {
                Ok(match row.get(column)? {
                    Sql::Null => None,
                    Sql::Integer(number) => Some(json!(number as f64)),
                    Sql::Real(number) => Some(json!(number)),
                    Sql::Text(text) => Some(json!(text)),
                    Sql::Blob(_) => panic!("{text}"),
                })
            })
            .collect()
    });
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

/// Rows of our result in the same form, of columns `c0`, `c1` and so on, read in pages of three.
fn ours(rows: &[Row], text: &str, count: usize) -> Vec<Vec<Option<Value>>> {
    let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let documents = documents(rows);
    let (mut result, mut after) = (Vec::new(), None);
    loop {
        let page = if query.has_groups() {
            let mut groups = Groups::new(&query);
            for (_, document) in &documents {
                groups.add(document).unwrap();
            }
            groups.finish(after.as_ref(), 3)
        } else {
            let mut selection = Selection::new(&query, after, 3);
            for (id, document) in &documents {
                if selection
                    .add(id, document, || query.row(document.clone()))
                    .is_break()
                {
                    break;
                }
            }
            selection.finish()
        };
        after = page.rows.last().map(|(position, _)| position.clone());
        for (_, row) in page.rows {
            let column = |index: usize| {
                let value = row.get(format!("c{index}"))?;
                Some(
                    value
                        .as_f64()
                        .map_or_else(|| value.clone(), |number| json!(number)),
                )
            };
            result.push((0..count).map(column).collect());
        }
        if !page.has_more {
            return result;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn conditions_select_the_same(rows in rows(), (here, there) in condition()) {
        let text = format!("SELECT deviceId AS c0 FROM devices WHERE {here}");
        let sql = format!("SELECT id FROM twins WHERE {there} ORDER BY id");
        prop_assert_eq!(ours(&rows, &text, 1), theirs(&database(&rows), &sql), "{} | {}", text, sql);
    }

    #[test]
    fn columns_and_orders_are_the_same(
        rows in rows(),
        number in numeric(),
        text in textual(),
        is_descending in any::<[bool; 2]>(),
    ) {
        let [first, second] = is_descending.map(|is| if is { "DESC" } else { "ASC" });
        let query = format!(
            "SELECT deviceId AS c0, {0} AS c1, {1} AS c2 FROM devices ORDER BY {0} {first}, {1} {second}",
            number.0, text.0
        );
        let sql = format!(
            "SELECT id, {0} AS c1, {1} AS c2 FROM twins ORDER BY {0} + 0.0 {first}, {1} || '' {second}, id",
            number.1, text.1
        );
        prop_assert_eq!(ours(&rows, &query, 3), theirs(&database(&rows), &sql), "{} | {}", query, sql);
    }

    #[test]
    fn groups_are_the_same(rows in rows(), (here, there) in condition()) {
        let query = format!(
            "SELECT tags.s AS c0, tags.n AS c1, COUNT() AS c2, COUNT(tags.m) AS c3, SUM(tags.m) AS c4, \
             AVG(tags.m) AS c5, MIN(tags.t) AS c6, MAX(tags.m) AS c7 FROM devices WHERE {here} \
             GROUP BY tags.s, tags.n ORDER BY COUNT() DESC, tags.s, tags.n"
        );
        let sql = format!(
            "SELECT s, n, count(*), count(m), sum(m), avg(m), min(t), max(m) FROM twins WHERE {there} \
             GROUP BY s, n ORDER BY count(*) DESC, s, n"
        );
        prop_assert_eq!(ours(&rows, &query, 8), theirs(&database(&rows), &sql), "{} | {}", query, sql);
    }
}
