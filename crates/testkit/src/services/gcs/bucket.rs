//! Buckets and what is done to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::time::SystemTime;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Response};
use stoq_api::Sha256;

use super::request::{Asked, Denied, denied};

/// Entries of one page of a listing: few, so that tests see several pages.
const PAGE: usize = 3;
/// All parts but the last have at least this many bytes.
const PART_MIN: usize = 5 << 20;

type Answer = Result<Response<Full<Bytes>>, Denied>;

pub(super) struct Object {
    pub(super) bytes: Bytes,
    pub(super) generation: u64,
    modified: SystemTime,
}

impl Object {
    fn tag(&self) -> String {
        tag(&self.bytes)
    }
}

fn tag(bytes: &[u8]) -> String {
    format!("\"{}\"", &Sha256::of(bytes).to_string()[..32])
}

struct Upload {
    bucket: String,
    object: String,
    parts: BTreeMap<u32, Bytes>,
}

#[derive(Default)]
pub(super) struct Buckets {
    buckets: HashMap<String, BTreeMap<String, Object>>,
    uploads: BTreeMap<u64, Upload>,
    last: u64,
}

impl Buckets {
    pub(super) fn with(bucket: &str) -> Self {
        Self { buckets: [(bucket.to_owned(), BTreeMap::new())].into(), ..Self::default() }
    }

    pub(super) fn object(&self, bucket: &str, name: &str) -> Option<&Object> {
        self.buckets.get(bucket)?.get(name)
    }

    pub(super) fn unfinished(&self) -> usize {
        self.uploads.len()
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn answer(&mut self, asked: &Asked) -> Answer {
        if !self.buckets.contains_key(&asked.bucket) {
            return denied(404, "NoSuchBucket");
        }
        let upload = asked.parameter("uploadId");
        match (&asked.method, asked.object.is_empty(), upload) {
            (&Method::GET, true, None) => self.list(asked),
            (&Method::GET | &Method::HEAD, false, None) => self.get(asked),
            (&Method::PUT, false, None) => self.put(asked),
            (&Method::DELETE, false, None) => self.delete(asked),
            (&Method::POST, false, None) if asked.parameter("uploads").is_some() => self.begin(asked),
            (&Method::PUT, false, Some(id)) => self.part(asked, id),
            (&Method::POST, false, Some(id)) => self.complete(asked, id),
            (&Method::DELETE, false, Some(id)) => self.abort(id),
            _ => denied(501, "NotImplemented"),
        }
    }

    /// Whether the generation that a request wants is there; 0 stands for no object.
    fn condition(&self, asked: &Asked) -> Result<(), Denied> {
        let Some(wanted) = asked.header("x-goog-if-generation-match") else { return Ok(()) };
        let there = self.object(&asked.bucket, &asked.object).map_or(0, |object| object.generation);
        if wanted == there.to_string() { Ok(()) } else { denied(412, "PreconditionFailed") }
    }

    fn store(&mut self, bucket: &str, name: &str, bytes: Bytes) -> Response<Full<Bytes>> {
        let object = Object { bytes, generation: self.number(), modified: SystemTime::now() };
        let answer = Response::builder().header("etag", object.tag()).header("x-goog-generation", object.generation);
        if let Some(objects) = self.buckets.get_mut(bucket) {
            objects.insert(name.to_owned(), object);
        }
        answer.body(Full::default()).unwrap()
    }

    fn put(&mut self, asked: &Asked) -> Answer {
        self.condition(asked)?;
        Ok(self.store(&asked.bucket, &asked.object, asked.body.clone()))
    }

    fn get(&self, asked: &Asked) -> Answer {
        let Some(object) = self.object(&asked.bucket, &asked.object) else { return denied(404, "NoSuchKey") };
        if asked.parameter("generation").is_some_and(|g| g != object.generation.to_string()) {
            return denied(404, "NoSuchKey");
        }
        self.condition(asked)?;
        if asked.header("if-match").is_some_and(|tag| tag != object.tag()) {
            return denied(412, "PreconditionFailed");
        }
        let len = object.bytes.len();
        let mut answer = Response::builder()
            .header("etag", object.tag())
            .header("x-goog-generation", object.generation)
            .header("last-modified", httpdate::fmt_http_date(object.modified));
        let range = asked.range(len)?;
        let (first, end) = range.unwrap_or((0, len));
        if range.is_some() {
            answer = answer.status(206).header("content-range", format!("bytes {first}-{}/{len}", end - 1));
        }
        answer = answer.header("content-length", end - first);
        let body = if asked.method == Method::HEAD { Bytes::new() } else { object.bytes.slice(first..end) };
        Ok(answer.body(Full::new(body)).unwrap())
    }

    fn delete(&mut self, asked: &Asked) -> Answer {
        self.condition(asked)?;
        match self.buckets.get_mut(&asked.bucket).and_then(|objects| objects.remove(&asked.object)) {
            Some(_) => Ok(Response::builder().status(204).body(Full::default()).unwrap()),
            None => denied(404, "NoSuchKey"),
        }
    }

    fn list(&self, asked: &Asked) -> Answer {
        if asked.parameter("list-type") != Some("2") {
            return denied(501, "NotImplemented");
        }
        let prefix = asked.parameter("prefix").unwrap_or("");
        let delimiter = asked.parameter("delimiter").filter(|d| !d.is_empty());
        let after = asked.parameter("continuation-token").or(asked.parameter("start-after")).unwrap_or("");
        // Names, and folders that stand for all names below them, in one order.
        let mut entries = BTreeSet::new();
        let objects = &self.buckets[&asked.bucket];
        for name in objects.keys().filter(|name| name.starts_with(prefix)) {
            let rest = &name[prefix.len()..];
            let folder = delimiter.and_then(|d| rest.find(d).map(|at| &name[..prefix.len() + at + d.len()]));
            entries.insert(folder.unwrap_or(name));
        }
        let mut later = entries.into_iter().filter(|entry| *entry > after);
        let page: Vec<&str> = later.by_ref().take(PAGE).collect();
        let mut xml = "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>".to_owned();
        for entry in &page {
            match objects.get(*entry) {
                Some(object) => {
                    let at = listed_time(object.modified);
                    write!(
                        xml,
                        "<Contents><Key>{entry}</Key><Generation>{}</Generation><LastModified>{at}</LastModified>\
                         <ETag>{}</ETag><Size>{}</Size></Contents>",
                        object.generation,
                        object.tag(),
                        object.bytes.len()
                    )
                    .unwrap();
                }
                None => write!(xml, "<CommonPrefixes><Prefix>{entry}</Prefix></CommonPrefixes>").unwrap(),
            }
        }
        if let (Some(last), Some(_)) = (page.last(), later.next()) {
            write!(xml, "<IsTruncated>true</IsTruncated><NextContinuationToken>{last}</NextContinuationToken>")
                .unwrap();
        }
        xml.push_str("</ListBucketResult>");
        Ok(document(xml))
    }

    fn begin(&mut self, asked: &Asked) -> Answer {
        let id = self.number();
        let upload = Upload { bucket: asked.bucket.clone(), object: asked.object.clone(), parts: BTreeMap::new() };
        self.uploads.insert(id, upload);
        let xml = format!(
            "<?xml version='1.0' encoding='UTF-8'?><InitiateMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key>\
             <UploadId>{id}</UploadId></InitiateMultipartUploadResult>",
            asked.bucket, asked.object
        );
        Ok(document(xml))
    }

    /// The upload of a request, which must be about its object.
    fn upload(&mut self, asked: &Asked, id: &str) -> Result<(u64, &mut Upload), Denied> {
        let Ok(number) = id.parse() else { return denied(404, "NoSuchUpload") };
        match self.uploads.get_mut(&number) {
            Some(upload) if upload.bucket == asked.bucket && upload.object == asked.object => Ok((number, upload)),
            _ => denied(404, "NoSuchUpload"),
        }
    }

    fn part(&mut self, asked: &Asked, id: &str) -> Answer {
        let number = asked.parameter("partNumber").and_then(|n| n.parse().ok()).filter(|n| (1..=10_000).contains(n));
        let Some(number) = number else { return denied(400, "InvalidArgument") };
        let (_, upload) = self.upload(asked, id)?;
        upload.parts.insert(number, asked.body.clone());
        Ok(Response::builder().header("etag", tag(&asked.body)).body(Full::default()).unwrap())
    }

    fn complete(&mut self, asked: &Asked, id: &str) -> Answer {
        let Ok(wanted) = std::str::from_utf8(&asked.body) else { return denied(400, "MalformedXML") };
        let numbers: Vec<u32> = between(wanted, "PartNumber").filter_map(|n| n.parse().ok()).collect();
        let tags: Vec<&str> = between(wanted, "ETag").collect();
        let (number, upload) = self.upload(asked, id)?;
        if numbers.is_empty() || numbers.len() != tags.len() || !numbers.is_sorted() {
            return denied(400, "InvalidPartOrder");
        }
        let mut whole = Vec::new();
        for (at, (part, wanted)) in numbers.iter().zip(tags).enumerate() {
            match upload.parts.get(part) {
                Some(bytes) if tag(bytes) == wanted => {
                    if bytes.len() < PART_MIN && at + 1 < numbers.len() {
                        return denied(400, "EntityTooSmall");
                    }
                    whole.extend_from_slice(bytes);
                }
                _ => return denied(400, "InvalidPart"),
            }
        }
        self.uploads.remove(&number);
        let stored = self.store(&asked.bucket, &asked.object, whole.into());
        let (head, _) = stored.into_parts();
        let tag = head.headers["etag"].to_str().unwrap();
        let xml = format!(
            "<?xml version='1.0' encoding='UTF-8'?><CompleteMultipartUploadResult><Bucket>{}</Bucket><Key>{}</Key>\
             <ETag>{tag}</ETag></CompleteMultipartUploadResult>",
            asked.bucket, asked.object
        );
        Ok(Response::from_parts(head, Full::new(xml.into())))
    }

    fn abort(&mut self, id: &str) -> Answer {
        match id.parse().ok().and_then(|number: u64| self.uploads.remove(&number)) {
            Some(_) => Ok(Response::builder().status(204).body(Full::default()).unwrap()),
            None => denied(404, "NoSuchUpload"),
        }
    }
}

/// The texts of all elements of a name; those of the requests here hold no others.
fn between<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let texts = xml.split(&open).skip(1).map(move |rest| rest.split(&close).next().unwrap_or(""));
    texts.collect::<Vec<_>>().into_iter()
}

fn document(xml: String) -> Response<Full<Bytes>> {
    Response::builder().header("content-type", "application/xml").body(Full::new(xml.into())).unwrap()
}

/// A time as listings give it.
fn listed_time(at: SystemTime) -> String {
    time::OffsetDateTime::from(at).format(&time::format_description::well_known::Rfc3339).unwrap()
}
