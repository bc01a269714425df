//! Writes the image of the operator into a tar, without a container engine: see [`e2e::image`].

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use e2e::image::{Architecture, operator};

#[derive(Parser)]
struct Args {
    /// Where the tar is written; what is there is overwritten
    #[arg(long, value_name = "FILE.tar")]
    output: PathBuf,
    /// The name it is imported under
    #[arg(long, default_value = concat!("kyma-bindings:", env!("CARGO_PKG_VERSION")))]
    reference: String,
    /// For which processor; this machine's where nothing is said
    #[arg(long)]
    architecture: Option<Architecture>,
    /// A program that is linked statically; `.ci/build` builds it where nothing is said
    #[arg(long)]
    program: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let architecture = args.architecture.or_else(Architecture::here);
    let architecture =
        architecture.context("--architecture must be given: there is no image for this machine")?;
    let program = args.program.map_or_else(|| operator::build(architecture), Ok)?;
    let image = operator::image(&args.reference, architecture, &program)?;
    let output = args.output.display();
    let file = File::create(&args.output).with_context(|| output.to_string())?;
    let written = image.write(BufWriter::new(file)).with_context(|| output.to_string())?;
    println!(
        "{output}: {} {}, {}, {} bytes compressed, {} unpacked",
        args.reference,
        architecture.as_str(),
        written.digest,
        written.compressed,
        written.unpacked,
    );
    Ok(())
}
