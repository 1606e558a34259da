//! Sets of keys from a real server that speaks TLS, well and badly, and tokens that wait for them.

use std::time::{Duration, SystemTime};

use fanfare_testkit::issuer::{Issuer as Server, IssuerKey, Says, set};
use fanfare_testkit::tokens::seconds_from_now;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::*;
use crate::auth::error::TokenError;
use crate::config::{Issuer, Jwks, load};

/// The token's key is away.
const AWAY: TokenError = TokenError::KeyAway(0);

struct Rig {
    server: Server,
    verifier: Arc<Verifier>,
    counters: Arc<CheckCounters>,
    checks: Arc<Checks>,
}

impl Rig {
    async fn new(says: Says) -> Self {
        let server = Server::start(says).await;
        let issuers = vec![issuer("id", &server)];
        Self::with(server, issuers)
    }

    fn with(server: Server, issuers: Vec<Issuer>) -> Self {
        let mut auth = load::defaults().auth;
        auth.issuers = issuers;
        let counters = Arc::<CheckCounters>::default();
        let verifier = Verifier::new(&auth, 2_048).unwrap();
        let verifier = Arc::new(verifier);
        let checks = Checks::new(Arc::clone(&verifier), Arc::clone(&counters));
        Self {
            server,
            verifier,
            counters,
            checks,
        }
    }

    /// What becomes of tokens that come at once, each by itself.
    async fn outcomes(&self, tokens: Vec<String>) -> Vec<Result<(), TokenError>> {
        let all = tokens.into_iter().map(|token| self.outcome(token));
        join_all(all).await
    }

    /// What becomes of a token; of one whose key is away without when it is asked for again.
    async fn outcome(&self, token: String) -> Result<(), TokenError> {
        let mut checked = self
            .checks
            .check(Asked {
                own: Some(token),
                ..Asked::default()
            })
            .await;
        let checked = checked.pop().unwrap();
        let now = SystemTime::now();
        self.verifier
            .checked_session(checked, now)
            .map(drop)
            .map_err(|error| match error {
                TokenError::KeyAway(wait_ms) => {
                    assert!(wait_ms >= 1_000, "nobody is told to come at once");
                    AWAY
                }
                error => error,
            })
    }

    /// Goes on with these issuers, as after a SIGHUP.
    fn reload(&self, issuers: Vec<Issuer>) {
        let mut auth = load::defaults().auth;
        auth.issuers = issuers;
        self.verifier
            .take_over(Verifier::new(&auth, 2_048).unwrap());
        self.checks.follow();
    }

    fn trouble(&self) -> String {
        self.checks.troubles().pop().unwrap_or_default()
    }
}

fn issuer(name: &str, server: &Server) -> Issuer {
    Issuer {
        issuer: name.to_owned(),
        audience: None,
        jwks: Some(source(server)),
        keys: Vec::new(),
        algorithms: Vec::new(),
        types: Vec::new(),
        user_claim: "sub".to_owned(),
    }
}

fn source(server: &Server) -> Jwks {
    Jwks {
        url: server.url.clone(),
        ca_file: Some(server.ca_file.display().to_string()),
        allow_private: true,
    }
}

fn claims() -> Value {
    json!({"iss": "id", "sub": "ada", "exp": seconds_from_now(600)})
}

/// Goes on so far in time. What is due then is seen with the next question.
fn pass(time: Duration) {
    fetcher::AHEAD.with(|ahead| ahead.set(ahead.get() + time));
}

#[tokio::test]
async fn a_thousand_that_wait_for_the_first_set_are_all_in_by_one_fetch() {
    let key = IssuerKey::new("1");
    let rig = Rig::new(set(&[&key])).await;
    rig.server.hold(true);
    rig.checks.follow();
    let waiting = rig.outcomes(vec![key.token(&claims()); 1_000]);
    let release = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.server.hold(false);
    };
    let (outcomes, ()) = tokio::join!(waiting, release);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(rig.server.asked(), 1);
    assert_eq!(rig.counters.sets_read.get(), 1);
}

#[tokio::test]
async fn a_thousand_that_wait_for_a_new_key_are_all_in_by_one_fetch_and_the_old_one_is_gone() {
    let (old, new) = (IssuerKey::new("old"), IssuerKey::new("new"));
    let rig = Rig::new(set(&[&old])).await;
    rig.checks.follow();
    assert_eq!(rig.outcome(old.token(&claims())).await, Ok(()));
    rig.server.say(set(&[&new]));
    // In the minute after a fetch nobody asks, and nothing is said against the token.
    assert_eq!(rig.outcome(new.token(&claims())).await, Err(AWAY));
    assert_eq!(rig.outcome(old.token(&claims())).await, Ok(()));
    assert_eq!(rig.server.asked(), 1);
    pass(Duration::from_secs(61));
    let outcomes = rig.outcomes(vec![new.token(&claims()); 1_000]).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(rig.server.asked(), 2);
    let gone = old.token(&claims());
    assert_eq!(rig.outcome(gone.clone()).await, Err(AWAY));
    pass(Duration::from_secs(61));
    let unknown = Err(TokenError::UnknownKey);
    assert_eq!(rig.outcome(gone.clone()).await, unknown);
    // It was asked for, so that is known from now on.
    assert_eq!(rig.outcome(gone).await, unknown);
    assert_eq!(rig.server.asked(), 3);
}

#[tokio::test]
async fn ten_thousand_invented_names_of_keys_make_one_fetch() {
    let key = IssuerKey::new("1");
    let rig = Rig::new(set(&[&key])).await;
    rig.checks.follow();
    assert_eq!(rig.outcome(key.token(&claims())).await, Ok(()));
    pass(Duration::from_secs(61));
    let invented: Vec<_> = (0..10_000)
        .map(|number| {
            let header = json!({"alg": "ES256", "kid": format!("x{number}")});
            fanfare_testkit::tokens::put_together(&header, &claims(), "AAAA")
        })
        .collect();
    let outcomes = rig.outcomes(invented).await;
    let count = |wanted| outcomes.iter().filter(|one| **one == Err(wanted)).count();
    let (unknown, unavailable) = (count(TokenError::UnknownKey), count(AWAY));
    assert_eq!(unknown + unavailable, 10_000);
    assert!(unknown >= 1, "those that waited are told what is so");
    assert_eq!(rig.server.asked(), 2, "one to begin with, and one more");
    assert_eq!(rig.outcome(key.token(&claims())).await, Ok(()));
}

#[tokio::test]
async fn no_more_wait_for_one_set_than_may() {
    let key = IssuerKey::new("1");
    let rig = Rig::new(set(&[&key])).await;
    rig.server.hold(true);
    rig.checks.follow();
    let count = fetcher::WAITING_MAX + 10;
    let waiting = rig.outcomes(vec![key.token(&claims()); count]);
    let release = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.server.hold(false);
    };
    let (outcomes, ()) = tokio::join!(waiting, release);
    let refused = outcomes.iter().filter(|one| one.is_err());
    assert_eq!(refused.count(), 10);
    assert!(outcomes.contains(&Err(AWAY)));
    assert_eq!(
        AWAY.to_string(),
        "the token's key cannot be had at present; try again"
    );
}

#[tokio::test]
async fn a_bad_answer_keeps_the_keys_and_is_told() {
    let key = IssuerKey::new("1");
    let rig = Rig::new(set(&[&key])).await;
    rig.checks.follow();
    assert_eq!(rig.outcome(key.token(&claims())).await, Ok(()));
    assert_eq!(rig.trouble(), "");
    let many = json!({"keys": vec![key.jwk(); 65]});
    let rows = [
        (
            Says::Head("302 Found\r\nlocation: https://localhost:1/".to_owned()),
            "it answered 302 Found, and redirects are not followed",
        ),
        (
            Says::Head("503 Service Unavailable".to_owned()),
            "it answered 503 Service Unavailable",
        ),
        (Says::Endless, "it is longer than 262144 bytes"),
        (Says::Set(many), "it has 65 keys, and at most 64 are read"),
        (
            Says::Set(json!([])),
            "it is no JSON Web Key Set: a JSON map with the list `keys`",
        ),
        (Says::Nothing, "there was no whole answer in 5 s"),
    ];
    let other = IssuerKey::new("2").token(&claims());
    for (asked, (says, why)) in rows.into_iter().enumerate() {
        rig.server.say(says);
        pass(Duration::from_secs(61));
        assert_eq!(rig.outcome(other.clone()).await, Err(AWAY), "{why}");
        fanfare_testkit::wait::until("the reason", async || {
            rig.trouble().contains(why).then_some(())
        })
        .await;
        assert_eq!(rig.counters.sets_refused.get(), asked as u64 + 1);
        assert_eq!(rig.counters.sets_failing.get(), 1);
        assert_eq!(rig.outcome(key.token(&claims())).await, Ok(()), "{why}");
    }
    rig.server.say(set(&[&key]));
    pass(Duration::from_secs(61));
    assert_eq!(rig.outcome(other).await, Err(TokenError::UnknownKey));
    assert_eq!(rig.trouble(), "");
    assert_eq!(rig.counters.sets_failing.get(), 0);
}

#[tokio::test]
async fn a_set_that_cannot_be_read_for_a_day_is_given_up() {
    let key = IssuerKey::new("1");
    let rig = Rig::new(set(&[&key])).await;
    rig.checks.follow();
    assert_eq!(rig.outcome(key.token(&claims())).await, Ok(()));
    rig.server.say(Says::Head("500 No".to_owned()));
    pass(Duration::from_secs(23 * 3_600));
    let other = IssuerKey::new("2").token(&claims());
    assert_eq!(rig.outcome(other.clone()).await, Err(AWAY));
    assert_eq!(rig.counters.sets_refused.get(), 1);
    assert_eq!(rig.outcome(key.token(&claims())).await, Ok(()));
    pass(Duration::from_secs(3_601));
    assert_eq!(rig.outcome(other).await, Err(AWAY));
    fanfare_testkit::wait::until("the end of the keys", async || {
        let outcome = rig.outcome(key.token(&claims())).await;
        (outcome == Err(AWAY)).then_some(())
    })
    .await;
    assert!(rig.trouble().contains("its keys were given up"));
}

#[tokio::test]
async fn nobody_is_trusted_but_who_is_named() {
    let server = Server::start(set(&[&IssuerKey::new("1")])).await;
    let stranger = Server::start(Says::Nothing).await;
    let mut source = source(&server);
    source.ca_file = Some(stranger.ca_file.display().to_string());
    let error = fetch::fetch(&source, &fetch::Certificates::default())
        .await
        .unwrap_err();
    assert!(error.starts_with("no TLS: "), "{error}");
    // An address of its own is not the name in the certificate.
    let mut source = self::source(&server);
    source.url = source.url.replace("localhost", "127.0.0.1");
    let error = fetch::fetch(&source, &fetch::Certificates::default())
        .await
        .unwrap_err();
    assert!(error.starts_with("no TLS: "), "{error}");
    source.allow_private = false;
    let error = fetch::fetch(&source, &fetch::Certificates::default())
        .await
        .unwrap_err();
    assert!(error.contains("is no public address"), "{error}");
    assert_eq!(server.asked(), 0);
    source.url = "https://localhost:1/".to_owned();
    source.ca_file = Some("/nowhere/ca.pem".to_owned());
    source.allow_private = true;
    assert!(
        fetch::fetch(&source, &fetch::Certificates::default())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_set_that_is_still_named_is_gone_on_with_and_another_is_let_go() {
    let key = IssuerKey::new("1");
    let rig = Rig::new(set(&[&key])).await;
    rig.checks.follow();
    assert_eq!(rig.outcome(key.token(&claims())).await, Ok(()));
    let mut auth = load::defaults().auth;
    auth.issuers = vec![issuer("id", &rig.server)];
    auth.audience = Some("changed".to_owned());
    rig.verifier.take_over(Verifier::new(&auth, 2_048).unwrap());
    rig.checks.follow();
    assert_eq!(rig.outcome(key.token(&claims())).await, Ok(()));
    assert_eq!(rig.server.asked(), 1, "the keys were known");
    let other = Server::start(Says::Head("500 No".to_owned())).await;
    auth.issuers = vec![issuer("id", &other)];
    rig.verifier.take_over(Verifier::new(&auth, 2_048).unwrap());
    rig.checks.follow();
    assert_eq!(rig.outcome(key.token(&claims())).await, Err(AWAY));
    auth.issuers.clear();
    rig.verifier.take_over(Verifier::new(&auth, 2_048).unwrap());
    rig.checks.follow();
    assert_eq!(rig.trouble(), "");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.counters.sets_failing.get(), 0);
}

mod places;
