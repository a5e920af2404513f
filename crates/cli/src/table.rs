//! Plain tables for people.

use std::io::{self, Write};

/// Characters of a cell that are shown.
const CELL_MAX: usize = 60;

/// Rows of text under a header. Columns are as wide as their widest cell; the last one is not
/// filled up.
#[derive(Debug)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub fn new(header: [&str; N]) -> Table<N> {
        Table { rows: vec![header.map(|word| word.to_uppercase())] }
    }

    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| shorten(&cell)));
    }

    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        for row in &self.rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// One line of at most `CELL_MAX` characters, without anything that a terminal would obey.
fn shorten(cell: &str) -> String {
    let line: String = cell.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= CELL_MAX {
        return line;
    }
    line.chars().take(CELL_MAX - 1).chain(['…']).collect()
}

/// `3 failed`.
pub fn count_word(count: i64, word: &str) -> String {
    format!("{count} {}", word.replace('_', " "))
}

/// `1 job`, `2 jobs`.
pub fn jobs(count: i64) -> String {
    if count == 1 { "1 job".to_owned() } else { format!("{count} jobs") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_their_header() {
        let mut table = Table::new(["id", "name"]);
        table.row(["10".into(), "a\nb\u{1b}[31m".into()]);
        table.row(["1".into(), "x".repeat(99)]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..2], ["ID  NAME", "10  a b [31m"]);
        assert_eq!(lines[2], format!("1   {}…", "x".repeat(59)));
    }
}
