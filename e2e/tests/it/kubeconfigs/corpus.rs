//! The kubeconfigs that are tried: files of what the field makes, and variations of one.

use std::path::Path;

use super::given::Given;

/// What is expected of a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It works in both.
    Both,
    /// kubectl works with it, and it is refused with these words, for a reason that the page gives.
    Meant(String),
    /// It works in neither; the refusal has these words.
    Neither(String),
    /// It works here alone.
    Ours,
}

/// A kubeconfig that is tried.
pub struct Case {
    pub name: String,
    pub text: Vec<u8>,
    pub expected: Expected,
}

/// All, filled with what is given.
pub fn all(given: &Given) -> Vec<Case> {
    let mut cases = files(given);
    cases.extend(super::variations::all(given));
    cases
}

/// The first lines of a file say what it is, and in which words it is refused.
fn files(given: &Given) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubeconfigs");
    let mut cases = Vec::new();
    for folder in ["both", "meant", "neither"] {
        let mut paths: Vec<_> =
            std::fs::read_dir(root.join(folder)).unwrap().map(|file| file.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let template = std::fs::read_to_string(&path).unwrap();
            let refused = template.lines().find_map(|line| line.strip_prefix("# refused: "));
            let refused = || refused.expect("a refused file says in which words").to_owned();
            let expected = match folder {
                "both" => Expected::Both,
                "meant" => Expected::Meant(refused()),
                _ => Expected::Neither(refused()),
            };
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            cases.push(Case { name, text: given.fill(&template).into_bytes(), expected });
        }
    }
    cases
}
