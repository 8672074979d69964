//! Just enough of an HTTP client to ask servers whether they are ready and to look behind a store's back.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One request without a body; gives the status and what came after the head. Closes the connection.
pub(super) async fn ask(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, String)],
) -> io::Result<(u16, Vec<u8>)> {
    ask_with(port, method, target, headers, &[]).await
}

/// The same with a body.
pub(super) async fn ask_with(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut request = format!("{method} {target} HTTP/1.0\r\nhost: 127.0.0.1:{port}\r\n");
    request.push_str(&format!("content-length: {}\r\n", body.len()));
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.write_all(body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(broken)?;
    let status = answer.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok()).ok_or_else(broken)?;
    Ok((status, answer.split_off(head + 4)))
}
