//! The borders between crates, as ARCHITECTURE.md draws them.

/// Which of our crates each crate may use. What is not here may not exist.
#[cfg(test)]
const MAY_USE: &[(&str, &[&str])] = &[
    ("forebay-domain", &[]),
    ("forebay-flusher", &[]),
    ("forebay-wire", &[]),
    ("forebay-spec", &["forebay-wire"]),
    ("forebay-store-sqlite", &["forebay-domain"]),
    ("forebay-engine", &["forebay-domain", "forebay-flusher"]),
    ("forebay-workflows", &["forebay-domain", "forebay-engine", "forebay-wire"]),
    ("forebay-tasks", &["forebay-domain", "forebay-engine"]),
    ("forebay-jobq", &["forebay-flusher"]),
    ("forebay-server", &["forebay-engine", "forebay-workflows", "forebay-tasks", "forebay-jobq"]),
    ("forebay-worker", &["forebay-wire"]),
    ("forebay-sim", &["forebay-domain"]),
    (
        "forebay",
        &[
            "forebay-domain",
            "forebay-engine",
            "forebay-jobq",
            "forebay-server",
            "forebay-spec",
            "forebay-store-sqlite",
            "forebay-wire",
            "forebay-worker",
            "forebay-workflows",
        ],
    ),
    ("xtask", &["forebay-tasks"]),
];

/// Crates from outside that may never be below these, directly.
#[cfg(test)]
const MUST_NOT_SEE: &[(&str, &[&str])] = &[
    ("forebay-domain", &["tokio", "serde", "tracing", "rusqlite", "rand"]),
    ("forebay-flusher", &["tokio", "serde", "rusqlite"]),
    ("forebay-engine", &["rusqlite", "axum", "hyper", "tonic", "serde"]),
    ("forebay-workflows", &["rusqlite"]),
    ("forebay-tasks", &["rusqlite"]),
    ("forebay-server", &["rusqlite"]),
    ("forebay-store-sqlite", &["tokio", "axum"]),
    ("forebay-wire", &["tokio", "rusqlite"]),
];

#[cfg(test)]
mod tests {
    use super::{MAY_USE, MUST_NOT_SEE};
    use std::process::Command;

    /// (crate, what it uses outside of tests).
    fn uses() -> Vec<(String, Vec<String>)> {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
        let packages = metadata["packages"].as_array().expect("a list of packages");
        let text = |value: &serde_json::Value| value.as_str().expect("a name").to_owned();
        packages
            .iter()
            .map(|package| {
                let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
                let normal = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
                (text(&package["name"]), normal.map(|dependency| text(&dependency["name"])).collect())
            })
            .collect()
    }

    #[test]
    fn crates_use_only_what_the_map_allows() {
        for (name, used) in uses() {
            let allowed = MAY_USE.iter().find(|(of, _)| *of == name);
            let (_, allowed) = allowed.unwrap_or_else(|| panic!("{name} is not on the map: see ARCHITECTURE.md"));
            for ours in used.iter().filter(|used| used.starts_with("forebay")) {
                assert!(allowed.contains(&ours.as_str()), "{name} must not use {ours}: see ARCHITECTURE.md");
            }
        }
    }

    #[test]
    fn crates_do_not_see_what_would_let_them_overstep() {
        for (name, used) in uses() {
            for (_, hidden) in MUST_NOT_SEE.iter().filter(|(of, _)| *of == name) {
                for outside in &used {
                    assert!(!hidden.contains(&outside.as_str()), "{name} must not use {outside}: see ARCHITECTURE.md");
                }
            }
        }
    }
}
