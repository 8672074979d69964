//! Members of an object taken one by one, each of its type and within its bound.

use serde_json::{Map, Value};
use stoq_api::{PayloadMeta, RequestMeta};

use super::{MAX_DISPATCH, MAX_NAME, Refusal};

/// An object that is being read. `null` counts as absent.
pub(super) struct Members {
    what: &'static str,
    members: Map<String, Value>,
}

impl Members {
    /// Reads `members`, which stand at `what`.
    pub(super) fn new(what: &'static str, members: Map<String, Value>) -> Self {
        Self { what, members }
    }

    /// A refusal that says where.
    pub(super) fn refuse(&self, why: impl std::fmt::Display) -> Refusal {
        Refusal(format!("{}: {why}", self.what))
    }

    fn wrong(&self, name: &str, expected: &str) -> Refusal {
        self.refuse(format_args!("{name} is not {expected}"))
    }

    /// Whatever is there.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.shift_remove(name).filter(|value| !value.is_null())
    }

    /// A text of at most `most` bytes.
    pub(super) fn text(&mut self, name: &str, most: usize) -> Result<Option<String>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= most => Ok(Some(text)),
            Some(Value::String(_)) => Err(self.refuse(format_args!("{name} is longer than {most} bytes"))),
            Some(_) => Err(self.wrong(name, "a text")),
        }
    }

    /// A text that has to be there and hold something.
    pub(super) fn needed(&mut self, name: &str, most: usize) -> Result<String, Refusal> {
        let text = self.text(name, most)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.refuse(format_args!("{name} is missing")))
    }

    /// A count of bytes: a number, or its digits.
    pub(super) fn size(&mut self, name: &str) -> Result<Option<u64>, Refusal> {
        let size = match self.take(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
            Some(_) => None,
        };
        size.map(Some).ok_or_else(|| self.wrong(name, "a size in bytes"))
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// An object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(_) => Err(self.wrong(name, "an object")),
        }
    }

    /// A list.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(self.wrong(name, "a list")),
        }
    }

    /// Nothing else is there: a name that is misspelt must not look as if it had been heeded.
    pub(super) fn done(self) -> Result<(), Refusal> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.refuse(format_args!("{name:?} means nothing here"))),
        }
    }

    /// Everything else, by name.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.members
    }
}

/// Metadata of a payload as stoQ v3 writes it.
pub(super) fn payload_meta(members: Map<String, Value>) -> Result<PayloadMeta, Refusal> {
    let mut members = Members::new("meta", members);
    let default = PayloadMeta::default();
    let meta = PayloadMeta {
        should_archive: members.flag("should_archive")?.unwrap_or(default.should_archive),
        should_scan: members.flag("should_scan")?.unwrap_or(default.should_scan),
        extra_data: members.object("extra_data")?.unwrap_or_default(),
        dispatch_to: dispatch_to(&mut members)?,
    };
    members.done()?;
    Ok(meta)
}

fn dispatch_to(members: &mut Members) -> Result<Vec<String>, Refusal> {
    let Some(items) = members.list("dispatch_to")? else { return Ok(Vec::new()) };
    if items.len() > MAX_DISPATCH {
        return Err(members.refuse(format_args!("dispatch_to has more than {MAX_DISPATCH} names")));
    }
    let names = items.into_iter().map(|item| match item {
        Value::String(name) if (1..=MAX_NAME).contains(&name.len()) => Ok(name),
        _ => Err(members.refuse("dispatch_to holds something that is not a plugin's name")),
    });
    names.collect()
}

/// Metadata of a request as stoQ v3 writes it.
pub(super) fn request_meta(members: Map<String, Value>) -> Result<RequestMeta, Refusal> {
    let mut members = Members::new("request_meta", members);
    let meta = RequestMeta {
        archive_payloads: members.flag("archive_payloads")?.unwrap_or(true),
        source: members.text("source", MAX_NAME)?,
        extra_data: members.object("extra_data")?.unwrap_or_default(),
    };
    members.done()?;
    Ok(meta)
}
