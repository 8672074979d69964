//! Ports that no other test takes.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};

/// Below what systems hand out to outgoing connections, one of which could else sit on a port while its server restarts.
const RANGE: std::ops::Range<u16> = 10_000..32_000;
/// How many ports are looked at before giving up.
const TRIES: usize = 2_000;

/// A TCP port of the loopback address that is this value's alone among everything that asks here, in any process, until
/// it is dropped. Nothing listens on it yet.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: File,
}

impl Port {
    /// Finds one.
    ///
    /// # Panics
    /// There is none, or the temporary directory cannot be written.
    pub fn claim() -> Self {
        let directory = std::env::temp_dir().join(format!("stoq-ports-{}", rustix::process::getuid().as_raw()));
        fs::create_dir_all(&directory).unwrap();
        let random = u64::from(uuid::Uuid::new_v4().as_fields().0);
        let width = u64::from(RANGE.end - RANGE.start);
        for step in 0..TRIES as u64 {
            let number = RANGE.start + ((random + step) % width) as u16;
            let claim = File::options().create(true).append(true).open(directory.join(number.to_string())).unwrap();
            // The lock ends with the process, however that ends.
            if claim.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _claim: claim };
            }
        }
        panic!("no free port in {RANGE:?}");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
