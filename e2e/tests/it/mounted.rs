//! Files that change as those of a mounted Secret do.

use std::os::unix::fs::symlink;
use std::path::Path;

use e2e::WorkDir;

/// A directory as Kubernetes mounts a Secret: each file is a link into a directory that is swapped.
pub struct Mounted {
    dir: WorkDir,
    version: u32,
}

impl Mounted {
    /// Mounts files of that name and content.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let mut mounted = Self { dir: WorkDir::new("secret").unwrap(), version: 0 };
        mounted.swap(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), mounted.dir.path().join(name)).unwrap();
        }
        mounted
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Changes all files at once.
    pub fn swap(&mut self, files: &[(&str, &str)]) {
        self.version += 1;
        let (dir, name) = (self.dir.path(), format!("..v{}", self.version));
        std::fs::create_dir(dir.join(&name)).unwrap();
        for (file, content) in files {
            std::fs::write(dir.join(&name).join(file), content).unwrap();
        }
        symlink(&name, dir.join("..data_tmp")).unwrap();
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    }
}
