//! Where a payload was seen on the wire, under names that every format shares: `request_meta.extra_data.network`.

use std::net::IpAddr;

use serde_json::{Map, Value};
use stoq_api::RequestMeta;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::members::Members;
use super::{MAX_NAME, MAX_URL, Refusal};

/// The member of `request_meta.extra_data`.
const NETWORK: &str = "network";
/// Free texts, with their longest.
const TEXTS: [(&str, usize); 9] = [
    ("proto", 64),
    ("app_proto", 64),
    ("community_id", 128),
    ("flow_id", 128),
    ("host", MAX_NAME),
    ("url", MAX_URL),
    ("method", 64),
    ("user_agent", MAX_NAME),
    ("sensor", MAX_NAME),
];

/// What is known of the traffic, in the order in which it was put in.
#[derive(Default)]
pub(super) struct Network(Map<String, Value>);

impl Network {
    /// `src` or `dest`: address and port, as far as known.
    pub(super) fn end(&mut self, end: &str, ip: Option<String>, port: Option<Value>) -> Result<(), Refusal> {
        if let Some(ip) = ip {
            // The one form of an address, so that the same address is the same text.
            let address: IpAddr = ip.parse().map_err(|_| refuse(&format!("{end}_ip is not an address")))?;
            self.0.insert(format!("{end}_ip"), address.to_canonical().to_string().into());
        }
        if let Some(port) = port {
            let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
            let port = port.ok_or_else(|| refuse(&format!("{end}_port is not a port")))?;
            self.0.insert(format!("{end}_port"), port.into());
        }
        Ok(())
    }

    /// A text that is there and not empty.
    pub(super) fn text(&mut self, name: &str, text: Option<String>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.0.insert(name.to_owned(), text.into());
        }
    }

    /// When it was seen: RFC 3339, or seconds since the epoch; kept as RFC 3339 in UTC.
    pub(super) fn observed(&mut self, at: Option<Value>) -> Result<(), Refusal> {
        let Some(at) = at else { return Ok(()) };
        let time = match &at {
            Value::String(text) => moment(text),
            Value::Number(seconds) => seconds.as_f64().and_then(|seconds| {
                let micros = seconds * 1e6;
                // A float keeps microseconds exactly until the year 2255.
                (micros.abs() < 9e15)
                    .then(|| OffsetDateTime::from_unix_timestamp_nanos(micros.round() as i128 * 1_000).ok())?
            }),
            _ => None,
        };
        let time = time.and_then(|time| time.to_offset(time::UtcOffset::UTC).format(&Rfc3339).ok());
        let time = time.ok_or_else(|| refuse("the time is neither RFC 3339 nor seconds since the epoch"))?;
        self.0.insert("observed".to_owned(), time.into());
        Ok(())
    }

    /// Becomes a part of a request's metadata.
    pub(super) fn put_into(self, meta: &mut RequestMeta) {
        if !self.0.is_empty() {
            meta.extra_data.insert(NETWORK.to_owned(), Value::Object(self.0));
        }
    }
}

/// A moment in RFC 3339, or with an offset without its colon, as Suricata writes it.
fn moment(text: &str) -> Option<OffsetDateTime> {
    let compact = format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond][offset_hour sign:mandatory][offset_minute]"
    );
    OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(text, compact)).ok()
}

/// The network as a native reference gives it: by these names already.
pub(super) fn checked(given: Map<String, Value>) -> Result<Network, Refusal> {
    let mut members = Members::new(NETWORK, given);
    let mut network = Network::default();
    for end in ["src", "dest"] {
        let ip = members.text(&format!("{end}_ip"), MAX_NAME)?;
        let port = members.take(&format!("{end}_port"));
        network.end(end, ip, port)?;
    }
    for (name, most) in TEXTS {
        network.text(name, members.text(name, most)?);
    }
    network.observed(members.take("observed"))?;
    members.done()?;
    Ok(network)
}

fn refuse(why: &str) -> Refusal {
    Refusal(format!("{NETWORK}: {why}"))
}
