//! What is packaged and released: one version, one layout of the image, and workflows that only call
//! scripts of this repository.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use e2e::image::operator;
use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Instruction and arguments of each line of the Dockerfile, continuations joined, without comments.
fn dockerfile() -> Vec<(String, String)> {
    let lines = read("Dockerfile");
    let lines: Vec<_> = lines.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let instructions = joined.lines().filter(|line| !line.trim().is_empty()).map(|line| {
        let (instruction, arguments) = line.split_once(' ').unwrap();
        (instruction.to_owned(), arguments.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    instructions.collect()
}

/// What the only instruction of that name in the last stage says.
fn said<'a>(stage: &'a [(String, String)], name: &str) -> &'a str {
    let found: Vec<_> = stage.iter().filter(|(instruction, _)| instruction == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    &found[0].1
}

#[test]
fn the_dockerfile_makes_the_image_that_is_written_without_an_engine() {
    let instructions = dockerfile();
    let last = instructions.iter().rposition(|(instruction, _)| instruction == "FROM").unwrap();
    let (build, stage) = instructions.split_at(last);

    assert_eq!(said(stage, "FROM"), "scratch");
    assert_eq!(said(stage, "USER"), operator::USER);
    assert_eq!(said(stage, "WORKDIR"), "/");
    let entrypoint: Vec<String> = serde_json::from_str(said(stage, "ENTRYPOINT")).unwrap();
    assert_eq!(entrypoint, [operator::PROGRAM]);
    // `key="value"`, separated by spaces that are not in quotes: every second quote ends one.
    let mut parts = said(stage, "LABEL").split('"');
    let mut found = BTreeMap::new();
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        found.insert(key.trim().trim_end_matches('=').to_owned(), value.to_owned());
    }
    assert_eq!(found, operator::labels());

    // All that it copies is one directory, into which the build puts the same two files.
    assert_eq!(said(stage, "COPY"), "--from=build /image /");
    assert_eq!(stage.len(), 6, "{stage:?}");
    let run = &build.iter().rfind(|(instruction, _)| instruction == "RUN").unwrap().1;
    let installed: Vec<_> = run.split("install -D ").skip(1).collect();
    let expected = [
        format!("--mode=755 \"$program\" /image{}", operator::PROGRAM),
        format!("--mode=644 {0} /image{0}", operator::AUTHORITIES),
    ];
    let installed: Vec<_> = installed.iter().map(|line| line.trim_end_matches(" && ")).collect();
    assert_eq!(installed, expected);
    assert!(run.contains("program=$(.ci/build \"$TARGETARCH\")"), "{run}");
}

#[test]
fn all_build_on_one_base_which_is_pinned_and_has_the_toolchain() {
    let (_, from) = dockerfile().into_iter().find(|(instruction, _)| instruction == "FROM").unwrap();
    let base = from.strip_prefix("--platform=$BUILDPLATFORM ").unwrap().strip_suffix(" AS build").unwrap();
    let toolchain = read("rust-toolchain.toml");
    let version = base.strip_prefix("rust:").unwrap().split('-').next().unwrap();
    assert!(toolchain.contains(&format!("channel = \"{version}\"")), "{base}: {toolchain}");
    assert!(pinned(base, "@sha256:", 64), "{base}");
    for (name, workflow) in workflows() {
        for (job, description) in workflow["jobs"].as_object().unwrap() {
            let container = &description["container"];
            assert!(container.is_null() || container == base, "{name}: {job}: {container}");
        }
    }
}

#[test]
fn there_is_one_version() {
    let changelog = read("CHANGELOG.md");
    let mut headings = changelog.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(headings.next(), Some("[Unreleased]"));
    let newest = headings.next().unwrap();
    let date = newest.strip_prefix(&format!("[{VERSION}] - ")).unwrap_or_else(|| panic!("{newest}"));
    date.parse::<jiff::civil::Date>().unwrap();
    let chart = read("charts/kyma-bindings/Chart.yaml");
    let chart: Value = serde_saphyr::from_str(&chart).unwrap();
    assert_eq!((&chart["version"], &chart["appVersion"]), (&VERSION.into(), &VERSION.into()));
    assert_eq!(operator::labels()["org.opencontainers.image.version"], VERSION);
}

fn workflows() -> Vec<(String, Value)> {
    let files = fs::read_dir(repository().join(".github/workflows")).unwrap();
    let parsed = files.map(|file| {
        let path = file.unwrap().path();
        let workflow = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap());
        (path.display().to_string(), workflow.unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    });
    let parsed: Vec<_> = parsed.collect();
    assert!(parsed.len() >= 2, "{parsed:?}");
    parsed
}

fn pinned(reference: &str, mark: &str, length: usize) -> bool {
    reference.split_once(mark).is_some_and(|(_, hash)| {
        hash.len() == length && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[test]
fn workflows_call_scripts_that_exist_and_actions_that_are_pinned() {
    for (name, workflow) in workflows() {
        assert_eq!(workflow["permissions"], serde_json::json!({}), "{name}: a job says what it may");
        for (job, description) in workflow["jobs"].as_object().unwrap() {
            let at = format!("{name}: {job}");
            assert!(description["permissions"].is_object(), "{at}: permissions");
            assert!(description["timeout-minutes"].is_u64(), "{at}: timeout-minutes");
            for step in description["steps"].as_array().unwrap() {
                match (step["uses"].as_str(), step["run"].as_str()) {
                    (Some(action), None) => assert!(pinned(action, "@", 40), "{at}: {action}"),
                    (None, Some(run)) => assert_eq!(wrong(run), None, "{at}: {run}"),
                    _ => panic!("{at}: {step}"),
                }
            }
        }
    }
}

/// What is wrong with a step's command: it must be one script and its arguments, and take what others
/// chose (a tag's name) by the environment, where it can't become a command.
fn wrong(run: &str) -> Option<String> {
    let script = repository().join(run.split_whitespace().next()?);
    let mode = fs::metadata(&script).map_or(0, |metadata| metadata.permissions().mode());
    if !run.starts_with(".ci/") || mode & 0o111 == 0 {
        return Some(format!("{} is not a script of .ci that can be run", script.display()));
    }
    let forbidden = run.trim().contains(['\n', ';', '|', '&', '>', '`']) || run.contains("${{");
    forbidden.then(|| "more than one script and its arguments".to_owned())
}

#[test]
fn what_a_workflow_must_not_run_is_told() {
    for run in [".ci/run", ".ci/version \"$GITHUB_REF_NAME\"\n"] {
        assert_eq!(wrong(run), None, "{run}");
    }
    for run in ["cargo test", ".ci/nothing", ".ci/run; id", ".ci/run\nid", ".ci/version ${{ github.ref }}"] {
        assert!(wrong(run).is_some(), "{run}");
    }
}
