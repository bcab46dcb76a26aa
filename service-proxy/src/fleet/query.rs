//! `query`: all rows of a query, as they come.

use std::io::IsTerminal as _;

use serde_json::Value;

use super::print::Printer;
use super::table::{Form, Rows, cell};
use super::{Fleet, FleetError};
use crate::cli::QueryArgs;

impl Fleet {
    pub(super) async fn query(&self, args: QueryArgs, out: &mut Printer) -> Result<(), FleetError> {
        let mut query = self.api.query(&args.query);
        let failed = || self.failed("run the query");
        // The first page says which columns there are.
        let first = query.next_page().await.map_err(failed())?;
        let first = first.unwrap_or_default();
        let is_terminal = std::io::stdout().is_terminal();
        let columns = if is_terminal { columns(&first) } else { None };
        let usual = match columns {
            Some(_) => Form::Table,
            None => Form::Lines,
        };
        let columns = columns.unwrap_or_default();
        let head: Vec<&str> = columns.iter().map(String::as_str).collect();
        let cells = |row: &Value| columns.iter().map(|name| cell(row.get(name))).collect();
        let mut rows = Rows::new(Form::of(args.form, usual), &head, cells);
        rows.page(&first, out).await?;
        while let Some(page) = query.next_page().await.map_err(failed())? {
            rows.page(&page, out).await?;
        }
        rows.end(out).await?;
        Ok(())
    }
}

/// The most columns of a table.
const MOST: usize = 8;

/// The columns of rows that are simple enough for a table.
fn columns(rows: &[Value]) -> Option<Vec<String>> {
    let mut columns: Vec<String> = Vec::new();
    for row in rows {
        for (name, value) in row.as_object()? {
            if value.is_object() || value.is_array() {
                return None;
            }
            if !columns.contains(name) {
                columns.push(name.clone());
            }
            if columns.len() > MOST {
                return None;
            }
        }
    }
    (!columns.is_empty()).then_some(columns)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn simple_rows_make_a_table() {
        let simple = [json!({ "a": 1 }), json!({ "a": null, "b": "x" })];
        assert_eq!(columns(&simple), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(columns(&[json!({ "a": {} })]), None);
        assert_eq!(columns(&[json!(1)]), None);
        assert_eq!(columns(&[]), None);
    }
}
