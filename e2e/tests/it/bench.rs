//! The benchmark runs, with little of everything: what it finds means nothing here.

use e2e::bench::arena::Program;
use e2e::bench::{Options, report, run};

use crate::world::program;

#[tokio::test(flavor = "multi_thread")]
async fn every_part_measures_something() {
    let program = Program::Becomes(program().to_owned());
    let options = Options { program, only: Vec::new(), rounds: 1, quick: true, seed: 7 };
    let outcome = run(&options).await.unwrap();
    let table = report::table(&outcome.lines);
    println!("{table}");
    for line in &outcome.lines {
        let figures = [Some(line.ours), line.floor, line.ratio];
        assert!(figures.iter().flatten().all(|figure| figure.p50.is_finite()), "{line:?}");
    }
    for part in ["loopback", "50 ms", "throughput", "phases", "expiry", "isolation", "scale"] {
        assert!(table.contains(&format!("| {part}")), "no {part} in\n{table}");
    }
    let about = &outcome.json["about"];
    assert!(about["cores"].as_u64() > Some(0) && about["seed"] == 7 && about["load"].is_string(), "{about}");
    assert_eq!(outcome.json["lines"].as_array().map(Vec::len), Some(outcome.lines.len()));
}
