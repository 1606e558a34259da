//! How the store is read: what is said of all apps first, then the JSON of those that are new.
//!
//! In: the store, by [`super::runner`]. Out: what was read is put in force in one step, and an app that the
//! store has lost is put back. Owns nothing. JSON is judged while another thread goes on with the runtime, one app
//! at a time: neither a lock nor the other parts of the node wait for it, and a change of an app no longer
//! than one round. Bounds: one
//! reading at a time; the JSON of [`ROWS_MAX`] apps or [`ROWS_BYTES_MAX`] bytes in one answer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::MutexGuard;

use super::keeper::Keeper;
use super::progress::Reading;
use super::store::{Before, Index, Mark, Page, Put, ROWS_BYTES_MAX, ROWS_MAX, StoreError};
use super::stored::{Differences, Judge, Judged, News, ReadTo};
use crate::tasks;
use crate::telemetry::fields::List;
use fanfare_protocol::ids::App;

/// How often it is looked at all apps though nothing has changed: another program may have written them.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often all of them are read: such a program may have written as many bytes as there were.
const WHOLE_EVERY: Duration = Duration::from_secs(3_600);

/// How long a round of a reading judges apps, before a change that waits has its turn.
const ROUND: Duration = Duration::from_millis(500);

/// What was read of an app.
type Row = (App, Mark, Bytes, Judged);

impl Keeper {
    /// Reads what is new in the store, and all of it from time to time.
    ///
    /// # Errors
    /// [`StoreError`]: what is known stays.
    pub(super) async fn read(&self) -> Result<(), StoreError> {
        let begun_at = Instant::now();
        loop {
            let mut reading = self.turn.lock().await;
            match self.read_on(&mut reading).await {
                Ok(true) => break,
                // In the order in which they have asked for the turn.
                Ok(false) => {}
                Err(error) => {
                    self.metrics.failed.add(1);
                    reading.number = None;
                    self.troubled("what is stored cannot be read".to_owned());
                    return Err(error);
                }
            }
        }
        self.apps.were_read(begun_at);
        self.wait_no_longer();
        Ok(())
    }

    /// One round of a reading. True: it has brought all.
    async fn read_on(&self, reading: &mut MutexGuard<'_, Reading>) -> Result<bool, StoreError> {
        let until = Instant::now() + ROUND;
        let is_due = |at: Option<Instant>, every| at.is_none_or(|at| at.elapsed() >= every);
        let is_whole = is_due(reading.whole_at, WHOLE_EVERY);
        if is_whole || is_due(reading.looked_at, LOOK_EVERY) {
            reading.number = None;
        }
        let known = reading.number.as_deref();
        let known = known.map(|number| (number, self.known().rows_count()));
        let page = self.store.read(known).await?;
        let trouble = match page {
            Page::Same => None,
            Page::All(index) => {
                if !self.take_all(&index, reading, (is_whole, until)).await? {
                    reading.number = None;
                    return Ok(false);
                }
                reading.swept.clear();
                reading.read_to = ReadTo {
                    number: index.read_to(),
                    others: index.others,
                };
                reading.looked_at = Some(Instant::now());
                if is_whole {
                    reading.whole_at = reading.looked_at;
                }
                // Nothing was stored yet: that is no number.
                reading.number = Some(index.number).filter(|number| !number.is_empty());
                None
            }
            Page::TooMany(count) => Some(format!("{count} apps are stored, too many to be read")),
            Page::TooLarge(bytes) => Some(format!(
                "the stored apps have {bytes} bytes, too many to be read"
            )),
        };
        if trouble.is_some() {
            reading.number = None;
        }
        if !self.judge_anew(until).await {
            return Ok(false);
        }
        let lost = match trouble {
            None => self.put_back(reading).await?,
            Some(_) => None,
        };
        self.set_trouble(trouble.or(lost));
        Ok(true)
    }

    /// Takes what is said of all apps, and reads what is new of them. False: not all of that was read.
    async fn take_all(
        &self,
        index: &Index,
        reading: &mut Reading,
        (is_whole, until): (bool, Instant),
    ) -> Result<bool, StoreError> {
        let found = {
            let known = self.known();
            let mut found = known.compare(index, reading.read_to, is_whole);
            let is_swept = |app: &App| reading.swept.contains(app);
            found
                .wanted
                .retain(|(app, mark, bytes)| !is_swept(app) || !known.is_so(app, *mark, *bytes));
            found
        };
        let (rows, is_all) = self.rows(&found, until).await?;
        let swept = rows.iter().map(|(app, ..)| app.clone());
        reading.swept.extend(swept);
        let mut known = self.known();
        let mut news = known.take(&found);
        for (app, mark, json, judged) in rows {
            news.merge(known.put(&app, &json, mark, judged));
        }
        self.take(&known, &news);
        Ok(is_all)
    }

    /// The JSON of all apps that are wanted, judged, or of some of them when it is so late.
    async fn rows(
        &self,
        found: &Differences,
        until: Instant,
    ) -> Result<(Vec<Row>, bool), StoreError> {
        let mut rows = Vec::with_capacity(found.wanted.len());
        let mut wanted = &found.wanted[..];
        while !wanted.is_empty() {
            let (some, rest) = wanted.split_at(batch(wanted));
            wanted = rest;
            let names: Vec<_> = some
                .iter()
                .map(|(app, ..)| app.as_str().as_bytes().to_vec())
                .collect();
            let read = self.store.rows(&names).await?;
            for ((app, mark, _), json) in some.iter().zip(read) {
                // One that was removed meanwhile is missed by the next reading.
                let Some(json) = json else { continue };
                let judged = judge(self.judge(), json.clone()).await;
                rows.push((app.clone(), *mark, json, judged));
                if Instant::now() >= until && rows.len() < found.wanted.len() {
                    return Ok((rows, false));
                }
            }
        }
        Ok((rows, true))
    }

    /// Judges those anew that were judged by another file. False: not all when it is so late.
    async fn judge_anew(&self, until: Instant) -> bool {
        let apps = self.known().judged_before();
        for app in apps {
            let stored = self.known().stored().get(&app).cloned();
            let Some(stored) = stored else { continue };
            let judged = judge(self.judge(), stored.json.clone()).await;
            let mut known = self.known();
            let news = known.put(&app, &stored.json, stored.mark, judged);
            known.still_lost(&app, stored.is_lost);
            self.take(&known, &news);
            if Instant::now() >= until {
                return known.judged_before().is_empty();
            }
        }
        true
    }

    /// Puts apps back that the store has lost. Why not all are back, for people.
    async fn put_back(&self, reading: &mut Reading) -> Result<Option<String>, StoreError> {
        let lost: Vec<_> = {
            let known = self.known();
            let lost = known.lost();
            lost.map(|(app, one)| (app.clone(), one.json.clone(), one.mark))
                .collect()
        };
        let (mut back, mut count) = (Vec::new(), 0);
        for (app, json, mark) in lost {
            let before = Before {
                life: Some(mark.life),
                read_to: reading.read_to.number,
            };
            reading.number = None;
            let put = self.store.put_back(app.as_str(), &json, before).await?;
            let mut known = self.known();
            match put {
                Put::Stored(mark) => {
                    known.is_back(&app, mark);
                    back.push(app.to_string());
                }
                // Another node was first: the next reading takes it.
                Put::Same(_) => {}
                Put::Removed => {
                    let news: News = known.remove(&app);
                    self.take(&known, &news);
                }
                Put::TooMany(_) | Put::TooLarge(_) => count += 1,
            }
        }
        if !back.is_empty() {
            tracing::warn!(
                event = "stored_apps_restored",
                apps = List::of(&back).value(),
                "apps that Redis had lost were put back"
            );
        }
        Ok((count > 0).then(|| {
            format!("Redis has lost {count} stored apps, and there is no room to put them back")
        }))
    }
}

/// How many of these are read in one answer.
fn batch(wanted: &[(App, Mark, usize)]) -> usize {
    let mut bytes = 0;
    let fits = wanted.iter().take(ROWS_MAX).take_while(|(_, _, length)| {
        bytes += length;
        bytes <= ROWS_BYTES_MAX
    });
    fits.count().max(1)
}

/// Judges while another thread goes on with the runtime.
async fn judge(judge: Judge, json: Bytes) -> Judged {
    let spare = judge.clone();
    let work = || catch_unwind(AssertUnwindSafe(|| judge.judge(&json)));
    let judged = tasks::heavy(tasks::HEAVY_FROM, work).await;
    // Many of them are not one turn.
    tokio::task::yield_now().await;
    judged.unwrap_or_else(|_| spare.judged(Err(vec!["judging it panicked".to_owned()])))
}
