//! Any valid sequence of frames, cut into any pieces, arrives unchanged.

use super::*;

/// A message in fragments, with control frames behind some of them.
#[derive(Debug, Clone)]
struct Sent {
    is_text: bool,
    fragments: Vec<(String, Option<Control>)>,
}

#[derive(Debug, Clone, Copy)]
enum Control {
    Ping(u8),
    Pong,
}

fn sent() -> impl Strategy<Value = Sent> {
    let control = prop_oneof![
        2 => Just(None),
        1 => (0..=125_u8).prop_map(|length| Some(Control::Ping(length))),
        1 => Just(Some(Control::Pong)),
    ];
    let part = prop_oneof!["[a-zé€😀]{0,40}", "[x]{100,140}", "[y€]{4000,4200}"];
    let fragments = prop::collection::vec((part, control), 1..6);
    (any::<bool>(), fragments).prop_map(|(is_text, fragments)| Sent { is_text, fragments })
}

fn bytes_and_expected(messages: &[Sent]) -> (Vec<u8>, Vec<Incoming>) {
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    for message in messages {
        let count = message.fragments.len();
        let mut whole = Vec::new();
        let mut behind_last = None;
        for (at, (part, control)) in message.fragments.iter().enumerate() {
            let opcode = match (at, message.is_text) {
                (0, true) => TEXT,
                (0, false) => BINARY,
                _ => CONTINUATION,
            };
            let is_last = at + 1 == count;
            bytes.extend(frame(if is_last { LAST } else { 0 } | opcode, part));
            whole.extend(part.as_bytes());
            let Some(control) = control else { continue };
            let (opcode, payload, incoming) = match control {
                Control::Ping(length) => {
                    let payload = vec![*length; usize::from(*length)];
                    (PING, payload.clone(), Incoming::Ping(payload))
                }
                Control::Pong => (PONG, Vec::new(), Incoming::Pong),
            };
            bytes.extend(frame(LAST | opcode, payload));
            match is_last {
                true => behind_last = Some(incoming),
                false => expected.push(incoming),
            }
        }
        expected.push(match message.is_text {
            true => Incoming::Text(whole),
            false => Incoming::Binary(whole),
        });
        expected.extend(behind_last);
    }
    (bytes, expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_the_pieces_the_messages_are_the_same(
        messages in prop::collection::vec(sent(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        early in any::<prop::sample::Index>(),
    ) {
        let (bytes, expected) = bytes_and_expected(&messages);
        let early = early.index(bytes.len() + 1);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.retain(|cut| *cut > early);
        cuts.extend([early, bytes.len()]);
        cuts.sort_unstable();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let (got, holds_nothing) = runtime.unwrap().block_on(async {
            let mut pair = Pair::with_early(Bytes::copy_from_slice(&bytes[..early])).await;
            let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]);
            let mut got = pair.feed(&[]).await;
            got.extend(pair.feed_each(pieces).await);
            (got, pair.holds_nothing())
        });
        let got: Result<Vec<_>, _> = got.into_iter().collect();
        prop_assert!(got == Ok(expected));
        prop_assert!(holds_nothing);
    }
}

#[test]
fn one_whole_pong_is_told_from_everything_that_only_looks_like_one() {
    let pong = |length: usize| frame(LAST | PONG, vec![b'x'; length]);
    for length in [0, 1, 124, 125] {
        assert!(is_pong(&pong(length)), "{length}");
    }
    let mut two = pong(3);
    two.extend(pong(0));
    let mut unmasked = pong(3);
    unmasked[1] -= 0x80;
    let near_misses = [
        pong(126),
        two,
        unmasked,
        pong(3)[..8].to_vec(),
        pong(0)[..5].to_vec(),
        frame(PONG, []),
        frame(LAST | PING, []),
        frame(LAST | 0x40 | PONG, []),
        Vec::new(),
    ];
    for bytes in near_misses {
        assert!(!is_pong(&bytes), "{bytes:?}");
    }
}
