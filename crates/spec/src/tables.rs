//! Tables of parameters: CSV and JSON files whose rows are combinations.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::parameters::ParameterValue;

/// A table of combinations: one per row.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    /// By column; JSON rows need not have them all.
    pub(crate) rows: Vec<Vec<Option<ParameterValue>>>,
}

/// Reads tables, each once.
pub(crate) struct Tables {
    directory: PathBuf,
    loaded: RefCell<HashMap<String, Result<Rc<Table>, String>>>,
}

impl Tables {
    /// Relative paths start at `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), loaded: RefCell::default() }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The table of this path, or why it cannot be used.
    pub(crate) fn load(&self, path: &str) -> Result<Rc<Table>, String> {
        let mut loaded = self.loaded.borrow_mut();
        let table = loaded.entry(path.to_owned()).or_insert_with(|| {
            let table = read_table(path, &self.directory)?;
            if table.rows.is_empty() {
                return Err(format!("`{path}` has no rows"));
            }
            Ok(Rc::new(table))
        });
        table.clone()
    }
}

fn read_table(path: &str, directory: &Path) -> Result<Table, String> {
    let lower = path.trim().to_ascii_lowercase();
    let content = std::fs::read_to_string(directory.join(path.trim()))
        .map_err(|error| format!("cannot read `{path}`: {error}"))?;
    if lower.ends_with(".csv") {
        return csv_table(path, &content);
    }
    let objects = if lower.ends_with(".json") {
        serde_json::from_str(&content).map_err(|error| format!("`{path}` is not a JSON list of objects: {error}"))?
    } else if lower.ends_with(".jsonl") || lower.ends_with(".ndjson") {
        let lines = content.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let object = |(index, line)| {
            serde_json::from_str(line)
                .map_err(|error| format!("`{path}`, line {}, is not a JSON object: {error}", index + 1))
        };
        lines.map(object).collect::<Result<_, _>>()?
    } else {
        return Err(format!("`{path}` has to end in .csv, .json, .jsonl or .ndjson"));
    };
    Ok(json_table(objects))
}

fn csv_table(path: &str, content: &str) -> Result<Table, String> {
    let broken = |error: csv::Error| format!("`{path}`: {error}");
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(content.as_bytes());
    let columns: Vec<String> = reader.headers().map_err(broken)?.iter().map(str::to_owned).collect();
    if columns.is_empty() || columns.iter().any(String::is_empty) {
        return Err(format!("`{path}` has a column without a name"));
    }
    if let Some((_, twice)) = columns.iter().enumerate().find(|(index, column)| columns[..*index].contains(column)) {
        return Err(format!("`{path}` has the column `{twice}` twice"));
    }
    let mut rows = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(broken)?;
        if record.len() != columns.len() {
            let (found, expected) = (record.len(), columns.len());
            return Err(format!("`{path}`, row {}: {found} fields, but {expected} columns", index + 1));
        }
        rows.push(record.iter().map(|field| Some(ParameterValue::infer(field))).collect());
    }
    Ok(Table { columns, rows })
}

fn json_table(objects: Vec<serde_json::Map<String, serde_json::Value>>) -> Table {
    let mut columns = Vec::new();
    let mut by_name = HashMap::new();
    for column in objects.iter().flat_map(|object| object.keys()) {
        by_name.entry(column.clone()).or_insert_with(|| {
            columns.push(column.clone());
            columns.len() - 1
        });
    }
    let rows = objects.into_iter().map(|object| {
        let mut row = vec![None; columns.len()];
        for (column, value) in object {
            row[by_name[&column]] = Some(ParameterValue::from_json(value));
        }
        row
    });
    let rows = rows.collect();
    Table { columns, rows }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Combinations, Row, Template};

    #[test]
    fn tables_are_read_from_csv_and_json() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(directory.path().join(name), content).unwrap();
        write("a.csv", "m, lr\nresnet, 0.1\n\"a,b\", 2\n");
        write("b.json", r#"[{"m": "x", "n": 1}, {"n": 2.5, "deep": [1]}]"#);
        write("c.jsonl", "{\"m\": 1}\n\n{\"m\": 2}\n");
        write("short.csv", "a,b\n1\n");
        write("none.csv", "a,b\n");
        let tables = Tables::new(directory.path());
        let rows = |path: &str, template: &str| -> Vec<String> {
            let combinations = Combinations::Table(tables.load(path).unwrap());
            let names = combinations.names();
            let template = Template::new(template, &names);
            let mut row = Row::new();
            (0..combinations.count().unwrap())
                .map(|index| {
                    combinations.row(index, &mut row);
                    template.render(&row)
                })
                .collect()
        };
        assert_eq!(rows("a.csv", "{m}-{lr:.2f}"), ["resnet-0.10", "a,b-2"]);
        assert_eq!(rows("b.json", "{m}/{n}/{deep}"), ["x/1/{deep}", "{m}/2.5/[1]"]);
        assert_eq!(rows("c.jsonl", "{m:02d}"), ["01", "02"]);
        for (path, words) in
            [("short.csv", "row 1"), ("none.csv", "no rows"), ("x.txt", "cannot read"), ("b.csv", "cannot read")]
        {
            assert!(tables.load(path).unwrap_err().contains(words), "{path}");
        }
    }
}
