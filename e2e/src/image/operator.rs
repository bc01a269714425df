//! The image of the operator: its program, which is linked statically, and the authorities that the
//! Internet trusts. The `Dockerfile` makes the same.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::read::elf::{ElfFile64, ProgramHeader as _};
use object::{Object as _, elf};

use super::{Architecture, Image, ImageFile};

/// Where the program is.
pub const PROGRAM: &str = "/usr/bin/kyma-bindings";
/// Where it looks for authorities, here and in the image. They are for an issuer of tokens and a
/// collector of traces; a cluster is trusted by its kubeconfig alone.
pub const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// A number, so that `runAsNonRoot` can be checked; the one that others call `nonroot`.
pub const USER: &str = "65532:65532";

/// Why there is no image of the operator.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The build.
    #[error("`.ci/build {0}` failed: its output says why")]
    Build(&'static str),
    /// A file.
    #[error("{}: {source}", path.display())]
    Io {
        /// Of the file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Something else than a program of Linux.
    #[error("{}: it must be a 64-bit ELF program", .0.display())]
    NoProgram(PathBuf),
    /// Another processor's.
    #[error("{}: it must be built for {expected}", path.display())]
    Architecture {
        /// Of the program.
        path: PathBuf,
        /// What was asked for.
        expected: &'static str,
    },
    /// The image would lack what it is linked to.
    #[error("{}: it must be linked statically, as `.ci/build` does", .0.display())]
    Dynamic(PathBuf),
}

/// The labels of the image.
#[must_use]
pub fn labels() -> BTreeMap<String, String> {
    let labels = [
        ("title", "kyma-bindings"),
        ("description", "Hands out short-lived kubeconfigs for managed Kyma clusters"),
        ("licenses", "Apache-2.0"),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    labels.map(|(key, value)| (format!("org.opencontainers.image.{key}"), value.to_owned())).into()
}

/// Builds the program as it is shipped.
///
/// # Errors
/// [`OperatorError::Build`], or that it can't be started.
pub fn build(architecture: Architecture) -> Result<PathBuf, OperatorError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/build");
    let name = architecture.as_str();
    let output = Command::new(&script).arg(name).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|source| OperatorError::Io { path: script, source })?;
    let path = String::from_utf8(output.stdout).ok().filter(|_| output.status.success());
    path.map(|path| PathBuf::from(path.trim())).ok_or(OperatorError::Build(name))
}

/// The image with that program, and with this machine's authorities where it has some.
///
/// # Errors
/// Any [`OperatorError`] but that of a build.
pub fn image(reference: &str, architecture: Architecture, program: &Path) -> Result<Image, OperatorError> {
    let read =
        |path: &Path| fs::read(path).map_err(|source| OperatorError::Io { path: path.to_owned(), source });
    let content = read(program)?;
    check(program, &content, architecture)?;
    let mut files = vec![ImageFile { path: PROGRAM.into(), mode: 0o755, content }];
    let authorities = Path::new(AUTHORITIES);
    if authorities.exists() {
        files.push(ImageFile { path: AUTHORITIES.into(), mode: 0o644, content: read(authorities)? });
    }
    Ok(Image {
        reference: reference.to_owned(),
        architecture,
        entrypoint: vec![PROGRAM.to_owned()],
        user: USER.to_owned(),
        labels: labels(),
        files,
    })
}

fn check(path: &Path, content: &[u8], architecture: Architecture) -> Result<(), OperatorError> {
    let no_program = || OperatorError::NoProgram(path.to_owned());
    let program = ElfFile64::<object::Endianness>::parse(content).map_err(|_| no_program())?;
    let expected = match architecture {
        Architecture::Amd64 => object::Architecture::X86_64,
        Architecture::Arm64 => object::Architecture::Aarch64,
    };
    if program.architecture() != expected {
        let expected = architecture.as_str();
        return Err(OperatorError::Architecture { path: path.to_owned(), expected });
    }
    let mut headers = program.elf_program_headers().iter();
    if headers.any(|header| header.p_type(program.endian()) == elf::PT_INTERP) {
        return Err(OperatorError::Dynamic(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_image_could_not_run_is_refused() {
        let here = std::env::current_exe().unwrap();
        let native = Architecture::here().unwrap();
        let foreign = match native {
            Architecture::Amd64 => Architecture::Arm64,
            Architecture::Arm64 => Architecture::Amd64,
        };
        let refused = |architecture, program: &Path| image("kb:1", architecture, program).unwrap_err();
        assert!(matches!(refused(native, &here), OperatorError::Dynamic(_)));
        assert!(matches!(refused(foreign, &here), OperatorError::Architecture { .. }));
        assert!(matches!(refused(native, Path::new("/etc/passwd")), OperatorError::NoProgram(_)));
        assert!(matches!(refused(native, Path::new("/nowhere")), OperatorError::Io { .. }));
    }
}
