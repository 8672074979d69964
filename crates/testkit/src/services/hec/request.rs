//! What a request asks for, and the reply.

use std::collections::HashMap;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;

use super::codes::Reply;
use super::indexer::Indexer;
use super::{Options, State, Token, batch};

/// The balancer's cookie.
pub(super) const COOKIE: &str = "hec-indexer";

/// A request, taken apart.
pub(super) struct Asked {
    method: Method,
    path: String,
    query: HashMap<String, String>,
    headers: HeaderMap,
    body: Bytes,
}

/// A refusal, or a question that is answered already.
type Answer<T> = Result<T, Reply>;

impl Asked {
    pub(super) fn read(head: &Parts, body: Bytes) -> Self {
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = head.uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            query: query.map(|(name, value)| (name.to_owned(), decode(value))).collect(),
            headers: head.headers.clone(),
            body,
        }
    }

    pub(super) fn is_events(&self) -> bool {
        self.is_json() || self.is_raw()
    }

    fn is_json(&self) -> bool {
        matches!(
            &*self.path,
            "/services/collector"
                | "/services/collector/1.0"
                | "/services/collector/event"
                | "/services/collector/event/1.0"
        )
    }

    fn is_raw(&self) -> bool {
        matches!(&*self.path, "/services/collector/raw" | "/services/collector/raw/1.0")
    }

    pub(super) fn is_ack(&self) -> bool {
        matches!(&*self.path, "/services/collector/ack" | "/services/collector/ack/1.0")
    }

    fn is_health(&self) -> bool {
        matches!(&*self.path, "/services/collector/health" | "/services/collector/health/1.0")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The token that a request bears: `Authorization: Splunk …`, the password of basic authentication, or the address.
    fn bears<'a>(&'a self, options: &Options) -> Answer<std::borrow::Cow<'a, str>> {
        let Some(authorization) = self.header("authorization") else {
            let token = self.query.get("token").ok_or_else(|| Reply::code(2))?;
            return if options.query_string_auth { Ok(token.into()) } else { Err(Reply::code(16)) };
        };
        match authorization.split_once(' ') {
            Some(("Splunk", token)) => Ok(token.trim().into()),
            Some(("Basic", encoded)) => {
                let text = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let password = text.and_then(|text| text.split_once(':').map(|(_, password)| password.to_owned()));
                password.map(Into::into).ok_or_else(|| Reply::code(3))
            }
            _ => Err(Reply::code(3)),
        }
    }

    fn token<'a>(&self, options: &'a Options) -> Answer<&'a Token> {
        let value = self.bears(options)?;
        let token = options.tokens.iter().find(|token| token.value == value).ok_or_else(|| Reply::code(4))?;
        if token.disabled { Err(Reply::code(1)) } else { Ok(token) }
    }

    /// The channel of a request, if it names one.
    fn channel(&self) -> Answer<Option<&str>> {
        let named = self.header("x-splunk-request-channel").or(self.query.get("channel").map(String::as_str));
        match named {
            Some(channel) if uuid::Uuid::try_parse(channel).is_err() => Err(Reply::code(11)),
            named => Ok(named),
        }
    }

    /// The body, unpacked.
    fn body(&self, limit: usize) -> Answer<Bytes> {
        let too_large = || Reply::object(413, json!({ "text": "Content-Length too large", "code": 413 }));
        let body = match self.header("content-encoding") {
            None | Some("identity") => self.body.clone(),
            Some("gzip") => unpack(&self.body, limit).ok_or_else(|| Reply::code(6))?.into(),
            Some(_) => return Err(Reply::object(415, json!({ "text": "Unsupported Media Type", "code": 415 }))),
        };
        if body.len() > limit { Err(too_large()) } else { Ok(body) }
    }
}

/// At most one byte more than `limit`.
#[expect(clippy::disallowed_types, reason = "bounded right here, and what tests send is no bomb")]
fn unpack(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(packed).take(limit as u64 + 1).read_to_end(&mut unpacked).ok()?;
    Some(unpacked)
}

/// Answers one request.
pub(super) fn reply(options: &Options, state: &mut State, asked: &Asked) -> Reply {
    let allowed = if asked.is_health() { Method::GET } else { Method::POST };
    if !(asked.is_events() || asked.is_ack() || asked.is_health()) {
        let text = "The requested URL was not found on this server.";
        return Reply::object(404, json!({ "text": text, "code": 404 }));
    }
    if asked.method != allowed {
        return Reply::object(405, json!({ "text": "Method Not Allowed", "code": 405 }));
    }
    let place = state.indexer(asked);
    let answered = if asked.is_health() {
        health(options, state.healthy, asked)
    } else if asked.is_ack() {
        ack(options, &mut state.indexers[place], asked)
    } else {
        events(options, &mut state.indexers[place], asked)
    };
    let mut reply = answered.unwrap_or_else(|refusal| refusal);
    reply.indexer = (options.indexers > 1).then_some(place);
    reply
}

impl State {
    /// Who answers a request: the one that its cookie names, or the next.
    fn indexer(&mut self, asked: &Asked) -> usize {
        let cookies = asked.header("cookie").unwrap_or("").split("; ").filter_map(|cookie| cookie.split_once('='));
        let named = cookies.filter(|(name, _)| *name == COOKIE).find_map(|(_, place)| place.parse().ok());
        let named = named.filter(|place: &usize| *place < self.indexers.len());
        named.unwrap_or_else(|| {
            self.turn += 1;
            self.turn % self.indexers.len()
        })
    }
}

fn events(options: &Options, indexer: &mut Indexer, asked: &Asked) -> Answer<Reply> {
    let token = asked.token(options)?;
    let channel = asked.channel()?;
    if channel.is_none() && (token.acknowledge || asked.is_raw()) {
        return Err(Reply::code(10));
    }
    let channel = channel.filter(|_| token.acknowledge);
    let body = asked.body(options.max_content_length)?;
    if body.is_empty() {
        return Err(Reply::code(5));
    }
    let (events, refusal) = if asked.is_raw() {
        let lines = body.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let lines: Vec<_> = lines.map(|line| json!({ "event": String::from_utf8_lossy(line) }).to_string()).collect();
        split(batch::read(lines.concat().as_bytes(), token, &asked.query))
    } else {
        split(batch::read(&body, token, &asked.query))
    };
    if let Some(refusal) = refusal {
        if options.keeps_earlier && !events.is_empty() {
            // Nobody learns the number of what was taken.
            indexer.take(events, channel, options.max_pending);
        }
        return Err(refusal);
    }
    match indexer.take(events, channel, options.max_pending) {
        None => Err(Reply::code(27)),
        Some(None) => Ok(Reply::code(0)),
        Some(Some(number)) => Ok(Reply::code(0).with("ackId", number.into())),
    }
}

fn split<E>(read: Result<Vec<E>, (Reply, Vec<E>)>) -> (Vec<E>, Option<Reply>) {
    match read {
        Ok(events) => (events, None),
        Err((refusal, events)) => (events, Some(refusal)),
    }
}

fn ack(options: &Options, indexer: &mut Indexer, asked: &Asked) -> Answer<Reply> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Question {
        acks: Vec<u64>,
    }
    let token = asked.token(options)?;
    if !token.acknowledge {
        return Err(Reply::code(14));
    }
    let channel = asked.channel()?.ok_or_else(|| Reply::code(10))?;
    let body = asked.body(options.max_content_length)?;
    if body.is_empty() {
        return Err(Reply::code(5));
    }
    let Question { acks } = serde_json::from_slice(&body).map_err(|_| Reply::code(6))?;
    Ok(Reply::object(200, json!({ "acks": indexer.ask(channel, &acks) })))
}

/// Needs no token; one that is there must be good.
fn health(options: &Options, healthy: bool, asked: &Asked) -> Answer<Reply> {
    if asked.header("authorization").is_some() {
        asked
            .token(options)
            .map_err(|refusal| Reply::code(if refusal.status == 403 { disabled(options, asked) } else { 21 }))?;
    }
    Ok(Reply::code(if healthy { 17 } else { 18 }))
}

fn disabled(options: &Options, asked: &Asked) -> u16 {
    let known = asked.bears(options).is_ok_and(|value| options.tokens.iter().any(|token| token.value == value));
    if known { 22 } else { 21 }
}
