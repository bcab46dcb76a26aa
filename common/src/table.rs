//! Tables for people: columns that are aligned, two blanks apart.

/// The columns of a table, as wide as the widest cell so far, in characters. Every row has as many
/// cells as the head.
#[derive(Debug)]
pub struct Columns {
    head: Vec<String>,
    widths: Vec<usize>,
    is_begun: bool,
}

impl Columns {
    /// With these names.
    pub fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|&name| name.to_owned()).collect(),
            widths: head.iter().map(|name| name.chars().count()).collect(),
            is_begun: false,
        }
    }

    /// Makes room for a row.
    pub fn fit(&mut self, row: &[String]) {
        for (width, cell) in self.widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// The lines of more rows, before the first of them also the head.
    pub fn page<R: AsRef<[String]>>(&mut self, rows: &[R]) -> Vec<String> {
        rows.iter().for_each(|row| self.fit(row.as_ref()));
        let mut lines = Vec::new();
        if !self.is_begun && !rows.is_empty() {
            self.is_begun = true;
            lines.push(self.line(&self.head));
        }
        lines.extend(rows.iter().map(|row| self.line(row.as_ref())));
        lines
    }

    fn line(&self, cells: &[String]) -> String {
        let padded: Vec<String> = cells
            .iter()
            .zip(&self.widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut columns = Columns::new(&["ID", "STATUS"]);
        let row = |id: &str, status: &str| [id.to_owned(), status.to_owned()];
        assert_eq!(columns.page::<[String; 2]>(&[]), [] as [&str; 0]);
        let rows = [row("ä", "enabled"), row("longer", "x")];
        assert_eq!(
            columns.page(&rows),
            ["ID      STATUS", "ä       enabled", "longer  x"]
        );
        // Later rows have no head, and the room of the earlier ones.
        columns.fit(&row("longest", ""));
        assert_eq!(columns.page(&[row("b", "y")]), ["b        y"]);
    }
}
