//! Frames and messages that RFC 6455 or a limit forbids, each with the reason that follows.

use super::*;
use CloseReason::{InvalidUtf8, MessageTooBig, ProtocolViolation};

#[tokio::test]
async fn an_unmasked_frame_is_refused_at_its_second_byte() {
    for first in [LAST | TEXT, LAST | BINARY, TEXT, LAST | PING, LAST | CLOSE] {
        assert_eq!(breach(&[first, 0]).await, ProtocolViolation);
        let mut bytes = vec![first, 5];
        bytes.extend(b"plain");
        assert_eq!(breach(&bytes).await, ProtocolViolation);
    }
}

#[tokio::test]
async fn what_came_whole_before_a_breach_is_still_taken() {
    let mut bytes = frame(LAST | TEXT, "one");
    bytes.extend(frame(LAST | TEXT, "two"));
    let breaches = [
        vec![LAST | TEXT, 1, b'x'],
        frame(LAST | PONG, [0; 126]),
        vec![LAST | TEXT, 0x80 | 126, 0, 5],
        frame(0xc0 | TEXT, "x"),
    ];
    for bad in breaches {
        let all = [&bytes[..], &bad].concat();
        let expected = [Ok(text("one")), Ok(text("two")), Err(ProtocolViolation)];
        assert_eq!(read(&all).await, expected);
    }
}

#[tokio::test]
async fn reserved_bits_and_opcodes_are_refused() {
    for bit in [0x40, 0x20, 0x10] {
        for opcode in [TEXT, BINARY, PING, PONG, CLOSE] {
            let bytes = frame(LAST | bit | opcode, "");
            assert_eq!(breach(&bytes).await, ProtocolViolation);
        }
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        assert_eq!(breach(&frame(LAST | opcode, "")).await, ProtocolViolation);
    }
}

#[tokio::test]
async fn a_control_frame_is_whole_and_has_at_most_125_bytes() {
    for opcode in [PING, PONG, CLOSE] {
        let long = frame(LAST | opcode, [b'x'; 126]);
        assert_eq!(breach(&long).await, ProtocolViolation);
        // It is refused by its header; what it announces is not waited for.
        assert_eq!(breach(&long[..2]).await, ProtocolViolation);
        let huge = header(LAST | opcode, 1 << 62);
        assert_eq!(breach(&huge).await, ProtocolViolation);
        let fragment = frame(opcode, "x");
        assert_eq!(breach(&fragment).await, ProtocolViolation);
    }
}

#[tokio::test]
async fn a_length_in_more_bytes_than_it_needs_is_refused() {
    let with_length = |extended: &[u8]| {
        let mut bytes = vec![
            LAST | BINARY,
            0x80 | if extended.len() == 2 { 126 } else { 127 },
        ];
        bytes.extend(extended);
        bytes.extend(MASK);
        bytes
    };
    for short in [0_u16, 5, 125] {
        let bytes = with_length(&short.to_be_bytes());
        assert_eq!(breach(&bytes).await, ProtocolViolation);
    }
    for medium in [0_u64, 125, 65_535, 1 << 63, u64::MAX] {
        let bytes = with_length(&medium.to_be_bytes());
        assert_eq!(breach(&bytes).await, ProtocolViolation);
    }
}

#[tokio::test]
async fn a_close_frame_has_no_payload_or_a_code_that_may_be_sent_and_text() {
    let with = |code: u16, text: &[u8]| {
        let payload = [&code.to_be_bytes()[..], text].concat();
        frame(LAST | CLOSE, payload)
    };
    assert_eq!(breach(&frame(LAST | CLOSE, [3])).await, ProtocolViolation);
    let reserved = [
        0, 1, 999, 1_004, 1_005, 1_006, 1_015, 1_016, 1_999, 2_000, 2_999, 5_000, 65_535,
    ];
    for code in reserved {
        assert_eq!(breach(&with(code, b"")).await, ProtocolViolation, "{code}");
    }
    for code in [
        1_000, 1_001, 1_002, 1_003, 1_007, 1_011, 1_014, 3_000, 4_999,
    ] {
        let got = read_all(&with(code, b"bye")).await;
        assert_eq!(got, [Incoming::Close(Some(code))]);
    }
    for bad in [&b"\xff"[..], b"\xc3", b"ok\xed\xa0\x80"] {
        assert_eq!(breach(&with(1_000, bad)).await, InvalidUtf8);
    }
}

#[tokio::test]
async fn a_message_of_the_limit_is_taken_and_one_byte_more_refused_by_its_header() {
    let most = LIMITS.message_bytes_max;
    let long = vec![0; most];
    let got = read_all(&frame(LAST | BINARY, &long)).await;
    assert_eq!(got, [Incoming::Binary(long)]);
    for announced in [most as u64 + 1, 1 << 32, 1 << 62] {
        for first in [LAST | BINARY, BINARY, LAST | TEXT] {
            let only_header = header(first, announced);
            assert_eq!(breach(&only_header).await, MessageTooBig, "{announced}");
        }
    }
}

#[tokio::test]
async fn the_limit_holds_for_the_sum_of_fragments() {
    let most = LIMITS.message_bytes_max;
    let exactly = [
        frame(BINARY, vec![1; most - 1]),
        frame(CONTINUATION, []),
        frame(LAST, [2]),
    ]
    .concat();
    let mut whole = vec![1; most];
    whole[most - 1] = 2;
    assert_eq!(read_all(&exactly).await, [Incoming::Binary(whole)]);
    let over = [frame(BINARY, vec![1; most]), frame(CONTINUATION, [2])].concat();
    assert_eq!(breach(&over).await, MessageTooBig);
    let half = vec![b'x'; most / 2];
    let over = [
        frame(TEXT, &half),
        frame(CONTINUATION, &half),
        frame(LAST, "x"),
    ]
    .concat();
    assert_eq!(breach(&over).await, MessageTooBig);
}

#[tokio::test]
async fn a_message_has_at_most_256_fragments() {
    let fragments = |count: usize| {
        let mut bytes = frame(TEXT, "x");
        for _ in 2..count {
            bytes.extend(frame(CONTINUATION, "x"));
        }
        bytes.extend(frame(LAST, "x"));
        bytes
    };
    assert_eq!(read_all(&fragments(256)).await, [text("x".repeat(256))]);
    assert_eq!(breach(&fragments(257)).await, MessageTooBig);
    // Empty ones count too, or they would cost nothing for ever.
    let mut endless = frame(TEXT, "");
    for _ in 0..256 {
        endless.extend(frame(CONTINUATION, ""));
    }
    assert_eq!(breach(&endless).await, MessageTooBig);
}

#[tokio::test]
async fn fragments_come_in_order_and_only_control_frames_between_them() {
    let between = [
        frame(TEXT, "a"),
        frame(LAST | PING, "1"),
        frame(CONTINUATION, "b"),
        frame(LAST | PONG, "2"),
        frame(LAST, "c"),
    ]
    .concat();
    let expected = [Incoming::Ping(b"1".to_vec()), Incoming::Pong, text("abc")];
    assert_eq!(read_all(&between).await, expected);
    for data in [TEXT, BINARY, LAST | TEXT, LAST | BINARY] {
        let bytes = [frame(TEXT, "a"), frame(data, "b")].concat();
        assert_eq!(breach(&bytes).await, ProtocolViolation);
    }
    for first in [CONTINUATION, LAST] {
        assert_eq!(breach(&frame(first, "a")).await, ProtocolViolation);
    }
    let after_whole = [frame(LAST | TEXT, "a"), frame(LAST, "b")].concat();
    let got = read(&after_whole).await;
    assert_eq!(got, [Ok(text("a")), Err(ProtocolViolation)]);
}

#[tokio::test]
async fn text_is_utf8_also_where_a_character_is_cut_between_fragments() {
    let word = "a€😀é";
    for first in 0..=word.len() {
        for second in first..=word.len() {
            let bytes = word.as_bytes();
            let bytes = [
                frame(TEXT, &bytes[..first]),
                frame(CONTINUATION, &bytes[first..second]),
                frame(LAST, &bytes[second..]),
            ]
            .concat();
            assert_eq!(read_all(&bytes).await, [text(word)]);
        }
    }
}

#[tokio::test]
async fn bad_utf8_ends_the_session_at_the_fragment_where_it_is_bad() {
    for bad in [
        &b"\xff"[..],
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf5",
        b"ok\xe2\x28\xa1",
    ] {
        assert_eq!(breach(&frame(LAST | TEXT, bad)).await, InvalidUtf8);
        // The rest of the message is not waited for.
        assert_eq!(breach(&frame(TEXT, bad)).await, InvalidUtf8);
        let second = [frame(TEXT, "fine"), frame(CONTINUATION, bad)].concat();
        assert_eq!(breach(&second).await, InvalidUtf8);
    }
    let half = &"€".as_bytes()[..2];
    assert_eq!(breach(&frame(LAST | TEXT, half)).await, InvalidUtf8);
    let never_completed = [frame(TEXT, half), frame(LAST, "")].concat();
    assert_eq!(breach(&never_completed).await, InvalidUtf8);
    let otherwise_completed = [frame(TEXT, half), frame(CONTINUATION, "x")].concat();
    assert_eq!(breach(&otherwise_completed).await, InvalidUtf8);
    let binary = frame(LAST | BINARY, b"\xff");
    assert_eq!(read_all(&binary).await, [Incoming::Binary(vec![0xff])]);
}
