//! Channels: the senders that Splunk tells apart.

use parking_lot::Mutex;
use uuid::Uuid;

/// Channels that nobody uses at the moment. There are as many as requests were ever open at a time.
#[derive(Default)]
pub(super) struct Channels(Mutex<Vec<Channel>>);

/// A channel with nothing open on it. Whoever is not certain that this is so again drops it.
pub(super) struct Channel {
    /// Its name.
    pub(super) id: Uuid,
    /// Cookies by which a balancer finds the same indexer again.
    pub(super) cookies: Vec<String>,
}

impl Channels {
    /// One to use: an old one, or a new one.
    pub(super) fn take(&self) -> Channel {
        self.0.lock().pop().unwrap_or_else(|| Channel { id: Uuid::new_v4(), cookies: Vec::new() })
    }

    /// Keeps one for others, whose every number was acknowledged.
    pub(super) fn give(&self, channel: Channel) {
        self.0.lock().push(channel);
    }
}

impl Channel {
    /// Takes the cookies of an answer, which replace those of the same names.
    pub(super) fn remember(&mut self, cookies: &[String]) {
        for cookie in cookies {
            let name = cookie.split('=').next();
            self.cookies.retain(|old| old.split('=').next() != name);
            self.cookies.push(cookie.clone());
        }
    }
}
