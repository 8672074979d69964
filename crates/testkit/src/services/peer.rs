//! Which process is at the other end of a connection of this machine.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// A TCP connection as its server sees it. Only both ends together name one: a port may be the local end of many
/// connections to different places, of different processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's end.
    pub client: SocketAddr,
    /// The server's end.
    pub own: SocketAddr,
}

/// The id of the process that is the client of a TCP connection, if it is one whose open files this process may look at.
pub fn client_of(ends: Ends) -> Option<u32> {
    let (local, remote) = (entry(ends.client)?, entry(ends.own)?);
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let is_it = |fields: &Vec<&str>| fields.get(1..3) == Some(&[local.as_str(), remote.as_str()]);
    let inode = lines.filter(is_it).find_map(|fields| {
        let inode = *fields.get(9)?;
        (inode != "0").then(|| inode.to_owned())
    })?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|id| holds(*id, &socket))
}

/// An end as proc(5) writes it: the address in the machine's own order of bytes, in hexadecimal.
fn entry(end: SocketAddr) -> Option<String> {
    let IpAddr::V4(ip) = end.ip() else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), end.port()))
}

fn holds(process: u32, socket: &str) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn finds_the_holder_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_server, from) = listener.accept().unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        let ends = Ends { client: from, own: listener.local_addr().unwrap() };
        assert_eq!(client_of(ends), Some(std::process::id()));
        let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(client_of(Ends { own: elsewhere.local_addr().unwrap(), ..ends }), None, "another connection");
        drop(client);
        assert_eq!(client_of(ends), None);
    }
}
