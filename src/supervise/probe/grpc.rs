//! One call of `grpc.health.v1.Health/Check` over plain HTTP/2, as far as one call needs it: headers are written
//! without compression, and of the answer only data counts.

use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The only status that is well.
pub(super) const SERVING: u64 = 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
/// What a peer may send in one frame unless told otherwise.
const FRAME_BYTES: usize = 16_384;
/// Frames before the answer must have come.
const FRAMES: usize = 64;

pub(super) fn name(status: u64) -> &'static str {
    match status {
        SERVING => "serving",
        2 => "not serving",
        3 => "service unknown",
        _ => "unknown",
    }
}

/// # Errors
/// The connection's, and `InvalidData` when the other side does not speak the protocol or has no such service.
pub(super) async fn check(stream: &mut TcpStream, authority: &str, service: &str) -> io::Result<u64> {
    stream.write_all(&question(authority, service)).await?;
    let mut message = Vec::new();
    for _ in 0..FRAMES {
        let (kind, flags, payload) = frame(stream).await?;
        match kind {
            DATA => message.extend_from_slice(unpadded(&payload, flags)),
            SETTINGS if flags & ACK == 0 => stream.write_all(&framed(SETTINGS, ACK, 0, &[])).await?,
            PING if flags & ACK == 0 => stream.write_all(&framed(PING, ACK, 0, &payload)).await?,
            RST_STREAM | GOAWAY => return Err(refused("the server broke the call off")),
            _ => {}
        }
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            break;
        }
    }
    answer(&message)
        .ok_or_else(|| refused("the server does not answer health checks, or has no such service"))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn question(authority: &str, service: &str) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(framed(SETTINGS, 0, 0, &[]));
    // Indexed: POST, http; then names by index or in full, values as they are.
    let mut headers = vec![0x83, 0x86];
    headers.push(0x04);
    headers.extend(text("/grpc.health.v1.Health/Check"));
    headers.push(0x01);
    headers.extend(text(authority));
    for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
        headers.push(0x00);
        headers.extend(text(name));
        headers.extend(text(value));
    }
    bytes.extend(framed(HEADERS, END_HEADERS, 1, &headers));
    let mut request = Vec::new();
    if !service.is_empty() {
        request.push(0x0a);
        request.extend(text(service));
    }
    let mut message = vec![0];
    message.extend(u32::try_from(request.len()).unwrap_or_default().to_be_bytes());
    message.extend(request);
    bytes.extend(framed(DATA, END_STREAM, 1, &message));
    bytes
}

/// A length below 127, then the bytes; both protocols write short texts so.
fn text(text: &str) -> Vec<u8> {
    let kept = &text.as_bytes()[..text.len().min(126)];
    let mut bytes = vec![u8::try_from(kept.len()).unwrap_or_default()];
    bytes.extend_from_slice(kept);
    bytes
}

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

async fn frame(stream: &mut TcpStream) -> io::Result<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    if length > FRAME_BYTES {
        return Err(refused("the server does not speak HTTP/2"));
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await?;
    Ok((head[3], head[4], payload))
}

fn unpadded(payload: &[u8], flags: u8) -> &[u8] {
    if flags & PADDED == 0 {
        return payload;
    }
    let padding = payload.first().map_or(0, |length| usize::from(*length));
    payload.get(1..payload.len().saturating_sub(padding)).unwrap_or_default()
}

/// The status in the first message: field 1, a number; left out it is 0.
fn answer(message: &[u8]) -> Option<u64> {
    let (head, body) = message.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
    match body.get(..length)? {
        [] => Some(0),
        [0x08, status, ..] if *status < 0x80 => Some(u64::from(*status)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_is_asked_and_its_answer_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            assert!(preface.starts_with(b"PRI * HTTP/2.0"));
            let mut asked = Vec::new();
            while asked.last().is_none_or(|kind| *kind != DATA) {
                let (kind, _, payload) = frame(&mut stream).await.unwrap();
                let holds = |text: &str| payload.windows(text.len()).any(|part| part == text.as_bytes());
                assert!(kind != HEADERS || holds("/grpc.health.v1.Health/Check"));
                assert!(kind != DATA || holds("shop"));
                asked.push(kind);
            }
            assert_eq!(asked, [SETTINGS, HEADERS, DATA]);
            stream.write_all(&framed(SETTINGS, 0, 0, &[])).await.unwrap();
            assert_eq!(frame(&mut stream).await.unwrap().1, ACK);
            stream.write_all(&framed(HEADERS, END_HEADERS, 1, &[0x88])).await.unwrap();
            stream.write_all(&framed(DATA, PADDED, 1, &[2, 0, 0, 0, 0, 2, 8, 1, 0, 0])).await.unwrap();
            stream.write_all(&framed(HEADERS, END_HEADERS | END_STREAM, 1, &[])).await.unwrap();
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(check(&mut stream, "localhost", "shop").await.unwrap(), SERVING);
        serving.await.unwrap();
    }

    #[test]
    fn answers_that_are_none_are_told_apart() {
        assert_eq!(answer(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        assert_eq!(answer(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(answer(&[]), None);
        assert_eq!(answer(&[0, 0, 0, 0, 9, 8]), None);
    }
}
