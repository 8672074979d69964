//! Which process is at the other end of a connection of this machine.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// The id of the process that holds the local end `address` of a TCP connection, if it is one whose open files this
/// process may look at.
pub fn process_at(address: SocketAddr) -> Option<u32> {
    let IpAddr::V4(ip) = address.ip() else { return None };
    // As proc(5) writes it: the address in the machine's own order of bytes, in hexadecimal.
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), address.port());
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let inode = lines.filter(|fields| fields.get(1) == Some(&local.as_str())).find_map(|fields| {
        let inode = *fields.get(9)?;
        (inode != "0").then(|| inode.to_owned())
    })?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|id| holds(*id, &socket))
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
        assert_eq!(process_at(from), Some(std::process::id()));
        drop(client);
        assert_eq!(process_at(from), None);
    }
}
