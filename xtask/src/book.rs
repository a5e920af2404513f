//! The book, the map and the README: what they name is there.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the project").to_owned()
    }

    /// The files below a folder whose names end so, without what builds leave.
    fn files(folder: &Path, end: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of the project") {
            let entry = entry.expect("an entry of a folder");
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type().expect("the kind of an entry").is_dir() {
                if !name.starts_with('.') && name != "target" {
                    files(&path, end, found);
                }
            } else if name.ends_with(end) {
                found.push(path);
            }
        }
    }

    fn texts(folders: &[&str], end: &str) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        for folder in folders {
            files(&root().join(folder), end, &mut found);
        }
        found.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).expect("a text"))).collect()
    }

    fn pages() -> Vec<(PathBuf, String)> {
        let mut pages = texts(&["docs"], ".md");
        for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
            let path = root().join(name);
            pages.push((path.clone(), fs::read_to_string(&path).expect("a page")));
        }
        pages
    }

    /// The words of a sentence, joined as in the name of a test.
    fn name(sentence: &str) -> String {
        let plain = sentence.to_lowercase().replace('\'', "");
        plain.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_")
    }

    /// What stands between single asterisks.
    fn emphasized(text: &str) -> Vec<String> {
        let single = text.replace("**", "");
        single.split("\n\n").flat_map(|part| part.split('*').skip(1).step_by(2).map(String::from)).collect()
    }

    /// Names of functions, and strings that are names of checks.
    fn named() -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        let sources = [texts(&["crates", "xtask"], ".rs"), texts(&["python", "compat", "compat-tasks"], ".py")];
        for (_, text) in sources.iter().flatten() {
            for (before, prefix) in [("fn ", ""), ("def ", "test_")] {
                for after in text.split(before).skip(1) {
                    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
                    named.insert(after[..end].trim_start_matches(prefix).to_owned());
                }
            }
            named.extend(text.lines().filter_map(|line| line.split('"').nth(1)).map(name));
        }
        named
    }

    #[test]
    fn a_test_that_the_book_names_is_there() {
        let named = named();
        let mut missing = Vec::new();
        for (path, text) in pages() {
            for sentence in emphasized(&text) {
                let is_name = sentence.starts_with(char::is_lowercase) && sentence.split_whitespace().count() > 3;
                if is_name && !named.contains(&name(&sentence)) {
                    missing.push(format!("{}: {sentence}", path.display()));
                }
            }
        }
        assert!(missing.is_empty(), "no test has these names:\n{}", missing.join("\n"));
    }

    #[test]
    fn a_page_that_the_book_leads_to_is_there() {
        let mut missing = Vec::new();
        for (path, text) in pages() {
            for target in text.split("](").skip(1).filter_map(|after| after.split([')', '#']).next()) {
                let is_ours = !target.is_empty() && !target.contains("://");
                if is_ours && !path.parent().expect("a page is in a folder").join(target).exists() {
                    missing.push(format!("{}: {target}", path.display()));
                }
            }
        }
        assert!(missing.is_empty(), "these lead nowhere:\n{}", missing.join("\n"));
    }
}
