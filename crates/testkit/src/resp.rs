//! Frames of Redis' protocol as they come over a wire, for what stands between a node and Redis.
//!
//! In: a stream of the protocol's second or third version. Out: whole frames, byte by byte as they
//! came. Bound: none of its own; who sends is a server of the test's.

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// One frame with all its parts; `None` at the end.
pub async fn read_frame(server: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<u8>> {
    let mut frame = Vec::new();
    let mut left = 1_usize;
    while left > 0 {
        left -= 1;
        let begin = frame.len();
        if server.read_until(b'\n', &mut frame).await.ok()? == 0 {
            return None;
        }
        let line = std::str::from_utf8(&frame[begin..]).ok()?.trim_end();
        let (kind, rest) = line.split_at(1);
        let length = rest.parse::<usize>();
        match (kind, length) {
            ("$" | "=" | "!", Ok(length)) => {
                let body = frame.len();
                frame.resize(body + length + 2, 0);
                server.read_exact(&mut frame[body..]).await.ok()?;
            }
            ("*" | ">" | "~", Ok(parts)) => left += parts,
            ("%" | "|", Ok(pairs)) => left += 2 * pairs,
            _ => {}
        }
    }
    Some(frame)
}
