//! Whether replicas have what a batch published, and whether the next master will be one of them.
//!
//! In: what Redis answers after a batch: how many replicas confirmed, which ones follow this
//! master now, and on which connection that was said. Out: a count, or why there is none. Owner:
//! the publisher of the replicated link. Bound: one entry for each replica that was seen lately. Pure.
//!
//! A replica that is promoted leaves its master first, and the old master goes on accepting until
//! it is told; the other replicas follow it meanwhile, and confirm what will be lost. In a failover
//! by `SENTINEL FAILOVER` with two replicas that were 495 of 12,590 publications answered `ok`. So
//! nothing is confirmed for [`PROMOTION_MAX`] after a replica has left, nor for as long after the
//! first look on a connection: one may have left just before.

use std::time::{Duration, Instant};

use fred::types::Value;

use super::reply;
use crate::broker::BrokerError;
use crate::broker::unavailable::Unavailable;
use crate::config::Replicas;
use crate::redis::RedisError;

/// How long a replica that left may have been promoted without the nodes knowing of it: Sentinel
/// sees the promotion within a second, its fellows hear of it within two, and they are asked twice
/// a second.
pub const PROMOTION_MAX: Duration = Duration::from_secs(5);
/// The name of a connection that was looked at.
pub const BATCH_NAME: &str = "fanfare-replicated";

/// What came after a batch, in this order.
#[derive(Debug)]
pub struct Answers {
    /// Of WAIT.
    pub count: Result<Value, RedisError>,
    /// Of ROLE.
    pub role: Result<Value, RedisError>,
    /// Of CLIENT GETNAME.
    pub name: Result<Value, RedisError>,
}

/// What a connection says of itself and of its master, before anything is sent on it.
#[derive(Debug)]
pub struct Look {
    /// Of CLIENT GETNAME: [`BATCH_NAME`] on a connection that was looked at before.
    pub name: Result<Value, RedisError>,
    /// Of CLIENT SETNAME.
    pub named: Result<Value, RedisError>,
    /// Of ROLE.
    pub role: Result<Value, RedisError>,
}

/// The replicas of one master, as it tells them.
#[derive(Debug, Default)]
pub struct Followers {
    /// Who followed, and since when no more.
    known: Vec<(String, Option<Instant>)>,
    /// When this connection was looked at first; `None`: not yet.
    since: Option<Instant>,
}

impl Followers {
    /// How many replicas confirmed a batch.
    ///
    /// # Errors
    /// Why that is not known or means nothing, for people.
    pub fn judge(&mut self, answers: Answers, now: Instant) -> Result<u64, String> {
        let nothing = |error| format!("no replicas were counted: {error}");
        let name = answers.name.map_err(nothing)?;
        let count = answers.count.map_err(nothing)?;
        let role = answers.role.map_err(nothing)?;
        // A connection that came up since the last look, be it between the scripts and the WAIT, has
        // no name, and counts at once.
        if name.as_bytes() != Some(BATCH_NAME.as_bytes()) {
            *self = Self::default();
            return Err("the connection was lost before replicas confirmed".to_owned());
        }
        self.see(role, now).map_err(|error| error.to_string())?;
        if let Some(gone) = self.left() {
            return Err(format!(
                "the replica {gone} has left its master and may be the new one; that is known \
                 within {PROMOTION_MAX:?}"
            ));
        }
        reply::number(&count).map_err(|error| error.to_string())
    }

    /// Takes in what was asked outside of a batch. A connection that is new knows of no replica that
    /// has left.
    pub fn look(&mut self, look: Look, now: Instant) {
        let is_named = |name: &Value| name.as_bytes() == Some(BATCH_NAME.as_bytes());
        if !look.name.as_ref().is_ok_and(is_named) || look.named.is_err() {
            *self = Self::default();
        }
        // A server that is no master any more confirms nothing either.
        let seen = look.role.is_ok_and(|role| self.see(role, now).is_ok());
        if seen && look.named.is_ok() {
            self.since.get_or_insert(now);
        } else {
            *self = Self::default();
        }
    }

    /// Whether so many replicas can confirm what is sent now.
    ///
    /// # Errors
    /// Why not. Nothing need be sent then.
    pub fn can_confirm(&self, min: u32, now: Instant) -> Result<(), Unavailable> {
        let waited = self.since.map(|since| now.duration_since(since));
        if waited.is_none_or(|waited| waited < PROMOTION_MAX) {
            return Err(Unavailable::NotYetPromised);
        }
        let count = self.count();
        if count < u64::from(min) {
            return Err(Unavailable::TooFewFollow { count, min });
        }
        Ok(())
    }

    /// Whether who follows was seen on this connection.
    #[must_use]
    pub fn are_known(&self) -> bool {
        self.since.is_some()
    }

    /// How many follow now.
    #[must_use]
    pub fn count(&self) -> u64 {
        let here = self.known.iter().filter(|(_, left_at)| left_at.is_none());
        here.count() as u64
    }

    /// Takes in who follows now.
    ///
    /// # Errors
    /// [`BrokerError::Unexpected`]: the server is no master.
    fn see(&mut self, role: Value, now: Instant) -> Result<(), BrokerError> {
        let [_master, _offset, replicas] = reply::parts(role)?;
        let mut here = Vec::new();
        for replica in reply::list(replicas)? {
            let [host, port, _offset] = reply::parts(replica)?;
            let part = |value: &Value| value.as_string().unwrap_or_default();
            here.push(format!("{}:{}", part(&host), part(&port)));
        }
        self.known.retain_mut(|(replica, left_at)| {
            let is_here = here.contains(replica);
            *left_at = (!is_here).then(|| left_at.unwrap_or(now));
            left_at.is_none_or(|at| now.duration_since(at) < PROMOTION_MAX)
        });
        for replica in here {
            if self.known.iter().all(|(known, _)| *known != replica) {
                self.known.push((replica, None));
            }
        }
        Ok(())
    }

    /// One that followed a moment ago and does not now.
    fn left(&self) -> Option<&str> {
        let mut known = self.known.iter();
        known.find_map(|(replica, left_at)| left_at.map(|_| replica.as_str()))
    }
}

/// Whether enough replicas have it.
///
/// # Errors
/// Why not, for people.
pub fn enough(replicas: Replicas, confirmed: &Result<u64, String>) -> Result<(), String> {
    let Replicas { min, timeout } = replicas;
    match confirmed {
        Ok(count) if *count >= u64::from(min) => Ok(()),
        Ok(count) => Err(format!(
            "{count} of {min} replicas confirmed within {timeout:?}"
        )),
        Err(why) => Err(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(ports: &[i64]) -> Value {
        let replica =
            |port: &i64| Value::Array(vec!["10.0.0.1".into(), port.to_string().into(), "7".into()]);
        let replicas = ports.iter().map(replica).collect();
        Value::Array(vec!["master".into(), 7.into(), Value::Array(replicas)])
    }

    fn answers(ports: &[i64]) -> Answers {
        Answers {
            count: Ok(1.into()),
            role: Ok(role(ports)),
            name: Ok(BATCH_NAME.into()),
        }
    }

    #[test]
    fn a_count_of_another_connection_is_none() {
        let judge = |answers| Followers::default().judge(answers, Instant::now());
        assert_eq!(judge(answers(&[1])), Ok(1));
        let lost = || Err(RedisError::NoUrl);
        let mut nameless = answers(&[1]);
        nameless.name = Ok(Value::Null);
        assert!(judge(nameless).is_err());
        for place in 0..3 {
            let mut answers = answers(&[1]);
            let field = match place {
                0 => &mut answers.count,
                1 => &mut answers.role,
                _ => &mut answers.name,
            };
            *field = lost();
            assert!(judge(answers).is_err());
        }
        let mut replica = answers(&[1]);
        replica.role = Ok(Value::Array(vec!["slave".into(), "h".into(), 1.into()]));
        assert!(judge(replica).is_err());
    }

    #[test]
    fn nothing_is_confirmed_while_a_replica_that_left_may_be_the_new_master() {
        let mut followers = Followers::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(followers.judge(answers(&[1, 2]), at(0)), Ok(1));
        for seconds in [100, 104] {
            let why = followers.judge(answers(&[2]), at(seconds)).unwrap_err();
            assert!(why.starts_with("the replica 10.0.0.1:1 has left"), "{why}");
        }
        // It did not become the master within the time in which that is known.
        assert_eq!(followers.judge(answers(&[2]), at(105)), Ok(1));
        // One that comes back has nothing that its master has not.
        assert_eq!(followers.judge(answers(&[2, 1]), at(106)), Ok(1));
        assert!(followers.judge(answers(&[1]), at(107)).is_err());
        assert_eq!(followers.judge(answers(&[1, 2]), at(108)), Ok(1));
    }

    fn looked(name: Value, ports: &[i64]) -> Look {
        Look {
            name: Ok(name),
            named: Ok("OK".into()),
            role: Ok(role(ports)),
        }
    }

    #[test]
    fn nothing_is_confirmed_on_a_connection_that_is_new() {
        let mut followers = Followers::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(followers.can_confirm(1, at(0)).is_err());
        followers.look(looked(Value::Null, &[1]), at(0));
        followers.look(looked(BATCH_NAME.into(), &[1]), at(4));
        assert!(followers.can_confirm(1, at(4)).is_err());
        assert_eq!(followers.can_confirm(1, at(5)), Ok(()));
        let why = Unavailable::TooFewFollow { count: 1, min: 2 };
        assert_eq!(followers.can_confirm(2, at(5)), Err(why));
        // It came up anew meanwhile.
        followers.look(looked(Value::Null, &[1]), at(6));
        assert!(followers.can_confirm(1, at(10)).is_err());
        assert_eq!(followers.can_confirm(1, at(11)), Ok(()));
        let mut nameless = answers(&[1]);
        nameless.name = Ok(Value::Null);
        followers.judge(nameless, at(12)).unwrap_err();
        assert!(followers.can_confirm(1, at(60)).is_err());
    }

    #[test]
    fn fewer_replicas_than_asked_for_are_not_enough() {
        let replicas = Replicas {
            min: 2,
            timeout: Duration::from_millis(500),
        };
        assert_eq!(enough(replicas, &Ok(2)), Ok(()));
        let why = "1 of 2 replicas confirmed within 500ms".to_owned();
        assert_eq!(enough(replicas, &Ok(1)), Err(why));
        assert!(enough(replicas, &Err("no".to_owned())).is_err());
    }
}
