//! Status documents as text for people.

use std::fmt::Write as _;

use serde_json::Value;

use crate::outside::printable;

/// Several documents as one text of JSON: a list.
pub(super) fn json(documents: &[Value]) -> String {
    let list = Value::Array(documents.to_vec());
    let mut text = format!("{list:#}");
    text.push('\n');
    crate::outside::printable_json(&text)
}

/// Documents as text, cut to lines of `width`.
pub fn print(documents: &[Value], width: Option<usize>) -> String {
    let mut text = String::new();
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        one(document, &mut text);
    }
    match width {
        None => text,
        Some(width) => text.lines().map(|line| cut(line, width) + "\n").collect(),
    }
}

/// As many characters as there is room for.
pub(super) fn cut(line: &str, width: usize) -> String {
    match line.chars().count() > width {
        false => line.to_owned(),
        true => line
            .chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect(),
    }
}

fn one(document: &Value, text: &mut String) {
    let _ = writeln!(
        text,
        "{} {}, process {}, up {}",
        word(document, "program"),
        word(document, "version"),
        number(document, "pid"),
        time(document, "upSeconds")
    );
    for hub in list(document, "hubs") {
        let _ = write!(text, "  hub       {}", word(hub, "host"));
        for (member, before) in [("device", " as "), ("state", ", "), ("name", " = ")] {
            if hub.get(member).is_some() {
                let _ = write!(text, "{before}{}", word(hub, member));
            }
        }
        if hub.get("stateSeconds").is_some() {
            let _ = write!(text, " for {}", time(hub, "stateSeconds"));
        }
        text.push('\n');
    }
    for (member, name) in [("forwards", "forward "), ("targets", "target  ")] {
        for line in list(document, member) {
            let _ = writeln!(
                text,
                "  {name}  {}",
                printable(line.as_str().unwrap_or_default())
            );
        }
    }
    if let Some(totals) = document.get("totals") {
        let _ = writeln!(
            text,
            "  total     {} open, {} since the start, {} sent, {} received",
            number(totals, "open"),
            number(totals, "opened"),
            bytes(number(totals, "sent")),
            bytes(number(totals, "received"))
        );
    }
    let sessions = list(document, "sessions");
    let rows = sessions.iter().map(|it| (row(it, true), it));
    table("SESSION", rows.collect(), text);
    let streams = list(document, "streams");
    let rows = streams.iter().map(|it| (row(it, false), it));
    table("STREAM", rows.collect(), text);
}

/// The columns after the first.
const HEAD: [&str; 6] = ["OPEN", "SINCE", "SENT", "RECEIVED", "RTT", "STATE"];

fn row(it: &Value, is_session: bool) -> Vec<String> {
    let id: String = word(it, "id").chars().take(8).collect();
    let target = match it.get("device") {
        Some(_) => format!("{} ({})", word(it, "device"), word(it, "target")),
        None => word(it, "target"),
    };
    let round_trip = match it.get("roundTripMs").and_then(Value::as_f64) {
        Some(ms) => format!("{ms:.1} ms"),
        None => "-".to_owned(),
    };
    let open = match is_session {
        true => number(it, "connections").to_string(),
        false => "-".to_owned(),
    };
    vec![
        id,
        target,
        open,
        time(it, "upSeconds"),
        bytes(number(it, "sent")),
        bytes(number(it, "received")),
        round_trip,
        state(it),
    ]
}

fn state(it: &Value) -> String {
    let mut state = match it.get("interruptedSeconds") {
        Some(_) => format!("interrupted for {}", time(it, "interruptedSeconds")),
        None if it.get("state").is_some() => word(it, "state"),
        None => "up".to_owned(),
    };
    let resumes = number(it, "resumes");
    if resumes > 0 {
        let _ = write!(state, ", resumed {resumes}x");
    }
    state
}

fn table(kind: &str, rows: Vec<(Vec<String>, &Value)>, text: &mut String) {
    if rows.is_empty() {
        return;
    }
    let head = [kind, "TARGET"].into_iter().chain(HEAD).map(str::to_owned);
    let head = (head.collect(), &Value::Null);
    let rows: Vec<(Vec<String>, &Value)> = std::iter::once(head).chain(rows).collect();
    let widths: Vec<usize> = (0..HEAD.len() + 2)
        .map(|column| {
            let cells = rows.iter().filter_map(|(row, _)| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    for (row, it) in rows {
        let mut line = " ".to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, " {cell:width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
        // It is long, and has a line of its own.
        if it.get("trouble").is_some() {
            let indent = widths.first().copied().unwrap_or_default() + 3;
            let _ = writeln!(text, "{:indent$}{}", "", word(it, "trouble"));
        }
    }
}

/// A text; it may come from outside.
fn word(it: &Value, member: &str) -> String {
    let text = it.get(member).and_then(Value::as_str);
    printable(text.unwrap_or("?")).into_owned()
}

/// A number.
pub(super) fn number(it: &Value, member: &str) -> u64 {
    it.get(member).and_then(Value::as_u64).unwrap_or_default()
}

/// The members of a list.
pub(super) fn list<'a>(it: &'a Value, member: &str) -> &'a [Value] {
    let list = it.get(member).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time is neither negative nor longer than the universe"
)]
fn time(it: &Value, member: &str) -> String {
    let seconds = it.get(member).and_then(Value::as_f64).unwrap_or_default() as u64;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{}d{:02}h", hours / 24, hours % 24),
    }
}

/// Bytes in units of 1000, as networks count.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut amount = count as f64 / 1000.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while amount >= 999.95
        && let Some(next) = units.next()
    {
        amount /= 1000.0;
        unit = next;
    }
    format!("{amount:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({
            "program": "service-proxy", "version": "1.2.3", "pid": 42, "upSeconds": 7384.2,
            "hubs": [{ "host": "hub.example.com" }],
            "forwards": ["127.0.0.1:2222 -> MyDevice (ssh)"],
            "sessions": [
                { "id": "238ba90f", "device": "MyDevice", "target": "ssh", "upSeconds": 61.0,
                  "connections": 2, "sent": 999, "received": 1_234_567, "state": "up",
                  "roundTripMs": 12.34, "resumes": 3 },
                { "id": "405df008", "device": "Plc1\u{1b}[2J", "target": "rdp", "upSeconds": 90061.0,
                  "connections": 1, "sent": 999_950, "received": 0, "state": "interrupted",
                  "interruptedSeconds": 12.0, "resumes": 0, "trouble": "the hub cannot be reached" },
            ],
            "totals": { "open": 3, "opened": 17, "sent": 1000, "received": 5 },
        })
    }

    #[test]
    fn a_document_is_a_table() {
        let text = print(&[document()], None);
        let expected = "\
service-proxy 1.2.3, process 42, up 2h03m
  hub       hub.example.com
  forward   127.0.0.1:2222 -> MyDevice (ssh)
  total     3 open, 17 since the start, 1.0 kB sent, 5 B received
  SESSION  TARGET         OPEN SINCE SENT   RECEIVED RTT     STATE
  238ba90f MyDevice (ssh) 2    1m01s 999 B  1.2 MB   12.3 ms up, resumed 3x
  405df008 Plc1[2J (rdp)  1    1d01h 1.0 MB 0 B      -       interrupted for 12s
           the hub cannot be reached
";
        assert_eq!(text, expected);
    }

    #[test]
    fn lines_are_cut_to_the_terminal() {
        let text = print(&[document(), document()], Some(40));
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
        assert!(text.contains('…'));
        assert!(json(&[document()]).contains("\\u001b"));
    }
}
