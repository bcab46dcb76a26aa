//! Readable tables: columns aligned, two blanks apart.

/// Lines of a table; every row has as many cells as the head.
pub(super) fn lines<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let mut columns = Columns::of(head);
    rows.iter().for_each(|row| columns.fit(row));
    let mut lines = vec![columns.line(head)];
    for row in rows {
        lines.push(columns.line(row.each_ref().map(String::as_str)));
    }
    lines
}

/// How wide the columns of a table are, in characters.
#[derive(Debug)]
pub(super) struct Columns<const N: usize>([usize; N]);

impl<const N: usize> Columns<N> {
    /// As wide as the head.
    pub(super) fn of(head: [&str; N]) -> Self {
        Self(head.map(str::len))
    }

    /// Makes room for a row.
    pub(super) fn fit(&mut self, row: &[String; N]) {
        for (width, cell) in self.0.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }

    /// One line of the table.
    pub(super) fn line(&self, cells: [&str; N]) -> String {
        let padded: Vec<_> = cells
            .iter()
            .zip(self.0)
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
        let rows = [
            ["a".to_owned(), "enabled".to_owned()],
            ["longer".to_owned(), "x".to_owned()],
        ];
        assert_eq!(
            lines(["ID", "STATUS"], &rows),
            ["ID      STATUS", "a       enabled", "longer  x"]
        );
    }
}
