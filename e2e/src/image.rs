//! Images of containers, written without a container engine.
//!
//! An [`Image`] becomes a tar in the OCI image layout, with one layer, as `ctr images import` and
//! `skopeo copy oci-archive:` take it. The same image always becomes the same bytes: files are sorted,
//! nothing has a time, and all that is compressed is compressed by the same code.

pub mod operator;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Nothing is older, and no clock is read.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Why an image can't be written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A path in the image.
    #[error("{}: a path in an image must be absolute, and without `..`", .0.display())]
    Path(PathBuf),
    /// Two files of one path.
    #[error("{}: it is in the image already", .0.display())]
    Twice(PathBuf),
    /// The tar.
    #[error("the tar of the image: {0}")]
    Write(#[from] io::Error),
    /// Its JSON.
    #[error("the description of the image: {0}")]
    Json(#[from] serde_json::Error),
}

/// A processor, by Go's name of it, which is that of the image specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Architecture {
    /// `x86_64`.
    Amd64,
    /// `aarch64`.
    Arm64,
}

impl Architecture {
    /// Of this process; `None` when there is no image for it.
    #[must_use]
    pub fn here() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }

    /// As it is written in the image.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// One file of an image; root owns it.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// Absolute.
    pub path: PathBuf,
    /// Its permissions, such as `0o755`.
    pub mode: u32,
    /// All of it.
    pub content: Vec<u8>,
}

/// An image with one layer and nothing below it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Repository and tag, such as `kyma-bindings:0.1.0`: the name it is imported under.
    pub reference: String,
    /// For which it was built.
    pub architecture: Architecture,
    /// The program, and its first arguments.
    pub entrypoint: Vec<String>,
    /// A number, or two with a colon: an image without `/etc/passwd` knows no names.
    pub user: String,
    /// Of the image's configuration.
    pub labels: BTreeMap<String, String>,
    /// In any order.
    pub files: Vec<ImageFile>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Of the manifest: what an image is pulled by.
    pub digest: String,
    /// Bytes of the compressed layer.
    pub compressed: usize,
    /// Bytes of the layer.
    pub unpacked: usize,
}

impl Image {
    /// An image for this machine's processor, without labels.
    ///
    /// # Errors
    /// `None` where there is no image for this machine.
    #[must_use]
    pub fn new(reference: &str, entrypoint: &[&str], user: &str, files: Vec<ImageFile>) -> Option<Self> {
        Some(Self {
            reference: reference.to_owned(),
            architecture: Architecture::here()?,
            entrypoint: entrypoint.iter().map(|&part| part.to_owned()).collect(),
            user: user.to_owned(),
            labels: BTreeMap::new(),
            files,
        })
    }

    /// Writes it as a tar in the OCI image layout.
    ///
    /// # Errors
    /// Any [`ImageError`].
    pub fn write(&self, to: impl Write) -> Result<Written, ImageError> {
        let layer = self.layer()?;
        let gz = compress(&layer)?;
        let config = json_bytes(&self.config(&sha256(&layer)))?;
        let manifest = json_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &gz)],
        }))?;
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["platform"] = json!({"architecture": self.architecture.as_str(), "os": "linux"});
        // The first is the name that containerd gives it, the second is everybody else's.
        entry["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": self.reference,
        });
        let index = json_bytes(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}))?;
        let layout = json_bytes(&json!({"imageLayoutVersion": "1.0.0"}))?;

        let mut tar = tar::Builder::new(to);
        add(&mut tar, Path::new("oci-layout"), 0o644, &layout)?;
        add(&mut tar, Path::new("index.json"), 0o644, &index)?;
        let blobs: BTreeMap<_, _> = [&config, &gz, &manifest].map(|blob| (sha256(blob), blob)).into();
        for (digest, blob) in blobs {
            add(&mut tar, Path::new(&format!("blobs/{}", digest.replace(':', "/"))), 0o644, blob)?;
        }
        tar.into_inner()?.flush()?;
        Ok(Written { digest: sha256(&manifest), compressed: gz.len(), unpacked: layer.len() })
    }

    fn config(&self, layer: &str) -> Value {
        json!({
            "architecture": self.architecture.as_str(),
            "os": "linux",
            "created": CREATED,
            "config": {
                "Entrypoint": self.entrypoint,
                "User": self.user,
                "WorkingDir": "/",
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer]},
            "history": [{"created": CREATED, "created_by": "kyma-bindings e2e image"}],
        })
    }

    fn layer(&self) -> Result<Vec<u8>, ImageError> {
        let mut files = BTreeMap::new();
        for file in &self.files {
            let path = relative(&file.path).ok_or_else(|| ImageError::Path(file.path.clone()))?;
            if files.insert(path, file).is_some() {
                return Err(ImageError::Twice(file.path.clone()));
            }
        }
        // A directory comes before what is in it: `a` is less than `a/b`.
        let directories = files.keys().flat_map(|path| path.ancestors().skip(1));
        let directories: BTreeSet<_> = directories.filter(|path| !path.as_os_str().is_empty()).collect();
        let mut tar = tar::Builder::new(Vec::new());
        for directory in directories {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            tar.append_data(&mut header, directory, io::empty())?;
        }
        for (path, file) in &files {
            add(&mut tar, path, file.mode, &file.content)?;
        }
        Ok(tar.into_inner()?)
    }
}

/// The path below the root; `None` unless it is absolute and plain.
fn relative(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components();
    if parts.next() != Some(Component::RootDir) || parts.clone().next().is_none() {
        return None;
    }
    parts.all(|part| matches!(part, Component::Normal(_))).then(|| path.components().skip(1).collect())
}

fn add<W: Write>(tar: &mut tar::Builder<W>, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = header(tar::EntryType::Regular, mode, content.len());
    tar.append_data(&mut header, path, content)
}

/// Owned by root, of no time.
fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn compress(content: &[u8]) -> io::Result<Vec<u8>> {
    // 255: whatever the system.
    let builder = GzBuilder::new().mtime(0).operating_system(255);
    let mut gz = builder.write(Vec::new(), Compression::default());
    gz.write_all(content)?;
    gz.finish()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": sha256(content), "size": content.len()})
}

fn json_bytes(value: &Value) -> Result<Vec<u8>, ImageError> {
    Ok(serde_json::to_vec(value)?)
}

fn sha256(content: &[u8]) -> String {
    let hash = digest(&SHA256, content);
    hash.as_ref().iter().fold("sha256:".to_owned(), |hex, byte| format!("{hex}{byte:02x}"))
}

#[cfg(test)]
mod tests;
