//! Files that hold secrets, and how it is known that one has changed.
//!
//! In: paths, each before it is read. Out: whether any of them is another file now, or has another
//! content. Owned by whoever reads them again. Bound: the files that a configuration names. Of each only
//! the system's word is looked at, through links, as Kubernetes changes what it mounts.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// What the system says of a file; a change of its content changes this too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    /// When anything of it changed last, rights too: seconds and nanoseconds.
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
    device: u64,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchedFiles(BTreeMap<PathBuf, Option<Stamp>>);

impl WatchedFiles {
    /// Remembers a file as it is now. What changes while it is read afterwards is a change.
    pub fn add(&mut self, path: PathBuf) {
        let stamp = stamp(&path);
        self.0.insert(path, stamp);
    }

    /// The same for each of these.
    pub fn extend(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        paths.into_iter().for_each(|path| self.add(path));
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which they are.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.keys().cloned().collect()
    }

    /// The same files as they are now.
    #[must_use]
    pub fn now(&self) -> Self {
        let mut now = Self::default();
        for path in self.0.keys() {
            now.add(path.clone());
        }
        now
    }
}

/// `None` where the system says nothing: it is not there, or may not be looked at.
fn stamp(path: &PathBuf) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    Some(Stamp {
        changed: (data.ctime(), data.ctime_nsec()),
        bytes: data.len(),
        inode: data.ino(),
        device: data.dev(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_or_gone_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let link = directory.path().join("link");
        std::fs::write(&path, "one").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut files = WatchedFiles::default();
        files.add(link.clone());
        assert_eq!(files.now(), files);
        std::fs::write(&path, "longer").unwrap();
        let written = files.now();
        assert_ne!(written, files);
        // As a volume of Kubernetes: the link leads to another file.
        let other = directory.path().join("other");
        std::fs::write(&other, "others").unwrap();
        let fresh = directory.path().join("fresh");
        std::os::unix::fs::symlink(&other, &fresh).unwrap();
        std::fs::rename(&fresh, &link).unwrap();
        let replaced = written.now();
        assert_ne!(replaced, written);
        std::fs::remove_file(&other).unwrap();
        assert_ne!(replaced.now(), replaced);
    }
}
