//! Tables as docker prints them: columns as wide as their widest cell plus three, headings in capitals,
//! no spaces behind the last cell. Width is counted in terminal cells.

use unicode_width::UnicodeWidthStr;

const GAP: usize = 3;

/// Rows below a heading; every column is at least `least` cells wide, its gap included.
#[derive(Debug)]
pub struct Table {
    least: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// As `docker ps`.
    pub fn new(heading: &[&str]) -> Self {
        Self::with_least(10, heading)
    }

    /// As `docker compose ls` and `images`, whose columns are wider.
    pub fn wide(heading: &[&str]) -> Self {
        Self::with_least(20, heading)
    }

    fn with_least(least: usize, heading: &[&str]) -> Self {
        Self { least, rows: vec![heading.iter().map(ToString::to_string).collect()] }
    }

    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(|c| self.width(c)).collect();
        self.rows.iter().map(|row| line(row, &widths)).collect()
    }

    fn width(&self, column: usize) -> usize {
        let widest = self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.width()).max().unwrap_or(0);
        (widest + GAP).max(self.least)
    }
}

fn line(row: &[String], widths: &[usize]) -> String {
    let mut out = String::new();
    for (i, cell) in row.iter().enumerate() {
        out.push_str(cell);
        if i + 1 < row.len() {
            out.push_str(&" ".repeat(widths[i] - cell.width()));
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_three_wider_than_their_widest_cell() {
        let mut table = Table::new(&["NAME", "IMAGE", "PORTS"]);
        table.row(["shop-web-1", "nginx", ""]);
        table.row(["b", "c", "0.0.0.0:80->80/tcp"]);
        let expected = "NAME         IMAGE     PORTS\nshop-web-1   nginx     \nb            c         0.0.0.0:80->80/tcp\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn wide_characters_count_twice() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["日本語日本語", "x"]);
        assert_eq!(table.render().lines().next(), Some("A              B"));
    }
}
