use std::io::Read as _;

use flate2::read::GzDecoder;

use super::*;

fn file(path: &str, content: &str) -> ImageFile {
    ImageFile { path: path.into(), mode: 0o755, content: content.into() }
}

fn image(files: Vec<ImageFile>) -> Image {
    let mut image = Image::new("kb:1", &["/bin/it", "run"], "65532", files).unwrap();
    image.labels.insert("org.opencontainers.image.title".to_owned(), "it".to_owned());
    image
}

fn written(image: &Image) -> (Vec<u8>, Written) {
    let mut bytes = Vec::new();
    let written = image.write(&mut bytes).unwrap();
    (bytes, written)
}

/// Path and content of each file of a tar; a directory has none.
fn entries(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header();
        let owner = (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap());
        assert_eq!(owner, (0, 0, 0), "root's, and of no time");
        let path = entry.path().unwrap().display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (path, content)
    });
    entries.collect()
}

/// The blob that is described, after its size and digest were compared.
fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let digest = descriptor["digest"].as_str().unwrap();
    let blob = &files[&format!("blobs/{}", digest.replace(':', "/"))];
    assert_eq!(sha256(blob), digest);
    assert_eq!(descriptor["size"], json!(blob.len()));
    blob
}

#[test]
fn the_layout_leads_from_the_index_to_each_file() {
    let (tar, written) = written(&image(vec![file("/usr/bin/it", "program"), file("/bin/a", "")]));
    let listed = entries(&tar);
    assert_eq!((listed[0].0.as_str(), listed[1].0.as_str(), listed.len()), ("oci-layout", "index.json", 5));
    let files: BTreeMap<_, _> = listed.into_iter().collect();
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    assert_eq!(parsed(&files["oci-layout"]), json!({"imageLayoutVersion": "1.0.0"}));

    let index = parsed(&files["index.json"]);
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "kb:1");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "kb:1");
    assert_eq!(entry["digest"], json!(written.digest));
    let manifest = parsed(blob(&files, entry));
    let config = parsed(blob(&files, &manifest["config"]));
    assert_eq!(config["architecture"], entry["platform"]["architecture"]);
    assert_eq!(
        config["config"],
        json!({
            "Entrypoint": ["/bin/it", "run"],
            "User": "65532",
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": "it"},
        })
    );

    let gz = blob(&files, &manifest["layers"][0]);
    let mut layer = Vec::new();
    GzDecoder::new(gz).read_to_end(&mut layer).unwrap();
    assert_eq!((gz.len(), layer.len()), (written.compressed, written.unpacked));
    assert_eq!(config["rootfs"]["diff_ids"], json!([sha256(&layer)]));
    let paths: Vec<_> = entries(&layer).into_iter().map(|(path, content)| (path, content.len())).collect();
    let expected = [("bin", 0), ("usr", 0), ("usr/bin", 0), ("bin/a", 0), ("usr/bin/it", 7)];
    assert_eq!(paths, expected.map(|(path, size)| (path.to_owned(), size)));
}

#[test]
fn the_same_image_is_the_same_bytes_and_another_one_is_not() {
    let (a, b) = (file("/a", "1"), file("/b", "2"));
    let first = written(&image(vec![a.clone(), b.clone()]));
    assert_eq!(first, written(&image(vec![b.clone(), a.clone()])), "the order of files");
    assert_ne!(first.1.digest, written(&image(vec![a.clone()])).1.digest);
    let executable = ImageFile { mode: 0o644, ..b };
    assert_ne!(first.1.digest, written(&image(vec![a, executable])).1.digest);
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    for path in ["a", "", "/", "/../a", "/a/../b", "./a"] {
        let refused = image(vec![file(path, "")]).write(io::sink()).unwrap_err();
        assert!(matches!(refused, ImageError::Path(_)), "{path}: {refused}");
    }
    let refused = image(vec![file("/a", ""), file("//a", "")]).write(io::sink()).unwrap_err();
    assert!(matches!(refused, ImageError::Twice(_)), "{refused}");
}
