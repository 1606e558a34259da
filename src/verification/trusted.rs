//! Whom a connection of TLS trusts, as its file says now.
//!
//! In: the file with certificates that the configuration names, or none for those of the system. Out: a
//! configuration of TLS. A file that has changed counts from the next connection on; one that cannot be used
//! then, or hangs, leaves what was read before, and the log says so once. A thread of its own reads, because
//! a file may lie on a volume that hangs. Owner: who connects. Bounds: it is looked at the file every
//! [`LOOK_EVERY`], and read where it has changed; those of the system are read every [`SYSTEM_EVERY`]. One
//! reading at a time, which is waited for [`READ_WITHIN`]; no other begins beside one that hangs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::sync::{Mutex, oneshot};

use super::endpoint::trusting;
use crate::config::watched::WatchedFiles;
use crate::tasks;

/// How often it is looked whether the file has changed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often the certificates of the system are read.
const SYSTEM_EVERY: Duration = Duration::from_secs(60);
/// How long a reading is waited for.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct Trusted {
    ca_file: Option<String>,
    look_every: Duration,
    now: Mutex<Now>,
}

/// The file as it was at a look, and what it gave where it has changed.
type Look = (WatchedFiles, Option<Result<ClientConfig, String>>);

#[derive(Debug, Default)]
struct Now {
    looked_at: Option<Instant>,
    files: WatchedFiles,
    config: Option<Arc<ClientConfig>>,
    /// What was wrong at the last look.
    fault: Option<String>,
    /// A look that has not ended.
    held: Option<oneshot::Receiver<Look>>,
}

impl Trusted {
    /// By this file; `None`: by the system's certificates. Nothing is read yet.
    #[must_use]
    pub fn new(ca_file: Option<String>) -> Self {
        let look_every = match &ca_file {
            Some(_) => LOOK_EVERY,
            None => SYSTEM_EVERY,
        };
        Self {
            ca_file,
            look_every,
            now: Mutex::default(),
        }
    }

    /// As it is now, or was before the file became useless. Cancel-safe: what was begun is waited for by
    /// the next call.
    ///
    /// # Errors
    /// Nobody is trusted: nothing that can be used was ever read.
    pub async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let mut now = self.now.lock().await;
        // Who has nothing yet looks each time.
        let is_due = now.config.is_none()
            || now
                .looked_at
                .is_none_or(|at| at.elapsed() >= self.look_every);
        if is_due {
            let look = self.look(&mut now).await;
            now.looked_at = Some(Instant::now());
            self.take(&mut now, look);
        }
        let fault = || now.fault.clone().unwrap_or_default();
        now.config.clone().ok_or_else(fault)
    }

    /// Looks at the file, and reads it where it has changed.
    ///
    /// # Errors
    /// It hangs.
    async fn look(&self, now: &mut Now) -> Result<Look, String> {
        if now.held.is_none() {
            let (answer, answered) = oneshot::channel();
            let (path, before) = (self.ca_file.clone(), now.files.clone());
            let is_new = now.config.is_none() || path.is_none();
            // No thread of the runtime: one that hangs would keep the node from ending.
            let begun = tasks::contained_thread("certificates", move || {
                let mut files = WatchedFiles::default();
                files.extend(path.iter().map(PathBuf::from));
                let is_read = is_new || files != before;
                let read = is_read.then(|| trusting(path.as_deref()));
                let _ = answer.send((files, read));
            });
            begun.map_err(|error| format!("the system has no thread to read it: {error}"))?;
            now.held = Some(answered);
        }
        let held = now.held.as_mut().expect("it was begun");
        let looked = tokio::time::timeout(READ_WITHIN, held).await;
        let hangs = || {
            let file = self.file();
            format!("{file} could not be read in {} s", READ_WITHIN.as_secs())
        };
        let looked = looked.map_err(|_| hangs())?;
        now.held = None;
        looked.map_err(|_| "the reading broke off".to_owned())
    }

    fn take(&self, now: &mut Now, look: Result<Look, String>) {
        let fault = match look {
            Ok((files, read)) => {
                now.files = files;
                match read {
                    // It has not changed: what was wrong with it still is.
                    None => return,
                    Some(Ok(config)) => {
                        now.config = Some(Arc::new(config));
                        None
                    }
                    Some(Err(fault)) => Some(fault),
                }
            }
            Err(hangs) => Some(hangs),
        };
        // Where nothing was there before, who connects is told.
        if let Some(fault) = &fault
            && now.fault.as_ref() != Some(fault)
            && now.config.is_some()
        {
            tracing::warn!(
                event = "certificates_refused",
                file = self.file(),
                error = fault,
                "certificates that are trusted cannot be used or read; the ones before stay"
            );
        }
        now.fault = fault;
    }

    fn file(&self) -> &str {
        self.ca_file
            .as_deref()
            .unwrap_or("the system's certificates")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> String {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        made.expect("a certificate").cert.pem()
    }

    #[tokio::test]
    async fn a_file_that_has_changed_counts_and_one_that_cannot_be_used_leaves_what_was_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let trusted = Trusted {
            look_every: Duration::ZERO,
            ..Trusted::new(Some(path.display().to_string()))
        };
        let now = async || trusted.config().await.unwrap();
        assert!(trusted.config().await.is_err(), "it is not there");
        std::fs::write(&path, certificate()).unwrap();
        let first = now().await;
        assert!(Arc::ptr_eq(&first, &now().await), "it is not read again");
        std::fs::write(&path, "no certificate at all").unwrap();
        assert!(Arc::ptr_eq(&first, &now().await));
        std::fs::remove_file(&path).unwrap();
        assert!(Arc::ptr_eq(&first, &now().await));
        std::fs::write(&path, certificate() + "\n").unwrap();
        assert!(!Arc::ptr_eq(&first, &now().await));
    }
}
