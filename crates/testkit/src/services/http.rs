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
    let chunked = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = answer.split_off(head + 4);
    Ok((status, if chunked { joined(&body).ok_or_else(broken)? } else { body }))
}

/// A body that came in chunks (RFC 9112, section 7.1), as some servers send it even to those who speak HTTP/1.0.
fn joined(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = chunks.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&chunks[..line]).ok()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let start = line + 2;
        body.extend_from_slice(chunks.get(start..start + size)?);
        chunks = chunks.get(start + size + 2..)?;
    }
}
