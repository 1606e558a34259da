//! Behind sentinels: the master is found by its name, and found again when it is another one.

use crate::rig::Peer;
use crate::support::load::{Listening, Load};
use crate::support::redis_sentinels::RedisSentinels;
use crate::support::talk::Wire;
use crate::two_nodes;

/// Whatever a master answered stands at its replica before the master goes: sentinels promise no
/// more than Redis does, and this test is about the nodes.
fn hold_writes(sentinels: &RedisSentinels, master: usize) {
    let answer = sentinels.servers[master].command(&["CLIENT", "PAUSE", "5000", "WRITE"]);
    assert_eq!(answer.as_deref(), Some("+OK"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_is_followed_whether_it_was_asked_for_or_the_old_one_died() {
    let mut sentinels = RedisSentinels::start().await;
    let other = sentinels.url().replace("master=main", "master=other");
    let hint = "no master called other; give its name as ?master=NAME";
    Peer::start(other).is_down_for(hint).await;
    let [one, two] = two_nodes(&sentinels.url()).await;
    let load = Load::start(&one, "t").await;
    let listening = [
        Listening::start(&one, "ada", Wire::Json, "t").await,
        Listening::start(&two, "bob", Wire::MsgPack, "t").await,
    ];
    let first = load.answered();
    load.goes_on(20).await;

    let master = sentinels.master().expect("the sentinels run");
    hold_writes(&sentinels, master);
    sentinels.fail_over().await;
    load.goes_on(20).await;

    // The old master is in step with the new one before that dies.
    sentinels.agree().await;
    let master = sentinels.master().expect("the sentinels run");
    hold_writes(&sentinels, master);
    sentinels.servers[master].kill();
    sentinels.is_not(master).await;
    load.goes_on(20).await;

    let answered = load.end().await;
    for listening in listening {
        let heard = listening.heard().await;
        // The one that was on its way when the listener joined may have been before it.
        assert!(heard.len() as u64 + first + 1 >= answered.len() as u64);
        assert_eq!(heard, answered[answered.len() - heard.len()..]);
    }
    for node in [&one, &two] {
        assert!(node.metric("fanfare_topics_moved_total").await > 0);
        assert_eq!(node.metric("fanfare_gaps_total").await, 0);
    }
}
