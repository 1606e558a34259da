//! What is read again, and when.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::*;
use crate::apps::Apps;
use crate::apps::store::Store;
use crate::auth::keys::try_key;
use crate::config::inputs::{Inputs, TryKey};
use crate::config::load::{defaults, load};
use crate::config::machine::Machine;

#[test]
fn only_keys_that_wait_for_a_start_are_named() {
    let row = |key: &str, value: &str| Row {
        key: key.into(),
        value: value.into(),
        origin: "default".into(),
    };
    let before = [
        row("server.listen", "a"),
        row("log.level", "info"),
        row("auth.keys[0]", "a HS256 ***"),
        row("authorizers[0]", "a https://a/ ***"),
        row("authorizers.headers[0]", "a ***"),
        row("namespaces.a.presence", "true"),
        row("apps.shop.inbox.publish", "token"),
    ];
    let now = [
        row("server.listen", "b"),
        row("log.level", "debug"),
        row("auth.keys[0]", "b HS256 ***"),
        row("auth.keys[1]", "c HS256 ***"),
        row("authorizers[0]", "a https://b/ ***"),
        row("authorizers.headers[0]", "b ***"),
        row("drain.window_ms", "5"),
    ];
    let named = [
        "authorizers[0]",
        "drain.window_ms",
        "namespaces.a.presence",
        "server.listen",
    ];
    assert_eq!(ignored(&before, &now), named);
    assert!(ignored(&before, &before).is_empty());
}

/// A configuration in a file, a second file that it needs and nobody watches, and what is replaced.
struct Rig {
    directory: tempfile::TempDir,
    readings: Readings,
    replaced: Replaced,
    /// While this is true a reading hangs.
    is_held: Arc<AtomicBool>,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f.toml");
        let text = "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"secret\"\n";
        std::fs::write(&path, text).unwrap();
        let is_held = Arc::<AtomicBool>::default();
        let (gate, needed) = (Arc::clone(&is_held), directory.path().join("needed"));
        let inputs = Inputs {
            file: Some(path),
            environment: Vec::new(),
            flags: Vec::new(),
            env: None,
            size: None,
            dev: true,
            machine: Machine::here(),
            try_key: |key| try_key(key).map_err(|fault| fault.to_string()),
        };
        let load = move || {
            while gate.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let mut loaded = load(&inputs);
            if !needed.exists() {
                let mut faults = Faults::default();
                faults.push("f.toml", "ca_file cannot be read", "mount it");
                loaded = Err(faults);
            }
            loaded
        };
        let config = defaults();
        let metrics = Arc::new(Metrics::new(1));
        let judge: TryKey = |key| try_key(key).map_err(|fault| fault.to_string());
        let reads = (Arc::clone(&config.inherited), judge);
        let apps = Arc::new(Apps::of(&config));
        let keeper = Keeper::new(apps, Store::memory(), reads, Arc::clone(&metrics.apps));
        let replaced = Replaced {
            keys: Arc::new(ApiKeys::new(&config.api)),
            keeper: Arc::new(keeper),
            read: watch::Sender::new(Arc::new(config.clone())),
            authorizers: Authorizers::new(&config, &metrics.authorizers),
            config: Arc::new(config),
            metrics,
        };
        let mut files = WatchedFiles::default();
        files.add(directory.path().join("secret"));
        let reader = Reader {
            load: Box::new(load),
            rows: Vec::new(),
        };
        let rig = Self {
            readings: Readings::new(reader, files),
            replaced,
            directory,
            is_held,
        };
        rig.write("secret", "the first secret of this test, of 32 bytes");
        rig.write("needed", "");
        rig
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.directory.path().join(name)).unwrap();
    }

    /// One look, and how many readings were taken and told as refused so far.
    async fn look(&mut self, is_asked: bool) -> (u64, u64) {
        self.readings.look(is_asked, &self.replaced).await;
        let counters = &self.replaced.metrics.control;
        (counters.reloads_taken.get(), counters.reloads_refused.get())
    }
}

/// A secret was changed while another file was away for a moment, one that nobody watches. The reading was
/// refused, and nobody read again when the file was back: the old secret was good for ever.
#[tokio::test]
async fn a_fault_that_heals_by_itself_is_seen_at_the_next_look() {
    let mut rig = Rig::new();
    assert_eq!(rig.look(false).await, (1, 0), "the secret is new");
    assert_eq!(rig.look(false).await, (1, 0), "nothing has changed");
    rig.remove("needed");
    rig.write(
        "secret",
        "the second secret of this test, of 32 bytes or more",
    );
    assert_eq!(rig.look(false).await, (1, 1));
    assert_eq!(rig.look(false).await, (1, 1), "it is told once");
    assert_eq!(rig.look(true).await, (1, 2), "and whoever asks is told");
    rig.write("needed", "");
    assert_eq!(rig.look(false).await, (2, 2));
    assert_eq!(rig.look(false).await, (2, 2));
}

/// A reading that hung took the task with it: no signal and no change was seen any more, and nothing said so.
#[tokio::test]
async fn a_reading_that_hangs_is_told_and_its_end_is_taken() {
    let mut rig = Rig::new();
    rig.readings.within = Duration::from_millis(50);
    rig.is_held.store(true, Relaxed);
    assert_eq!(rig.look(false).await, (0, 1));
    assert_eq!(rig.look(false).await, (0, 1), "it is told once");
    let told = &rig.readings.faults[0];
    assert!(told.contains("could not be read in"), "{told}");
    rig.is_held.store(false, Relaxed);
    rig.readings.within = READ_WITHIN;
    assert_eq!(rig.look(false).await, (1, 1));
}

const SHOP: &str = "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"secret\"\n\
     [[apps.shop.auth.keys]]\nalgorithm = \"HS256\"\nsecret = \"the secret of the app shop, of 32 bytes\"\n";

#[tokio::test]
async fn apps_start_from_what_this_node_does_and_not_from_what_its_file_says_by_now() {
    let mut rig = Rig::new();
    let shop = App::new("shop").unwrap();
    rig.write(
        "f.toml",
        &format!(
            "{SHOP}[auth]\nanonymous = true\naudience = \"read again\"\n\
             [namespaces.default]\nhistory_entries_max = 7\n[inbox]\npublish = \"nobody\"\n"
        ),
    );
    rig.readings.look(true, &rig.replaced).await;
    assert_eq!(rig.readings.faults, [""; 0]);
    let start = AppSettings::of_default(&rig.replaced.config);
    let file = rig.replaced.keeper.of_file();
    let settings = &file[&shop];
    assert!(!settings.auth.anonymous);
    assert_eq!(settings.auth.audience.as_deref(), Some("read again"));
    assert_eq!(settings.namespaces["default"], start.namespaces["default"]);
    assert_eq!(settings.inbox, start.inbox);
    // What is stored starts from the same.
    let stored = rig.replaced.keeper.judge().read(b"{}").unwrap();
    assert_eq!(stored.namespaces["default"], start.namespaces["default"]);
    assert!(!stored.auth.anonymous);
}

#[tokio::test]
async fn an_app_that_asks_for_what_this_node_was_not_started_with_is_a_fault() {
    let replicas = "[redis]\nurl = \"redis://127.0.0.1:1\"\n[apps.shop.inbox]\nreplicas_min = 1\n";
    let gate = "[apps.shop.auth]\nauthorize_connect = \"gate\"\n\
         [[authorizers]]\nname = \"gate\"\nurl = \"https://example.com/\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n";
    for (text, told) in [(replicas, "replicas_min is 1"), (gate, "gate")] {
        let mut rig = Rig::new();
        rig.write("f.toml", &format!("{SHOP}{text}"));
        rig.readings.look(true, &rig.replaced).await;
        let faults = rig.readings.faults.join("; ");
        assert!(faults.contains(told), "{faults}");
        assert_eq!(rig.replaced.keeper.of_file().len(), 1, "the old one stays");
    }
}

#[tokio::test]
async fn the_last_key_of_the_api_is_replaced_and_not_taken_out() {
    let mut rig = Rig::new();
    rig.write("f.toml", &format!("{SHOP}[api]\nkeys_file = \"keys\"\n"));
    let keys = rig.directory.path().join("keys");
    let text = std::fs::read_to_string(rig.directory.path().join("f.toml")).unwrap();
    rig.write(
        "f.toml",
        &text.replace("\"keys\"", &format!("{:?}", keys.display().to_string())),
    );
    let opens = |rig: &Rig, key: &str| {
        let hash = crate::config::api_clients::hash_of(key.as_bytes());
        rig.replaced.keys.has(&hash)
    };
    rig.write("keys", "the-old-key-of-the-api\n");
    assert_eq!(rig.look(true).await, (1, 0));
    assert!(opens(&rig, "the-old-key-of-the-api"));
    // It is seen without a signal, and told what to do.
    rig.write("keys", "# none any more\n");
    assert_eq!(rig.look(false).await, (1, 1));
    assert!(opens(&rig, "the-old-key-of-the-api"));
    let told = rig.readings.faults.join("; ");
    assert!(
        told.contains("has no key") && told.contains("put a new one in its place"),
        "{told}"
    );
    rig.write("keys", "the-new-key-of-the-api\n");
    assert_eq!(rig.look(false).await, (2, 1));
    assert!(opens(&rig, "the-new-key-of-the-api") && !opens(&rig, "the-old-key-of-the-api"));
}
