//! JSON objects, written member by member into one buffer.

use std::io::Write;

use serde::Serialize;

/// An object that is open at the end of a buffer.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

impl<'o> Object<'o> {
    /// Opens one.
    pub(super) fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    /// A member whose value is JSON text already.
    pub(super) fn raw(&mut self, name: &str, json: &str) {
        self.key(name).extend_from_slice(json.as_bytes());
    }

    /// A member.
    pub(super) fn value<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        let out = self.key(name);
        // Texts, numbers and trees with text keys always have a JSON form, and a buffer takes all of it.
        if serde_json::to_writer(&mut *out, value).is_err() {
            out.extend_from_slice(b"null");
        }
    }

    /// A member, if there is something to say.
    pub(super) fn maybe<T: Serialize>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            self.value(name, &value);
        }
    }

    /// A member that `write` writes.
    pub(super) fn with(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.key(name));
    }

    /// Closes it.
    pub(super) fn close(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::replace(&mut self.first, false) {
            self.out.push(b',');
        }
        // As above.
        serde_json::to_writer(&mut *self.out, name).ok();
        self.out.push(b':');
        self.out
    }
}

/// Writes what `list` has, between brackets.
pub(super) fn list<T: AsRef<str>>(out: &mut Vec<u8>, list: impl IntoIterator<Item = T>) {
    out.push(b'[');
    for (number, json) in list.into_iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        // Writing to a buffer cannot fail.
        out.write_all(json.as_ref().as_bytes()).ok();
    }
    out.push(b']');
}
