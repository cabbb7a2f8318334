//! The smallest HTTP server that can misbehave on purpose, and a proxy that cuts connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into() }
    }
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Serves until the runtime ends; requests without bodies only.
pub(crate) async fn serve(port: u16, handler: impl Fn(Request) -> Answer + Send + Sync + 'static) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let handler = Arc::new(handler);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            tokio::spawn(async move {
                let _ = answer(stream, handler.as_ref()).await;
            });
        }
    });
}

async fn answer(mut stream: TcpStream, handler: &(impl Fn(Request) -> Answer + Sync)) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        // Not HTTP, or gone.
        if head.len() > 16_000 || head.first().is_some_and(|b| !b.is_ascii_uppercase()) {
            return Ok(());
        }
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers =
        lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect();
    let answer = handler(Request { method, path, headers });
    let mut text = format!(
        "HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).await?;
    stream.write_all(&answer.body).await?;
    stream.shutdown().await
}

/// Forwards to a port; each of the first `cuts` connections that bring more than `after` bytes
/// back ends there. Returns the count of bytes that came back in all.
pub(crate) async fn cutting_proxy(port: u16, to: u16, cuts: u64, after: u64) -> Arc<AtomicU64> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let (total, made) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counted = total.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (total, made) = (counted.clone(), made.clone());
            tokio::spawn(async move {
                let _ =
                    forward(stream, to, &total, || made.load(Ordering::SeqCst) < cuts, after, &made).await;
            });
        }
    });
    total
}

async fn forward(
    client: TcpStream,
    to: u16,
    total: &AtomicU64,
    may_cut: impl Fn() -> bool,
    after: u64,
    made: &AtomicU64,
) -> std::io::Result<()> {
    let (mut from_server, mut to_server) = TcpStream::connect(("127.0.0.1", to)).await?.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 8192];
    let mut here = 0;
    loop {
        let count = from_server.read(&mut buffer).await?;
        if count == 0 {
            return to_client.shutdown().await;
        }
        to_client.write_all(&buffer[..count]).await?;
        here += count as u64;
        total.fetch_add(count as u64, Ordering::SeqCst);
        if here > after && may_cut() {
            made.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
    }
}

/// Forwards to a port; a connection that brought `after` bytes back brings no more, and stays.
pub(crate) async fn stalling_proxy(port: u16, to: u16, after: u64) {
    relay(("127.0.0.1", port), to, after).await;
}

/// Forwards from an address to a port of this machine.
pub(crate) async fn relay(from: (&str, u16), to: u16, after: u64) {
    let listener = TcpListener::bind(from).await.unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let server = TcpStream::connect(("127.0.0.1", to)).await?;
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let brought = tokio::io::copy(&mut from_server.take(after), &mut to_client).await?;
                if brought == after {
                    std::future::pending::<()>().await;
                }
                to_client.shutdown().await
            });
        }
    });
}
