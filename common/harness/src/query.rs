//! Queries and conditions on any text.

use hub::query::{Condition, Continuation, Groups, Query, Selection};
use serde_json::{Value, json};

/// Parses a query, a condition and a continuation, and evaluates them. What a condition reads of a
/// document is all that its answer depends on, and a continuation is read back as it was written.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let twin = twin();
    if let Ok(condition) = Condition::parse(text) {
        let _ = condition.narrowing();
        let read = condition
            .fields()
            .read(&twin.to_string())
            .expect("an object");
        assert_eq!(condition.matches(&twin), condition.matches(&read.into()));
    }
    let whole = format!("SELECT * FROM devices WHERE {text}");
    for text in [text, &whole] {
        let Ok(query) = Query::parse(text) else {
            continue;
        };
        let _ = Continuation::from_token(text, text, &query);
        let page = if query.has_groups() {
            let mut groups = Groups::new(&query);
            let _ = groups.add(&twin);
            groups.finish(None, 1)
        } else {
            let mut selection = Selection::new(&query, None, 1);
            let _ = selection.add("d", &twin, || query.row(twin.clone()));
            selection.finish()
        };
        if let Some((after, _)) = page.rows.into_iter().next() {
            let left = query.top();
            let written = Continuation { after, left };
            let token = written.to_token(text);
            assert_eq!(
                Continuation::from_token(&token, text, &query),
                Some(written)
            );
        }
    }
}

fn twin() -> Value {
    json!({
        "deviceId": "d", "etag": "AAAA", "status": "enabled", "connectionState": "Connected",
        "lastActivityTime": "2021-05-07T00:50:38.0543092Z", "version": 2,
        "tags": { "a": 1, "b": { "c": "text", "d": null }, "e": [1, "é"], "f": true },
        "properties": {
            "desired": { "x": 0.5, "$version": 1 },
            "reported": { "x": -3, "y": { "z": "é😀" }, "$version": 4 },
        },
    })
}
