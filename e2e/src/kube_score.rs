//! kube-score, which judges what the chart renders.

use std::path::PathBuf;

use crate::programs::{BinariesError, Module, Program};

/// The version in `kubescore/go.mod`, without the leading `v`.
const VERSION: &str = "1.20.0";

const MODULE: Module =
    Module { directory: "kubescore", kept: "kube-score-v1.20.0", ldflags: String::new, tags: "" };
const KUBE_SCORE: Program = Program {
    name: "kube-score",
    package: "github.com/zegl/kube-score/cmd/kube-score",
    module: &MODULE,
    version: VERSION,
    duration: "about a minute",
    // Another version may ask for more.
    from_path: false,
};

/// The pinned kube-score.
///
/// # Errors
/// When it can't be had.
pub async fn program() -> Result<PathBuf, BinariesError> {
    KUBE_SCORE.find_or_build().await
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_version_is_that_of_the_go_module() {
        let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubescore/go.mod");
        let module = std::fs::read_to_string(module).unwrap();
        assert_eq!(MODULE.kept, format!("kube-score-v{VERSION}"));
        assert!(module.contains(&format!("github.com/zegl/kube-score v{VERSION}\n")));
    }
}
