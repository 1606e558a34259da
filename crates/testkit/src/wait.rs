//! Waiting with a deadline: no test sleeps for a guess.

use std::convert::Infallible;
use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Longest wait for anything that takes well under a second on an idle machine. Only a test that
/// fails waits so long, so it is more than a machine needs on which two builds run as well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks: at first, then twice as long each time up to the last.
const LOOK_AFTER: Duration = Duration::from_millis(1);
const LOOK_AFTER_MAX: Duration = Duration::from_millis(16);

/// What one look brings: a flag, a value or none, or a value or what was seen instead.
pub trait Look {
    /// What is waited for.
    type Found;
    /// What is told of the last look when it never comes.
    type Seen: Debug;

    /// What is waited for, or what was seen instead.
    ///
    /// # Errors
    /// What was seen instead.
    fn judge(self) -> Result<Self::Found, Self::Seen>;
}

impl Look for bool {
    type Found = ();
    type Seen = bool;

    fn judge(self) -> Result<(), bool> {
        if self { Ok(()) } else { Err(self) }
    }
}

impl<T> Look for Option<T> {
    type Found = T;
    type Seen = Option<Infallible>;

    fn judge(self) -> Result<T, Self::Seen> {
        self.ok_or(None)
    }
}

impl<T, S: Debug> Look for Result<T, S> {
    type Found = T;
    type Seen = S;

    fn judge(self) -> Self {
        self
    }
}

/// Waits until `look` finds what is waited for.
///
/// # Panics
/// After [`PATIENCE`], naming `what` was waited for and what was seen last.
pub async fn until<L: Look>(what: &str, look: impl AsyncFnMut() -> L) -> L::Found {
    until_within(PATIENCE, what, look).await
}

/// Waits until `look` finds what is waited for, at most so long.
///
/// # Panics
/// After `patience`, naming `what` was waited for and what was seen last.
pub async fn until_within<L: Look>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> L,
) -> L::Found {
    let deadline = Instant::now() + patience;
    let mut rest = LOOK_AFTER;
    loop {
        let seen = match look().await.judge() {
            Ok(found) => return found,
            Err(seen) => seen,
        };
        assert!(
            Instant::now() < deadline,
            "waited {patience:?} for {what}; last seen: {seen:?}"
        );
        tokio::time::sleep(rest).await;
        rest = LOOK_AFTER_MAX.min(rest * 2);
    }
}

/// Waits until the answer is the expected one.
///
/// # Panics
/// After [`PATIENCE`], naming the expected answer and the last one.
pub async fn until_equal<T: Debug + PartialEq>(expected: T, mut ask: impl AsyncFnMut() -> T) {
    let what = format!("{expected:?}");
    until(&what, async || {
        let answer = ask().await;
        if answer == expected {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
}

/// Now, in unix milliseconds.
///
/// # Panics
/// Where the clock stands before 1970.
pub fn unix_ms() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().expect("a clock");
    u64::try_from(since.as_millis()).expect("a time of this age")
}
