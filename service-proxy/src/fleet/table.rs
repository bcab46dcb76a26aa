//! Rows in the form that is wanted: a table, a JSON array, or a JSON object per line. They are
//! printed as they come, so that only a page of them is in memory.

use common::table::Columns;
use serde_json::Value;

use super::FleetError;
use super::print::Printer;
use crate::cli::FormArgs;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For people.
    Table,
    /// One JSON array.
    Array,
    /// One JSON object per line.
    Lines,
}

impl Form {
    /// What the options say, or else this.
    pub(super) fn of(args: FormArgs, or: Self) -> Self {
        match args {
            FormArgs { json: true, .. } => Self::Array,
            FormArgs {
                json_lines: true, ..
            } => Self::Lines,
            FormArgs { .. } => or,
        }
    }
}

/// Prints rows of JSON; those of a table are made from it.
pub(super) struct Rows<F> {
    form: Form,
    columns: Columns,
    cells: F,
    count: u64,
}

impl<F: Fn(&Value) -> Vec<String>> Rows<F> {
    /// `cells` makes as many as `head` has.
    pub(super) fn new(form: Form, head: &[&str], cells: F) -> Self {
        Self {
            form,
            columns: Columns::new(head),
            cells,
            count: 0,
        }
    }

    /// Prints a page of rows.
    pub(super) async fn page(
        &mut self,
        rows: &[Value],
        out: &mut Printer,
    ) -> Result<(), FleetError> {
        match self.form {
            Form::Table => {
                let rows: Vec<Vec<String>> = rows.iter().map(&self.cells).collect();
                for line in self.columns.page(&rows) {
                    out.line(&line).await?;
                }
            }
            Form::Lines => {
                for row in rows {
                    out.json_line(row).await?;
                }
            }
            Form::Array => {
                for (row, number) in rows.iter().zip(self.count..) {
                    let before = if number == 0 { "[\n" } else { ",\n" };
                    out.json_text(before).await?;
                    out.json_text(&row.to_string()).await?;
                }
            }
        }
        self.count += rows.len() as u64;
        out.flush().await
    }

    /// Ends the output; returns how many rows there were.
    pub(super) async fn end(self, out: &mut Printer) -> Result<u64, FleetError> {
        if self.form == Form::Array {
            let end = if self.count == 0 { "[]\n" } else { "\n]\n" };
            out.json_text(end).await?;
        }
        out.flush().await?;
        Ok(self.count)
    }
}

/// A value as it stands in a table.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// A time of IoT Hub to the second, or "never".
pub(super) fn time(text: &str) -> String {
    if text.is_empty() || text.starts_with("0001-") {
        return "never".to_owned();
    }
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn printed(form: Form, pages: &[Vec<Value>]) -> String {
        let (mut reader, writer) = tokio::io::duplex(1 << 16);
        let mut out = Printer::new(writer);
        let cells = |row: &Value| vec![cell(row.get("a")), cell(row.get("b"))];
        let mut rows = Rows::new(form, &["A", "B"], cells);
        for page in pages {
            rows.page(page, &mut out).await.unwrap();
        }
        rows.end(&mut out).await.unwrap();
        drop(out);
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn rows_are_printed_as_they_come() {
        let first = vec![
            json!({ "a": "x", "b": 1 }),
            json!({ "a": "longer", "b": [true] }),
        ];
        let pages = [vec![], first, vec![json!({ "a": null })]];
        assert_eq!(
            printed(Form::Table, &pages).await,
            "A       B\nx       1\nlonger  [true]\n\n"
        );
        let array = printed(Form::Array, &pages).await;
        let array: Value = serde_json::from_str(&array).unwrap();
        assert_eq!(array.as_array().unwrap().len(), 3);
        assert_eq!(printed(Form::Array, &[]).await, "[]\n");
        assert_eq!(printed(Form::Lines, &pages).await.lines().count(), 3);
        assert_eq!(printed(Form::Table, &[]).await, "");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(time("2026-11-29T20:30:00.1234567Z"), "2026-11-29T20:30:00Z");
        assert_eq!(time("2026-11-29T20:30:00Z"), "2026-11-29T20:30:00Z");
        assert_eq!(time("0001-01-01T00:00:00Z"), "never");
    }
}
