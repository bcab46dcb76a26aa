//! Readable tables: columns aligned, two blanks apart.

/// Lines of a table; every row has as many cells as the head.
pub(super) fn lines<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded: Vec<_> = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(head)];
    for row in rows {
        lines.push(line(row.each_ref().map(String::as_str)));
    }
    lines
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
