//! Places that several issuers name, first readings, and what a reload keeps.

use super::*;

fn other_algorithms(name: &str, server: &Server, algorithms: &[&str]) -> Issuer {
    Issuer {
        algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
        ..issuer(name, server)
    }
}

fn of(iss: &str) -> Value {
    json!({"iss": iss, "sub": "ada", "exp": seconds_from_now(600)})
}

/// Each issuer had a task of its own: 64 issuers of one URL asked it 64 times.
#[tokio::test]
async fn issuers_of_one_place_share_one_fetch_a_minute() {
    let key = IssuerKey::new("1");
    let server = Server::start(set(&[&key])).await;
    let issuers = (0..8).map(|n| issuer(&n.to_string(), &server)).collect();
    let rig = Rig::with(server, issuers);
    rig.checks.follow();
    let tokens = |key: &IssuerKey| (0..8).map(|n| key.token(&of(&n.to_string()))).collect();
    let outcomes = rig.outcomes(tokens(&key)).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(rig.server.asked(), 1);
    pass(Duration::from_secs(61));
    let outcomes = rig.outcomes(tokens(&IssuerKey::new("2"))).await;
    let unknown = Err(TokenError::UnknownKey);
    assert!(outcomes.iter().all(|one| *one == unknown), "{outcomes:?}");
    assert_eq!(rig.server.asked(), 2);
}

/// Keys that were known were thrown away where the issuer was written otherwise: nobody was let in until the
/// place answered again.
#[tokio::test]
async fn a_reload_that_writes_an_issuer_otherwise_keeps_its_keys() {
    let key = IssuerKey::new("1");
    let rig = Rig::new(set(&[&key])).await;
    rig.checks.follow();
    assert_eq!(rig.outcome(key.token(&claims())).await, Ok(()));
    rig.server.say(Says::Head("500 No".to_owned()));
    let with_system = Issuer {
        jwks: Some(Jwks {
            ca_file: None,
            ..source(&rig.server)
        }),
        ..issuer("id", &rig.server)
    };
    let rows = [
        other_algorithms("id", &rig.server, &["ES256", "RS256"]),
        with_system,
        issuer("id", &rig.server),
    ];
    for row in rows {
        rig.reload(vec![row.clone()]);
        let outcome = rig.outcome(key.token(&claims())).await;
        assert_eq!(outcome, Ok(()), "{row:?}");
    }
    // Only what the new rules allow is kept.
    rig.reload(vec![other_algorithms("id", &rig.server, &["RS256"])]);
    let outcome = rig.outcome(key.token(&claims())).await;
    assert_eq!(outcome, Err(TokenError::Algorithm));
    assert!(
        rig.trouble().contains("none of its 1 keys"),
        "{}",
        rig.trouble()
    );
    // What is kept is given up when it is a day old, and not a day after the reload.
    rig.reload(vec![other_algorithms(
        "id",
        &rig.server,
        &["ES256", "PS256"],
    )]);
    pass(Duration::from_secs(24 * 3_600));
    let other = IssuerKey::new("2").token(&claims());
    assert_eq!(rig.outcome(other).await, Err(AWAY));
    fanfare_testkit::wait::until("the end of the keys", async || {
        let outcome = rig.outcome(key.token(&claims())).await;
        (outcome == Err(AWAY)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_issuer_that_can_use_nothing_of_a_set_takes_it_from_no_other() {
    let key = IssuerKey::new("1");
    let server = Server::start(set(&[&key])).await;
    let issuers = vec![
        issuer("a", &server),
        other_algorithms("b", &server, &["RS256"]),
    ];
    let rig = Rig::with(server, issuers);
    rig.checks.follow();
    assert_eq!(rig.outcome(key.token(&of("a"))).await, Ok(()));
    assert!(
        rig.trouble().contains("none of its 1 keys"),
        "{}",
        rig.trouble()
    );
    let failing = || async { rig.counters.sets_failing.get() };
    fanfare_testkit::wait::until_equal(1, failing).await;
    pass(Duration::from_secs(61));
    let invented = IssuerKey::new("2").token(&of("a"));
    assert_eq!(rig.outcome(invented).await, Err(TokenError::UnknownKey));
    assert_eq!(rig.outcome(key.token(&of("a"))).await, Ok(()));
}

/// One refused connection at the start kept everybody out for a minute, and the node said that it was ready.
#[tokio::test]
async fn the_first_reading_is_waited_for_some_seconds_and_tried_again_within_seconds() {
    let key = IssuerKey::new("1");
    let rig = Rig::new(Says::Head("500 No".to_owned())).await;
    assert_eq!(rig.checks.unread(), None, "nothing is asked for yet");
    rig.checks.follow();
    let told = rig.checks.unread().expect("it was not read");
    assert!(told.ends_with("it was not read yet"), "{told}");
    assert!(told.contains("/keys?***:"), "no query is shown: {told}");
    fanfare_testkit::wait::until("the reason", async || {
        let told = rig.checks.unread()?;
        told.contains("it answered 500").then_some(())
    })
    .await;
    rig.server.say(set(&[&key]));
    fanfare_testkit::wait::until("the second try", async || {
        (rig.outcome(key.token(&claims())).await == Ok(())).then_some(())
    })
    .await;
    assert_eq!(rig.server.asked(), 2);
    assert_eq!(rig.checks.unread(), None);
}

#[tokio::test]
async fn a_node_waits_for_no_set_longer_than_seconds_and_then_says_what_lacks() {
    let rig = Rig::new(Says::Nothing).await;
    rig.checks.follow();
    assert!(rig.checks.unread().is_some());
    pass(FIRST_WITHIN);
    assert_eq!(rig.checks.unread(), None);
    assert!(
        rig.trouble().ends_with("it was not read yet"),
        "{}",
        rig.trouble()
    );
}

/// One `connect` with a worthless token and 130 worthless ones for topics took 131 checks.
#[tokio::test]
async fn a_strangers_other_tokens_are_looked_at_only_when_its_own_is_good() {
    let key = IssuerKey::new("1");
    let rig = Rig::new(set(&[&key])).await;
    rig.checks.follow();
    let topic =
        key.token(&json!({"iss": "id", "sub": "ada", "exp": seconds_from_now(600), "topic": "t"}));
    let asked = |own: String| Asked {
        own: Some(own),
        others: vec![topic.clone(); 20],
        ..Asked::default()
    };
    let (good, bad) = (key.token(&claims()), IssuerKey::new("1").token(&claims()));
    let expired = key.token(&json!({"iss": "id", "sub": "ada", "exp": 1}));
    for own in [bad, expired, topic.clone(), "garbage".to_owned()] {
        assert_eq!(rig.checks.check(asked(own)).await.len(), 1);
    }
    let checked = rig.checks.check(asked(good)).await;
    assert_eq!(checked.len(), 21);
    let now = SystemTime::now();
    let mut others = checked.into_iter().skip(1);
    assert!(others.all(|one| rig.verifier.checked_topic(one, now).is_ok()));
    // Who is known already needs no token of its own.
    let known = Asked {
        own: None,
        others: vec![topic; 20],
        is_known: true,
        ..Asked::default()
    };
    assert_eq!(rig.checks.check(known).await.len(), 20);
}

/// The file was read in a task of the runtime: one on a volume that hangs held up the whole node, for ever.
#[tokio::test]
async fn a_file_of_certificates_that_hangs_holds_up_nothing_else() {
    let key = IssuerKey::new("1");
    let server = Server::start(set(&[&key])).await;
    let directory = tempfile::tempdir().unwrap();
    // A pipe that nobody writes hangs as a volume does that is gone.
    let pipe = directory.path().join("ca.pem");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let source = Jwks {
        ca_file: Some(pipe.display().to_string()),
        ..source(&server)
    };
    let trusted = Trusted::new(source.ca_file.clone());
    let fetched = fetch::fetch(&source, &trusted);
    let beside = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Instant::now()
    };
    let begun_at = Instant::now();
    let (fetched, beside) = tokio::join!(fetched, beside);
    assert!(
        beside - begun_at < Duration::from_secs(1),
        "nothing else ran"
    );
    let told = fetched.unwrap_err();
    assert!(told.contains("ca.pem could not be read in 2 s"), "{told}");
    // It is read when it answers again.
    let pem = std::fs::read(&server.ca_file).unwrap();
    let written = std::thread::spawn(move || {
        std::fs::write(&pipe, &pem).unwrap();
        std::fs::remove_file(&pipe).unwrap();
        std::fs::write(&pipe, &pem).unwrap();
    });
    written.join().unwrap();
    let fetched = fetch::fetch(&source, &trusted).await;
    assert!(fetched.is_ok(), "{fetched:?}");
}

/// Tokens were asked about one after the other and checked behind that, by one deadline: an issuer that is away
/// held up a login by another one for 5 s, and its good tokens for topics were `unavailable`.
#[tokio::test]
async fn an_issuer_that_is_away_holds_up_no_login_by_another() {
    let key = IssuerKey::new("1");
    let good = Server::start(set(&[&key])).await;
    let away = [
        Server::start(Says::Nothing).await,
        Server::start(Says::Nothing).await,
    ];
    let issuers = vec![
        issuer("good", &good),
        issuer("first", &away[0]),
        issuer("second", &away[1]),
    ];
    let rig = Rig::with(good, issuers);
    rig.checks.follow();
    assert_eq!(rig.outcome(key.token(&of("good"))).await, Ok(()));
    let topic = |iss: &str| {
        let mut claims = of(iss);
        claims["topic"] = json!("t");
        key.token(&claims)
    };
    let asked = Asked {
        own: Some(key.token(&of("good"))),
        others: ["first", "second", "good"].map(topic).to_vec(),
        opens: true,
        ..Asked::default()
    };
    let begun_at = Instant::now();
    let checked = rig.checks.check(asked).await;
    let took = begun_at.elapsed();
    assert!(took < OTHERS_PATIENCE * 2, "it took {took:?}");
    let now = SystemTime::now();
    let outcomes = checked.into_iter().skip(1).map(|one| {
        let outcome = rig.verifier.checked_topic(one, now);
        outcome.is_ok()
    });
    assert_eq!(outcomes.collect::<Vec<_>>(), [true, false, false]);
    // Who is known already waits for the keys of its command as long as may be, and for all places at once.
    let asked = Asked {
        others: ["first", "second", "good"].map(topic).to_vec(),
        is_known: true,
        ..Asked::default()
    };
    let begun_at = Instant::now();
    let checked = rig.checks.check(asked).await;
    let took = begun_at.elapsed();
    assert!(took < PATIENCE + OTHERS_PATIENCE, "it took {took:?}");
    let good = checked
        .into_iter()
        .next()
        .expect("the good one comes first");
    assert!(rig.verifier.checked_topic(good, now).is_ok());
}

/// One token with an invented `kid` led to a fetch; the issuer published a new key behind it, and each token
/// of that key was refused for good for a minute.
#[tokio::test]
async fn a_stranger_makes_no_new_key_a_refusal() {
    let (old, new) = (IssuerKey::new("old"), IssuerKey::new("new"));
    let rig = Rig::new(set(&[&old])).await;
    rig.checks.follow();
    assert_eq!(rig.outcome(old.token(&claims())).await, Ok(()));
    pass(Duration::from_secs(61));
    let invented = IssuerKey::new("invented").token(&claims());
    let unknown = Err(TokenError::UnknownKey);
    assert_eq!(rig.outcome(invented.clone()).await, unknown);
    rig.server.say(set(&[&old, &new]));
    assert_eq!(rig.outcome(new.token(&claims())).await, Err(AWAY));
    assert_eq!(rig.outcome(invented).await, unknown);
    pass(Duration::from_secs(61));
    assert_eq!(rig.outcome(new.token(&claims())).await, Ok(()));
    assert_eq!(rig.server.asked(), 3);
}

/// Commands that waited for a key were bounded in number alone, each as large as a message may be.
#[tokio::test]
async fn what_waits_for_keys_is_bounded_in_bytes_too() {
    let key = IssuerKey::new("1");
    let rig = Rig::new(set(&[&key])).await;
    rig.server.hold(true);
    rig.checks.follow();
    let mut large = claims();
    large["info"] = Value::String("x".repeat(5_000));
    let token = key.token(&large);
    let most = WAITING_BYTES_MAX / (20 * token.len());
    let asked = || Asked {
        own: Some(token.clone()),
        others: vec![token.clone(); 19],
        ..Asked::default()
    };
    let waiting = join_all((0..most + 3).map(|_| rig.checks.check(asked())));
    let release = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        rig.server.hold(false);
    };
    let (checked, ()) = tokio::join!(waiting, release);
    let now = SystemTime::now();
    let mut outcomes: Vec<_> = checked
        .into_iter()
        .map(|mut all| rig.verifier.checked_session(all.remove(0), now).map(drop))
        .collect();
    let beyond = outcomes.split_off(most);
    assert!(
        outcomes
            .iter()
            .all(|one| *one != Err(TokenError::Unavailable))
    );
    assert_eq!(beyond, [Err(TokenError::Unavailable); 3]);
    // Room comes back.
    assert_eq!(rig.outcome(key.token(&claims())).await, Ok(()));
}
